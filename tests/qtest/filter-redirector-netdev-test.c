/*
 * QTest of filter-redirector's netdev endpoints: what becomes of packets
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "filter-redirector-helpers.h"

/*
 * The flows: what a redirector's ends make of packets from each source.
 */

/* Where packets come from and where they get to. */
enum {
    WIRE    = 1 << 0,   /* network of n */
    GUEST   = 1 << 1,   /* guest of n */
    HOST    = 1 << 2,   /* network of x */
    TAP     = 1 << 3,   /* guest of x: QEMU's own reader of the TAP */
    PEER    = 1 << 4,   /* the other side of the chardevs */
    PLACES  = 5,
};

typedef struct Flow {
    const char *name;
    bool indev, outdev, in_netdev, out_netdev;
} Flow;

static const Flow flows[] = {
    { "indev", .indev = true },
    { "outdev", .outdev = true },
    { "indev-outdev", .indev = true, .outdev = true },
    { "in_netdev-outdev", .in_netdev = true, .outdev = true },
    { "in_netdev", .in_netdev = true },
    { "indev-out_netdev", .indev = true, .out_netdev = true },
    { "out_netdev", .out_netdev = true },
};

typedef struct FlowCase {
    const Flow *flow;
    const char *queue;
    bool vnet;
} FlowCase;

static bool has_tx(const FlowCase *c)
{
    return strcmp(c->queue, "rx") != 0;
}

static bool has_rx(const FlowCase *c)
{
    return strcmp(c->queue, "tx") != 0;
}

/* The output that takes packets away from n's chain, 0 if there is none. */
static unsigned flow_output(const Flow *f)
{
    return f->outdev ? PEER : f->out_netdev ? TAP : 0;
}

/* Does the redirector take what comes from this place? */
static bool flow_takes(const FlowCase *c, unsigned source)
{
    const Flow *f = c->flow;

    switch (source) {
    case WIRE:
        return flow_output(f) && has_tx(c);
    case GUEST:
        return flow_output(f) && has_rx(c);
    case HOST:
        return f->in_netdev && has_tx(c);
    case TAP:
        return f->in_netdev && has_rx(c);
    case PEER:
        return f->indev;
    }
    g_assert_not_reached();
}

/* Everywhere that a packet from this place gets to. */
static unsigned flow_sinks(const FlowCase *c, unsigned source)
{
    const Flow *f = c->flow;
    bool taken = flow_takes(c, source);

    switch (source) {
    case WIRE:
        return taken ? flow_output(f) : GUEST;
    case GUEST:
        return taken ? flow_output(f) : WIRE;
    case HOST:
        return TAP | (!taken ? 0 : f->outdev ? PEER : GUEST);
    case TAP:
        return HOST | (!taken ? 0 : f->outdev ? PEER : WIRE);
    case PEER:
        return !taken ? 0 : f->out_netdev ? TAP :
               (has_tx(c) ? GUEST : 0) | (has_rx(c) ? WIRE : 0);
    }
    g_assert_not_reached();
}

static int place_fd(const Bench *b, unsigned place, bool sending)
{
    switch (place) {
    case WIRE:
        return b->n->outside;
    case GUEST:
        return b->n->inside;
    case HOST:
        return b->x->outside;
    case TAP:
        return b->x->inside;
    case PEER:
        return sending ? b->ci : b->co;
    }
    g_assert_not_reached();
}

static char *flow_props(const FlowCase *c)
{
    const Flow *f = c->flow;

    return g_strdup_printf("id=f0,netdev=n,queue=%s%s%s%s%s%s", c->queue,
                           f->indev ? ",indev=ci" : "",
                           f->outdev ? ",outdev=co" : "",
                           f->in_netdev ? ",in_netdev=x" : "",
                           f->out_netdev ? ",out_netdev=x" : "",
                           c->vnet ? ",vnet_hdr_support=on" : "");
}

/*
 * A vnet header in the stream is the sender's business: all known lengths
 * must be understood.  Where a packet goes to a chain the header does so, too,
 * as it always did, and n's chain has none.
 */
static int peer_vnet(const FlowCase *c, unsigned i)
{
    static const int lengths[] = { 0, 10, 12, 20 };

    return !c->vnet ? NO_VNET :
           c->flow->out_netdev ? lengths[i % ARRAY_SIZE(lengths)] : 0;
}

