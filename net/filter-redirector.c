/*
 * Netdev endpoints of filter-redirector
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-filter-redirector.h"
#include "qapi/visitor.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/notify.h"
#include "qemu/timer.h"
#include "qom/object_interfaces.h"
#include "chardev/char-fe.h"
#include "migration/misc.h"
#include "net/filter-redirector.h"
#include "net/packet-socket.h"
#include "net/packet-stream.h"
#include "net/vhost_net.h"
#include "standard-headers/linux/virtio_net.h"
#include "system/runstate.h"
#include "trace.h"

/* Bytes of each queue: takes some of the longest packets, or many short. */
#define QUEUE_SIZE (512 * KiB)

/* Packets handled at once. */
#define BATCH PACKET_INJECT_BATCH

/* Packets moved before the main loop gets its turn. */
#define BUDGET (4 * BATCH)

/* When to try again if nobody tells that there is room: ms. */
#define RETRY_FULL_MS 1
#define RETRY_DOWN_MS 100

typedef FilterRedirectorEndpointType EndType;
typedef FilterRedirectorEndpointState EndState;
typedef FilterRedirectorStats EndStats;

/* A packet endpoint's netdev and interface. */
typedef struct PacketEnd {
    NetClientState *nc;         /* NULL: none, or removed */
    PacketInterface iface;
} PacketEnd;

struct Redirector {
    /* properties */
    char *in_netdev;
    char *out_netdev;
    bool enable_when_stopped;
    bool ring_size_given;
    uint64_t ring_size;

    NetFilterState *nf;         /* NULL until set-up */
    EndType in_type;
    EndType out_type;
    EndType sink;               /* where the input's packets go */
    bool chain_in;              /* the chain's packets go to the output */
    char *in_name;
    char *out_name;
    EndStats in_stats;
    EndStats out_stats;
    uint64_t chain_packets;

    /* input: packet socket */
    PacketEnd in;
    PacketCapture *capture;
    bool capturing;             /* the kernel puts packets into the ring */
    bool capture_polled;
    int64_t skip_from;          /* packets of this time are not delivered; */
    int64_t skip_to;            /* host clock, ns; INT64_MAX: undecided */

    /* input: chardev */
    CharFrontend chr_in;
    PacketStream rx;
    bool rx_damaged;            /* waits for the connection to be closed */
    bool rx_refused;            /* the chardev was told not to read */

    /* output: packet socket */
    PacketEnd out;
    PacketInject *inject;
    bool waiting;               /* for the retry timer */
    QEMUTimer *retry;
    PacketStream cut;           /* segments of a super-packet */
    PacketStream pending;       /* packets of the chain */

    /* output: chardev */
    CharFrontend chr_out;
    PacketStream tx;
    size_t tx_sent;             /* bytes of the first frame already written */
    guint tx_watch;

    bool handed_over;           /* the migration is past the point of return */
    bool moving;                /* redirector_move() is at work */
    uint8_t *scratch;           /* PACKET_LEN_MAX bytes */
    QEMUBH *bh;
    VMChangeStateEntry *vm_change;
    NotifierWithReturn migration;
    Notifier netdev_removed;
};

static void redirector_update(Redirector *r);
static void redirector_move(Redirector *r);

static const char *redirector_id(NetFilterState *nf)
{
    return object_get_canonical_path_component(OBJECT(nf)) ?: "";
}

static size_t chain_hdr_len(Redirector *r)
{
    return r->nf->netdev->vnet_hdr_len;
}

/* What the virtual machine's state allows */

/* Until this point a failed migration lets the source go on. */
static bool migration_undecided(Redirector *r)
{
    return runstate_check(RUN_STATE_FINISH_MIGRATE) && !r->handed_over;
}

/* Is it this redirector that takes the packets of a stopped machine's TAP? */
static bool hands_over(Redirector *r)
{
    return r->enable_when_stopped && r->chain_in && !r->in_netdev &&
           r->out_type == FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV &&
           r->nf->direction != NET_FILTER_DIRECTION_RX;
}

/*
 * A machine that waits for its state to arrive has not stopped: what reaches
 * its TAP is for its own guest.
 */
static bool hands_over_now(Redirector *r)
{
    return hands_over(r) && !runstate_is_running() &&
           !runstate_check(RUN_STATE_INMIGRATE) && !migration_undecided(r);
}

static bool wants_capture(Redirector *r)
{
    return r->nf->on && (runstate_is_running() || r->enable_when_stopped);
}

/*
 * A copy of the netdev's own traffic goes through the chain for the filters'
 * sake only: its guest, or the network, gets the original.
 */
static bool input_is_copy(Redirector *r)
{
    return r->in.nc && r->in.nc == r->nf->netdev;
}

/* Output: the netdev's filter chain */

static bool chain_has_room(Redirector *r)
{
    NetClientState *nc = r->nf->netdev;

    if (input_is_copy(r)) {
        return true;
    }
    if (!runstate_is_running()) {
        return false;
    }
    if (r->nf->direction != NET_FILTER_DIRECTION_RX && nc->peer &&
        !qemu_netfilter_vhost_running(nc) && !qemu_can_send_packet(nc)) {
        return false;
    }
    return r->nf->direction == NET_FILTER_DIRECTION_TX || !nc->peer ||
           qemu_can_send_packet(nc->peer);
}

static void chain_pass(Redirector *r, PacketFrame *f, NetFilterDirection dir,
                       uint8_t *hdr, size_t hdr_len)
{
    NetClientState *nc = r->nf->netdev;
    struct iovec iov[1 + VNET_VLAN_IOV_MAX];
    unsigned flags = input_is_copy(r) ? QEMU_NET_PACKET_FLAG_COPY
                                      : QEMU_NET_PACKET_FLAG_NONE;

    iov[0] = (struct iovec) { hdr, hdr_len };
    memcpy(&iov[1], f->iov, f->iovcnt * sizeof(f->iov[0]));
    qemu_netfilter_pass_to_next(dir == NET_FILTER_DIRECTION_TX ? nc : nc->peer,
                                flags, hdr_len ? iov : iov + 1,
                                f->iovcnt + !!hdr_len, r->nf);
}

typedef struct FinishContext {
    Redirector *r;
    NetFilterDirection dir;
    void (*take)(Redirector *r, PacketFrame *f, NetFilterDirection dir);
    size_t bytes;               /* of the stream that the packets would make */
} FinishContext;

