/*
 * filter-redirector: packet sockets on a TAP's interface
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "net/vhost_net.h"
#include "system/runstate.h"
#include "filter-redirector-end.h"
#include "net/packet-stream.h"
#include "trace.h"

/* Either end's netdev and its interface. */
typedef struct PacketEnd {
    NetClientState *nc;         /* NULL: removed */
    char *netdev;               /* its id */
    PacketInterface iface;
} PacketEnd;

static NetClientState *find_tap(const char *property, const char *id,
                                Error **errp)
{
    NetClientState *nc = qemu_find_netdev(id);

    if (!nc) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND,
                  "%s '%s': there is no netdev of this id", property, id);
        return NULL;
    }
    if (nc->info->type != NET_CLIENT_DRIVER_TAP) {
        error_setg(errp, "%s '%s' is a netdev of type '%s': only a TAP has an "
                   "interface for a packet socket", property, id,
                   NetClientDriver_str(nc->info->type));
        return NULL;
    }
    return nc;
}

/* Return: a packet socket on the interface of the netdev, or -1 */
static int end_open(PacketEnd *end, const char *property,
                    const RedirectorPacketOptions *opt, Error **errp)
{
    ERRP_GUARD();
    NetClientState *nc = find_tap(property, opt->netdev, errp);
    int fd;

    if (!nc) {
        return -1;
    }
    if (opt->fd) {
        fd = packet_socket_get(nc, opt->fd, &end->iface, errp);
        if (fd < 0) {
            error_prepend(errp, "%s_fd '%s': ", property, opt->fd);
        }
    } else {
        fd = packet_socket_open(nc, &end->iface, errp);
        if (fd < 0) {
            error_prepend(errp, "%s '%s': ", property, opt->netdev);
        }
    }
    if (fd >= 0) {
        end->nc = nc;
        end->netdev = g_strdup(opt->netdev);
    }
    return fd;
}

static void end_describe(PacketEnd *end, const char *ifname,
                         FilterRedirectorEndpoint *info)
{
    info->name = g_strdup(end->netdev);
    info->ifname = g_strdup(ifname);
    info->has_ifindex = true;
    info->ifindex = end->iface.ifindex;
    info->has_netns = end->iface.netns != 0;
    info->netns = end->iface.netns;
}

/* The interface's state as an end's. */
static EndState end_state(int ret)
{
    return ret == -ENODEV ? END_STATE(GONE) :
           ret ? END_STATE(DOWN) : END_STATE(ACTIVE);
}

/* Source */

/* How long until switching the capture is tried again, microseconds. */
#define RETRY_SWITCH_US (100 * 1000)

typedef struct PacketSource {
    RedirectorSource parent;
    PacketEnd end;
    PacketCapture *capture;     /* NULL: gone */
    SwitchoverGate gate;        /* as of the last update */
    bool capturing;             /* the kernel puts packets into the ring */
    bool switch_failed;         /* and that was reported */
    bool polled;
    PacketFilter *filter;
    QEMUTimer *retry_switch;
    QEMUTimer *keep;
} PacketSource;

#define PACKET_SOURCE(s) container_of(s, PacketSource, parent)

static void source_switch(PacketSource *s)
{
    RedirectorOwner *owner = s->parent.owner;
    bool on = s->parent.on && s->parent.gate != SWITCHOVER_SHUT;
    int ret;

    if (on == s->capturing) {
        return;
    }
    ret = packet_capture_enable(s->capture, on);
    trace_redirector_capture_enable(owner->id, on, ret);
    if (ret < 0) {
        if (!s->switch_failed) {
            error_report("filter-redirector '%s': cannot %s capturing on "
                         "interface '%s' for now: %s", owner->id,
                         on ? "start" : "pause", s->end.iface.name,
                         strerror(-ret));
        }
        s->switch_failed = true;
        timer_mod(s->retry_switch,
                  qemu_clock_get_us(QEMU_CLOCK_REALTIME) + RETRY_SWITCH_US);
        return;
    }
    s->switch_failed = false;
    s->capturing = on;
}

/* A pending error of the socket would keep waking the main loop. */
static void source_readable(void *opaque)
{
    PacketSource *s = opaque;
    PacketFrame frame;

    if (packet_capture_read(s->capture, &frame, 1)) {
        s->parent.owner->run(s->parent.owner);
    } else {
        packet_capture_state(s->capture, NULL);
    }
}

