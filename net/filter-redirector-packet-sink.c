/*
 * filter-redirector: packets that are injected
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "net/packet-stream.h"
#include "net/vhost_net.h"
#include "filter-redirector-packet.h"
#include "trace.h"

/* Bytes of the queue for segments: takes some of the longest packets. */
#define QUEUE_SIZE (512 * KiB)

/*
 * When to try again, microseconds.  The part of a TAP's queue that injection
 * may fill is empty soon if somebody reads it; else it is asked less often.
 */
#define RETRY_DOWN_US (100 * 1000)
#define RETRY_FULL_US 1000
#define RETRY_SOON_US 50
#define RETRIES_SOON 20

typedef struct PacketSink {
    RedirectorSink parent;
    RedirectorPacketEnd end;
    PacketInject *inject;       /* NULL: gone */
    PacketStream cut;           /* segments of a super-packet */
    bool waiting;               /* for the retry timer */
    unsigned retries;           /* since the TAP last took something */
    QEMUTimer *retry;
} PacketSink;

#define PACKET_SINK(s) container_of(s, PacketSink, parent)

static void sink_end(PacketSink *s)
{
    packet_inject_free(s->inject);
    s->inject = NULL;
}

static void sink_close(PacketSink *s)
{
    sink_end(s);
    s->parent.stats.lost += s->cut.packets;
    packet_stream_destroy(&s->cut);
}

/*
 * QEMU does not read the TAP of a stopped vhost guest, so that packets can
 * wait in its queue; from another TAP it takes one that it may not be able to
 * keep.
 */
static bool sink_allowed(PacketSink *s)
{
    return s->parent.gate == SWITCHOVER_OPEN &&
           s->end.nc && (s->parent.live || get_vhost_net(s->end.nc));
}

static bool sink_ready(PacketSink *s)
{
    return s->inject && sink_allowed(s) && !s->waiting;
}

static bool sink_connected(RedirectorSink *parent)
{
    return PACKET_SINK(parent)->inject;
}

static bool sink_room(RedirectorSink *parent)
{
    PacketSink *s = PACKET_SINK(parent);

    return sink_ready(s) && !s->cut.packets;
}

static void sink_wait(PacketSink *s, int us)
{
    redirector_sink_stall(&s->parent);
    s->waiting = true;
    timer_mod(s->retry, qemu_clock_get_us(QEMU_CLOCK_REALTIME) + us);
}

static void sink_retry(void *opaque)
{
    PacketSink *s = opaque;

    s->waiting = false;
    s->parent.owner->run(s->parent.owner);
}

static void cut_take(RedirectorSink *parent, PacketFrame *f)
{
    packet_stream_put(&PACKET_SINK(parent)->cut, NULL, 0, f->iov, f->iovcnt);
}

/* Return: true if the packet has been dealt with, false to try it again */
static bool sink_failed(PacketSink *s, PacketFrame *f, int err)
{
    if (err == -EOPNOTSUPP) {
        err = redirector_finish(&s->parent, f, packet_stream_room(&s->cut),
                                cut_take);
        if (err > 0) {
            return true;
        }
        err = err ?: -EMSGSIZE;
    }
    switch (err) {
    case -EAGAIN:
    case -ENOBUFS:
        sink_wait(s, s->retries++ < RETRIES_SOON ? RETRY_SOON_US
                                                 : RETRY_FULL_US);
        return false;
    case -ENETDOWN:
        sink_wait(s, RETRY_DOWN_US);
        return false;
    case -ENODEV:
        sink_end(s);    /* the queue ends once nobody is at work on it */
        return false;
    default:
        redirector_sink_refuse(&s->parent, err, f->len);
        return true;
    }
}

/* Sends packets as far as there is room. Return: how many are dealt with. */
static unsigned sink_send(PacketSink *s, PacketFrame *frames, unsigned n)
{
    unsigned i = 0, sent, cut = s->cut.packets;
    int err = 0;

    /* Once a super-packet has been cut, its segments go first. */
    while (i < n && sink_ready(s) && s->cut.packets <= cut) {
        sent = packet_inject_send(s->inject, &frames[i], n - i, &err);
        if (sent) {
            s->retries = 0;
        }
        while (sent--) {
            redirector_sink_count(&s->parent, frames[i++].len);
        }
        if (err && !sink_failed(s, &frames[i], err)) {
            break;
        }
        i += !!err;
    }
    return i;
}