static void flow_send(const FlowCase *c, const Bench *b, unsigned place,
                      unsigned i, size_t size, uint32_t seq)
{
    int fd = place_fd(b, place, true);

    if (place == PEER) {
        send_frame(fd, size, seq, peer_vnet(c, i));
    } else {
        send_packet(fd, size, seq);
    }
}

static void flow_expect(const FlowCase *c, const Bench *b, unsigned places,
                        size_t size, uint32_t seq)
{
    unsigned place;

    for (place = 1; place < 1 << PLACES; place <<= 1) {
        int fd = place_fd(b, place, false);

        if (!(places & place)) {
            continue;
        } else if (place == PEER) {
            expect_frame(fd, size, seq, c->vnet ? 0 : NO_VNET);
        } else {
            expect_packet(fd, size, seq);
        }
    }
}

typedef struct FlowCount {
    unsigned packets;
    unsigned bytes;
} FlowCount;

static void flow_count(FlowCount *count, unsigned source, const FlowCase *c,
                       size_t size)
{
    /* from n's chain: [0], from the redirector's own input: [1] */
    count += !!(source & (HOST | TAP | PEER));
    if (flow_takes(c, source)) {
        count->packets++;
        count->bytes += size;
    }
}

static void flow_check_counters(const FlowCase *c, Rig *r,
                                const FlowCount *count)
{
    const Flow *f = c->flow;
    bool own_input = f->in_netdev || f->indev;
    const FlowCount *in = &count[own_input];

    assert_stat(r, "f0", "input.stats.packets", in->packets);
    assert_stat(r, "f0", "input.stats.bytes", in->bytes);
    assert_stat(r, "f0", "chain-packets", own_input ? count[0].packets : 0);
    rig_wait_stat(r, "f0", "output.stats.packets",
                  count[0].packets + count[1].packets);
    assert_stat(r, "f0", "output.stats.bytes",
                count[0].bytes + count[1].bytes);
    assert_stat(r, "f0", "input.stats.lost", 0);
    assert_stat(r, "f0", "input.stats.errors", 0);
    assert_stat(r, "f0", "output.stats.lost", 0);
    assert_stat(r, "f0", "output.stats.errors", 0);
    assert_stat(r, "f0", "output.stats.queued", 0);
}

/*
 * Packets of each size from each source arrive, whole, in order, where they
 * should and nowhere else.
 */
static void test_flow(const void *data)
{
    static const size_t sizes[] = { 60, 61, 1514, 9014 };
    const FlowCase *c = data;
    Bench b = bench_new();
    g_autofree char *props = flow_props(c);
    FlowCount count[2] = { };
    unsigned i, place;
    uint32_t seq = 0;

    if_set_mtu(b.x->ifname, 9000);
    rig_start(b.r);
    rig_add(b.r, props);
    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        for (place = 1; place < 1 << PLACES; place <<= 1) {
            if (place == PEER && !c->flow->indev) {
                continue;
            }
            flow_send(c, &b, place, i, sizes[i], ++seq);
            flow_expect(c, &b, flow_sinks(c, place), sizes[i], seq);
            flow_count(count, place, c, sizes[i]);
        }
    }
    rig_sync(b.r);
    for (place = 1; place < 1 << PLACES; place <<= 1) {
        expect_silence(place_fd(&b, place, false));
    }
    if (c->flow->in_netdev || c->flow->out_netdev) {
        flow_check_counters(c, b.r, count);
    }
    rig_free(b.r);
}

static void add_flow_cases(void)
{
    static const char *const queues[] = { "tx", "rx", "all" };
    static FlowCase cases[ARRAY_SIZE(flows)][ARRAY_SIZE(queues)][2];
    unsigned i, q, vnet;

    for (i = 0; i < ARRAY_SIZE(flows); i++) {
        for (q = 0; q < ARRAY_SIZE(queues); q++) {
            for (vnet = 0; vnet < 2; vnet++) {
                FlowCase *c = &cases[i][q][vnet];
                g_autofree char *path =
                    g_strdup_printf("/filter-redirector/flow/%s/%s/%s",
                                    flows[i].name, queues[q],
                                    vnet ? "vnet_hdr" : "bare");

                *c = (FlowCase) { &flows[i], queues[q], vnet };
                case_add(path, test_flow, c);
            }
        }
    }
}