/* The ring's time is limited: what has to wait is moved out of it. */
static void source_keep(void *opaque)
{
    PacketSource *s = opaque;

    packet_capture_keep(s->capture);
    timer_mod(s->keep, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                       packet_capture_keep_ms(s->capture));
}

/* While nobody takes packets, they collect in the ring. */
static void source_poll(PacketSource *s)
{
    bool on = !s->parent.blocked && s->parent.gate != SWITCHOVER_KEEP;

    if (on != s->polled) {
        s->polled = on;
        qemu_set_fd_handler(packet_capture_fd(s->capture),
                            on ? source_readable : NULL, NULL, s);
    }
    if (on) {
        timer_del(s->keep);
    } else if (!timer_pending(s->keep)) {
        source_keep(s);
    }
}

static void source_update(RedirectorSource *parent)
{
    PacketSource *s = PACKET_SOURCE(parent);
    SwitchoverGate before = s->gate;

    if (!s->capture) {
        return;
    }
    s->gate = parent->gate;
    source_switch(s);
    if (before == SWITCHOVER_KEEP && s->gate == SWITCHOVER_SHUT) {
        packet_capture_discard(s->capture);
    }
    source_poll(s);
}

static void source_retry_switch(void *opaque)
{
    PacketSource *s = opaque;

    source_switch(s);
}

/* What the capture counts itself. */
static void source_count(PacketSource *s)
{
    FilterRedirectorStats *stats = &s->parent.stats;

    packet_capture_losses(s->capture, &stats->lost, &stats->errors);
    stats->discarded = packet_capture_discarded(s->capture);
}

static void source_close(PacketSource *s)
{
    if (s->capture) {
        timer_del(s->retry_switch);
        timer_del(s->keep);
        qemu_set_fd_handler(packet_capture_fd(s->capture), NULL, NULL, NULL);
        source_count(s);
        packet_capture_free(s->capture);
        s->capture = NULL;
    }
}

static unsigned source_read(RedirectorSource *parent, PacketFrame *frames,
                            unsigned max)
{
    PacketSource *s = PACKET_SOURCE(parent);

    if (!s->end.nc) {
        source_close(s);
    }
    if (!s->capture || parent->gate == SWITCHOVER_KEEP) {
        return 0;
    }
    return packet_capture_read(s->capture, frames, max);
}

static void source_release(RedirectorSource *parent,
                           const PacketFrame *frames, unsigned n)
{
    redirector_source_count(parent, frames, n);
    if (n) {
        packet_capture_release(PACKET_SOURCE(parent)->capture, n);
    }
}

static EndState source_state(RedirectorSource *parent)
{
    PacketSource *s = PACKET_SOURCE(parent);
    EndState state = END_STATE(GONE);
    int ret;

    if (s->capture && s->end.nc) {
        ret = packet_capture_state(s->capture, NULL);
        /* While a large ring is being made nothing is captured, either. */
        state = ret == -EINPROGRESS ? END_STATE(HELD) : end_state(ret);
    }
    return state == END_STATE(ACTIVE) && !s->capturing ? END_STATE(HELD)
                                                       : state;
}

static void source_describe(RedirectorSource *parent,
                            FilterRedirectorEndpoint *end)
{
    PacketSource *s = PACKET_SOURCE(parent);
    char ifname[sizeof_field(PacketInterface, name)];

    pstrcpy(ifname, sizeof(ifname), s->end.iface.name);
    if (s->capture) {
        source_count(s);
        end->stats->lost = s->parent.stats.lost;
        end->stats->errors = s->parent.stats.errors;
        end->stats->discarded = s->parent.stats.discarded;
        packet_capture_state(s->capture, ifname);
    }
    end_describe(&s->end, ifname, end);
}

static void source_netdev_removed(RedirectorSource *parent, NetClientState *nc)
{
    PacketSource *s = PACKET_SOURCE(parent);

    if (nc == s->end.nc) {
        s->end.nc = NULL;   /* closed once nobody reads */
    }
}

