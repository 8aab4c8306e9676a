/*
 * QTest of filter-redirector between chardevs and the filter chain: peers
 * that don't read, receivers that take nothing, the old format, and what
 * filters behind see
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/if_ether.h>
#include "qemu/bswap.h"
#include "filter-redirector-nic.h"

#define ID "filter-redirector 'f0': "

/*
 * A QEMU that doesn't answer any more would keep the test waiting for ever:
 * it is killed, and the case fails.
 */
typedef struct Watchdog {
    GThread *thread;
    pid_t pid;
    int stop;
} Watchdog;

static void *watchdog_run(void *opaque)
{
    Watchdog *w = opaque;
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;

    while (!g_atomic_int_get(&w->stop)) {
        if (g_get_monotonic_time() > end) {
            g_test_message("QEMU does not answer");
            kill(w->pid, SIGKILL);
            break;
        }
        g_usleep(1000);
    }
    return NULL;
}

static Watchdog *watchdog_start(Rig *r)
{
    Watchdog *w = g_new0(Watchdog, 1);

    w->pid = qtest_pid(r->qts);
    w->thread = g_thread_new("watchdog", watchdog_run, w);
    return w;
}

static void watchdog_stop(Watchdog *w)
{
    g_atomic_int_set(&w->stop, 1);
    g_thread_join(w->thread);
    g_free(w);
}

/* The main loop comes round, and soon. */
static void expect_answers(Rig *r)
{
    Watchdog *w = watchdog_start(r);
    unsigned i;

    for (i = 0; i < 20; i++) {
        g_assert_cmpint(rig_sync(r), <, G_USEC_PER_SEC);
        g_usleep(5000);
    }
    watchdog_stop(w);
}

static size_t memory_size(Rig *r)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            (int)qtest_pid(r->qts));
    g_autofree char *text = NULL;
    char *line;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    line = strstr(text, "VmRSS:");
    g_assert_nonnull(line);
    return g_ascii_strtoull(line + 6, NULL, 10) * 1024;
}

/* What queues may hold, and what goes with it. */
#define MEMORY_MAX (32 * 1024 * 1024)

/*
 * The peer of outdev doesn't read
 */

#define SIZE 1000
#define COUNT 20000         /* many times what a socket and a queue hold */

typedef enum Source {
    SOURCE_TAP,             /* can be held: what is not taken stays there */
    SOURCE_WIRE,            /* can't */
    SOURCE_STREAM,
    SOURCE_GUEST,           /* packets from the guest */
} Source;

typedef struct StallCase {
    const char *name;
    Source source;
    const char *props;
    bool vnet;
} StallCase;

static const StallCase stalls[] = {
    { "tap", SOURCE_TAP, "id=f0,netdev=x,queue=tx,outdev=co" },
    { "tap-vnet", SOURCE_TAP, "id=f0,netdev=x,queue=tx,outdev=co,"
      "vnet_hdr_support=on", true },
    { "tap-all", SOURCE_TAP, "id=f0,netdev=x,queue=all,outdev=co" },
    { "tap-indev", SOURCE_TAP, "id=f0,netdev=x,queue=tx,indev=ci,outdev=co" },
    { "wire", SOURCE_WIRE, "id=f0,netdev=n,queue=tx,outdev=co" },
    { "wire-vnet", SOURCE_WIRE, "id=f0,netdev=n,queue=tx,outdev=co,"
      "vnet_hdr_support=on", true },
    { "stream", SOURCE_STREAM, "id=f0,netdev=s,queue=tx,outdev=co" },
    { "guest", SOURCE_GUEST, "id=f0,netdev=x,queue=rx,outdev=co" },
    { "guest-all", SOURCE_GUEST, "id=f0,netdev=x,queue=all,outdev=co" },
};

typedef struct Stall {
    const StallCase *c;
    Bench b;
    Port *s;
    size_t memory;          /* before */
} Stall;

static int stall_fd(const Stall *s)
{
    switch (s->c->source) {
    case SOURCE_TAP:
        return s->b.x->outside;
    case SOURCE_WIRE:
        return s->b.n->outside;
    case SOURCE_STREAM:
        return s->s->outside;
    case SOURCE_GUEST:
        return s->b.x->inside;
    }
    g_assert_not_reached();
}

static bool stall_holds(const Stall *s)
{
    return s->c->source == SOURCE_TAP;
}

static Stall stall_start(const StallCase *c)
{
    Stall s = { .c = c, .b = bench_new() };

    s.s = rig_stream(s.b.r, "s");
    if_set_txqueuelen(s.b.x->ifname, COUNT);
    rig_start(s.b.r);
    rig_add(s.b.r, c->props);
    rig_sync(s.b.r);
    s.memory = memory_size(s.b.r);
    return s;
}

static void stall_send(const Stall *s)
{
    Flood *flood = flood_start(stall_fd(s), SIZE, COUNT,
                               s->c->source == SOURCE_STREAM);

    expect_answers(s->b.r);
    g_assert_cmpuint(flood_finish(flood), ==, COUNT);
    expect_answers(s->b.r);
}

/* What has been counted as lost once all packets have come. */
static uint64_t stall_lost(const Stall *s)
{
    Rig *r = s->b.r;
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    uint64_t lost = 0, sum = 0;

    if (stall_holds(s)) {
        rig_wait_state(r, "f0", "output", "stalled");
        return 0;
    }
    while (sum < COUNT && g_get_monotonic_time() < end) {
        lost = rig_stat(r, "f0", "output.stats.lost");
        sum = lost + rig_stat(r, "f0", "output.stats.packets") +
              rig_stat(r, "f0", "output.stats.queued");
    }
    g_assert_cmpuint(sum, ==, COUNT);
    return lost;
}

