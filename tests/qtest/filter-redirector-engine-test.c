/*
 * QTest of filter-redirector between chardevs and the filter chain: peers
 * that don't read, the old format, and what filters behind see
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/if_ether.h>
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "filter-redirector-nic.h"

#define ID "filter-redirector 'f0': "

/*
 * The peer of outdev doesn't read
 */

#define SIZE 1000
#define COUNT 20000         /* many times what a socket and a queue hold */
#define BURST 50            /* what a guest behind a hub takes at once */

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
    s.memory = rig_memory(s.b.r);
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
    g_assert_cmpuint(rig_memory(r), <, s.memory + MEMORY_MAX);
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
 * The peer leaves meanwhile, and another one comes: what was queued for the
 * first one, and not sent whole, is for the second; what came in between is
 * lost, as ever without a peer, and counted.
 */
static void test_stall_peer_leaves(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    g_autofree char *path = rig_server(r, "co");
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    int64_t last = -1;
    uint64_t lost;
    int fd;

    if_set_txqueuelen(x->ifname, COUNT);
    rig_start(r);
    rig_add(r, "id=f0,netdev=x,queue=tx,outdev=co");
    fd = rig_connect(r, path);
    rig_wait_state(r, "f0", "output", "active");
    send_packets(x->outside, SIZE, 0, COUNT);
    expect_answers(r);
    rig_wait_state(r, "f0", "output", "stalled");
    rig_close(r, fd);
    rig_wait_state(r, "f0", "output", "disconnected");
    expect_answers(r);
    rig_wait_tx_packets(r, x, COUNT);
    assert_stat(r, "f0", "input.stats.packets", COUNT);
    lost = rig_stat(r, "f0", "output.stats.lost");
    g_assert_cmpuint(lost, >, 0);
    g_assert_cmpuint(rig_stat(r, "f0", "output.stats.packets") + lost +
                     rig_stat(r, "f0", "output.stats.queued"), ==, COUNT);

    fd = rig_connect(r, path);
    recv_bytes(fd, packet, 4);  /* QEMU has noticed: the first length */
    g_assert_cmpuint(ldl_be_p(packet), ==, SIZE);
    recv_bytes(fd, packet, SIZE);
    send_packet(x->outside, SIZE, COUNT);
    while (last < COUNT) {
        packet_check(packet, recv_frame(fd, packet, NO_VNET));
        g_assert_cmpint(packet_seq(packet), >, last);
        last = packet_seq(packet);
    }
    rig_wait_stat(r, "f0", "output.stats.queued", 0);
    expect_silence(x->inside);
    rig_free(r);
}

