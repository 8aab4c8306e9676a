/*
 * filter-redirector: packets from a capture
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
#include "system/runstate.h"
#include "filter-redirector-packet.h"
#include "trace.h"

/* How long until switching the capture is tried again, microseconds. */
#define RETRY_SWITCH_US (100 * 1000)

typedef struct PacketSource {
    RedirectorSource parent;
    RedirectorPacketEnd end;
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
        state = ret == -EINPROGRESS ? END_STATE(HELD)
                                    : redirector_packet_state(ret);
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
    redirector_packet_describe(&s->end, ifname, end);
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
    fd = redirector_packet_open(&s->end, "in_netdev", opt, errp);
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