/*
 * QEMU answers; what has room waits, and arrives once the peer reads; what has
 * none stays in the TAP, or is counted.
 */
static void test_stall(const void *data)
{
    Stall s = stall_start(data);
    Rig *r = s.b.r;
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    int64_t last = -1;
    uint64_t lost, i;

    stall_send(&s);
    lost = stall_lost(&s);
    g_assert_cmpuint(memory_size(r), <, s.memory + MEMORY_MAX);
    g_assert_cmpuint(lost == 0, ==, stall_holds(&s));
    for (i = 0; i < COUNT - lost; i++) {
        size_t size = recv_frame(s.b.co, packet, s.c->vnet ? 0 : NO_VNET);

        g_assert_cmpuint(size, ==, SIZE);
        packet_check(packet, size);
        g_assert_cmpint(packet_seq(packet), >, last);
        last = packet_seq(packet);
    }
    rig_wait_stat(r, "f0", "output.stats.packets", COUNT - lost);
    assert_stat(r, "f0", "output.stats.lost", lost);
    assert_stat(r, "f0", "output.stats.queued", 0);
    rig_sync(r);
    expect_silence(s.b.co);
    expect_silence(s.b.x->inside);
    rig_wait_state(r, "f0", "output", "active");
    rig_free(r);
}

/* It can be deleted meanwhile, and QEMU ended. */
static void test_stall_del(const void *data)
{
    Stall s = stall_start(data);
    Watchdog *w;

    stall_send(&s);
    w = watchdog_start(s.b.r);
    rig_del(s.b.r, "f0");
    rig_free(s.b.r);
    watchdog_stop(w);
}

/*
 * The peer leaves meanwhile: what waits for it is lost, and counted; all else
 * goes to the guest, as ever without a peer.
 */
static void test_stall_peer_leaves(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    g_autofree char *path = rig_server(r, "co");
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    uint64_t left, lost, i;
    Watchdog *w;
    int fd;

    if_set_txqueuelen(x->ifname, COUNT);
    rig_start(r);
    rig_add(r, "id=f0,netdev=x,queue=tx,outdev=co");
    fd = rig_connect(r, path);
    rig_wait_state(r, "f0", "output", "active");
    send_packets(x->outside, SIZE, 0, COUNT);
    expect_answers(r);
    rig_wait_state(r, "f0", "output", "stalled");
    w = watchdog_start(r);
    rig_close(r, fd);
    recv_raw(x->inside, packet);
    i = packet_seq(packet);
    g_assert_cmpuint(i, >, 0);
    expect_packets(x->inside, SIZE, i + 1, COUNT - i - 1);
    left = rig_stat(r, "f0", "output.stats.packets");
    lost = rig_stat(r, "f0", "output.stats.lost");
    g_assert_cmpuint(left + lost, ==, i);
    watchdog_stop(w);
    rig_free(r);
}

/* Two chardevs: two flows.  The one goes on while the other can't. */
static void test_stall_other_way(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,indev=ci,outdev=co");
    Flood *flood = flood_start(b.n->outside, SIZE, COUNT, false);

    expect_answers(b.r);
    rig_wait_state(b.r, "f0", "output", "stalled");
    send_frames(b.ci, 100, 0, 500);
    expect_packets(b.n->inside, 100, 0, 500);
    g_assert_cmpuint(flood_finish(flood), ==, COUNT);
    rig_free(b.r);
}

static void add_stall_cases(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(stalls); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/engine/stall/%s",
                            stalls[i].name);
        g_autofree char *del = g_strdup_printf("%s/del", path);
        g_autofree char *all = g_strdup_printf("%s/all", path);

        case_add(all, test_stall, &stalls[i]);
        case_add(del, test_stall_del, &stalls[i]);
    }
}

/*
 * The format on a chardev, byte by byte: what redirectors have always sent and
 * understood
 */

static void test_format_out(const void *data)
{
    const bool vnet = data;
    Bench b = bench_start(vnet ? "id=f0,netdev=x,queue=tx,outdev=co,"
                                 "vnet_hdr_support=on"
                               : "id=f0,netdev=x,queue=tx,outdev=co");
    const uint8_t header[] = { 0, 0, 0, 100, 0, 0, 0, 0 };
    const size_t header_len = vnet ? 8 : 4;
    uint8_t want[108], got[108];
    unsigned i;

    for (i = 0; i < 100; i++) {
        send_packet(b.x->outside, 100, i);
    }
    for (i = 0; i < 100; i++) {
        memcpy(want, header, header_len);
        packet_fill(want + header_len, 100, i);
        recv_bytes(b.co, got, header_len + 100);
        g_assert_cmpmem(got, header_len + 100, want, header_len + 100);
    }
    rig_free(b.r);
}