static void source_free(RedirectorSource *parent)
{
    PacketSource *s = PACKET_SOURCE(parent);

    source_close(s);
    timer_free(s->retry_switch);
    timer_free(s->keep);
    g_free(s->filter);
    g_free(s->end.netdev);
    g_free(s);
}

static const RedirectorSourceOps packet_source_ops = {
    .type = FILTER_REDIRECTOR_ENDPOINT_TYPE_PACKET_SOCKET,
    .read = source_read,
    .release = source_release,
    .update = source_update,
    .state = source_state,
    .describe = source_describe,
    .netdev_removed = source_netdev_removed,
    .free = source_free,
};

/* A large ring has been made, or not. */
static void source_ready(void *opaque, Error *err)
{
    PacketSource *s = opaque;

    if (err) {
        error_reportf_err(err, "filter-redirector '%s': in_netdev '%s': ",
                          s->parent.owner->id, s->end.netdev);
        source_close(s);
    }
    s->parent.owner->run_later(s->parent.owner);
}

static PacketCapture *source_open(PacketSource *s,
                                  const RedirectorPacketOptions *opt,
                                  Error **errp)
{
    ERRP_GUARD();
    PacketCaptureOptions options = {
        .dir = s->parent.owner->nf->direction,
        .ring_size = opt->ring_size,
        .snaplen = opt->snaplen,
        /* Else nobody is kept waiting, and errors are told at once. */
        .ready = runstate_is_running() ? source_ready : NULL,
        .opaque = s,
    };
    PacketCapture *capture;
    int fd;

    if (opt->filter) {
        options.filter = s->filter = packet_filter_parse(opt->filter, errp);
        if (!s->filter) {
            return NULL;
        }
    }
    fd = end_open(&s->end, "in_netdev", opt, errp);
    if (fd < 0) {
        return NULL;
    }
    capture = packet_capture_open(fd, &s->end.iface, &options, errp);
    if (!capture) {
        error_prepend(errp, "in_netdev '%s': ", opt->netdev);
    }
    return capture;
}

RedirectorSource *redirector_packet_source(RedirectorOwner *owner,
                                           const RedirectorPacketOptions *opt,
                                           Error **errp)
{
    PacketSource *s = g_new0(PacketSource, 1);

    s->parent.ops = &packet_source_ops;
    s->parent.owner = owner;
    s->parent.role = SWITCHOVER_CAPTURE;
    s->capture = source_open(s, opt, errp);
    if (!s->capture) {
        source_free(&s->parent);
        return NULL;
    }
    s->retry_switch = timer_new_us(QEMU_CLOCK_REALTIME, source_retry_switch,
                                   s);
    s->keep = timer_new_ms(QEMU_CLOCK_REALTIME, source_keep, s);
    return &s->parent;
}

/* Sink */

/* Bytes of the queue for segments: takes some of the longest packets. */
#define QUEUE_SIZE (512 * KiB)

/* When to try again, microseconds. */
#define RETRY_DOWN_US (100 * 1000)
#define RETRY_FULL_US 1000

/*
 * A TAP's queue of default length is empty again after as little as that; a
 * TAP that nobody reads is asked less and less often.
 */
#define RETRY_MIN_US 125

typedef struct PacketSink {
    RedirectorSink parent;
    PacketEnd end;
    PacketInject *inject;       /* NULL: gone */
    PacketStream cut;           /* segments of a super-packet */
    bool waiting;               /* for the retry timer */
    int retry_us;               /* how long to wait if the TAP is full */
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
        sink_wait(s, s->retry_us);
        s->retry_us = MIN(2 * s->retry_us, RETRY_FULL_US);
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
            s->retry_us = RETRY_MIN_US;
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
                     ? end_state(packet_inject_state(s->inject, NULL))
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
    end_describe(&s->end, ifname, end);
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

static PacketInject *sink_open(PacketEnd *end,
                               const RedirectorPacketOptions *opt,
                               Error **errp)
{
    ERRP_GUARD();
    int fd = end_open(end, "out_netdev", opt, errp);
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
    s->retry_us = RETRY_MIN_US;
    s->retry = timer_new_us(QEMU_CLOCK_REALTIME, sink_retry, s);
    packet_stream_init(&s->cut, QUEUE_SIZE, false);
    return &s->parent;
}