static void finish_measure(void *opaque, const struct iovec *iov, int iovcnt)
{
    FinishContext *ctx = opaque;

    ctx->bytes += 8 + iov_size(iov, iovcnt);
}

static void finish_take(void *opaque, const struct iovec *iov, int iovcnt)
{
    FinishContext *ctx = opaque;
    PacketFrame f = {
        .iovcnt = iovcnt,
        .len = iov_size(iov, iovcnt),
        .dir = ctx->dir,
    };

    memcpy(f.iov, iov, iovcnt * sizeof(iov[0]));
    ctx->take(ctx->r, &f, ctx->dir);
}

/* The packet in one piece. */
static const uint8_t *frame_linear(Redirector *r, const PacketFrame *f)
{
    if (f->iovcnt == 1) {
        return f->iov[0].iov_base;
    }
    iov_to_buf(f->iov, f->iovcnt, 0, r->scratch, f->len);
    return r->scratch;
}

/*
 * Makes packets that need no vnet header out of one that does: fills in its
 * checksum, or cuts a super-packet, if @room is enough for what comes out.
 * Return: 1 if done, 0 if there is no room, -EINVAL if the header is wrong.
 */
static int frame_finish(Redirector *r, const PacketFrame *f, size_t room,
                        FinishContext *ctx)
{
    const uint8_t *pkt = frame_linear(r, f);

    ctx->r = r;
    ctx->bytes = 0;
    if (vnet_hdr_finish(f->hdr, f->hdr_len, pkt, f->len, finish_measure,
                        ctx) < 0) {
        return -EINVAL;
    }
    if (ctx->bytes > room) {
        return 0;
    }
    vnet_hdr_finish(f->hdr, f->hdr_len, pkt, f->len, finish_take, ctx);
    return 1;
}

static void count_out(Redirector *r, size_t bytes)
{
    r->out_stats.packets++;
    r->out_stats.bytes += bytes;
}

static void count_refused(Redirector *r, int err, size_t len)
{
    r->out_stats.errors++;
    trace_redirector_refused(redirector_id(r->nf), len, err);
}

static void chain_take(Redirector *r, PacketFrame *f, NetFilterDirection dir)
{
    size_t hdr_len = chain_hdr_len(r);
    uint8_t hdr[VNET_HDR_LEN_MAX];

    vnet_hdr_convert(hdr, hdr_len, f->hdr, f->hdr_len);
    chain_pass(r, f, dir, hdr, hdr_len);
    count_out(r, f->len);
}

static void chain_take_directed(Redirector *r, PacketFrame *f,
                                NetFilterDirection dir)
{
    FinishContext ctx = { .dir = dir, .take = chain_take };
    int ret;

    if (chain_hdr_len(r) || !vnet_hdr_needed(f->hdr, f->hdr_len)) {
        chain_take(r, f, dir);
        return;
    }
    ret = frame_finish(r, f, SIZE_MAX, &ctx);
    if (ret < 0) {
        count_refused(r, ret, f->len);
    }
}

static bool chain_has_receiver(Redirector *r)
{
    return r->nf->netdev->peer;
}

static unsigned chain_put(Redirector *r, PacketFrame *frames, unsigned n)
{
    NetFilterDirection dir = r->nf->direction;
    unsigned i;

    for (i = 0; i < n && chain_has_room(r); i++) {
        PacketFrame *f = &frames[i];

        if (!f->len) {
            count_refused(r, -EINVAL, 0);
        } else if (!chain_has_receiver(r)) {
            r->out_stats.lost++;
        } else if (r->capture) {
            chain_take_directed(r, f, f->dir);
        } else {
            if (dir != NET_FILTER_DIRECTION_RX) {
                chain_take_directed(r, f, NET_FILTER_DIRECTION_TX);
            }
            if (dir != NET_FILTER_DIRECTION_TX) {
                chain_take_directed(r, f, NET_FILTER_DIRECTION_RX);
            }
        }
    }
    return i;
}

/* Output: chardev */

static void chardev_stop_watching(Redirector *r)
{
    if (r->tx_watch) {
        g_source_remove(r->tx_watch);
        r->tx_watch = 0;
    }
}

static void wait_retry(Redirector *r, int ms)
{
    r->waiting = true;
    timer_mod(r->retry, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ms);
}

static gboolean chardev_writable(void *unused, GIOCondition cond, void *opaque)
{
    Redirector *r = opaque;

    r->tx_watch = 0;
    redirector_move(r);
    return G_SOURCE_REMOVE;
}

static void chardev_sent(Redirector *r, size_t bytes)
{
    size_t frame, len;

    r->tx_sent += bytes;
    while (r->tx.packets &&
           r->tx_sent >= (frame = packet_stream_front(&r->tx, &len))) {
        count_out(r, len - MIN(len, chain_hdr_len(r)));
        packet_stream_drop(&r->tx, 1);
        r->tx_sent -= frame;
    }
}

/* Writes what the peer takes now, and has the rest called for. */
static void chardev_flush(Redirector *r)
{
    const uint8_t *data;
    size_t len;
    int ret;

    if (r->tx_watch || !r->tx.packets ||
        !qemu_chr_fe_backend_open(&r->chr_out)) {
        return;
    }
    data = packet_stream_data(&r->tx, &len);
    len -= r->tx_sent;
    ret = qemu_chr_fe_write(&r->chr_out, data + r->tx_sent, len);
    trace_redirector_chardev_write(redirector_id(r->nf), len, ret);
    if (ret > 0) {
        chardev_sent(r, ret);
    }
    if (ret < (int)len && qemu_chr_fe_backend_open(&r->chr_out)) {
        r->out_stats.stalls++;
        r->tx_watch = qemu_chr_fe_add_watch(&r->chr_out, G_IO_OUT | G_IO_HUP,
                                            chardev_writable, r);
        if (!r->tx_watch) {
            wait_retry(r, RETRY_FULL_MS);
        }
    }
}

static bool chardev_has_room(Redirector *r)
{
    return qemu_chr_fe_backend_open(&r->chr_out) &&
           packet_stream_room(&r->tx) >= PACKET_STREAM_FRAME_MAX;
}