/* Cut into pieces of all sizes, which begin and end anywhere. */
static void test_format_in(const void *data)
{
    static const size_t sizes[] = { 60, 1514, 100, 9000 };
    const bool vnet = data;
    const size_t header_len = vnet ? 8 : 4;
    Bench b = bench_start(vnet ? "id=f0,netdev=n,queue=tx,indev=ci,"
                                 "vnet_hdr_support=on"
                               : "id=f0,netdev=n,queue=tx,indev=ci");
    g_autoptr(GByteArray) stream = g_byte_array_new();
    g_autofree uint8_t *frame = g_malloc(PACKET_MAX);
    size_t pos, piece = 1;
    unsigned i;

    for (i = 0; i < 200; i++) {
        size_t size = sizes[i % ARRAY_SIZE(sizes)];

        stl_be_p(frame, size);
        stl_be_p(frame + 4, 0);
        packet_fill(frame + header_len, size, i);
        g_byte_array_append(stream, frame, header_len + size);
    }
    for (pos = 0; pos < stream->len; pos += piece) {
        piece = MIN(piece % 4099 + 1, stream->len - pos);
        send_bytes(b.ci, stream->data + pos, piece);
    }
    for (i = 0; i < 200; i++) {
        expect_packet(b.n->inside, sizes[i % ARRAY_SIZE(sizes)], i);
    }
    rig_free(b.r);
}

/* Old and new ones talk to each other: what the one sends the other takes. */
typedef struct PairCase {
    const char *name;
    const char *out;
    const char *in;
} PairCase;

#define PAIR_VNET ",vnet_hdr_support=on"

static const PairCase pairs[] = {
    { "old-old", "id=f0,netdev=x,queue=tx,outdev=co",
      "id=f1,netdev=n,queue=tx,indev=ci" },
    { "old-new", "id=f0,netdev=x,queue=tx,outdev=co",
      "id=f1,netdev=n,queue=tx,indev=ci,out_netdev=y" },
    { "new-old", "id=f0,netdev=n,queue=rx,in_netdev=x,outdev=co",
      "id=f1,netdev=n,queue=tx,indev=ci" },
    { "old-old-vnet", "id=f0,netdev=x,queue=tx,outdev=co" PAIR_VNET,
      "id=f1,netdev=n,queue=tx,indev=ci" PAIR_VNET },
    { "old-new-vnet", "id=f0,netdev=x,queue=tx,outdev=co" PAIR_VNET,
      "id=f1,netdev=n,queue=tx,indev=ci,out_netdev=y" PAIR_VNET },
    { "new-old-vnet", "id=f0,netdev=n,queue=rx,in_netdev=x,outdev=co"
      PAIR_VNET, "id=f1,netdev=n,queue=tx,indev=ci" PAIR_VNET },
};

static void test_pair(const void *data)
{
    const PairCase *c = data;
    const bool captured = strstr(c->out, "in_netdev");
    const bool injected = strstr(c->in, "out_netdev");
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    Port *y = rig_tap(r, "y", TAP_GUEST);
    Port *n = rig_wire(r, "n");
    g_autofree char *path = rig_server(r, "ci");
    int from = captured ? x->inside : x->outside;
    int to = injected ? y->inside : n->inside;

    g_string_append_printf(r->args, "-chardev socket,id=co,path=%s ", path);
    if_set_txqueuelen(x->ifname, 3000);
    rig_start(r);
    rig_add(r, c->in);
    rig_add(r, c->out);
    rig_wait_state(r, "f0", "output", "active");
    send_packets(from, 1000, 0, 1500);
    expect_packets(to, 1000, 0, 1500);
    rig_sync(r);
    expect_silence(to);
    rig_free(r);
}

static void add_pair_cases(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(pairs); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/engine/pair/%s",
                            pairs[i].name);

        case_add(path, test_pair, &pairs[i]);
    }
}

/*
 * A damaged stream: what was whole arrives, the connection is closed, and the
 * next one is as good as new.
 */
typedef struct DamageCase {
    const char *name;
    uint32_t words[2];
    bool vnet;
} DamageCase;

static const DamageCase damages[] = {
    { "huge", { UINT32_MAX, 0 } },
    { "long", { 70000, 0 } },
    { "vnet-long", { 100, 101 }, .vnet = true },
    { "vnet-huge", { 100, UINT32_MAX }, .vnet = true },
};

static void test_damage(const void *data)
{
    const DamageCase *d = data;
    const int vnet = d->vnet ? 0 : NO_VNET;
    const uint32_t words[2] = {
        cpu_to_be32(d->words[0]), cpu_to_be32(d->words[1]),
    };
    Rig *r = rig_new();
    Port *n = rig_wire(r, "n");
    g_autofree char *path = rig_server(r, "ci");
    unsigned i;
    int fd;

    rig_start(r);
    rig_add(r, d->vnet ? "id=f0,netdev=n,queue=tx,indev=ci,"
                         "vnet_hdr_support=on"
                       : "id=f0,netdev=n,queue=tx,indev=ci");
    rig_wait_state(r, "f0", "input", "disconnected");
    for (i = 0; i < 3; i++) {
        fd = rig_connect(r, path);
        send_frame(fd, 100, i, vnet);
        send_bytes(fd, words, d->vnet ? 8 : 4);
        expect_packet(n->inside, 100, i);
        expect_eof(fd);
        rig_wait_stat(r, "f0", "input.stats.errors", i + 1);
        rig_close(r, fd);
        rig_wait_state(r, "f0", "input", "disconnected");
    }
    assert_stat(r, "f0", "input.stats.packets", 3);
    rig_free(r);
}

