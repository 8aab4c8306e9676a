/*
 * filter-redirector with netdev endpoints: inputs
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "filter-redirector-int.h"
#include "trace.h"

/* Packet socket */

/* Most packets thrown away before the main loop gets its turn. */
#define SKIP_BUDGET (64 * REDIRECTOR_BATCH)

static bool capture_wanted(Redirector *r)
{
    return r->nf->on && (redirector_vm_runs() || r->enable_when_stopped);
}

static void capture_enable(Redirector *r)
{
    bool on = capture_wanted(r);
    int ret;

    if (!r->capture || on == r->capturing) {
        return;
    }
    ret = packet_capture_enable(r->capture, on);
    trace_redirector_capture_enable(r->id, on, ret);
    if (ret < 0) {
        if (!r->capture_failed) {
            error_report("filter-redirector '%s': cannot %s capturing on "
                         "interface '%s' for now: %s", r->id,
                         on ? "start" : "pause", r->in.iface.name,
                         strerror(-ret));
        }
        r->capture_failed = true;
        redirector_retry_in(r, REDIRECTOR_RETRY_DOWN_US);
        return;
    }
    r->capture_failed = false;
    r->capturing = on;
}

/* A pending error of the socket would keep waking the main loop. */
static void capture_readable(void *opaque)
{
    Redirector *r = opaque;
    uint64_t packets = r->in_stats.packets;
    Object *obj = OBJECT(r->nf);

    object_ref(obj);
    redirector_move(r);
    if (r->capture && r->in_stats.packets == packets && !r->in_stalled) {
        packet_capture_state(r->capture, NULL);
    }
    object_unref(obj);
}

/* While the sender does not take packets, they collect in the ring. */
static void capture_poll(Redirector *r)
{
    bool on = !redirector_undecided(r) && !r->in_stalled;

    if (r->capture && on != r->capture_polled) {
        r->capture_polled = on;
        qemu_set_fd_handler(packet_capture_fd(r->capture),
                            on ? capture_readable : NULL, NULL, r);
    }
}

/* Throws packets away from the time that a failed migration took. */
static void capture_skip(Redirector *r)
{
    PacketFrame frame;
    unsigned i;

    for (i = 0; i < SKIP_BUDGET && r->skip_to; i++) {
        if (!packet_capture_read(r->capture, &frame, 1) ||
            frame.time_ns < r->skip_from) {
            return;
        }
        if (frame.time_ns >= r->skip_to) {
            r->skip_from = r->skip_to = 0;
            return;
        }
        packet_capture_release(r->capture, 1);
        r->in_stats.discarded++;
    }
}

static unsigned capture_read(Redirector *r, PacketFrame *frames, unsigned max)
{
    unsigned i, n;

    if (!r->capture || redirector_undecided(r)) {
        return 0;
    }
    capture_skip(r);
    n = packet_capture_read(r->capture, frames, max);
    for (i = 0; r->skip_to && i < n; i++) {
        if (frames[i].time_ns >= r->skip_from) {
            return i;
        }
    }
    return n;
}

static void capture_close(Redirector *r)
{
    if (r->capture) {
        qemu_set_fd_handler(packet_capture_fd(r->capture), NULL, NULL, NULL);
        packet_capture_losses(r->capture, &r->in_stats.lost,
                              &r->in_stats.errors);
        packet_capture_free(r->capture);
        r->capture = NULL;
    }
}

void redirector_in_undecided(Redirector *r)
{
    if (!r->capture) {
        return;
    }
    if (!r->skip_to) {
        r->skip_from = qemu_clock_get_ns(QEMU_CLOCK_HOST);
    }
    r->skip_to = INT64_MAX;
}

void redirector_in_decided(Redirector *r, bool deliver)
{
    if (deliver) {
        r->skip_from = r->skip_to = 0;
    } else if (r->skip_to == INT64_MAX) {
        r->skip_to = qemu_clock_get_ns(QEMU_CLOCK_HOST);
    }
}

/* Chardev */

static int chardev_can_read(void *opaque)
{
    Redirector *r = opaque;
    size_t room = packet_stream_room(&r->rx);

    r->rx_refused = !r->nf->on || r->rx_damaged || !room;
    return r->rx_refused ? 0 : room;
}

static void chardev_read(void *opaque, const uint8_t *buf, int size)
{
    Redirector *r = opaque;

    if (packet_stream_add(&r->rx, buf, size) < 0) {
        r->in_stats.errors++;
        r->rx_damaged = true;
        trace_redirector_damaged(r->id);
    }
    /* Later: several small reads make one batch. */
    qemu_bh_schedule(r->bh);
}

static void chardev_event(void *opaque, QEMUChrEvent event)
{
    Redirector *r = opaque;

    if (event == CHR_EVENT_CLOSED && packet_stream_trim(&r->rx)) {
        r->in_stats.errors++;
    }
    if (event == CHR_EVENT_CLOSED || event == CHR_EVENT_OPENED) {
        r->rx_damaged = false;
    }
}