/* Sends segments, which go before all else. */
static void sink_flush(RedirectorSink *parent, unsigned budget)
{
    PacketSink *s = PACKET_SINK(parent);
    PacketFrame frames[REDIRECTOR_BATCH];
    unsigned n, done;

    do {
        n = packet_stream_peek(&s->cut, 0, frames, MIN(budget,
                                                       REDIRECTOR_BATCH));
        done = n ? sink_send(s, frames, n) : 0;
        packet_stream_drop(&s->cut, done);
        budget -= done;
    } while (n && done == n);
    if (!s->inject || !s->end.nc) {
        sink_close(s);
    } else if (s->cut.packets && sink_ready(s)) {
        parent->owner->run_later(parent->owner);
    }
}

static unsigned sink_put(RedirectorSink *parent, PacketFrame *frames,
                         unsigned n)
{
    return sink_room(parent) ? sink_send(PACKET_SINK(parent), frames, n) : 0;
}

static EndState sink_state(RedirectorSink *parent)
{
    PacketSink *s = PACKET_SINK(parent);
    EndState state = s->inject && s->end.nc
                     ? redirector_packet_state(packet_inject_state(s->inject,
                                                                   NULL))
                     : END_STATE(GONE);

    return state == END_STATE(GONE) ? state :
           !sink_allowed(s) ? END_STATE(HELD) :
           state != END_STATE(ACTIVE) ? state :
           sink_room(parent) ? END_STATE(ACTIVE) : END_STATE(STALLED);
}

static void sink_describe(RedirectorSink *parent,
                          FilterRedirectorEndpoint *end)
{
    PacketSink *s = PACKET_SINK(parent);
    char ifname[sizeof_field(PacketInterface, name)];

    pstrcpy(ifname, sizeof(ifname), s->end.iface.name);
    if (s->inject) {
        packet_inject_state(s->inject, ifname);
    }
    redirector_packet_describe(&s->end, ifname, end);
    end->stats->queued = s->cut.packets;
}

static void sink_netdev_removed(RedirectorSink *parent, NetClientState *nc)
{
    PacketSink *s = PACKET_SINK(parent);

    if (nc == s->end.nc) {
        s->end.nc = NULL;   /* closed once nobody sends */
        if (s->inject) {
            packet_inject_set_netdev(s->inject, NULL);
        }
    }
}

static void sink_free(RedirectorSink *parent)
{
    PacketSink *s = PACKET_SINK(parent);

    sink_close(s);
    timer_free(s->retry);
    g_free(s->end.netdev);
    g_free(s);
}

static const RedirectorSinkOps packet_sink_ops = {
    .type = FILTER_REDIRECTOR_ENDPOINT_TYPE_PACKET_SOCKET,
    .connected = sink_connected,
    .room = sink_room,
    .put = sink_put,
    .flush = sink_flush,
    .state = sink_state,
    .describe = sink_describe,
    .netdev_removed = sink_netdev_removed,
    .free = sink_free,
};

static PacketInject *sink_open(RedirectorPacketEnd *end,
                               const RedirectorPacketOptions *opt,
                               Error **errp)
{
    ERRP_GUARD();
    int fd = redirector_packet_open(end, "out_netdev", opt, errp);
    PacketInject *inject;

    if (fd < 0) {
        return NULL;
    }
    inject = packet_inject_new(fd, &end->iface, errp);
    if (!inject) {
        error_prepend(errp, "out_netdev '%s': ", opt->netdev);
        return NULL;
    }
    packet_inject_set_netdev(inject, end->nc);
    return inject;
}

RedirectorSink *redirector_packet_sink(RedirectorOwner *owner,
                                       const RedirectorPacketOptions *opt,
                                       Error **errp)
{
    PacketSink *s = g_new0(PacketSink, 1);

    s->parent.ops = &packet_sink_ops;
    s->parent.owner = owner;
    s->parent.role = SWITCHOVER_INJECT;
    s->inject = sink_open(&s->end, opt, errp);
    if (!s->inject) {
        sink_free(&s->parent);
        return NULL;
    }
    s->retry = timer_new_us(QEMU_CLOCK_REALTIME, sink_retry, s);
    packet_stream_init(&s->cut, QUEUE_SIZE, false);
    return &s->parent;
}