/* A sender that leaves within a frame: the next one's begin at the start. */
static void test_sender_leaves(const void *unused)
{
    Rig *r = rig_new();
    Port *n = rig_wire(r, "n");
    g_autofree char *path = rig_server(r, "ci");
    const uint32_t len = cpu_to_be32(100);
    unsigned i;

    rig_start(r);
    rig_add(r, "id=f0,netdev=n,queue=tx,indev=ci");
    for (i = 0; i < 5; i++) {
        int fd = rig_connect(r, path);

        send_frame(fd, 100, i, NO_VNET);
        send_bytes(fd, &len, sizeof(len));
        send_bytes(fd, "begin", i);
        expect_packet(n->inside, 100, i);
        rig_close(r, fd);
        rig_wait_state(r, "f0", "input", "disconnected");
    }
    rig_free(r);
}

/* Nobody at the other end: the packets go their usual way. */
static void test_no_peer(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    g_autofree char *path = rig_server(r, "co");
    int fd;

    rig_start(r);
    rig_add(r, "id=f0,netdev=x,queue=tx,outdev=co");
    rig_wait_state(r, "f0", "output", "disconnected");
    send_packets(x->outside, 100, 0, 10);
    expect_packets(x->inside, 100, 0, 10);
    fd = rig_connect(r, path);
    rig_wait_state(r, "f0", "output", "active");
    send_packets(x->outside, 100, 10, 10);
    expect_frames(fd, 100, 10, 10);
    rig_close(r, fd);
    rig_wait_state(r, "f0", "output", "disconnected");
    send_packets(x->outside, 100, 20, 10);
    expect_packets(x->inside, 100, 20, 10);
    assert_stat(r, "f0", "output.stats.packets", 10);
    rig_free(r);
}

static void add_damage_cases(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(damages); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/engine/damage/%s",
                            damages[i].name);

        case_add(path, test_damage, &damages[i]);
    }
}

/*
 * Into the chain of a NIC that takes nothing
 */

#define NIC_SIZE 100
#define NIC_COUNT 12000     /* more than the NIC's queue is to hold */

/* A virtio-net device on TAP x, with a peer that sends to it. */
typedef struct Nic {
    Pc pc;
    Rig *r;
    Port *x;
    int ci;
    int co;
} Nic;

static void nic_start(Nic *nic, const char *props)
{
    *nic = (Nic) { .r = rig_new() };
    nic->x = rig_tap(nic->r, "x", 0);
    nic->ci = rig_chardev(nic->r, "ci");
    nic->co = rig_chardev(nic->r, "co");
    pc_add_nic(&nic->pc, nic->r, "x", props);
    pc_start(&nic->pc);
}

/* Frames for this NIC: with its vnet header, empty. */
static void *nic_send_run(void *opaque)
{
    const int fd = GPOINTER_TO_INT(opaque);
    unsigned i;

    for (i = 0; i < NIC_COUNT; i++) {
        send_frame(fd, NIC_SIZE, i, 12);
    }
    return NULL;
}

/*
 * The NIC's queue is filled up to a bound, then the sender is held; nothing is
 * lost once the guest takes packets.
 * @data: whether the machine is stopped; else the guest gives no buffers
 */
static void test_nic_full(const void *data)
{
    GThread *sender;
    size_t memory;
    Nic nic;

    nic_start(&nic, "disable-legacy=on");
    rig_add(nic.r, "id=f0,netdev=x,queue=tx,indev=ci,vnet_hdr_support=on");
    if (data) {
        pc_nic_drive(&nic.pc, 0, 0, 1);
        rig_stop(nic.r);
    } else {
        pc_nic_set_up(&nic.pc, 0, 0, 1);
    }
    memory = memory_size(nic.r);
    sender = g_thread_new("sender", nic_send_run, GINT_TO_POINTER(nic.ci));
    rig_wait_state(nic.r, "f0", "output", "stalled");
    expect_answers(nic.r);
    g_assert_cmpuint(memory_size(nic.r), <, memory + MEMORY_MAX);
    g_assert_cmpuint(rig_stat(nic.r, "f0", "input.stats.packets"), <=, 8192);
    if (data) {
        rig_cont(nic.r);
    } else {
        pc_nic_give_buffers(&nic.pc, 0);
    }
    pc_nic_expect(&nic.pc, 0, NIC_SIZE, 0, NIC_COUNT);
    g_thread_join(sender);
    rig_sync(nic.r);
    pc_nic_expect_silence(&nic.pc, 0);
    rig_wait_stat(nic.r, "f0", "output.stats.packets", NIC_COUNT);
    assert_stat(nic.r, "f0", "input.stats.packets", NIC_COUNT);
    assert_stat(nic.r, "f0", "output.stats.lost", 0);
    rig_wait_state(nic.r, "f0", "output", "active");
    pc_end(&nic.pc);
}

/* ... and the object, or the NIC's netdev, can go meanwhile. */
static void test_nic_full_del(const void *data)
{
    Flood *flood;
    Nic nic;

    nic_start(&nic, "disable-legacy=on");
    rig_add(nic.r, "id=f0,netdev=x,queue=tx,indev=ci");
    pc_nic_set_up(&nic.pc, 0, 0, 1);
    flood = flood_start(nic.ci, 1000, NO_LIMIT, true);
    rig_wait_state(nic.r, "f0", "output", "stalled");
    if (data) {
        qtest_qmp_assert_success(nic.r->qts, "{'execute': 'netdev_del', "
                                 "'arguments': {'id': 'x'}}");
    } else {
        rig_del(nic.r, "f0");
    }
    expect_answers(nic.r);
    g_assert_cmpuint(flood_stop(flood), >, 0);
    pc_end(&nic.pc);
}