static void chardev_take(Redirector *r, PacketFrame *f, NetFilterDirection dir)
{
    size_t hdr_len = chain_hdr_len(r);
    uint8_t hdr[VNET_HDR_LEN_MAX];

    vnet_hdr_convert(hdr, hdr_len, f->hdr, f->hdr_len);
    packet_stream_put(&r->tx, hdr, hdr_len, f->iov, f->iovcnt);
}

static unsigned chardev_put(Redirector *r, PacketFrame *frames, unsigned n)
{
    FinishContext ctx = { .take = chardev_take };
    unsigned i;

    for (i = 0; i < n && chardev_has_room(r); i++) {
        PacketFrame *f = &frames[i];
        int ret = 1;

        if (!f->len) {
            ret = -EINVAL;
        } else if (chain_hdr_len(r) || !vnet_hdr_needed(f->hdr, f->hdr_len)) {
            chardev_take(r, f, f->dir);
        } else {
            ret = frame_finish(r, f, packet_stream_room(&r->tx), &ctx);
        }
        if (ret == 0 && r->tx.packets) {
            break;
        } else if (ret <= 0) {
            count_refused(r, ret ?: -EMSGSIZE, f->len);
        }
    }
    return i;
}

static void chardev_out_event(void *opaque, QEMUChrEvent event)
{
    Redirector *r = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        qemu_bh_schedule(r->bh);
        break;
    case CHR_EVENT_CLOSED:
        /* The next peer gets the packet that this one has not got whole. */
        r->tx_sent = 0;
        chardev_stop_watching(r);
        qemu_bh_schedule(r->bh);
        break;
    default:
        break;
    }
}

/* Output: packet socket */

static bool inject_has_room(Redirector *r)
{
    return r->inject && runstate_is_running() && !r->waiting;
}

static void cut_take(Redirector *r, PacketFrame *f, NetFilterDirection dir)
{
    packet_stream_put(&r->cut, NULL, 0, f->iov, f->iovcnt);
}

/*
 * The kernel says ENOBUFS for a full queue, and for a super-packet to a TAP
 * whose offloads are off, for ever.  If the queue is empty it isn't full.
 */
static bool must_be_cut(Redirector *r, const PacketFrame *f)
{
    return f->hdr_len &&
           f->hdr[offsetof(struct virtio_net_hdr, gso_type)] !=
           VIRTIO_NET_HDR_GSO_NONE &&
           !packet_interface_backlogged(r->out.nc);
}

/* Return: true if the packet has been dealt with, false to try it again */
static bool inject_failed(Redirector *r, PacketFrame *f, int err)
{
    FinishContext ctx = { .take = cut_take };

    if (err == -ENOBUFS && must_be_cut(r, f)) {
        err = frame_finish(r, f, packet_stream_room(&r->cut), &ctx);
        if (err > 0) {
            return true;
        }
        err = err ?: -EMSGSIZE;
    }
    switch (err) {
    case -ENOBUFS:
        r->out_stats.stalls++;
        wait_retry(r, RETRY_FULL_MS);
        return false;
    case -ENETDOWN:
    case -ENODEV:
        r->out_stats.stalls++;
        wait_retry(r, RETRY_DOWN_MS);
        return false;
    default:
        count_refused(r, err, f->len);
        return true;
    }
}

/* Sends packets as far as there is room. Return: how many are dealt with. */
static unsigned inject_send(Redirector *r, PacketFrame *frames, unsigned n)
{
    unsigned i = 0, sent, cut = r->cut.packets;
    int err;

    /* Once a super-packet has been cut, its segments go first. */
    while (i < n && r->cut.packets <= cut) {
        sent = packet_inject_send(r->inject, &frames[i], n - i, &err);
        while (sent--) {
            count_out(r, frames[i++].len);
        }
        if (err && !inject_failed(r, &frames[i], err)) {
            break;
        }
        i += !!err;
    }
    return i;
}

static unsigned inject_put(Redirector *r, PacketFrame *frames, unsigned n)
{
    return inject_has_room(r) ? inject_send(r, frames, n) : 0;
}

/* Sends what is in a queue. Return: true if that is empty now. */
static bool inject_queue(Redirector *r, PacketStream *s, size_t hdr_len)
{
    PacketFrame frames[BATCH];
    unsigned n, done, budget;

    for (budget = BUDGET; s->packets && budget; budget -= BATCH) {
        n = packet_stream_peek(s, hdr_len, frames, BATCH);
        done = inject_put(r, frames, n);
        packet_stream_drop(s, done);
        if (done < n) {
            break;
        }
    }
    return !s->packets;
}

/* In order: segments of a super-packet, packets of the chain, the input's. */
static bool inject_flush(Redirector *r)
{
    return inject_queue(r, &r->cut, 0) &&
           inject_queue(r, &r->pending, chain_hdr_len(r));
}

/* Any output */

static bool has_room(Redirector *r, EndType type)
{
    switch (type) {
    case FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV:
        return chardev_has_room(r);
    case FILTER_REDIRECTOR_ENDPOINT_TYPE_PACKET_SOCKET:
        return inject_has_room(r) && !r->cut.packets && !r->pending.packets;
    case FILTER_REDIRECTOR_ENDPOINT_TYPE_CHAIN:
        return chain_has_room(r);
    default:
        return false;
    }
}

/* Return: how many of the packets, from the first one on, have been taken */
static unsigned put(Redirector *r, EndType type, PacketFrame *frames,
                    unsigned n)
{
    switch (type) {
    case FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV:
        return chardev_put(r, frames, n);
    case FILTER_REDIRECTOR_ENDPOINT_TYPE_PACKET_SOCKET:
        return inject_flush(r) ? inject_put(r, frames, n) : 0;
    case FILTER_REDIRECTOR_ENDPOINT_TYPE_CHAIN:
        return chain_put(r, frames, n);
    default:
        return 0;
    }
}

/* Input: packet socket */

static void capture_readable(void *opaque)
{
    Redirector *r = opaque;

    redirector_move(r);
}

/* A socket that keeps reporting an error would keep the main loop busy. */
static void capture_check(Redirector *r)
{
    int err = packet_capture_state(r->capture, NULL);

    trace_redirector_capture_state(redirector_id(r->nf), err);
}

static bool capture_delivers(Redirector *r)
{
    return r->capture && !migration_undecided(r);
}