/* Two chardevs: two flows.  The one goes on while the other can't. */
static void test_stall_other_way(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,indev=ci,outdev=co");
    Flood *flood = flood_start(b.n->outside, SIZE, COUNT, false);
    unsigned i;

    expect_answers(b.r);
    rig_wait_state(b.r, "f0", "output", "stalled");
    for (i = 0; i < 10; i++) {
        send_frames(b.ci, 100, BURST * i, BURST);
        expect_packets(b.n->inside, 100, BURST * i, BURST);
    }
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
    size_t ends[200], pos, piece = 1;
    unsigned i, got = 0;

    for (i = 0; i < ARRAY_SIZE(ends); i++) {
        size_t size = sizes[i % ARRAY_SIZE(sizes)];

        stl_be_p(frame, size);
        stl_be_p(frame + 4, 0);
        packet_fill(frame + header_len, size, i);
        g_byte_array_append(stream, frame, header_len + size);
        ends[i] = stream->len;
    }
    for (pos = 0; pos < stream->len; pos += piece) {
        piece = MIN(piece % 4099 + 1, stream->len - pos);
        send_bytes(b.ci, stream->data + pos, piece);
        while (got < ARRAY_SIZE(ends) && ends[got] <= pos + piece) {
            expect_packet(b.n->inside, sizes[got % ARRAY_SIZE(sizes)], got);
            got++;
        }
    }
    g_assert_cmpuint(got, ==, ARRAY_SIZE(ends));
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
    unsigned i;

    g_string_append_printf(r->args, "-chardev socket,id=co,path=%s ", path);
    rig_start(r);
    rig_add(r, c->in);
    rig_add(r, c->out);
    rig_wait_state(r, "f0", "output", "active");
    for (i = 0; i < 20; i++) {
        send_packets(from, 1000, BURST * i, BURST);
        expect_packets(to, 1000, BURST * i, BURST);
    }
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

/* Nobody at the other end: the packets are lost, as ever, and counted. */
static void test_no_peer(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    g_autofree char *path = rig_server(r, "co");
    unsigned i;

    rig_start(r);
    rig_add(r, "id=f0,netdev=x,queue=tx,outdev=co");
    for (i = 0; i < 3; i++) {
        int fd;

        rig_wait_state(r, "f0", "output", "disconnected");
        send_packets(x->outside, 100, 20 * i, 10);
        rig_wait_stat(r, "f0", "output.stats.lost", 10 * (i + 1));
        fd = rig_connect(r, path);
        rig_wait_state(r, "f0", "output", "active");
        send_packets(x->outside, 100, 20 * i + 10, 10);
        expect_frames(fd, 100, 20 * i + 10, 10);
        rig_close(r, fd);
    }
    rig_sync(r);
    expect_silence(x->inside);
    rig_wait_stat(r, "f0", "output.stats.packets", 30);
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
 * Properties of an object that works
 */

typedef struct SetCase {
    const char *prop;
    const char *value;      /* as JSON */
} SetCase;

static const SetCase sets[] = {
    { "netdev", "'n'" },
    { "queue", "'rx'" },
    { "position", "'head'" },
    { "insert", "'before'" },
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
    { "snaplen", "128" },
    { "filter", "'6 0 0 0'" },
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

/*
 * QEMU lets the netdev of another filter be set to anything once it has been
 * used: what works goes on where it is
 */
static void test_set_other(const void *unused)
{
    Bench b = bench_new();

    rig_start(b.r);
    qtest_qmp_assert_success(b.r->qts, "{'execute': 'object-add', "
                             "'arguments': {'qom-type': 'filter-mirror', "
                             "'id': 'f0', 'netdev': 'n', 'queue': 'tx', "
                             "'outdev': 'co'}}");
    rig_set(b.r, "f0", "netdev", "x");
    rig_set(b.r, "f0", "status", "off");
    rig_set(b.r, "f0", "status", "on");
    send_packet(b.n->outside, 100, 1);
    expect_packet(b.n->inside, 100, 1);
    rig_del(b.r, "f0");
    rig_sync(b.r);
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

static void tcp_pass(Rig *r, int from, int to, uint16_t seq)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    size_t size = tcp_fill(packet, seq);

    send_raw(from, packet, size);
    rig_sync(r);
    qtest_clock_step(r->qts, 2 * SCALE_MS); /* filter-buffer lets go */
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
        tcp_pass(b.r, b.x->outside, b.x->inside, i);
        tcp_pass(b.r, b.x->inside, b.x->outside, i);
        rig_wait_stat(b.r, "f0", "input.stats.packets", 2 * (i + 1));
        qtest_clock_step(b.r->qts, 2 * SCALE_MS);
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
    { "own", "id=f0,netdev=n,queue=tx,in_netdev=x", "n" },
    { "classic-own", "id=f0,netdev=n,queue=tx,indev=ci", "n" },
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
 * A stopped machine: a packet that the chain brings goes on to the guest, which
 * gets it once it runs.
 */
static void test_stopped_chain(const void *data)
{
    Bench b = bench_start(data);
    unsigned i;

    for (i = 0; i < 3; i++) {
        rig_stop(b.r);
        send_packet(b.n->outside, 100, i);
        rig_sync(b.r);
        expect_silence(b.x->inside);
        expect_silence(b.co);
        rig_cont(b.r);
        expect_packet(b.n->inside, 100, i);
    }
    rig_sync(b.r);
    expect_silence(b.x->inside);
    expect_silence(b.co);
    assert_stat(b.r, "f0", "output.stats.packets", 0);
    rig_free(b.r);
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
    case_add("/filter-redirector/engine/set/other", test_set_other, NULL);
    add_behind_cases();
    add_busy_cases();
    case_add("/filter-redirector/engine/stopped/out_netdev",
             test_stopped_chain, "id=f0,netdev=n,queue=tx,out_netdev=x");
    case_add("/filter-redirector/engine/stopped/outdev",
             test_stopped_chain, "id=f0,netdev=n,queue=tx,outdev=co");
    return g_test_run();
}