/*
 * Packets wait for the peer while the guest's driver comes up and makes the
 * vnet header longer: each is sent with the header that it has.
 */
static void test_header_changes(const void *unused)
{
    const unsigned count = 8000;
    g_autofree uint8_t *data = g_malloc(PACKET_MAX);
    unsigned i, lengths[2] = { };
    Nic nic;

    nic_start(&nic, "disable-legacy=off,disable-modern=off");
    if_set_txqueuelen(nic.x->ifname, count);
    rig_add(nic.r, "id=f0,netdev=x,queue=tx,outdev=co,vnet_hdr_support=on");
    send_packets(nic.x->outside, SIZE, 0, count / 2);
    expect_answers(nic.r);
    pc_nic_drive(&nic.pc, 0, 0, 1);
    send_packets(nic.x->outside, SIZE, count / 2, count / 2);
    for (i = 0; i < count; i++) {
        uint32_t prefix[2], vnet;
        size_t size;

        recv_bytes(nic.co, prefix, sizeof(prefix));
        size = be32_to_cpu(prefix[0]);
        vnet = be32_to_cpu(prefix[1]);
        g_assert_true(vnet == 10 || vnet == 12);
        g_assert_cmpuint(size, ==, vnet + SIZE);
        recv_bytes(nic.co, data, size);
        g_assert_cmpuint(packet_seq(data + vnet), ==, i);
        packet_check(data + vnet, SIZE);
        lengths[vnet == 12]++;
    }
    g_assert_cmpuint(lengths[0], >, 0);
    g_assert_cmpuint(lengths[1], >, 0);
    pc_end(&nic.pc);
}

/* A NIC's packets with their vnet headers, to a peer and from it. */
static void test_nic_vnet(const void *unused)
{
    g_autofree uint8_t *data = g_malloc(PACKET_MAX);
    unsigned i;
    Nic nic;

    nic_start(&nic, "disable-legacy=on");
    pc_nic_drive(&nic.pc, 0, 0, 1);
    rig_add(nic.r, "id=f0,netdev=x,queue=tx,indev=ci,outdev=co,"
            "vnet_hdr_support=on");
    for (i = 0; i < 20; i++) {
        send_packet(nic.x->outside, SIZE, i);
        g_assert_cmpuint(recv_frame(nic.co, data, 12), ==, 12 + SIZE);
        packet_check(data + 12, SIZE);
        send_frame_raw(nic.ci, data, 12 + SIZE, 12);
        pc_nic_expect(&nic.pc, 0, SIZE, i, 1);
    }
    pc_end(&nic.pc);
}

/*
 * Properties of an object that works
 */

typedef struct SetCase {
    const char *prop;
    const char *value;      /* as JSON */
} SetCase;

static const SetCase sets[] = {
    { "queue", "'rx'" },
    { "indev", "'co'" },
    { "outdev", "'ci'" },
    { "vnet_hdr_support", "true" },
    { "in_netdev", "'x'" },
    { "in_netdev_fd", "'7'" },
    { "out_netdev", "'x'" },
    { "out_netdev_fd", "'7'" },
    { "enable_when_stopped", "true" },
    { "enable_when_running", "false" },
    { "ring_size", "1048576" },
};

static void test_set(const void *data)
{
    static const char *const objects[] = {
        "id=f0,netdev=n,queue=tx,indev=ci,outdev=co",
        "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co",
        "id=f0,netdev=n,queue=tx,indev=ci,out_netdev=x",
    };
    const SetCase *c = data;
    g_autofree char *want =
        g_strdup_printf(ID "'%s' cannot be changed after creation", c->prop);
    g_autofree char *command =
        g_strdup_printf("{'execute': 'qom-set', 'arguments': {'path': "
                        "'/objects/f0', 'property': '%s', 'value': %s}}",
                        c->prop, c->value);
    Bench b = bench_new();
    unsigned i;

    rig_start(b.r);
    for (i = 0; i < ARRAY_SIZE(objects); i++) {
        QDict *reply, *error;

        rig_add(b.r, objects[i]);
        qtest_qmp_send_raw(b.r->qts, "%s", command);
        reply = qtest_qmp_receive(b.r->qts);
        error = qdict_get_qdict(reply, "error");
        g_assert_nonnull(error);
        g_assert_cmpstr(qdict_get_str(error, "desc"), ==, want);
        qobject_unref(reply);
        rig_set(b.r, "f0", "status", "off");
        rig_set(b.r, "f0", "status", "on");
        rig_del(b.r, "f0");
    }
    rig_free(b.r);
}

static void add_set_cases(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(sets); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/engine/set/%s", sets[i].prop);

        case_add(path, test_set, &sets[i]);
    }
}

/*
 * Filters behind a capture of their own netdev: they see copies, and whatever
 * they do with these, nobody else does.
 */

typedef struct BehindCase {
    const char *name;
    const char *object;     /* as JSON, but for the id and the netdev */
} BehindCase;

static const BehindCase behind[] = {
    { "rewriter", "'qom-type': 'filter-rewriter', 'queue': 'all'" },
    { "rewriter-vnet", "'qom-type': 'filter-rewriter', 'queue': 'all', "
      "'vnet_hdr_support': true" },
    { "buffer", "'qom-type': 'filter-buffer', 'queue': 'all', "
      "'interval': 1000" },
    { "mirror", "'qom-type': 'filter-mirror', 'queue': 'all', "
      "'outdev': 'co'" },
    { "dump", "'qom-type': 'filter-dump', 'queue': 'all', "
      "'file': '/dev/null'" },
};