/* Packets of the time that a failed migration took are thrown away. */
static void capture_skip(Redirector *r)
{
    PacketFrame frame;

    while (r->skip_to && packet_capture_read(r->capture, &frame, 1) &&
           frame.time_ns >= r->skip_from) {
        if (frame.time_ns >= r->skip_to) {
            r->skip_from = r->skip_to = 0;
            break;
        }
        packet_capture_release(r->capture, 1);
        r->in_stats.discarded++;
    }
}

static unsigned capture_read(Redirector *r, PacketFrame *frames, unsigned max)
{
    unsigned i, n;

    if (!capture_delivers(r)) {
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

static void capture_enable(Redirector *r)
{
    bool on = wants_capture(r);
    int ret;

    if (!r->capture || on == r->capturing) {
        return;
    }
    ret = packet_capture_enable(r->capture, on);
    trace_redirector_capture_enable(redirector_id(r->nf), on, ret);
    if (ret < 0) {
        error_report("filter-redirector '%s': cannot %s capturing on "
                     "interface '%s': %s", redirector_id(r->nf),
                     on ? "start" : "pause", r->in.iface.name,
                     strerror(-ret));
        return;
    }
    r->capturing = on;
}

static void capture_poll(Redirector *r)
{
    bool on = capture_delivers(r) && has_room(r, r->sink);

    if (r->capture && on != r->capture_polled) {
        r->capture_polled = on;
        qemu_set_fd_handler(packet_capture_fd(r->capture),
                            on ? capture_readable : NULL, NULL, r);
    }
}

/* Input: chardev */

static int chardev_can_read(void *opaque)
{
    Redirector *r = opaque;
    size_t room = packet_stream_room(&r->rx);

    if (!r->nf->on || r->rx_damaged || !room) {
        r->rx_refused = true;
        return 0;
    }
    return MIN(room, INT_MAX);
}

static void chardev_read(void *opaque, const uint8_t *buf, int size)
{
    Redirector *r = opaque;

    if (packet_stream_add(&r->rx, buf, size) < 0) {
        r->in_stats.errors++;
        r->rx_damaged = true;
        trace_redirector_damaged(redirector_id(r->nf));
    }
    /* Not here: many small reads make one batch. */
    qemu_bh_schedule(r->bh);
}

static void chardev_in_event(void *opaque, QEMUChrEvent event)
{
    Redirector *r = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        r->rx_damaged = false;
        break;
    case CHR_EVENT_CLOSED:
        r->rx_damaged = false;
        if (packet_stream_trim(&r->rx)) {
            r->in_stats.errors++;
        }
        break;
    default:
        break;
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

/* Any input */

static unsigned input_read(Redirector *r, PacketFrame *frames, unsigned max)
{
    if (r->in_type == FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV) {
        return r->nf->on ? packet_stream_peek(&r->rx, chain_hdr_len(r), frames,
                                              max) : 0;
    }
    return capture_read(r, frames, max);
}

static void input_release(Redirector *r, const PacketFrame *frames, unsigned n)
{
    unsigned i;

    r->in_stats.packets += n;
    for (i = 0; i < n; i++) {
        r->in_stats.bytes += frames[i].len;
    }
    if (r->in_type == FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV) {
        packet_stream_drop(&r->rx, n);
    } else {
        packet_capture_release(r->capture, n);
    }
}

/* From input to output, a bounded number of packets */
static void redirector_move(Redirector *r)
{
    PacketFrame frames[BATCH];
    unsigned n, done, budget = BUDGET;

    /* A filter behind this one may run the main loop until it has written. */
    if (r->moving) {
        return;
    }
    r->moving = true;
    object_ref(OBJECT(r->nf));

    if (r->out_type == FILTER_REDIRECTOR_ENDPOINT_TYPE_PACKET_SOCKET) {
        inject_flush(r);
    }
    while (budget && (n = input_read(r, frames, MIN(BATCH, budget)))) {
        done = put(r, r->sink, frames, n);
        input_release(r, frames, done);
        budget -= n;
        if (done < n) {
            r->in_stats.stalls++;
            break;
        }
    }
    if (r->capture && budget == BUDGET) {
        capture_check(r);
    }
    if (r->out_type == FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV) {
        chardev_flush(r);
    }
    trace_redirector_move(redirector_id(r->nf), BUDGET - budget);

    r->moving = false;
    redirector_update(r);
    object_unref(OBJECT(r->nf));
}

static void redirector_bh(void *opaque)
{
    redirector_move(opaque);
}

static void redirector_retry(void *opaque)
{
    Redirector *r = opaque;

    r->waiting = false;
    redirector_move(r);
}

/* Brings handlers in line with the state of everything. */
static void redirector_update(Redirector *r)
{
    bool room = has_room(r, r->sink);

    capture_enable(r);
    capture_poll(r);
    chardev_accept(r);
    if (r->rx.packets && r->nf->on && room) {
        qemu_bh_schedule(r->bh);
    }
    /* Nobody tells when a NIC or a TAP takes packets again. */
    if (r->sink == FILTER_REDIRECTOR_ENDPOINT_TYPE_CHAIN && !room &&
        runstate_is_running() && !r->waiting && r->nf->on) {
        wait_retry(r, RETRY_FULL_MS);
    }
    qemu_netfilter_intake_changed(r->nf);
}

/* Input: the netdev's filter chain */

/* Does a packet that the chain brings now belong to the output? */
static bool takes_from_chain(Redirector *r)
{
    if (!r->chain_in || !(runstate_is_running() || hands_over_now(r))) {
        return false;
    }
    return r->out_type == FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV ?
           qemu_chr_fe_backend_open(&r->chr_out) : r->inject != NULL;
}

static void chain_take_in(Redirector *r, PacketFrame *f)
{
    uint8_t hdr[VNET_HDR_LEN_MAX];
    size_t hdr_len = chain_hdr_len(r);

    r->chain_packets++;
    if (!r->pending.packets && put(r, r->out_type, f, 1)) {
        return;
    }
    vnet_hdr_convert(hdr, hdr_len, f->hdr, f->hdr_len);
    if (r->out_type == FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV ||
        !packet_stream_put(&r->pending, hdr, hdr_len, f->iov, f->iovcnt)) {
        r->out_stats.lost++;
        trace_redirector_lost(redirector_id(r->nf), f->len);
    }
}

ssize_t redirector_receive_iov(Redirector *r, NetClientState *sender,
                               unsigned flags, const struct iovec *iov,
                               int iovcnt)
{
    bool bare = flags & QEMU_NET_PACKET_FLAG_RAW;
    size_t size = iov_size(iov, iovcnt);
    size_t hdr_len = bare ? 0 : chain_hdr_len(r);
    g_autofree uint8_t *copy = NULL;
    uint8_t *data;
    PacketFrame f;

    if (!size || !takes_from_chain(r)) {
        return 0;
    }
    if (size <= hdr_len || size > PACKET_LEN_MAX) {
        r->chain_packets++;
        count_refused(r, -EMSGSIZE, size);
        return size;
    }
    if (iovcnt == 1) {
        data = iov[0].iov_base;
    } else {
        data = copy = g_malloc(size);
        iov_to_buf(iov, iovcnt, 0, copy, size);
    }
    f.hdr_len = hdr_len;
    memcpy(f.hdr, data, hdr_len);
    f.len = size - hdr_len;
    f.iov[0] = (struct iovec) { data + hdr_len, f.len };
    f.iovcnt = 1;
    f.dir = sender == r->nf->netdev ? NET_FILTER_DIRECTION_TX
                                    : NET_FILTER_DIRECTION_RX;
    chain_take_in(r, &f);
    qemu_netfilter_intake_changed(r->nf);
    qemu_bh_schedule(r->bh);
    return size;
}

static bool chain_output_has_room(Redirector *r)
{
    if (r->out_type == FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV) {
        return chardev_has_room(r);
    }
    return !r->cut.packets && !r->pending.packets;
}

static NetFilterIntake redirector_intake(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));

    if (!r->nf || !nf->on || !r->chain_in) {
        return NET_FILTER_INTAKE_DEFAULT;
    }
    if (!runstate_is_running()) {
        if (!hands_over(r)) {
            return NET_FILTER_INTAKE_DEFAULT;
        }
        return hands_over_now(r) && chardev_has_room(r)
               ? NET_FILTER_INTAKE_TAKE : NET_FILTER_INTAKE_HOLD;
    }
    if (!takes_from_chain(r) || chain_output_has_room(r)) {
        return NET_FILTER_INTAKE_DEFAULT;
    }
    return NET_FILTER_INTAKE_HOLD;
}

/* Events */

/* The packets captured from here on are delivered if the migration succeeds. */
static void migration_begins_undecided(Redirector *r)
{
    if (!r->skip_to) {
        r->skip_from = qemu_clock_get_ns(QEMU_CLOCK_HOST);
    }
    r->skip_to = INT64_MAX;
}

static void redirector_vm_change(void *opaque, bool running, RunState state)
{
    Redirector *r = opaque;

    if (running) {
        r->handed_over = false;
        if (r->skip_to == INT64_MAX) {
            r->skip_to = qemu_clock_get_ns(QEMU_CLOCK_HOST);
        }
        /* Only once all devices run. */
        qemu_bh_schedule(r->bh);
    } else if (migration_undecided(r) && r->capture) {
        migration_begins_undecided(r);
    }
    redirector_update(r);
}

static int redirector_migration(NotifierWithReturn *notify, MigrationEvent *e,
                                Error **errp)
{
    Redirector *r = container_of(notify, Redirector, migration);

    if (!runstate_is_running() && e->type != MIG_EVENT_PRECOPY_SETUP) {
        r->handed_over = e->type == MIG_EVENT_PRECOPY_DONE;
        r->skip_from = r->skip_to = 0;
        qemu_bh_schedule(r->bh);
    }
    return 0;
}

static void redirector_status_changed(NetFilterState *nf, Error **errp)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));

    if (r->nf) {
        redirector_update(r);
    }
}