static void chardev_accept(Redirector *r)
{
    if (r->rx_damaged) {
        qemu_chr_fe_disconnect(&r->chr_in);
    } else if (r->rx_refused && r->nf->on && packet_stream_room(&r->rx)) {
        r->rx_refused = false;
        qemu_chr_fe_accept_input(&r->chr_in);
    }
}

/* Either */

unsigned redirector_in_read(Redirector *r, PacketFrame *frames, unsigned max)
{
    switch (r->in_type) {
    case END_CHARDEV:
        return r->nf->on ? packet_stream_peek(&r->rx, redirector_hdr_len(r),
                                              frames, max) : 0;
    case END_PACKET:
        return capture_read(r, frames, max);
    default:
        return 0;
    }
}

void redirector_in_release(Redirector *r, const PacketFrame *frames,
                           unsigned n)
{
    unsigned i;

    r->in_stats.packets += n;
    for (i = 0; i < n; i++) {
        r->in_stats.bytes += frames[i].len;
    }
    if (r->in_type == END_CHARDEV) {
        packet_stream_drop(&r->rx, n);
    } else {
        packet_capture_release(r->capture, n);
    }
}

void redirector_in_update(Redirector *r)
{
    if (r->in_type == END_CHARDEV) {
        chardev_accept(r);
    } else if (r->in_type == END_PACKET) {
        capture_enable(r);
        capture_poll(r);
    }
}

void redirector_in_start(Redirector *r)
{
    if (r->in_type == END_CHARDEV) {
        qemu_chr_fe_set_handlers(&r->chr_in, chardev_can_read, chardev_read,
                                 chardev_event, NULL, r, NULL, true);
    }
    redirector_in_update(r);
}

void redirector_in_close(Redirector *r)
{
    qemu_chr_fe_deinit(&r->chr_in, false);
    packet_stream_destroy(&r->rx);
    capture_close(r);
}

/* The netdev's filter chain */

/* Does a packet that the chain brings now belong to the output? */
static bool chain_taken(Redirector *r)
{
    if (!r->chain_in ||
        !(redirector_vm_runs() || redirector_hands_over_now(r))) {
        return false;
    }
    return r->out_type == END_CHARDEV ? qemu_chr_fe_backend_open(&r->chr_out)
                                      : r->inject != NULL;
}

ssize_t redirector_receive_iov(Redirector *r, NetClientState *sender,
                               unsigned flags, const struct iovec *iov,
                               int iovcnt)
{
    size_t size = iov_size(iov, iovcnt);
    size_t hdr_len = flags & QEMU_NET_PACKET_FLAG_RAW ? 0
                                                      : redirector_hdr_len(r);
    g_autofree uint8_t *copy = NULL;
    uint8_t *data = iov[0].iov_base;
    PacketFrame f;

    if (!size || !chain_taken(r)) {
        return 0;
    }
    if (r->in_type == END_CHAIN) {
        r->in_stats.packets++;
        r->in_stats.bytes += size - MIN(size, hdr_len);
    } else {
        r->chain_packets++;
    }
    if (size <= hdr_len || size > PACKET_LEN_MAX - VNET_HDR_LEN_MAX) {
        redirector_refuse(r, -EMSGSIZE, size);
        return size;
    }
    if (iovcnt > 1) {
        data = copy = g_malloc(size);
        iov_to_buf(iov, iovcnt, 0, copy, size);
    }
    memcpy(f.hdr, data, hdr_len);
    f.hdr_len = hdr_len;
    f.len = size - hdr_len;
    f.iov[0] = (struct iovec) { data + hdr_len, f.len };
    f.iovcnt = 1;
    f.dir = sender == r->nf->netdev ? NET_FILTER_DIRECTION_TX
                                    : NET_FILTER_DIRECTION_RX;

    if (r->pending.packets || !redirector_put(r, r->out_type, &f, 1)) {
        redirector_queue(r, &f);
    }
    /* A batch of packets becomes one write. */
    qemu_bh_schedule(r->bh);
    return size;
}

NetFilterIntake redirector_wanted_intake(Redirector *r)
{
    bool room;

    if (!r->nf || !r->nf->on || !r->chain_in) {
        return NET_FILTER_INTAKE_DEFAULT;
    }
    if (redirector_vm_runs()) {
        room = r->out_type == END_CHARDEV
               ? redirector_has_room(r, END_CHARDEV)
               : !r->cut.packets && !r->pending.packets;
        return room || !chain_taken(r) ? NET_FILTER_INTAKE_DEFAULT
                                       : NET_FILTER_INTAKE_HOLD;
    }
    if (!redirector_hands_over(r)) {
        return NET_FILTER_INTAKE_DEFAULT;
    }
    return redirector_hands_over_now(r) && redirector_has_room(r, END_CHARDEV)
           ? NET_FILTER_INTAKE_TAKE : NET_FILTER_INTAKE_HOLD;
}

NetFilterIntake redirector_intake(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));

    /*
     * Kept as the netdev's word, too: it may have stopped reading because of
     * an answer that has become out of date before anybody looked.
     */
    r->intake = redirector_wanted_intake(r);
    return r->intake;
}