/*
 * Capture
 */

/* Traffic on another interface, since before the capture, never shows. */
static void test_isolation(const void *unused)
{
    Bench b = bench_new();
    Port *y = rig_tap(b.r, "y", 0);
    Flood *flood = flood_start(y->outside, 100, NO_LIMIT, false);
    unsigned i;

    rig_start(b.r);
    for (i = 0; i < 20; i++) {
        rig_add(b.r, "id=f0,netdev=n,queue=all,in_netdev=x,outdev=co");
        send_packets(b.x->outside, 200, 0, 5);
        expect_frames(b.co, 200, 0, 5);
        expect_packets(b.x->inside, 200, 0, 5);
        send_packets(b.x->inside, 200, 5, 5);
        expect_frames(b.co, 200, 5, 5);
        expect_packets(b.x->outside, 200, 5, 5);
        assert_stat(b.r, "f0", "input.stats.packets", 10);
        rig_del(b.r, "f0");
    }
    expect_silence(b.co);
    g_assert_cmpuint(flood_stop(flood), >, 0);
    rig_free(b.r);
}

/* A packet that one redirector injects is not captured by another one. */
static void test_no_loop(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=all,in_netdev=x,outdev=co");

    rig_add(b.r, "id=f1,netdev=n,queue=all,indev=ci,out_netdev=x");
    send_frames(b.ci, 100, 0, 50);
    expect_packets(b.x->inside, 100, 0, 50);
    send_packet(b.x->outside, 100, 1000);
    expect_frame(b.co, 100, 1000, NO_VNET);
    assert_stat(b.r, "f0", "input.stats.packets", 1);
    assert_stat(b.r, "f1", "output.stats.packets", 50);
    rig_free(b.r);
}

/* VLAN tags, one or two of them, travel unchanged. */
static const uint16_t vlan_tags[][4] = {
    { 0x8100, 5 },
    { 0x88a8, 7 },
    { 0x8100, 0x6000 },         /* priority only: VLAN 0 */
    { 0x8100, 0 },
    { 0x88a8, 0x2003, 0x8100, 4094 },
    { 0x8100, 2, 0x8100, 3 },
};

static size_t vlan_fill(uint8_t *packet, const uint16_t *tags, uint32_t seq)
{
    const size_t size = 300, macs = 12;
    size_t len = tags[2] ? 8 : 4, i;

    packet_fill(packet, size, seq);
    memmove(packet + macs + len, packet + macs, size - macs);
    for (i = 0; i < len / 2; i++) {
        stw_be_p(packet + macs + 2 * i, tags[i]);
    }
    return size + len;
}

static void test_vlan_capture(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=all,in_netdev=x,outdev=co");
    uint8_t packet[400], got[PACKET_MAX];
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(vlan_tags); i++) {
        size_t size = vlan_fill(packet, vlan_tags[i], i);

        send_raw(b.x->outside, packet, size);
        g_assert_cmpmem(got, recv_frame(b.co, got, NO_VNET), packet, size);
        send_raw(b.x->inside, packet, size);
        g_assert_cmpmem(got, recv_frame(b.co, got, NO_VNET), packet, size);
    }
    rig_free(b.r);
}

static void test_vlan_inject(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,indev=ci,out_netdev=x");
    uint8_t packet[400], got[PACKET_MAX];
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(vlan_tags); i++) {
        size_t size = vlan_fill(packet, vlan_tags[i], i);

        send_frame_raw(b.ci, packet, size, NO_VNET);
        g_assert_cmpmem(got, recv_raw(b.x->inside, got), packet, size);
    }
    rig_free(b.r);
}

/*
 * The filter on the TAP itself: what is captured is a copy, and the netdev's
 * guest and network get each packet once.
 */
static void test_own_tap_capture(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=x,queue=all,in_netdev=x,outdev=co");

    rig_add(b.r, "id=f1,netdev=x,queue=all,in_netdev=x");
    send_packets(b.x->outside, 100, 0, 20);
    expect_packets(b.x->inside, 100, 0, 20);
    expect_frames(b.co, 100, 0, 20);
    rig_wait_stat(b.r, "f1", "input.stats.packets", 20);
    send_packets(b.x->inside, 100, 20, 5);
    expect_packets(b.x->outside, 100, 20, 5);
    expect_frames(b.co, 100, 20, 5);
    rig_wait_stat(b.r, "f1", "input.stats.packets", 25);
    rig_sync(b.r);
    expect_silence(b.x->inside);
    expect_silence(b.x->outside);
    expect_silence(b.co);
    assert_stat(b.r, "f0", "input.stats.packets", 25);
    rig_free(b.r);
}