static void close_capture(Redirector *r)
{
    if (r->capture) {
        qemu_set_fd_handler(packet_capture_fd(r->capture), NULL, NULL, NULL);
        packet_capture_losses(r->capture, &r->in_stats.lost,
                              &r->in_stats.errors);
        packet_capture_free(r->capture);
        r->capture = NULL;
    }
}

/* An endpoint ends with its netdev, not only with the interface. */
static void redirector_netdev_removed(Notifier *notify, void *data)
{
    Redirector *r = container_of(notify, Redirector, netdev_removed);
    NetClientState *nc = data;

    if (nc == r->in.nc) {
        close_capture(r);
        r->in.nc = NULL;
    }
    if (nc == r->out.nc) {
        packet_inject_free(r->inject);
        r->inject = NULL;
        r->out.nc = NULL;
    }
}

/* Set-up */

bool redirector_is_extended(const Redirector *r)
{
    return r->in_netdev || r->out_netdev || r->enable_when_stopped;
}

static bool check(Redirector *r, const char *indev, const char *outdev,
                  Error **errp)
{
    if (!indev && !outdev && !r->in_netdev && !r->out_netdev) {
        error_setg(errp, "one of 'indev', 'outdev', 'in_netdev' and "
                   "'out_netdev' must be set");
    } else if (r->in_netdev && r->out_netdev) {
        error_setg(errp, "'in_netdev' ('%s') and 'out_netdev' ('%s') cannot "
                   "be used together", r->in_netdev, r->out_netdev);
    } else if (r->in_netdev && indev) {
        error_setg(errp, "'in_netdev' ('%s') and 'indev' ('%s') cannot be "
                   "used together: a redirector has one input",
                   r->in_netdev, indev);
    } else if (r->out_netdev && outdev) {
        error_setg(errp, "'out_netdev' ('%s') and 'outdev' ('%s') cannot be "
                   "used together: a redirector has one output",
                   r->out_netdev, outdev);
    } else if (indev && outdev && !strcmp(indev, outdev)) {
        error_setg(errp, "'indev' and 'outdev' are both '%s': use two "
                   "character devices", indev);
    } else if (r->ring_size_given && !r->in_netdev) {
        error_setg(errp, "'ring_size' needs 'in_netdev'");
    } else if (r->ring_size < PACKET_RING_SIZE_MIN ||
               r->ring_size > PACKET_RING_SIZE_MAX) {
        error_setg(errp, "ring_size %" PRIu64 " is out of range: use %" PRIu64
                   " to %" PRIu64 " bytes", r->ring_size,
                   (uint64_t)PACKET_RING_SIZE_MIN,
                   (uint64_t)PACKET_RING_SIZE_MAX);
    } else {
        return true;
    }
    return false;
}

