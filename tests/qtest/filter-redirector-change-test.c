/*
 * QTest of filter-redirector's netdev endpoints: the interface changes while
 * packets flow
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/socket.h>
#include "qemu/cutils.h"
#include "filter-redirector-helpers.h"

/*
 * Packets of one size come from the chardev and are injected into x; others
 * come from x's network and are captured.
 */
#define INJECTED 300
#define CAPTURED 200

/* What a packet that is read from the TAP itself stands behind. */
#define TAP_HDR_LEN 10

/* Reads packets, and makes sure that none comes late or twice. */
typedef struct Reader {
    GThread *thread;
    int fd;
    bool stream;            /* a stream; else a TAP */
    int stop;
    int injected;           /* how many have come; atomic */
    int captured;
    int64_t last_injected;  /* their numbers */
    int64_t last_captured;
} Reader;

static void reader_take(Reader *r, const uint8_t *packet, size_t size)
{
    int64_t *last = size == INJECTED ? &r->last_injected : &r->last_captured;

    g_assert_true(size == INJECTED || size == CAPTURED);
    packet_check(packet, size);
    g_assert_cmpint(packet_seq(packet), >, *last);
    *last = packet_seq(packet);
    g_atomic_int_inc(size == INJECTED ? &r->injected : &r->captured);
}

/* A TAP without an interface has nothing to read, but says so all the time. */
static void reader_read(Reader *r, uint8_t *buf)
{
    ssize_t size;

    if (r->stream) {
        reader_take(r, buf, recv_frame(r->fd, buf, NO_VNET));
        return;
    }
    size = read(r->fd, buf, PACKET_MAX);
    if (size > 0) {
        g_assert_cmpint(size, >, TAP_HDR_LEN);
        reader_take(r, buf + TAP_HDR_LEN, size - TAP_HDR_LEN);
    } else {
        g_usleep(1000);
    }
}

static void *reader_run(void *opaque)
{
    Reader *r = opaque;
    struct pollfd p = { .fd = r->fd, .events = POLLIN };
    g_autofree uint8_t *buf = g_malloc(PACKET_MAX);

    while (!g_atomic_int_get(&r->stop)) {
        if (poll(&p, 1, 10) == 1) {
            reader_read(r, buf);
        }
    }
    return NULL;
}

static Reader *reader_start(int fd, bool stream)
{
    Reader *r = g_new0(Reader, 1);

    r->fd = fd;
    r->stream = stream;
    r->last_injected = r->last_captured = -1;
    r->thread = g_thread_new("reader", reader_run, r);
    return r;
}

static void reader_stop(Reader *r)
{
    g_atomic_int_set(&r->stop, 1);
    g_thread_join(r->thread);
    g_free(r);
}

/*
 * f0 captures from x, f1 injects into x
 */

typedef struct Life {
    Rig *r;
    Port *x;
    int ci;
    int co;
    Flood *to_x;
    Flood *to_ci;
    Reader *guest;
    Reader *peer;
} Life;

#define F0 "id=f0,netdev=n,queue=tx,in_netdev=x,outdev="
#define F1 "id=f1,netdev=n,out_netdev=x,indev="

/* Packets pass, both ways. */
static void life_go_on(Life *l)
{
    const int injected = g_atomic_int_get(&l->guest->injected) + 200;
    const int captured = g_atomic_int_get(&l->peer->captured) + 200;
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;

    while ((g_atomic_int_get(&l->guest->injected) < injected ||
            g_atomic_int_get(&l->peer->captured) < captured) &&
           g_get_monotonic_time() < end) {
        g_usleep(1000);
    }
    if (g_get_monotonic_time() >= end) {
        g_autofree char *info = qtest_hmp(l->r->qts, "info filter-redirectors");

        fprintf(stderr, "# packets stand still:\n%s", info);
    }
    g_assert_cmpint(g_atomic_int_get(&l->guest->injected), >=, injected);
    g_assert_cmpint(g_atomic_int_get(&l->peer->captured), >=, captured);
}