/* The chain brings the injected packets: they are not injected again. */
static void test_own_tap_inject(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=x,queue=all,indev=ci,out_netdev=x");

    send_frames(b.ci, 100, 0, 10);
    expect_packets(b.x->inside, 100, 0, 10);
    send_packets(b.x->outside, 100, 10, 10);
    expect_packets(b.x->inside, 100, 10, 10);
    send_packets(b.x->inside, 100, 20, 5);
    expect_packets(b.x->outside, 100, 20, 5);
    rig_sync(b.r);
    expect_silence(b.x->inside);
    expect_silence(b.x->outside);
    assert_stat(b.r, "f0", "output.stats.packets", 10);
    rig_free(b.r);
}

/* The packet sockets see all queues of a TAP. */
static void test_multi_queue(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_MQ);
    int ci = rig_chardev(r, "ci");
    int co[] = { rig_chardev(r, "co0"), rig_chardev(r, "co1") };

    rig_wire(r, "n");
    rig_start(r);
    rig_add(r, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co0");
    rig_add(r, "id=f1,netdev=x,indev=ci,out_netdev=x");
    rig_add(r, "id=f2,netdev=x,queue=tx,in_netdev=x,outdev=co1");
    send_packets(x->outside, 100, 0, 20);
    expect_frames(co[0], 100, 0, 20);
    expect_frames(co[1], 100, 0, 20);
    send_frames(ci, 100, 20, 20);
    rig_wait_stat(r, "f1", "output.stats.packets", 20);
    rig_wait_tx_packets(r, x, 40);
    rig_free(r);
}

/*
 * When packets pass and when they don't
 */

/* What passes while the filter is off is never delivered. */
static void test_status_capture(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                          "status=off");
    unsigned i;

    for (i = 0; i < 5; i++) {
        uint32_t seq = i * 100;

        rig_wait_state(b.r, "f0", "input", "off");
        send_packets(b.x->outside, 100, seq, 10);
        expect_packets(b.x->inside, 100, seq, 10);
        rig_set(b.r, "f0", "status", "on");
        rig_wait_state(b.r, "f0", "input", "active");
        send_packets(b.x->outside, 100, seq + 10, 10);
        expect_packets(b.x->inside, 100, seq + 10, 10);
        expect_frames(b.co, 100, seq + 10, 10);
        rig_set(b.r, "f0", "status", "off");
    }
    assert_stat(b.r, "f0", "input.stats.packets", 50);
    rig_free(b.r);
}

/* What a sender sends meanwhile stays with it. */
static void test_status_inject(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,indev=ci,out_netdev=x");

    rig_set(b.r, "f0", "status", "off");
    send_frames(b.ci, 100, 0, 10);
    rig_sync(b.r);
    assert_stat(b.r, "f0", "output.stats.packets", 0);
    rig_set(b.r, "f0", "status", "on");
    expect_packets(b.x->inside, 100, 0, 10);
    assert_stat(b.r, "f0", "output.stats.packets", 10);
    rig_free(b.r);
}

static void test_status_chain(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,out_netdev=x");

    send_packets(b.n->outside, 100, 0, 5);
    expect_packets(b.x->inside, 100, 0, 5);
    rig_set(b.r, "f0", "status", "off");
    send_packets(b.n->outside, 100, 5, 5);
    expect_packets(b.n->inside, 100, 5, 5);
    rig_set(b.r, "f0", "status", "on");
    send_packets(b.n->outside, 100, 10, 5);
    expect_packets(b.x->inside, 100, 10, 5);
    assert_stat(b.r, "f0", "input.stats.packets", 10);
    rig_free(b.r);
}

