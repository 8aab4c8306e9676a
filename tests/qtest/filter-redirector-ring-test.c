/*
 * QTest of filter-redirector's netdev endpoints: captures of a part, captures
 * that have to wait, and a TAP that does not take what is injected
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include "qemu/bswap.h"
#include "filter-redirector-helpers.h"

#define TAP_HDR_LEN 10  /* what a packet read from a TAP stands behind */

/*
 * TAP x, which nobody but the test reads, and wire n.
 */
typedef struct Stage {
    Rig *r;
    Port *x;
    int ci;
    int co;
} Stage;

static void stage_start(Stage *s, const char *props)
{
    *s = (Stage) { .r = rig_new() };
    rig_wire(s->r, "n");
    s->x = rig_tap(s->r, "x", TAP_HELD | TAP_STUCK);
    s->ci = rig_chardev(s->r, "ci");
    s->co = rig_chardev(s->r, "co");
    rig_start(s->r);
    send_packet(s->x->outside, 100, 0);
    rig_wait_tx_packets(s->r, s->x, 1);
    rig_add(s->r, props);
}

static void expect_at_tap(const Stage *s, const uint8_t *packet, size_t size)
{
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    size_t len = read_raw(s->x->tap, got);

    g_assert_cmpuint(len, >, TAP_HDR_LEN);
    g_assert_cmpmem(got + TAP_HDR_LEN, len - TAP_HDR_LEN, packet, size);
}

/*
 * A part of each packet, or some packets only
 */

static void test_snaplen(const void *unused)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    Stage s;

    stage_start(&s, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                "snaplen=64");
    packet_fill(packet, 1000, 1);
    send_raw(s.x->outside, packet, 1000);
    g_assert_cmpmem(got, recv_frame(s.co, got, NO_VNET), packet, 64);
    packet_fill(packet, 60, 2);
    send_raw(s.x->outside, packet, 60);
    g_assert_cmpmem(got, recv_frame(s.co, got, NO_VNET), packet, 60);
    assert_stat(s.r, "f0", "input.stats.packets", 2);
    assert_stat(s.r, "f0", "input.stats.bytes", 124);
    assert_stat(s.r, "f0", "input.stats.errors", 0);
    rig_free(s.r);
}

/* Packets of at least 100 bytes, by a program: ld #len; jge #100 ... */
static void test_filter(const void *unused)
{
    unsigned i;
    Stage s;

    stage_start(&s, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                "filter=4\n128 0 0 0\n53 0 1 100\n6 0 0 262144\n6 0 0 0");
    for (i = 0; i < 10; i++) {
        send_packet(s.x->outside, i % 2 ? 100 : 60, i);
    }
    for (i = 1; i < 10; i += 2) {
        expect_frame(s.co, 100, i, NO_VNET);
    }
    expect_silence(s.co);
    assert_stat(s.r, "f0", "input.stats.packets", 5);
    assert_stat(s.r, "f0", "input.stats.lost", 0);
    assert_stat(s.r, "f0", "input.stats.errors", 0);
    rig_free(s.r);
}

static const char *const bad_filters[][2] = {
    { "2\n6 0 0 0", "filter: has 1 instructions, but says 2" },
    { "2\n5 0 0 1\n6 0 0 0",
      "filter: instruction 1 jumps out of the program" },
    { "2\n65535 0 0 0\n6 0 0 0",
      "in_netdev 'x': filter: cannot set the packet socket's filter: "
      "Invalid argument" },
};

static void test_bad_filter(const void *unused)
{
    unsigned i;
    Stage s;

    stage_start(&s, "id=f1,netdev=n,indev=ci,out_netdev=x");
    for (i = 0; i < ARRAY_SIZE(bad_filters); i++) {
        g_autofree char *props =
            g_strconcat("id=f0,netdev=n,in_netdev=x,outdev=co,filter=",
                        bad_filters[i][0], NULL);
        g_autofree char *want = g_strconcat("filter-redirector 'f0': ",
                                            bad_filters[i][1], NULL);
        QDict *error = rig_add_error(s.r, props);

        g_assert_cmpstr(qdict_get_str(error, "desc"), ==, want);
        qobject_unref(error);
    }
    rig_free(s.r);
}