static void life_new(Life *l)
{
    *l = (Life) { .r = rig_new() };
    rig_wire(l->r, "n");
    l->x = rig_tap(l->r, "x", TAP_HELD | TAP_STUCK);
    l->ci = rig_chardev(l->r, "ci");
    l->co = rig_chardev(l->r, "co");
}

static void life_start(Life *l)
{
    rig_start(l->r);
    /* QEMU takes one packet for a guest that takes none, and reads no more. */
    send_packet(l->x->outside, 100, 0);
    rig_wait_tx_packets(l->r, l->x, 1);
    rig_add(l->r, F0 "co");
    rig_add(l->r, F1 "ci");
    l->guest = reader_start(l->x->tap, false);
    l->peer = reader_start(l->co, true);
    l->to_x = flood_start(l->x->outside, CAPTURED, NO_LIMIT, false);
    l->to_ci = flood_start(l->ci, INJECTED, NO_LIMIT, true);
    life_go_on(l);
}

/* Stops what flows, and the readers once it has come to its end. */
static void life_stop(Life *l, bool complete)
{
    uint32_t injected;
    int got;

    flood_stop(l->to_x);
    injected = flood_stop(l->to_ci);
    if (complete) {
        rig_wait_stat(l->r, "f1", "input.stats.packets", injected);
        rig_wait_stat(l->r, "f1", "output.stats.packets",
                      injected - rig_stat(l->r, "f1", "output.stats.errors"));
        got = rig_stat(l->r, "f1", "output.stats.packets");
        while (g_atomic_int_get(&l->guest->injected) < got) {
            rig_sync(l->r);
        }
    }
    reader_stop(l->guest);
    reader_stop(l->peer);
}

/*
 * Changes that do no harm: what is injected arrives, all of it
 */

static void change_down_up(Life *l, unsigned i)
{
    if_set_up(l->x->ifname, false);
    rig_wait_state(l->r, "f0", "input", "down");
    rig_wait_state(l->r, "f1", "output", "down");
    if_set_up(l->x->ifname, true);
}

static void change_name(Life *l, unsigned i)
{
    const char *name = i % 2 ? "tap-x" : "tap-renamed";

    if_rename(l->x->ifname, name);
    pstrcpy(l->x->ifname, sizeof(l->x->ifname), name);
}

/* While packets are too long for it they are counted, and don't wait. */
static void change_mtu(Life *l, unsigned i)
{
    uint64_t errors = rig_stat(l->r, "f1", "output.stats.errors");

    if_set_mtu(l->x->ifname, INJECTED - 100);
    rig_wait_stat_min(l->r, "f1", "output.stats.errors", errors + 100);
    if_set_mtu(l->x->ifname, i % 2 ? 1500 : 9000);
}

static void change_queue_longer(Life *l, unsigned i)
{
    if_set_txqueuelen(l->x->ifname, 1000 << i);
}

/* The kernel drops what a shorter queue has no place for. */
static void change_queue_any(Life *l, unsigned i)
{
    static const int lens[] = { 1, 1000, 2, 0 };

    if_set_txqueuelen(l->x->ifname, lens[i % ARRAY_SIZE(lens)]);
    if (!lens[i % ARRAY_SIZE(lens)]) {
        rig_wait_state(l->r, "f1", "output", "stalled");
        if_set_txqueuelen(l->x->ifname, 500);
    }
}

typedef struct Change {
    const char *name;
    void (*change)(Life *l, unsigned i);
    bool lossy;
} Change;

static const Change changes[] = {
    { "down-up", change_down_up },
    { "renamed", change_name },
    { "mtu", change_mtu },
    { "txqueuelen/longer", change_queue_longer },
    { "txqueuelen/any", change_queue_any, .lossy = true },
};