/* Without enable_when_stopped: the same while the machine is stopped. */
static void test_stop_capture(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co");
    unsigned i;

    for (i = 0; i < 5; i++) {
        uint32_t seq = i * 100;

        rig_stop(b.r);
        rig_wait_state(b.r, "f0", "input", "held");
        send_packets(b.x->outside, 100, seq, 10);
        rig_cont(b.r);
        rig_wait_state(b.r, "f0", "input", "active");
        send_packets(b.x->outside, 100, seq + 10, 10);
        expect_frames(b.co, 100, seq + 10, 10);
        expect_packets(b.x->inside, 100, seq, 20);
    }
    assert_stat(b.r, "f0", "input.stats.packets", 50);
    rig_free(b.r);
}

static void test_stop_capture_enabled(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                          "enable_when_stopped=on");

    rig_stop(b.r);
    send_packets(b.x->outside, 100, 0, 10);
    rig_wait_state(b.r, "f0", "input", "held");
    rig_sync(b.r);
    expect_silence(b.co);
    rig_cont(b.r);
    expect_frames(b.co, 100, 0, 10);
    send_packets(b.x->outside, 100, 10, 10);
    expect_frames(b.co, 100, 10, 10);
    expect_packets(b.x->inside, 100, 0, 20);
    assert_stat(b.r, "f0", "input.stats.packets", 20);
    rig_free(b.r);
}

/* Injection waits for the machine to run, and nothing gets lost meanwhile. */
static void test_stop_inject(const void *data)
{
    Bench b = bench_start(data);

    rig_stop(b.r);
    send_frames(b.ci, 100, 0, 20);
    rig_wait_state(b.r, "f0", "output", "held");
    assert_stat(b.r, "f0", "output.stats.packets", 0);
    rig_cont(b.r);
    expect_packets(b.x->inside, 100, 0, 20);
    assert_stat(b.r, "f0", "output.stats.packets", 20);
    assert_stat(b.r, "f0", "input.stats.packets", 20);
    rig_free(b.r);
}

/*
 * The source side of a migration: once the guest has left, what reaches the
 * TAP goes to the chardev, all of it, and not to the guest, unless that is run
 * here again.
 */
static void test_hand_over(const void *unused)
{
    const unsigned count = 100;     /* the guest's socket holds it */
    Bench b = bench_start("id=f0,netdev=x,queue=tx,outdev=co,"
                          "enable_when_stopped=on,enable_when_running=off");

    rig_sync(b.r);
    expect_silence(b.co);
    rig_migrate(b.r, "/dev/null");
    send_packets(b.x->outside, 200, 0, count);
    expect_frames(b.co, 200, 0, count);
    rig_sync(b.r);
    expect_silence(b.x->inside);
    rig_wait_stat(b.r, "f0", "output.stats.packets", count);
    assert_stat(b.r, "f0", "output.stats.lost", 0);
    assert_stat(b.r, "f0", "output.stats.errors", 0);
    rig_cont(b.r);
    rig_del(b.r, "f0");
    expect_packets(b.x->inside, 200, 0, count);
    send_packet(b.x->outside, 200, 5000);
    expect_packet(b.x->inside, 200, 5000);
    rig_free(b.r);
}

/*
 * The redirector's queue becomes full and empty again in one turn of the main
 * loop: its peer takes all of it in one write.  The TAP has to be read on.
 */
static void test_hand_over_burst(const void *unused)
{
    const int mtu = 60000, size = 30000, buffer = 8 * 1024 * 1024;
    const unsigned count = 60;
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    int co = rig_chardev(r, "co");
    pid_t pid;

    g_assert_cmpint(setsockopt(r->qemu_fds[r->nqemu_fds - 1], SOL_SOCKET,
                               SO_SNDBUFFORCE, &buffer, sizeof(buffer)), ==,
                    0);
    if_set_mtu(x->ifname, mtu);
    rig_start(r);
    rig_add(r, "id=f0,netdev=x,queue=tx,outdev=co,enable_when_stopped=on");
    rig_migrate(r, "/dev/null");
    rig_sync(r);
    pid = qtest_pid(r->qts);
    g_assert_cmpint(kill(pid, SIGSTOP), ==, 0);
    send_packets(x->outside, size, 0, count);
    g_assert_cmpint(kill(pid, SIGCONT), ==, 0);
    expect_frames(co, size, 0, count);
    rig_wait_stat(r, "f0", "output.stats.packets", count);
    rig_free(r);
}

/*
 * While its peer does not read, packets wait in the TAP's queue.
 * @data: while the machine runs, too
 */