static void object_add(Rig *r, const char *id, const char *netdev,
                       const char *object)
{
    g_autofree char *command =
        g_strdup_printf("{'execute': 'object-add', 'arguments': {'id': '%s', "
                        "'netdev': '%s', %s}}", id, netdev, object);
    QDict *reply;

    qtest_qmp_send_raw(r->qts, "%s", command);
    reply = qtest_qmp_receive(r->qts);
    g_assert_true(qdict_haskey(reply, "return"));
    qobject_unref(reply);
}

/* TCP packets, since filter-rewriter lets all others pass. */
static size_t tcp_fill(uint8_t *packet, uint16_t seq)
{
    static const Offload tcp = {
        .tcp = true, .payload = 100, .gso_type = VIRTIO_NET_HDR_GSO_NONE,
    };
    uint8_t hdr[VNET_LEN_KERNEL];
    size_t size = offload_fill(&tcp, hdr, packet);

    stw_be_p(packet + ETH_HLEN + 20, 1000 + seq);
    offload_complete(hdr, packet, size);
    return size;
}

static void tcp_pass(int from, int to, uint16_t seq)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    size_t size = tcp_fill(packet, seq);

    send_raw(from, packet, size);
    g_assert_cmpmem(got, recv_raw(to, got), packet, size);
}

static void test_behind(const void *data)
{
    const BehindCase *c = data;
    Bench b = bench_new();
    unsigned i;

    rig_start(b.r);
    rig_add(b.r, "id=f0,netdev=x,queue=all,in_netdev=x");
    object_add(b.r, "f1", "x", c->object);
    for (i = 0; i < 10; i++) {
        tcp_pass(b.x->outside, b.x->inside, i);
        tcp_pass(b.x->inside, b.x->outside, i);
        rig_wait_stat(b.r, "f0", "input.stats.packets", 2 * (i + 1));
        g_usleep(3000); /* filter-buffer lets go */
        rig_sync(b.r);
        expect_silence(b.x->inside);
        expect_silence(b.x->outside);
    }
    rig_free(b.r);
}

static void add_behind_cases(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(behind); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/engine/behind/%s",
                            behind[i].name);

        case_add(path, test_behind, &behind[i]);
    }
}

/*
 * A filter behind is busy: filter-mirror runs part of the main loop until its
 * peer has taken the packet, and QMP commands are executed there.
 */
typedef struct BusyCase {
    const char *name;
    const char *props;
    const char *netdev;     /* that goes; NULL: the object */
} BusyCase;

static const BusyCase busy[] = {
    { "object", "id=f0,netdev=n,queue=tx,in_netdev=x" },
    { "captured", "id=f0,netdev=n,queue=tx,in_netdev=x", "x" },
    { "classic-object", "id=f0,netdev=n,queue=tx,indev=ci" },
};

static void test_busy(const void *data)
{
    const BusyCase *c = data;
    Bench b = bench_start(c->props);
    Drain *drain;
    Watchdog *w;
    QDict *reply;

    object_add(b.r, "m0", "n", "'qom-type': 'filter-mirror', "
               "'queue': 'tx', 'outdev': 'co'");
    /* As much as the mirror's socket holds, and more. */
    if (strstr(c->props, "indev")) {
        send_frames(b.ci, 60000, 0, 3);
    } else {
        if_set_mtu(b.x->ifname, 65000);
        send_packets(b.x->outside, 60000, 0, 8);
    }
    g_usleep(100 * 1000);
    if (c->netdev) {
        qtest_qmp_send(b.r->qts, "{'execute': 'netdev_del', "
                       "'arguments': {'id': %s}}", c->netdev);
    } else {
        qtest_qmp_send(b.r->qts, "{'execute': 'object-del', "
                       "'arguments': {'id': 'f0'}}");
    }
    g_usleep(100 * 1000);
    w = watchdog_start(b.r);
    drain = drain_start(b.co);
    reply = qtest_qmp_receive(b.r->qts);
    g_assert_true(qdict_haskey(reply, "return"));
    qobject_unref(reply);
    rig_sync(b.r);
    drain_stop(drain);
    rig_free(b.r);
    watchdog_stop(w);
}

static void add_busy_cases(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(busy); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/engine/busy/%s", busy[i].name);

        case_add(path, test_busy, &busy[i]);
    }
}

/*
 * A stopped machine: packets of the chain go on to the guest, which gets them
 * once it runs.
 */
static void test_stopped_chain(const void *data)
{
    Bench b = bench_start(data);

    rig_stop(b.r);
    send_packets(b.n->outside, 100, 0, 10);
    rig_sync(b.r);
    expect_silence(b.x->inside);
    expect_silence(b.co);
    rig_cont(b.r);
    expect_packets(b.n->inside, 100, 0, 10);
    rig_sync(b.r);
    expect_silence(b.x->inside);
    expect_silence(b.co);
    rig_free(b.r);
}

/*
 * e1000: a NIC that vhost can't serve, also where its netdev says vhost=on
 */

#define E1000_SLOT 5
#define E1000_DESCS 64
#define E1000_BUF_LEN 2048