static void test_change(const void *data)
{
    const Change *c = data;
    unsigned i;
    Life l;

    life_new(&l);
    life_start(&l);
    for (i = 0; i < 6; i++) {
        c->change(&l, i);
        rig_wait_state(l.r, "f0", "input", "active");
        life_go_on(&l);
    }
    life_stop(&l, !c->lossy);
    assert_stat(l.r, "f1", "output.stats.lost", 0);
    if (c->lossy) {
        /* A TAP without a queue takes nothing: one packet may be given up. */
        g_assert_cmpuint(rig_stat(l.r, "f1", "output.stats.errors"), <, 6);
    } else if (c->change != change_mtu) {
        assert_stat(l.r, "f1", "output.stats.errors", 0);
    }
    assert_stat(l.r, "f0", "input.stats.errors", 0);
    rig_free(l.r);
}

/*
 * The interface goes away
 */

static void expect_gone(Life *l)
{
    rig_wait_state(l->r, "f0", "input", "gone");
    rig_wait_state(l->r, "f1", "output", "gone");
    g_assert_cmpint(rig_sync(l->r), <, G_USEC_PER_SEC);
}

static void test_removed(const void *unused)
{
    Life l;

    life_new(&l);
    life_start(&l);
    if_delete(l.x->ifname);
    expect_gone(&l);
    life_stop(&l, false);
    expect_gone(&l);
    rig_del(l.r, "f0");
    rig_del(l.r, "f1");
    rig_free(l.r);
}

/* What the floods left. */
static void read_all(Life *l)
{
    struct pollfd p = { .fd = l->x->tap, .events = POLLIN };
    g_autofree uint8_t *buf = g_malloc(PACKET_MAX);

    while (poll(&p, 1, 0) == 1) {
        read_raw(l->x->tap, buf);
    }
}

static void expect_tap_packet(Life *l, size_t size, uint32_t seq)
{
    g_autofree uint8_t *buf = g_malloc(PACKET_MAX);

    g_assert_cmpuint(read_raw(l->x->tap, buf), ==, TAP_HDR_LEN + size);
    g_assert_cmpuint(packet_seq(buf + TAP_HDR_LEN), ==, seq);
    packet_check(buf + TAP_HDR_LEN, size);
}

/*
 * The ends don't follow into another namespace.  Once it is back, with the
 * same name and index, new ends work.
 */
static void test_moved(const void *unused)
{
    const int own = netns_open(false), other = netns_open(true);
    int outside, co2, ci2;
    Life l;

    life_new(&l);
    co2 = rig_chardev(l.r, "co2");
    ci2 = rig_chardev(l.r, "ci2");
    life_start(&l);
    if_move(l.x->ifname, -1, other);
    expect_gone(&l);
    if_move(l.x->ifname, other, own);
    if_set_up(l.x->ifname, true);
    expect_gone(&l);
    life_stop(&l, false);
    expect_gone(&l);

    rig_del(l.r, "f0");
    rig_del(l.r, "f1");
    rig_add(l.r, F0 "co2");
    rig_add(l.r, F1 "ci2");
    outside = if_open(l.x->ifname);
    read_all(&l);
    send_packet(outside, 100, 0);
    expect_frame(co2, 100, 0, NO_VNET);
    expect_tap_packet(&l, 100, 0);
    send_frame(ci2, 100, 1, NO_VNET);
    expect_tap_packet(&l, 100, 1);
    close(outside);
    close(own);
    close(other);
    rig_free(l.r);
}

int main(int argc, char **argv)
{
    unsigned i;

    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    for (i = 0; i < ARRAY_SIZE(changes); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/change/%s", changes[i].name);

        case_add(path, test_change, &changes[i]);
    }
    case_add("/filter-redirector/change/removed", test_removed, NULL);
    case_add("/filter-redirector/change/moved", test_moved, NULL);
    return g_test_run();
}