static void test_hand_over_slow(const void *data)
{
    const unsigned count = 5000;
    Bench b = bench_start("id=f0,netdev=x,queue=tx,outdev=co,"
                          "enable_when_stopped=on");

    if_set_txqueuelen(b.x->ifname, count);
    if (!data) {
        rig_migrate(b.r, "/dev/null");
    }
    send_packets(b.x->outside, 1000, 0, count);
    rig_wait_state(b.r, "f0", "output", "stalled");
    g_assert_cmpint(rig_sync(b.r), <, G_USEC_PER_SEC);
    g_assert_cmpuint(rig_stat(b.r, "f0", "output.stats.packets"), <, count);
    expect_frames(b.co, 1000, 0, count);
    rig_wait_stat(b.r, "f0", "output.stats.packets", count);
    assert_stat(b.r, "f0", "output.stats.lost", 0);
    rig_free(b.r);
}

/*
 * Slow receivers
 */

/* Packets read from the TAP itself come behind the kernel's vnet header. */
static void expect_tap_packets(int fd, size_t size, uint32_t first, unsigned n)
{
    g_autofree uint8_t *buf = g_malloc(PACKET_MAX);
    const size_t hdr_len = 10;
    unsigned i;

    for (i = 0; i < n; i++) {
        g_assert_cmpuint(read_raw(fd, buf), ==, hdr_len + size);
        g_assert_cmpuint(packet_seq(buf + hdr_len), ==, first + i);
        packet_check(buf + hdr_len, size);
    }
}

/* QEMU takes one packet for a guest that takes none, and reads no more. */
static void tap_block(Rig *r, Port *x)
{
    send_packet(x->outside, 100, 0);
    rig_wait_tx_packets(r, x, 1);
}

/*
 * Nobody reads the TAP; its queue takes 1,000 packets.  The others wait with
 * the sender, and all arrive, in order, once somebody reads.
 */
static void test_back_pressure(const void *unused)
{
    const unsigned count = 5000;
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_HELD | TAP_STUCK);
    int ci = rig_chardev(r, "ci");
    Flood *flood;
    unsigned i;

    rig_wire(r, "n");
    if_set_txqueuelen(x->ifname, 1000);
    rig_start(r);
    rig_add(r, "id=f0,netdev=n,indev=ci,out_netdev=x");
    tap_block(r, x);
    flood = flood_start(ci, 100, count, true);
    rig_wait_state(r, "f0", "output", "stalled");
    for (i = 0; i < 100; i++) {
        g_assert_cmpint(rig_sync(r), <, G_USEC_PER_SEC);
    }
    g_assert_cmpuint(rig_stat(r, "f0", "output.stats.packets"), <=, 1000);
    expect_tap_packets(x->tap, 100, 0, count);
    g_assert_cmpuint(flood_finish(flood), ==, count);
    rig_wait_stat(r, "f0", "output.stats.packets", count);
    assert_stat(r, "f0", "input.stats.packets", count);
    assert_stat(r, "f0", "output.stats.lost", 0);
    assert_stat(r, "f0", "output.stats.errors", 0);
    g_assert_cmpuint(rig_stat(r, "f0", "output.stats.stalls"), >, 0);
    rig_free(r);
}

/* Packets that wait for a full TAP don't keep the object from going. */
static void test_back_pressure_del(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,indev=ci,out_netdev=x");
    Flood *flood = flood_start(b.ci, 100, NO_LIMIT, true);

    rig_wait_state(b.r, "f0", "output", "stalled");
    rig_del(b.r, "f0");
    g_assert_cmpint(rig_sync(b.r), <, G_USEC_PER_SEC);
    g_assert_cmpuint(flood_stop(flood), >, 0);
    rig_free(b.r);
}

/*
 * The chardev's peer stops reading.  QEMU goes on, the ring overflows, the
 * kernel counts what it drops, and what QEMU took arrives once the peer reads
 * again: captured packets are either delivered or counted as lost.
 */
