/*
 * filter-redirector: packet sockets on a TAP's interface
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "monitor/monitor.h"
#include "qemu/ctype.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "net/vhost_net.h"
#include "standard-headers/linux/virtio_net.h"
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

/*
 * A packet socket that the user names: the number of a descriptor that QEMU
 * inherited, a name (getfd) or a set of descriptors (add-fd).
 */
static int take_socket(NetClientState *nc, const char *name,
                       PacketInterface *iface, Error **errp)
{
    bool inherited = qemu_isdigit(name[0]);
    int fd = g_str_has_prefix(name, "/dev/fdset/")
             ? qemu_open(name, O_RDWR, errp)
             : monitor_fd_param(monitor_cur(), name, errp);

    if (fd >= 0 && !packet_socket_take(nc, fd, iface, errp)) {
        /* Of a wrong number nothing is known, not even that it's not QEMU's. */
        if (!inherited) {
            qemu_close(fd);
        }
        return -1;
    }
    return fd;
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
        fd = take_socket(nc, opt->fd, &end->iface, errp);
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

/*
 * What was captured may take as long as that to come to light once capturing
 * has ended, microseconds.
 */
#define DISCARD_US (2 * PACKET_CAPTURE_LATENCY_MS * 1000)

/* Most packets thrown away before the main loop gets its turn. */
#define DISCARD_BUDGET (64 * REDIRECTOR_BATCH)

typedef struct PacketSource {
    RedirectorSource parent;
    PacketEnd end;
    PacketCapture *capture;     /* NULL: gone */
    SwitchoverGate gate;        /* as of the last update */
    bool capturing;             /* the kernel puts packets into the ring */
    bool switch_failed;         /* and that was reported */
    bool polled;
    bool discarding;            /* all that is in the ring */
    int64_t discard_until;      /* microseconds, or until the ring is empty */
    QEMUTimer *retry_switch;
    QEMUTimer *discarded;
} PacketSource;

#define PACKET_SOURCE(s) container_of(s, PacketSource, parent)

static void source_switch(PacketSource *s)
{
    RedirectorOwner *owner = s->parent.owner;
    /* What is thrown away must not get mixed with what comes next. */
    bool on = s->parent.on && s->parent.gate != SWITCHOVER_SHUT &&
              !s->discarding;
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

/* While nobody takes packets, they collect in the ring. */
static void source_poll(PacketSource *s)
{
    bool on = !s->parent.blocked && s->parent.gate != SWITCHOVER_KEEP;

    if (on != s->polled) {
        s->polled = on;
        qemu_set_fd_handler(packet_capture_fd(s->capture),
                            on ? source_readable : NULL, NULL, s);
    }
}

static void source_discard(PacketSource *s)
{
    PacketFrame frames[REDIRECTOR_BATCH];
    unsigned n, total = 0;
    int64_t now;

    do {
        n = packet_capture_read(s->capture, frames, REDIRECTOR_BATCH);
        packet_capture_release(s->capture, n);
        s->parent.stats.discarded += n;
        total += n;
    } while (n && total < DISCARD_BUDGET);

    now = qemu_clock_get_us(QEMU_CLOCK_REALTIME);
    if (n) {
        timer_mod(s->discarded, now);
    } else if (now < s->discard_until) {
        timer_mod(s->discarded, s->discard_until);
    } else {
        s->discarding = false;
        source_switch(s);
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
    if (before == SWITCHOVER_KEEP && s->gate == SWITCHOVER_SHUT) {
        s->discarding = true;
        s->discard_until = qemu_clock_get_us(QEMU_CLOCK_REALTIME) + DISCARD_US;
        timer_mod(s->discarded, s->discard_until);
    }
    source_switch(s);
    source_poll(s);
}

static void source_retry_switch(void *opaque)
{
    PacketSource *s = opaque;

    source_switch(s);
}

static void source_discarded(void *opaque)
{
    source_discard(opaque);
}

static void source_close(PacketSource *s)
{
    if (s->capture) {
        timer_del(s->retry_switch);
        timer_del(s->discarded);
        qemu_set_fd_handler(packet_capture_fd(s->capture), NULL, NULL, NULL);
        packet_capture_losses(s->capture, &s->parent.stats.lost,
                              &s->parent.stats.errors);
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
    if (s->discarding) {
        source_discard(s);
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
    EndState state = s->capture && s->end.nc
                     ? end_state(packet_capture_state(s->capture, NULL))
                     : END_STATE(GONE);

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
        packet_capture_losses(s->capture, &end->stats->lost,
                              &end->stats->errors);
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
    timer_free(s->discarded);
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

RedirectorSource *redirector_packet_source(RedirectorOwner *owner,
                                           const RedirectorPacketOptions *opt,
                                           Error **errp)
{
    ERRP_GUARD();
    PacketSource *s = g_new0(PacketSource, 1);
    int fd = end_open(&s->end, "in_netdev", opt, errp);

    s->parent.ops = &packet_source_ops;
    s->parent.owner = owner;
    s->parent.role = SWITCHOVER_CAPTURE;
    if (fd >= 0) {
        s->capture = packet_capture_new(fd, &s->end.iface,
                                        owner->nf->direction, opt->ring_size,
                                        errp);
        if (!s->capture) {
            error_prepend(errp, "in_netdev '%s': ", opt->netdev);
        }
    }
    if (!s->capture) {
        source_free(&s->parent);
        return NULL;
    }
    s->retry_switch = timer_new_us(QEMU_CLOCK_REALTIME, source_retry_switch,
                                   s);
    s->discarded = timer_new_us(QEMU_CLOCK_REALTIME, source_discarded, s);
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

/*
 * The kernel says ENOBUFS for a full queue, and for a super-packet to a TAP
 * whose offloads are off, for ever.  If the queue is empty it isn't full.
 */
static bool must_be_cut(PacketSink *s, const PacketFrame *f)
{
    return f->hdr_len &&
           f->hdr[offsetof(struct virtio_net_hdr, gso_type)] !=
           VIRTIO_NET_HDR_GSO_NONE &&
           s->end.nc && !packet_interface_backlogged(s->end.nc);
}

/* Return: true if the packet has been dealt with, false to try it again */
static bool sink_failed(PacketSink *s, PacketFrame *f, int err)
{
    if (err == -ENOBUFS && must_be_cut(s, f)) {
        err = redirector_finish(&s->parent, f, packet_stream_room(&s->cut),
                                cut_take);
        if (err > 0) {
            return true;
        }
        err = err ?: -EMSGSIZE;
    }
    switch (err) {
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
    if (end->iface.macvtap) {
        error_setg(errp, "out_netdev '%s': interface '%s' is a macvtap: "
                   "injected packets would go to the network, not to the "
                   "guest", opt->netdev, end->iface.name);
        qemu_close(fd);
        return NULL;
    }
    inject = packet_inject_new(fd, &end->iface, errp);
    if (!inject) {
        error_prepend(errp, "out_netdev '%s': ", opt->netdev);
    }
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