typedef struct E1000 {
    Pc pc;
    Rig *r;
    Port *x;
    int co;
    QPCIDevice *dev;
    QPCIBar bar;
    uint64_t ring;
    uint64_t buffers;
    unsigned next;
} E1000;

/* Return: false if it can't be done, and the case has been skipped */
static bool e1000_start(E1000 *e, bool vhost)
{
    if (vhost && access("/dev/vhost-net", R_OK | W_OK)) {
        g_test_skip("no /dev/vhost-net");
        return false;
    }
    *e = (E1000) { .r = rig_new() };
    e->pc.r = e->r;
    e->r->machine = "-M pc";
    if (vhost) {
        g_string_append(e->r->args, "-netdev tap,id=x,ifname=tap-x,script=no,"
                        "downscript=no,vhost=on ");
    } else {
        e->x = rig_tap(e->r, "x", 0);
    }
    e->co = rig_chardev(e->r, "co");
    g_string_append(e->r->args, "-m 64 -device e1000,netdev=x,addr=05.0,"
                    "romfile= ");
    pc_start(&e->pc);
    if (vhost) {
        e->x = &e->r->ports[e->r->nports++];
        *e->x = (Port) { .id = "x", .ifname = "tap-x", .inside = -1,
                         .tap = -1 };
        if_set_up(e->x->ifname, true);
        e->x->outside = rig_keep_fd(e->r, if_open(e->x->ifname));
    }
    e->dev = qpci_device_find(e->pc.bus, QPCI_DEVFN(E1000_SLOT, 0));
    g_assert_nonnull(e->dev);
    e->ring = guest_alloc(&e->pc.alloc, E1000_DESCS * 16);
    e->buffers = guest_alloc(&e->pc.alloc, E1000_DESCS * E1000_BUF_LEN);
    return true;
}

/* What a driver does when it is loaded, and when the machine has woken up. */
static void e1000_drive(E1000 *e)
{
    unsigned i;

    qpci_device_enable(e->dev);
    e->bar = qpci_iomap(e->dev, 0, NULL);
    qtest_memset(e->r->qts, e->ring, 0, E1000_DESCS * 16);
    for (i = 0; i < E1000_DESCS; i++) {
        qtest_writeq(e->r->qts, e->ring + 16 * i,
                     e->buffers + i * E1000_BUF_LEN);
    }
    e->next = 0;
    qpci_io_writel(e->dev, e->bar, 0x0000, 1 << 6);     /* CTRL: link up */
    qpci_io_writel(e->dev, e->bar, 0x2800, e->ring);    /* RDBAL, ... */
    qpci_io_writel(e->dev, e->bar, 0x2804, 0);
    qpci_io_writel(e->dev, e->bar, 0x2808, E1000_DESCS * 16);
    qpci_io_writel(e->dev, e->bar, 0x2810, 0);          /* RDH */
    qpci_io_writel(e->dev, e->bar, 0x2818, E1000_DESCS - 1); /* RDT */
    /* RCTL: enabled, promiscuous, broadcast, without CRC */
    qpci_io_writel(e->dev, e->bar, 0x0100, 1 << 1 | 3 << 3 | 1 << 15 |
                                           1 << 26);
}

/* Return: size of the next packet, 0: there is none */
static size_t e1000_poll(E1000 *e, uint8_t *packet)
{
    const uint64_t desc = e->ring + 16 * e->next;
    size_t size;

    if (!(qtest_readb(e->r->qts, desc + 12) & 1)) { /* done */
        return 0;
    }
    size = qtest_readw(e->r->qts, desc + 8);
    g_assert_cmpuint(size, <=, E1000_BUF_LEN);
    qtest_memread(e->r->qts, e->buffers + e->next * E1000_BUF_LEN, packet,
                  size);
    qtest_writeb(e->r->qts, desc + 12, 0);
    qpci_io_writel(e->dev, e->bar, 0x2818, e->next);
    e->next = (e->next + 1) % E1000_DESCS;
    return size;
}

static void e1000_expect(E1000 *e, uint32_t first, unsigned n)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    unsigned i = 0;

    while (i < n) {
        size_t size = e1000_poll(e, packet);

        if (size) {
            g_assert_cmpuint(size, ==, 200);
            g_assert_cmpuint(packet_seq(packet), ==, first + i);
            packet_check(packet, size);
            i++;
        } else {
            /* What was expected did not come? */
            g_assert_cmpint(g_get_monotonic_time(), <, end);
        }
    }
}

static void e1000_end(E1000 *e)
{
    g_free(e->dev);
    pc_end(&e->pc);
}

/* As a guest does, by the sleep type in the power management's register. */
static void acpi_suspend(E1000 *e)
{
    const uint16_t base = 0x600;
    QPCIDevice *pm = qpci_device_find(e->pc.bus, QPCI_DEVFN(1, 3));

    g_assert_nonnull(pm);
    qpci_config_writel(pm, 0x40, base | 1);
    qpci_config_writeb(pm, 0x80, 1);
    qtest_outw(e->r->qts, base + 4, 1 << 13 | 1 << 10);
    g_free(pm);
    rig_wait_runstate(e->r, "suspended");
}

/*
 * A guest that has slept hears again.
 * @data: whether the netdev says vhost=on
 */