static void test_slow_peer(const void *data)
{
    const size_t size = data ? 40000 : 1000;
    const unsigned count = 20000000 / size;
    Bench b = bench_start("id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                          "ring_size=524288");
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    uint64_t lost, i;
    int64_t last = -1;
    Flood *flood;

    if_set_mtu(b.x->ifname, 60000);
    flood = flood_start(b.x->outside, size, count, false);
    rig_wait_state(b.r, "f0", "output", "stalled");
    for (i = 0; i < 100; i++) {
        g_assert_cmpint(rig_sync(b.r), <, G_USEC_PER_SEC);
    }
    g_assert_cmpuint(flood_finish(flood), ==, count);
    lost = rig_stat(b.r, "f0", "input.stats.lost");
    g_assert_cmpuint(lost, >, 0);
    g_assert_cmpuint(lost, <, count);
    for (i = 0; i < count - lost; i++) {
        packet_check(packet, recv_frame(b.co, packet, NO_VNET));
        g_assert_cmpint(packet_seq(packet), >, last);
        last = packet_seq(packet);
    }
    rig_wait_stat(b.r, "f0", "output.stats.packets", count - lost);
    assert_stat(b.r, "f0", "input.stats.packets", count - lost);
    assert_stat(b.r, "f0", "input.stats.lost", lost);
    assert_stat(b.r, "f0", "output.stats.lost", 0);
    assert_stat(b.r, "f0", "output.stats.queued", 0);
    rig_sync(b.r);
    expect_silence(b.co);
    rig_free(b.r);
}

/* Long packets take another way to the chardev than short ones. */
static void test_long_and_short(const void *unused)
{
    static const size_t sizes[] = { 100, 9000, 100, 100, 60000, 8178, 1000 };
    Bench b = bench_start("id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                          "vnet_hdr_support=on");
    const unsigned count = 10 * ARRAY_SIZE(sizes);
    uint64_t bytes = 0;
    unsigned i;

    if_set_mtu(b.x->ifname, 61000);
    for (i = 0; i < count; i++) {
        send_packet(b.x->outside, sizes[i % ARRAY_SIZE(sizes)], i);
        bytes += sizes[i % ARRAY_SIZE(sizes)];
    }
    for (i = 0; i < count; i++) {
        expect_frame(b.co, sizes[i % ARRAY_SIZE(sizes)], i, 0);
    }
    rig_wait_stat(b.r, "f0", "output.stats.packets", count);
    assert_stat(b.r, "f0", "input.stats.bytes", bytes);
    assert_stat(b.r, "f0", "output.stats.bytes", bytes);
    assert_stat(b.r, "f0", "output.stats.lost", 0);
    rig_free(b.r);
}

/*
 * QEMU stands still while packets come now and then.  The ring has room for
 * many more bytes; a little time passes between the packets, in which the
 * kernel closes the block that it is filling.
 */
static uint64_t send_to_standing(const Bench *b, unsigned count, unsigned us)
{
    unsigned i;

    kill(qtest_pid(b->r->qts), SIGSTOP);
    for (i = 0; i < count; i++) {
        send_packet(b->x->outside, 100, i);
        g_usleep(us);
    }
    kill(qtest_pid(b->r->qts), SIGCONT);
    return rig_stat(b->r, "f0", "input.stats.lost");
}

/* Fewer packets than one batch are in the ring: each is delivered once. */
static void test_ring_wrap(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                          "ring_size=524288");
    uint64_t lost = send_to_standing(&b, 10, 20000);

    expect_frames(b.co, 100, 0, 10 - lost);
    send_packet(b.x->outside, 100, 100);
    expect_frame(b.co, 100, 100, NO_VNET);
    assert_stat(b.r, "f0", "input.stats.packets", 11 - lost);
    rig_free(b.r);
}

/* As at the end of a migration: one second at 500 packets a second. */
static void test_standstill(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co");

    g_assert_cmpuint(send_to_standing(&b, 500, 2000), ==, 0);
    expect_frames(b.co, 100, 0, 500);
    rig_sync(b.r);
    expect_silence(b.co);
    assert_stat(b.r, "f0", "input.stats.packets", 500);
    rig_free(b.r);
}

/* A wire's own packets can't wait: what the queue has no room for is lost. */
static void test_slow_peer_chain(const void *unused)
{
    const unsigned count = 5000;
    Bench b = bench_start("id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co");
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    Flood *flood = flood_start(b.n->outside, 1000, count, false);
    uint64_t lost, i;
    int64_t last = -1;

    g_assert_cmpuint(flood_finish(flood), ==, count);
    rig_wait_stat(b.r, "f0", "chain-packets", count);
    rig_wait_state(b.r, "f0", "output", "stalled");
    g_assert_cmpint(rig_sync(b.r), <, G_USEC_PER_SEC);
    lost = rig_stat(b.r, "f0", "output.stats.lost");
    g_assert_cmpuint(lost, >, 0);
    g_assert_cmpuint(rig_stat(b.r, "f0", "output.stats.packets") + lost +
                     rig_stat(b.r, "f0", "output.stats.queued"), ==, count);
    for (i = 0; i < count - lost; i++) {
        packet_check(packet, recv_frame(b.co, packet, NO_VNET));
        g_assert_cmpint(packet_seq(packet), >, last);
        last = packet_seq(packet);
    }
    rig_wait_stat(b.r, "f0", "output.stats.packets", count - lost);
    assert_stat(b.r, "f0", "output.stats.lost", lost);
    rig_sync(b.r);
    expect_silence(b.co);
    rig_free(b.r);
}

/*
 * A TAP's own packets can: they stay in its queue while the output has no
 * room, here another TAP that nobody reads.
 */
static void test_slow_tap_chain(const void *unused)
{
    const unsigned count = 3000;
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_HELD | TAP_STUCK);
    Port *y = rig_tap(r, "y", TAP_GUEST);

    if_set_txqueuelen(x->ifname, 100);
    if_set_txqueuelen(y->ifname, count);
    rig_start(r);
    rig_add(r, "id=f0,netdev=y,queue=tx,out_netdev=x");
    tap_block(r, x);
    send_packets(y->outside, 1000, 0, count);
    rig_wait_state(r, "f0", "output", "stalled");
    g_assert_cmpint(rig_sync(r), <, G_USEC_PER_SEC);
    expect_tap_packets(x->tap, 1000, 0, count);
    rig_wait_stat(r, "f0", "output.stats.packets", count);
    assert_stat(r, "f0", "output.stats.lost", 0);
    expect_silence(y->inside);
    rig_free(r);
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    add_flow_cases();
    case_add("/filter-redirector/isolation", test_isolation, NULL);
    case_add("/filter-redirector/no-loop", test_no_loop, NULL);
    case_add("/filter-redirector/vlan/capture", test_vlan_capture, NULL);
    case_add("/filter-redirector/vlan/inject", test_vlan_inject, NULL);
    case_add("/filter-redirector/own-tap/capture", test_own_tap_capture, NULL);
    case_add("/filter-redirector/own-tap/inject", test_own_tap_inject, NULL);
    case_add("/filter-redirector/multi-queue", test_multi_queue, NULL);
    case_add("/filter-redirector/status/capture", test_status_capture, NULL);
    case_add("/filter-redirector/status/inject", test_status_inject, NULL);
    case_add("/filter-redirector/status/chain", test_status_chain, NULL);
    case_add("/filter-redirector/stop/capture", test_stop_capture, NULL);
    case_add("/filter-redirector/stop/capture-enabled",
             test_stop_capture_enabled, NULL);
    case_add("/filter-redirector/stop/inject", test_stop_inject,
             "id=f0,netdev=n,indev=ci,out_netdev=x");
    case_add("/filter-redirector/stop/inject-enabled", test_stop_inject,
             "id=f0,netdev=n,indev=ci,out_netdev=x,enable_when_stopped=on");
    case_add("/filter-redirector/hand-over/all", test_hand_over, NULL);
    case_add("/filter-redirector/hand-over/burst", test_hand_over_burst, NULL);
    case_add("/filter-redirector/hand-over/slow", test_hand_over_slow, NULL);
    case_add("/filter-redirector/hand-over/slow-running", test_hand_over_slow,
             "running");
    case_add("/filter-redirector/slow/tap", test_back_pressure, NULL);
    case_add("/filter-redirector/slow/tap-del", test_back_pressure_del, NULL);
    case_add("/filter-redirector/slow/tap-chain", test_slow_tap_chain, NULL);
    case_add("/filter-redirector/slow/peer", test_slow_peer, NULL);
    case_add("/filter-redirector/slow/peer-long", test_slow_peer, "long");
    case_add("/filter-redirector/slow/long-and-short", test_long_and_short,
             NULL);
    case_add("/filter-redirector/slow/ring-wrap", test_ring_wrap, NULL);
    case_add("/filter-redirector/slow/standstill", test_standstill, NULL);
    case_add("/filter-redirector/slow/peer-chain", test_slow_peer_chain, NULL);

    return g_test_run();
}