bool redirector_check(Redirector *r, NetFilterState *nf, const char *indev,
                      const char *outdev, Error **errp)
{
    ERRP_GUARD();

    if (!check(r, indev, outdev, errp)) {
        error_prepend(errp, "filter-redirector '%s': ", redirector_id(nf));
        return false;
    }
    return true;
}

static bool find_interface(const char *id, PacketEnd *end, Error **errp)
{
    NetClientState *nc = qemu_find_netdev(id);

    if (!nc) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND,
                  "there is no netdev of this id");
        return false;
    }
    if (nc->info->type != NET_CLIENT_DRIVER_TAP) {
        error_setg(errp, "is a netdev of type '%s': only a TAP has an "
                   "interface for a packet socket",
                   NetClientDriver_str(nc->info->type));
        return false;
    }
    if (!packet_interface_from_netdev(nc, &end->iface, errp)) {
        return false;
    }
    end->nc = nc;
    return true;
}

/* "in_netdev 'n0': no such thing" but "in_netdev 'n0' is not good" */
static void prepend_property(Error **errp, const char *name, const char *value)
{
    bool sentence = !g_str_has_prefix(error_get_pretty(*errp), "is ");

    error_prepend(errp, "%s '%s'%s", name, value, sentence ? ": " : " ");
}

static bool open_in_netdev(Redirector *r, Error **errp)
{
    ERRP_GUARD();

    if (find_interface(r->in_netdev, &r->in, errp)) {
        r->capture = packet_capture_new(&r->in.iface, r->nf->direction,
                                        r->ring_size, errp);
    }
    if (*errp) {
        prepend_property(errp, "in_netdev", r->in_netdev);
    }
    return r->capture;
}

static bool open_out_netdev(Redirector *r, Error **errp)
{
    ERRP_GUARD();

    if (find_interface(r->out_netdev, &r->out, errp)) {
        if (r->out.iface.macvtap) {
            error_setg(errp, "interface '%s' is a macvtap: injected packets "
                       "would go to the network, not to the guest",
                       r->out.iface.name);
        } else {
            r->inject = packet_inject_new(&r->out.iface, errp);
        }
    }
    if (*errp) {
        prepend_property(errp, "out_netdev", r->out_netdev);
        return false;
    }
    packet_stream_init(&r->cut, QUEUE_SIZE, false);
    packet_stream_init(&r->pending, QUEUE_SIZE, false);
    return true;
}

static bool open_chardev(CharFrontend *fe, const char *property,
                         const char *id, Error **errp)
{
    Chardev *chr = qemu_chr_find(id);

    if (!chr) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "%s '%s': there is no "
                  "chardev of this id", property, id);
        return false;
    }
    return qemu_chr_fe_init(fe, chr, errp);
}

static bool open_ends(Redirector *r, const char *indev, const char *outdev,
                      bool vnet_hdr, Error **errp)
{
    if (indev) {
        packet_stream_init(&r->rx, QUEUE_SIZE, vnet_hdr);
        if (!open_chardev(&r->chr_in, "indev", indev, errp)) {
            return false;
        }
    }
    if (outdev) {
        packet_stream_init(&r->tx, QUEUE_SIZE, vnet_hdr);
        if (!open_chardev(&r->chr_out, "outdev", outdev, errp)) {
            return false;
        }
    }
    if (r->in_netdev && !open_in_netdev(r, errp)) {
        return false;
    }
    return !r->out_netdev || open_out_netdev(r, errp);
}

static EndType end_type(const char *chardev, const char *netdev)
{
    return chardev ? FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV :
           netdev ? FILTER_REDIRECTOR_ENDPOINT_TYPE_PACKET_SOCKET :
           FILTER_REDIRECTOR_ENDPOINT_TYPE_CHAIN;
}

static bool is_multiqueue(NetFilterState *nf)
{
    return qemu_find_net_clients_except(nf->netdev_id, NULL,
                                        NET_CLIENT_DRIVER_NIC, 0) > 1;
}

static void find_flows(Redirector *r, const char *indev, const char *outdev)
{
    NetClientState *nc = r->nf->netdev;
    bool own_tap = nc == r->in.nc || nc == r->out.nc;

    r->in_type = end_type(indev, r->in_netdev);
    r->out_type = end_type(outdev, r->out_netdev);
    /* Two chardevs: two flows, each between one of them and the chain. */
    r->sink = indev && outdev ? FILTER_REDIRECTOR_ENDPOINT_TYPE_CHAIN
                              : r->out_type;
    /*
     * A packet of the endpoint's own TAP is not taken out of the chain: it
     * has been captured already, or would be injected for ever.
     */
    r->chain_in = (outdev || r->out_netdev) && !own_tap &&
                  !is_multiqueue(r->nf);
}

static void start(Redirector *r, const char *indev, const char *outdev)
{
    r->bh = qemu_bh_new(redirector_bh, r);
    r->retry = timer_new_ms(QEMU_CLOCK_REALTIME, redirector_retry, r);
    r->vm_change = qemu_add_vm_change_state_handler(redirector_vm_change, r);
    migration_add_notifier(&r->migration, redirector_migration);
    r->netdev_removed.notify = redirector_netdev_removed;
    qemu_add_netdev_removed_notifier(&r->netdev_removed);

    if (r->capture && migration_undecided(r)) {
        migration_begins_undecided(r);
    }
    if (outdev) {
        qemu_chr_fe_set_handlers(&r->chr_out, NULL, NULL, chardev_out_event,
                                 NULL, r, NULL, true);
    }
    if (indev) {
        qemu_chr_fe_set_handlers(&r->chr_in, chardev_can_read, chardev_read,
                                 chardev_in_event, NULL, r, NULL, true);
    }
    /* The filter is not yet in its chain: the rest follows from there. */
    qemu_bh_schedule(r->bh);
    capture_enable(r);
}

void redirector_setup(Redirector *r, NetFilterState *nf, const char *indev,
                      const char *outdev, bool vnet_hdr, Error **errp)
{
    ERRP_GUARD();

    r->nf = nf;
    if (!open_ends(r, indev, outdev, vnet_hdr, errp)) {
        error_prepend(errp, "filter-redirector '%s': ", redirector_id(nf));
        r->nf = NULL;
        return;
    }
    r->in_name = g_strdup(indev ?: r->in_netdev);
    r->out_name = g_strdup(outdev ?: r->out_netdev);
    r->scratch = g_malloc(PACKET_LEN_MAX);
    find_flows(r, indev, outdev);
    start(r, indev, outdev);
}