/*
 * A ring of 2 MiB lasts 256 ms, however few packets there are; what has to wait
 * longer is not lost because of that.
 */

#define SLOW_PACKETS 60
#define SLOW_US (10 * 1000)

static void send_slowly(const Stage *s)
{
    unsigned i;

    for (i = 0; i < SLOW_PACKETS; i++) {
        send_packet(s->x->outside, 60, i);
        g_usleep(SLOW_US);
    }
}

/* The machine is stopped, and it may be that the guest has left. */
static void test_stopped(const void *unused)
{
    Stage s;

    stage_start(&s, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                "ring_size=2097152,enable_when_stopped=on");
    rig_stop(s.r);
    send_slowly(&s);
    expect_silence(s.co);
    rig_cont(s.r);
    expect_frames(s.co, 60, 0, SLOW_PACKETS);
    assert_stat(s.r, "f0", "input.stats.lost", 0);
    assert_stat(s.r, "f0", "input.stats.discarded", 0);
    rig_free(s.r);
}

/* ... and it has not: what came since then is thrown away, and nothing else. */
static void test_discarded(const void *unused)
{
    Stage s;

    stage_start(&s, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                "ring_size=2097152,enable_when_stopped=on,"
                "enable_when_running=off");
    rig_stop(s.r);
    send_slowly(&s);
    rig_cont(s.r);
    send_packet(s.x->outside, 60, 1000);
    expect_silence(s.co);
    rig_wait_stat(s.r, "f0", "input.stats.discarded", SLOW_PACKETS);
    assert_stat(s.r, "f0", "input.stats.lost", 0);
    assert_stat(s.r, "f0", "input.stats.packets", 0);
    rig_free(s.r);
}

/* The peer does not read: its socket and the queue are full of long packets. */
static void test_blocked(const void *unused)
{
    const unsigned many = 600;
    unsigned i;
    Stage s;

    stage_start(&s, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                "ring_size=524288");
    if_set_mtu(s.x->ifname, 65521);
    for (i = 0; i < many; i++) {
        send_packet(s.x->outside, 60000, i);
        if (i % 4 == 3) {
            rig_sync(s.r);
        }
    }
    rig_wait_state(s.r, "f0", "input", "stalled");
    i = rig_stat(s.r, "f0", "input.stats.lost");
    send_slowly(&s);
    g_assert_cmpuint(rig_stat(s.r, "f0", "input.stats.lost"), <=,
                     i + SLOW_PACKETS);
    rig_free(s.r);
}

/*
 * A large ring is made while the machine runs on
 */
static void test_large(const void *unused)
{
    int64_t begin, took;
    Stage s;

    stage_start(&s, "id=f1,netdev=n,queue=rx,in_netdev=x,outdev=ci");
    begin = g_get_monotonic_time();
    rig_add(s.r, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
            "ring_size=536870912");
    took = g_get_monotonic_time() - begin;
    rig_wait_state(s.r, "f0", "input", "active");
    g_test_message("object-add: %" PRId64 " us; ready after %" PRId64, took,
                   g_get_monotonic_time() - begin);
    send_packet(s.x->outside, 60, 1);
    expect_frame(s.co, 60, 1, NO_VNET);
    rig_del(s.r, "f0");
    rig_add(s.r, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
            "ring_size=536870912");
    rig_del(s.r, "f0");
    rig_sync(s.r);
    rig_free(s.r);
}

/*
 * Injection
 */

#define INJECT "id=f0,netdev=n,indev=ci,out_netdev=x"

static void test_tags(const void *unused)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    unsigned i;
    Stage s;

    stage_start(&s, INJECT);
    for (i = 0; i < 4; i++) {
        packet_fill(packet, 1522, i);
        stw_be_p(packet + 12, i & 1 ? ETH_P_8021AD : ETH_P_8021Q);
        stw_be_p(packet + 16, ETH_P_8021Q);
        send_frame_raw(s.ci, packet, 1522, NO_VNET);
        expect_at_tap(&s, packet, 1522);
    }
    /* One byte more than the MTU. */
    send_frame_raw(s.ci, packet, 1523, NO_VNET);
    rig_wait_stat(s.r, "f0", "output.stats.errors", 1);
    send_frame(s.ci, 60, 1, NO_VNET);
    packet_fill(packet, 60, 1);
    expect_at_tap(&s, packet, 60);
    rig_free(s.r);
}

