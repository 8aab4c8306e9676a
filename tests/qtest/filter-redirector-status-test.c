/*
 * QTest of filter-redirector: its status, on and off, with every kind of end
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "filter-redirector-helpers.h"

/* Where packets come from and get to, see filter-redirector-helpers.h. */
typedef enum Place {
    NOWHERE,
    WIRE,       /* network of n */
    GUEST,      /* guest of n */
    HOST,       /* network of x */
    TAP,        /* guest of x */
    PEER,       /* the other side of the chardevs */
    PLACES,
} Place;

/* What a redirector does with the packets of one source. */
typedef struct Way {
    const char *name;
    const char *props;
    Place from;
    Place on;       /* where it brings them */
    Place off;      /* where they get to without it */
    Place always;   /* where they get to besides */
} Way;

/* A peer's packets wait with the peer while the redirector is off. */
static const Way ways[] = {
    { "chardev-chain-tx", "netdev=n,queue=tx,indev=ci", PEER, GUEST },
    { "chardev-chain-rx", "netdev=n,queue=rx,indev=ci", PEER, WIRE },
    { "chain-chardev-tx", "netdev=n,queue=tx,outdev=co", WIRE, PEER, GUEST },
    { "chain-chardev-rx", "netdev=n,queue=rx,outdev=co", GUEST, PEER, WIRE },
    { "two-chardevs-in", "netdev=n,queue=tx,indev=ci,outdev=co", PEER, GUEST },
    { "two-chardevs-out", "netdev=n,queue=tx,indev=ci,outdev=co", WIRE, PEER,
      GUEST },
    { "packet-chardev-tx", "netdev=n,queue=tx,in_netdev=x,outdev=co", HOST,
      PEER, .always = TAP },
    { "packet-chardev-rx", "netdev=n,queue=rx,in_netdev=x,outdev=co", TAP,
      PEER, .always = HOST },
    { "packet-chain", "netdev=n,queue=tx,in_netdev=x", HOST, GUEST,
      .always = TAP },
    { "chardev-packet", "netdev=n,indev=ci,out_netdev=x", PEER, TAP },
    { "chain-packet", "netdev=n,queue=tx,out_netdev=x", WIRE, TAP, GUEST },
    { "tap-chardev", "netdev=x,queue=tx,outdev=co,enable_when_stopped=on",
      HOST, PEER, TAP },
};

enum {
    SIZE = 200,
    COUNT = 5,
    ROUNDS = 3,
};

static int place_fd(const Bench *b, Place place)
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
        return b->co;
    default:
        g_assert_not_reached();
    }
}

static void way_send(const Bench *b, Place place, uint32_t first)
{
    if (place == PEER) {
        send_frames(b->ci, SIZE, first, COUNT);
    } else {
        send_packets(place_fd(b, place), SIZE, first, COUNT);
    }
}

static void way_expect(const Bench *b, Place place, uint32_t first)
{
    if (place == PEER) {
        expect_frames(b->co, SIZE, first, COUNT);
    } else if (place != NOWHERE) {
        expect_packets(place_fd(b, place), SIZE, first, COUNT);
    }
}

static void expect_nothing_more(const Bench *b)
{
    Place place;

    rig_sync(b->r);
    for (place = WIRE; place < PLACES; place++) {
        expect_silence(place_fd(b, place));
    }
}

static void check_off(const Bench *b, const Way *w, uint32_t first)
{
    way_send(b, w->from, first);
    way_expect(b, w->off, first);
    way_expect(b, w->always, first);
    expect_nothing_more(b);
}

static void check_on(const Bench *b, const Way *w, uint32_t first)
{
    way_send(b, w->from, first);
    way_expect(b, w->on, first);
    way_expect(b, w->always, first);
    expect_nothing_more(b);
}

/* From off to on, and off again. */
static void check_rounds(const Bench *b, const Way *w)
{
    uint32_t seq = 1000;
    unsigned i;

    for (i = 0; i < ROUNDS; i++, seq += 100) {
        check_off(b, w, seq);
        rig_set(b->r, "f0", "status", "on");
        if (w->from == PEER) {
            way_expect(b, w->on, seq);
        }
        /* A capture begins with the main loop's next turn. */
        rig_sync(b->r);
        check_on(b, w, seq + 50);
        rig_set(b->r, "f0", "status", "off");
        rig_sync(b->r);
    }
}

static Bench way_start(const Way *w, const char *status)
{
    g_autofree char *props = g_strdup_printf("id=f0,%s,status=%s", w->props,
                                             status);

    return bench_start(props);
}

static void test_created_off(const void *data)
{
    Bench b = way_start(data, "off");

    check_rounds(&b, data);
    rig_free(b.r);
}

static void test_turned_off(const void *data)
{
    Bench b = way_start(data, "on");

    check_on(&b, data, 0);
    rig_set(b.r, "f0", "status", "off");
    rig_sync(b.r);
    check_rounds(&b, data);
    rig_free(b.r);
}

/* What the peer sent while the redirector was off does not get lost with it. */
static void test_removed_off(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,indev=ci,status=off");

    send_frames(b.ci, SIZE, 0, COUNT);
    expect_nothing_more(&b);
    rig_del(b.r, "f0");
    rig_add(b.r, "id=f1,netdev=n,queue=tx,indev=ci");
    expect_packets(b.n->inside, SIZE, 0, COUNT);
    expect_nothing_more(&b);
    rig_free(b.r);
}

/* The hand-over of a guest that has left begins when the redirector is on. */
static void test_stopped(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=x,queue=tx,outdev=co,"
                          "enable_when_stopped=on,status=off");

    rig_migrate(b.r, "/dev/null");
    rig_wait_state(b.r, "f0", "input", "off");
    rig_set(b.r, "f0", "status", "on");
    rig_sync(b.r);
    send_packets(b.x->outside, SIZE, 0, COUNT);
    expect_frames(b.co, SIZE, 0, COUNT);
    expect_nothing_more(&b);
    rig_free(b.r);
}

int main(int argc, char **argv)
{
    unsigned i;

    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    for (i = 0; i < ARRAY_SIZE(ways); i++) {
        g_autofree char *created =
            g_strdup_printf("/filter-redirector/status/created-off/%s",
                            ways[i].name);
        g_autofree char *turned =
            g_strdup_printf("/filter-redirector/status/turned-off/%s",
                            ways[i].name);

        case_add(created, test_created_off, &ways[i]);
        case_add(turned, test_turned_off, &ways[i]);
    }
    case_add("/filter-redirector/status/removed-off", test_removed_off, NULL);
    case_add("/filter-redirector/status/stopped", test_stopped, NULL);

    return g_test_run();
}