Redirector *redirector_new(void)
{
    Redirector *r = g_new0(Redirector, 1);

    r->ring_size = PACKET_RING_SIZE_DEFAULT;
    return r;
}

static void stop(Redirector *r)
{
    qemu_remove_netdev_removed_notifier(&r->netdev_removed);
    migration_remove_notifier(&r->migration);
    qemu_del_vm_change_state_handler(r->vm_change);
    timer_free(r->retry);
    qemu_bh_delete(r->bh);
    chardev_stop_watching(r);
}

void redirector_free(Redirector *r)
{
    if (!r) {
        return;
    }
    if (r->nf) {
        stop(r);
    }
    qemu_chr_fe_deinit(&r->chr_in, false);
    qemu_chr_fe_deinit(&r->chr_out, false);
    close_capture(r);
    packet_inject_free(r->inject);
    packet_stream_destroy(&r->rx);
    packet_stream_destroy(&r->tx);
    packet_stream_destroy(&r->cut);
    packet_stream_destroy(&r->pending);
    g_free(r->scratch);
    g_free(r->in_name);
    g_free(r->out_name);
    g_free(r->in_netdev);
    g_free(r->out_netdev);
    g_free(r);
}

/* Class */

static bool redirector_accept_vhost(NetFilterState *nf)
{
    return redirector_is_extended(filter_redirector_get(OBJECT(nf)));
}

/* A packet socket sees all queues of a TAP, the filter chain one. */
static bool redirector_accept_multiqueue(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));
    g_autofree char *indev = object_property_get_str(OBJECT(nf), "indev",
                                                     NULL);
    g_autofree char *outdev = object_property_get_str(OBJECT(nf), "outdev",
                                                      NULL);

    return (r->in_netdev && outdev && *outdev) ||
           (r->out_netdev && indev && *indev);
}

/* What the core let in because of a property can't be undone later. */
static bool can_change(Object *obj, const char *name, Error **errp)
{
    if (NETFILTER(obj)->netdev) {
        error_setg(errp, "filter-redirector '%s': '%s' cannot be changed "
                   "after creation", redirector_id(NETFILTER(obj)), name);
        return false;
    }
    return true;
}

static char *get_in_netdev(Object *obj, Error **errp)
{
    return g_strdup(filter_redirector_get(obj)->in_netdev);
}

static void set_in_netdev(Object *obj, const char *value, Error **errp)
{
    Redirector *r = filter_redirector_get(obj);

    if (can_change(obj, "in_netdev", errp)) {
        g_free(r->in_netdev);
        r->in_netdev = g_strdup(value);
    }
}

static char *get_out_netdev(Object *obj, Error **errp)
{
    return g_strdup(filter_redirector_get(obj)->out_netdev);
}

static void set_out_netdev(Object *obj, const char *value, Error **errp)
{
    Redirector *r = filter_redirector_get(obj);

    if (can_change(obj, "out_netdev", errp)) {
        g_free(r->out_netdev);
        r->out_netdev = g_strdup(value);
    }
}

static bool get_enable_when_stopped(Object *obj, Error **errp)
{
    return filter_redirector_get(obj)->enable_when_stopped;
}

static void set_enable_when_stopped(Object *obj, bool value, Error **errp)
{
    if (can_change(obj, "enable_when_stopped", errp)) {
        filter_redirector_get(obj)->enable_when_stopped = value;
    }
}

static void get_ring_size(Object *obj, Visitor *v, const char *name,
                          void *opaque, Error **errp)
{
    visit_type_size(v, name, &filter_redirector_get(obj)->ring_size, errp);
}

static void set_ring_size(Object *obj, Visitor *v, const char *name,
                          void *opaque, Error **errp)
{
    Redirector *r = filter_redirector_get(obj);

    if (can_change(obj, name, errp) &&
        visit_type_size(v, name, &r->ring_size, errp)) {
        r->ring_size_given = true;
    }
}

void redirector_class_init(ObjectClass *oc)
{
    NetFilterClass *nfc = NETFILTER_CLASS(oc);

    object_class_property_add_str(oc, "in_netdev", get_in_netdev,
                                  set_in_netdev);
    object_class_property_add_str(oc, "out_netdev", get_out_netdev,
                                  set_out_netdev);
    object_class_property_add_bool(oc, "enable_when_stopped",
                                   get_enable_when_stopped,
                                   set_enable_when_stopped);
    object_class_property_add(oc, "ring_size", "size", get_ring_size,
                              set_ring_size, NULL, NULL);

    nfc->status_changed = redirector_status_changed;
    nfc->accept_vhost = redirector_accept_vhost;
    nfc->accept_multiqueue = redirector_accept_multiqueue;
    nfc->intake = redirector_intake;
}

/* Query */

static EndState chardev_state(CharFrontend *fe, bool held, bool room)
{
    return !qemu_chr_fe_backend_open(fe) ?
           FILTER_REDIRECTOR_ENDPOINT_STATE_DISCONNECTED :
           held ? FILTER_REDIRECTOR_ENDPOINT_STATE_HELD :
           room ? FILTER_REDIRECTOR_ENDPOINT_STATE_ACTIVE :
           FILTER_REDIRECTOR_ENDPOINT_STATE_STALLED;
}

static EndState packet_state(int iface_state, bool held, bool room)
{
    return iface_state == -ENODEV ? FILTER_REDIRECTOR_ENDPOINT_STATE_GONE :
           held ? FILTER_REDIRECTOR_ENDPOINT_STATE_HELD :
           iface_state ? FILTER_REDIRECTOR_ENDPOINT_STATE_DOWN :
           room ? FILTER_REDIRECTOR_ENDPOINT_STATE_ACTIVE :
           FILTER_REDIRECTOR_ENDPOINT_STATE_STALLED;
}

/* Does an output wait for the machine, rather than for room? */
static bool output_held(Redirector *r, EndType type)
{
    switch (type) {
    case FILTER_REDIRECTOR_ENDPOINT_TYPE_PACKET_SOCKET:
        return !runstate_is_running();
    case FILTER_REDIRECTOR_ENDPOINT_TYPE_CHAIN:
        return !runstate_is_running() && !input_is_copy(r);
    default:
        return false;
    }
}