/* The TAP is full of nobody's packets but the network's. */
static void test_short_queue(const void *unused)
{
    const unsigned queue = 200, direct = queue / 2;
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    unsigned i;
    Stage s;

    stage_start(&s, INJECT);
    if_set_txqueuelen(s.x->ifname, queue);
    qobject_unref(rig_info(s.r, "f0"));
    send_frames(s.ci, 60, 0, 2 * queue);
    rig_wait_state(s.r, "f0", "output", "stalled");
    rig_sync(s.r);
    /* A quarter of the queue, and what QEMU tries in a while. */
    g_assert_cmpuint(rig_stat(s.r, "f0", "output.stats.packets"), <,
                     queue / 2);
    send_packets(s.x->outside, 100, 0, direct);
    for (i = 0; i < 2 * queue + direct; i++) {
        read_raw(s.x->tap, got);
    }
    rig_wait_stat(s.r, "f0", "output.stats.packets", 2 * queue);
    assert_stat(s.r, "f0", "output.stats.errors", 0);
    assert_stat(s.r, "f0", "output.stats.lost", 0);
    rig_free(s.r);
}

/* A filter of the TAP drops the long packets. */
static void test_never_taken(const void *unused)
{
    struct sock_filter insns[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 200, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog prog = { ARRAY_SIZE(insns), insns };
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    unsigned i;
    Stage s;

    stage_start(&s, INJECT);
    g_assert_cmpint(ioctl(s.x->tap, TUNATTACHFILTER, &prog), ==, 0);
    for (i = 1; i <= 3; i++) {
        send_frame(s.ci, 300, i, NO_VNET);
        send_frame(s.ci, 60, i, NO_VNET);
        packet_fill(packet, 60, i);
        expect_at_tap(&s, packet, 60);
        rig_wait_stat(s.r, "f0", "output.stats.errors", i);
    }
    assert_stat(s.r, "f0", "output.stats.lost", 0);
    rig_free(s.r);
}

static void test_carrier(const void *unused)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    int off = 0, on = 1;
    Stage s;

    stage_start(&s, INJECT);
    if (ioctl(s.x->tap, TUNSETCARRIER, &off) < 0) {
        g_test_skip("the kernel has no TUNSETCARRIER");
    } else {
        rig_wait_state(s.r, "f0", "output", "down");
        send_frame(s.ci, 60, 1, NO_VNET);
        rig_wait_stat(s.r, "f0", "input.stats.packets", 0);
        g_assert_cmpint(ioctl(s.x->tap, TUNSETCARRIER, &on), ==, 0);
        packet_fill(packet, 60, 1);
        expect_at_tap(&s, packet, 60);
        assert_stat(s.r, "f0", "output.stats.errors", 0);
        rig_wait_state(s.r, "f0", "output", "active");
    }
    rig_free(s.r);
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    case_add("/filter-redirector/part/snaplen", test_snaplen, NULL);
    case_add("/filter-redirector/part/filter", test_filter, NULL);
    case_add("/filter-redirector/part/bad", test_bad_filter, NULL);
    case_add("/filter-redirector/wait/stopped", test_stopped, NULL);
    case_add("/filter-redirector/wait/discarded", test_discarded, NULL);
    case_add("/filter-redirector/wait/blocked", test_blocked, NULL);
    case_add("/filter-redirector/ring/large", test_large, NULL);
    case_add("/filter-redirector/tap/tags", test_tags, NULL);
    case_add("/filter-redirector/tap/short-queue", test_short_queue, NULL);
    case_add("/filter-redirector/tap/never-taken", test_never_taken, NULL);
    case_add("/filter-redirector/tap/carrier", test_carrier, NULL);
    return g_test_run();
}