static void test_e1000_suspend(const void *data)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    unsigned i;
    E1000 e;

    if (!e1000_start(&e, data)) {
        return;
    }
    e1000_drive(&e);
    for (i = 0; i < 3; i++) {
        send_packets(e.x->outside, 200, 100 * i, 10);
        e1000_expect(&e, 100 * i, 10);
        acpi_suspend(&e);
        send_packets(e.x->outside, 200, 100 * i + 10, 10);
        rig_sync(e.r);
        qtest_qmp_assert_success(e.r->qts, "{'execute': 'system_wakeup'}");
        rig_wait_runstate(e.r, "running");
        e1000_drive(&e);
        /* One packet may be in QEMU's queue, which a reset empties. */
        while (!e1000_poll(&e, packet) ||
               packet_seq(packet) < 100 * i + 11) {
            rig_sync(e.r);
        }
        g_assert_cmpuint(packet_seq(packet), ==, 100 * i + 11);
        e1000_expect(&e, 100 * i + 12, 8);
    }
    e1000_end(&e);
}

/* A running guest's packets are its own, whoever serves its NIC. */
static void test_e1000_hand_over(const void *data)
{
    E1000 e;

    if (!e1000_start(&e, data)) {
        return;
    }
    e1000_drive(&e);
    rig_add(e.r, "id=f0,netdev=x,queue=tx,outdev=co,enable_when_stopped=on,"
            "enable_when_running=off");
    send_packets(e.x->outside, 200, 0, 20);
    e1000_expect(&e, 0, 20);
    rig_stop(e.r);
    send_packets(e.x->outside, 200, 20, 20);
    rig_sync(e.r);
    expect_silence(e.co);
    rig_cont(e.r);
    e1000_expect(&e, 20, 20);
    expect_silence(e.co);
    assert_stat(e.r, "f0", "output.stats.packets", 0);
    e1000_end(&e);
}

/*
 * Into the chain of a netdev whose vhost runs: what it would swallow is not
 * taken, and not counted, until vhost doesn't run.
 */
static void test_vhost_indev(const void *unused)
{
    Rig *r;
    Pc pc = { };
    int ci;

    if (access("/dev/vhost-net", R_OK | W_OK)) {
        g_test_skip("no /dev/vhost-net");
        return;
    }
    r = rig_new();
    ci = rig_chardev(r, "ci");
    g_string_append(r->args, "-m 64 -netdev tap,id=x,ifname=tap-x,script=no,"
                    "downscript=no,vhost=on ");
    pc_add_nic(&pc, r, "x", "disable-legacy=on");
    pc_start(&pc);
    pc_nic_drive(&pc, 0, 0, 1);
    rig_add(r, "id=f0,netdev=x,queue=tx,indev=ci,vnet_hdr_support=on");
    send_frame(ci, 200, 0, 12);
    rig_wait_state(r, "f0", "output", "held");
    rig_sync(r);
    assert_stat(r, "f0", "input.stats.packets", 0);
    assert_stat(r, "f0", "output.stats.packets", 0);
    pc_nic_expect_silence(&pc, 0);
    pc_end(&pc);
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    add_stall_cases();
    case_add("/filter-redirector/engine/stall/peer-leaves",
             test_stall_peer_leaves, NULL);
    case_add("/filter-redirector/engine/stall/other-way",
             test_stall_other_way, NULL);
    case_add("/filter-redirector/engine/format/out", test_format_out, NULL);
    case_add("/filter-redirector/engine/format/out-vnet", test_format_out,
             "vnet");
    case_add("/filter-redirector/engine/format/in", test_format_in, NULL);
    case_add("/filter-redirector/engine/format/in-vnet", test_format_in,
             "vnet");
    add_pair_cases();
    add_damage_cases();
    case_add("/filter-redirector/engine/sender-leaves", test_sender_leaves,
             NULL);
    case_add("/filter-redirector/engine/no-peer", test_no_peer, NULL);
    add_set_cases();
    add_behind_cases();
    add_busy_cases();
    case_add("/filter-redirector/engine/stopped/out_netdev",
             test_stopped_chain, "id=f0,netdev=n,queue=tx,out_netdev=x");
    case_add("/filter-redirector/engine/stopped/outdev",
             test_stopped_chain, "id=f0,netdev=n,queue=tx,indev=ci,outdev=co,"
             "enable_when_running=on");
    if (qtest_has_device("virtio-net-pci")) {
        case_add("/filter-redirector/engine/nic/no-buffers", test_nic_full,
                 NULL);
        case_add("/filter-redirector/engine/nic/stopped", test_nic_full,
                 "stopped");
        case_add("/filter-redirector/engine/nic/del", test_nic_full_del, NULL);
        case_add("/filter-redirector/engine/nic/netdev_del",
                 test_nic_full_del, "netdev");
        case_add("/filter-redirector/engine/nic/vnet", test_nic_vnet, NULL);
        case_add("/filter-redirector/engine/nic/header-changes",
                 test_header_changes, NULL);
        case_add("/filter-redirector/engine/vhost/indev", test_vhost_indev,
                 NULL);
    }
    if (qtest_has_device("e1000")) {
        case_add("/filter-redirector/engine/e1000/suspend",
                 test_e1000_suspend, NULL);
        case_add("/filter-redirector/engine/e1000/suspend-vhost",
                 test_e1000_suspend, "vhost");
        case_add("/filter-redirector/engine/e1000/hand-over",
                 test_e1000_hand_over, NULL);
        case_add("/filter-redirector/engine/e1000/hand-over-vhost",
                 test_e1000_hand_over, "vhost");
    }
    return g_test_run();
}