static EndState input_state(Redirector *r, int iface_state)
{
    bool room = has_room(r, r->sink);
    bool running = runstate_is_running();

    if (!r->nf->on) {
        return FILTER_REDIRECTOR_ENDPOINT_STATE_OFF;
    }
    switch (r->in_type) {
    case FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV:
        return chardev_state(&r->chr_in, output_held(r, r->sink), room);
    case FILTER_REDIRECTOR_ENDPOINT_TYPE_PACKET_SOCKET:
        return packet_state(iface_state,
                            !r->capturing || migration_undecided(r) ||
                            output_held(r, r->sink), room);
    default:
        return !running && !hands_over_now(r) ?
               FILTER_REDIRECTOR_ENDPOINT_STATE_HELD :
               chain_output_has_room(r) ?
               FILTER_REDIRECTOR_ENDPOINT_STATE_ACTIVE :
               FILTER_REDIRECTOR_ENDPOINT_STATE_STALLED;
    }
}

static EndState output_state(Redirector *r, int iface_state)
{
    if (!r->nf->on) {
        return FILTER_REDIRECTOR_ENDPOINT_STATE_OFF;
    }
    if (r->out_type == FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV) {
        return chardev_state(&r->chr_out, false, chardev_has_room(r));
    }
    return packet_state(iface_state, output_held(r, r->out_type),
                        has_room(r, r->out_type));
}

static FilterRedirectorEndpoint *query_end(EndType type, const char *name,
                                           const EndStats *stats)
{
    FilterRedirectorEndpoint *end = g_new0(FilterRedirectorEndpoint, 1);

    end->type = type;
    end->name = g_strdup(name);
    if (stats) {
        end->stats = g_memdup2(stats, sizeof(*stats));
    }
    return end;
}

static void query_interface(FilterRedirectorEndpoint *end,
                            const PacketEnd *pe, const char *ifname)
{
    end->ifname = g_strdup(ifname);
    end->has_ifindex = true;
    end->ifindex = pe->iface.ifindex;
    end->has_netns = true;
    end->netns = pe->iface.netns;
}

static FilterRedirectorEndpoint *query_input(Redirector *r)
{
    FilterRedirectorEndpoint *end;
    EndStats stats = r->in_stats;
    char ifname[sizeof_field(PacketInterface, name)];
    int state = -ENODEV;

    stats.queued = r->rx.packets;
    if (r->capture) {
        packet_capture_losses(r->capture, &stats.lost, &stats.errors);
        state = packet_capture_state(r->capture, ifname);
    } else {
        pstrcpy(ifname, sizeof(ifname), r->in.iface.name);
    }
    if (r->in_type == FILTER_REDIRECTOR_ENDPOINT_TYPE_CHAIN) {
        stats.packets = r->chain_packets;
    }
    end = query_end(r->in_type, r->in_name, &stats);
    end->state = input_state(r, state);
    if (r->in_netdev) {
        query_interface(end, &r->in, ifname);
    }
    return end;
}

static FilterRedirectorEndpoint *query_output(Redirector *r)
{
    FilterRedirectorEndpoint *end;
    EndStats stats = r->out_stats;
    char ifname[sizeof_field(PacketInterface, name)];
    int state = r->out_netdev ? -ENODEV : 0;

    stats.queued = r->tx.packets + r->cut.packets + r->pending.packets;
    if (r->inject) {
        state = packet_inject_state(r->inject, ifname);
    } else {
        pstrcpy(ifname, sizeof(ifname), r->out.iface.name);
    }
    end = query_end(r->out_type, r->out_name, &stats);
    end->state = output_state(r, state);
    if (r->out_netdev) {
        query_interface(end, &r->out, ifname);
    }
    return end;
}

/* A redirector between chardevs and the chain has no counters. */
static FilterRedirectorEndpoint *query_plain(NetFilterState *nf,
                                             const char *property)
{
    g_autofree char *id = object_property_get_str(OBJECT(nf), property, NULL);
    Chardev *chr = id && *id ? qemu_chr_find(id) : NULL;
    FilterRedirectorEndpoint *end = query_end(end_type(chr ? id : NULL, NULL),
                                              chr ? id : NULL, NULL);

    end->state = !nf->on ? FILTER_REDIRECTOR_ENDPOINT_STATE_OFF :
                 chr && !chr->be_open ?
                 FILTER_REDIRECTOR_ENDPOINT_STATE_DISCONNECTED :
                 FILTER_REDIRECTOR_ENDPOINT_STATE_ACTIVE;
    return end;
}

static FilterRedirectorInfo *query_one(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));
    FilterRedirectorInfo *info = g_new0(FilterRedirectorInfo, 1);

    info->id = g_strdup(redirector_id(nf));
    info->netdev = g_strdup(nf->netdev_id);
    info->queue = nf->direction;
    info->enable_when_stopped = r->enable_when_stopped;
    if (r->nf) {
        info->input = query_input(r);
        info->output = query_output(r);
        info->chain_packets =
            r->in_type == FILTER_REDIRECTOR_ENDPOINT_TYPE_CHAIN
            ? 0 : r->chain_packets;
    } else {
        info->input = query_plain(nf, "indev");
        info->output = query_plain(nf, "outdev");
    }
    return info;
}

static int collect(Object *obj, void *opaque)
{
    if (object_dynamic_cast(obj, TYPE_FILTER_REDIRECTOR) &&
        NETFILTER(obj)->netdev) {
        g_ptr_array_add(opaque, obj);
    }
    return 0;
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(redirector_id(NETFILTER(*(Object **)a)),
                  redirector_id(NETFILTER(*(Object **)b)));
}

FilterRedirectorInfoList *qmp_query_filter_redirectors(Error **errp)
{
    g_autoptr(GPtrArray) filters = g_ptr_array_new();
    FilterRedirectorInfoList *list = NULL, **tail = &list;
    unsigned i;

    object_child_foreach(object_get_objects_root(), collect, filters);
    g_ptr_array_sort(filters, compare_ids);
    for (i = 0; i < filters->len; i++) {
        QAPI_LIST_APPEND(tail, query_one(NETFILTER(filters->pdata[i])));
    }
    return list;
}
