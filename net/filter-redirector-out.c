/*
 * filter-redirector with netdev endpoints: outputs
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "net/vhost_net.h"
#include "standard-headers/linux/virtio_net.h"
#include "filter-redirector-int.h"
#include "trace.h"

static void count_out(Redirector *r, size_t bytes)
{
    r->out_stats.packets++;
    r->out_stats.bytes += bytes;
    r->out_stalled = false;
}

static void count_stall(Redirector *r)
{
    r->out_stats.stalls += !r->out_stalled;
    r->out_stalled = true;
    trace_redirector_out_stalled(r->id);
}

void redirector_refuse(Redirector *r, int err, size_t len)
{
    r->out_stats.errors++;
    trace_redirector_refused(r->id, len, err);
}

/* Packets that may need their vnet header, to where there is none */

typedef void TakeFrame(Redirector *r, PacketFrame *f, NetFilterDirection dir);

typedef struct FinishContext {
    Redirector *r;
    NetFilterDirection dir;
    TakeFrame *take;
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
static int finish(Redirector *r, const PacketFrame *f, NetFilterDirection dir,
                  size_t room, TakeFrame *take)
{
    FinishContext ctx = { .r = r, .dir = dir, .take = take };
    const uint8_t *pkt = frame_linear(r, f);

    if (vnet_hdr_finish(f->hdr, f->hdr_len, pkt, f->len, finish_measure,
                        &ctx) < 0) {
        return -EINVAL;
    }
    if (ctx.bytes > room) {
        return 0;
    }
    vnet_hdr_finish(f->hdr, f->hdr_len, pkt, f->len, finish_take, &ctx);
    return 1;
}

static bool must_finish(Redirector *r, const PacketFrame *f)
{
    return !redirector_hdr_len(r) && vnet_hdr_needed(f->hdr, f->hdr_len);
}

/* The netdev's filter chain */

static bool chain_has_room(Redirector *r)
{
    NetClientState *nc = r->nf->netdev;
    NetFilterDirection dir = r->nf->direction;

    if (redirector_input_is_copy(r) || !nc->peer) {
        return true;
    }
    if (!redirector_vm_runs()) {
        return false;
    }
    return (dir == NET_FILTER_DIRECTION_RX || qemu_can_send_packet(nc) ||
            qemu_netfilter_vhost_running(nc)) &&
           (dir == NET_FILTER_DIRECTION_TX || qemu_can_send_packet(nc->peer));
}

static void chain_take(Redirector *r, PacketFrame *f, NetFilterDirection dir)
{
    NetClientState *nc = r->nf->netdev;
    size_t hdr_len = redirector_hdr_len(r);
    uint8_t hdr[VNET_HDR_LEN_MAX];
    struct iovec iov[1 + VNET_VLAN_IOV_MAX] = { { hdr, hdr_len } };
    unsigned flags = redirector_input_is_copy(r) ? QEMU_NET_PACKET_FLAG_COPY
                                                 : QEMU_NET_PACKET_FLAG_NONE;

    vnet_hdr_convert(hdr, hdr_len, f->hdr, f->hdr_len);
    memcpy(&iov[1], f->iov, f->iovcnt * sizeof(f->iov[0]));
    qemu_netfilter_pass_to_next(dir == NET_FILTER_DIRECTION_TX ? nc : nc->peer,
                                flags, hdr_len ? iov : iov + 1,
                                f->iovcnt + !!hdr_len, r->nf);
    count_out(r, f->len);
}

static void chain_pass(Redirector *r, PacketFrame *f, NetFilterDirection dir)
{
    int ret;

    if (!must_finish(r, f)) {
        chain_take(r, f, dir);
        return;
    }
    ret = finish(r, f, dir, SIZE_MAX, chain_take);
    if (ret < 0) {
        redirector_refuse(r, ret, f->len);
    }
}

static unsigned chain_put(Redirector *r, PacketFrame *frames, unsigned n)
{
    unsigned i;

    for (i = 0; i < n && chain_has_room(r); i++) {
        PacketFrame *f = &frames[i];
        NetFilterDirection dir = r->capture ? f->dir : r->nf->direction;

        if (!f->len) {
            redirector_refuse(r, -EINVAL, 0);
            continue;
        }
        if (!r->nf->netdev->peer) {
            r->out_stats.lost++;
            trace_redirector_lost(r->id, f->len);
            continue;
        }
        if (dir != NET_FILTER_DIRECTION_RX) {
            chain_pass(r, f, NET_FILTER_DIRECTION_TX);
        }
        if (dir != NET_FILTER_DIRECTION_TX) {
            chain_pass(r, f, NET_FILTER_DIRECTION_RX);
        }
    }
    return i;
}

/* Chardev */

static void chardev_stop_watching(Redirector *r)
{
    if (r->tx_watch) {
        g_source_remove(r->tx_watch);
        r->tx_watch = 0;
    }
}

static gboolean chardev_writable(void *unused, GIOCondition cond, void *opaque)
{
    Redirector *r = opaque;

    r->tx_watch = 0;
    redirector_move(r);
    return G_SOURCE_REMOVE;
}

static void chardev_sent_all(Redirector *r)
{
    r->out_stats.packets += r->tx.packets;
    r->out_stats.bytes += r->tx_payload;
    r->out_stalled = false;
    r->tx_payload = 0;
    r->tx_sent = 0;
    packet_stream_drop_all(&r->tx);
}

static void chardev_sent(Redirector *r, size_t bytes)
{
    size_t frame, len;

    r->tx_sent += bytes;
    while (r->tx.packets &&
           r->tx_sent >= (frame = packet_stream_front(&r->tx, &len))) {
        len = MIN(len - MIN(len, redirector_hdr_len(r)), r->tx_payload);
        count_out(r, len);
        r->tx_payload -= len;
        packet_stream_drop(&r->tx, 1);
        r->tx_sent -= frame;
    }
}

static void chardev_wait(Redirector *r, bool failed)
{
    count_stall(r);
    if (!failed) {
        r->tx_watch = qemu_chr_fe_add_watch(&r->chr_out, G_IO_OUT | G_IO_HUP,
                                            chardev_writable, r);
    }
    if (!r->tx_watch) {
        redirector_retry_in(r, failed ? REDIRECTOR_RETRY_DOWN_US
                                      : REDIRECTOR_RETRY_FULL_US);
    }
}

/* Writes what the peer takes now, and waits until it takes the rest. */
static void chardev_flush(Redirector *r)
{
    const uint8_t *data;
    size_t len;
    int ret;
    bool failed;

    if (r->tx_watch || !r->tx.packets ||
        !qemu_chr_fe_backend_open(&r->chr_out)) {
        return;
    }
    data = packet_stream_data(&r->tx, &len);
    len -= r->tx_sent;
    ret = qemu_chr_fe_write(&r->chr_out, data + r->tx_sent, len);
    failed = ret < 0 && errno != EAGAIN;
    trace_redirector_chardev_write(r->id, len, ret);
    if (ret == (int)len) {
        chardev_sent_all(r);
    } else if (ret > 0) {
        chardev_sent(r, ret);
    }
    /* A failed write may have closed the connection. */
    if (ret < (int)len && qemu_chr_fe_backend_open(&r->chr_out)) {
        chardev_wait(r, failed);
    }
}

static bool chardev_queue_has_room(Redirector *r)
{
    return packet_stream_room(&r->tx) >= PACKET_STREAM_FRAME_MAX;
}

static bool chardev_has_room(Redirector *r)
{
    return qemu_chr_fe_backend_open(&r->chr_out) && chardev_queue_has_room(r);
}

static void chardev_take(Redirector *r, PacketFrame *f, NetFilterDirection dir)
{
    size_t hdr_len = redirector_hdr_len(r);
    uint8_t hdr[VNET_HDR_LEN_MAX];

    vnet_hdr_convert(hdr, hdr_len, f->hdr, f->hdr_len);
    packet_stream_put(&r->tx, hdr, hdr_len, f->iov, f->iovcnt);
    r->tx_payload += f->len;
}

/* Return: 1 if taken, 0 if there is no room, -errno if it can't be sent */
static int chardev_put_one(Redirector *r, PacketFrame *f)
{
    int ret;

    if (!f->len) {
        return -EINVAL;
    }
    if (!must_finish(r, f)) {
        chardev_take(r, f, f->dir);
        return 1;
    }
    ret = finish(r, f, f->dir, packet_stream_room(&r->tx), chardev_take);
    return ret || r->tx.packets ? ret : -EMSGSIZE;
}

static unsigned chardev_put(Redirector *r, PacketFrame *frames, unsigned n)
{
    unsigned i;
    int ret;

    if (!qemu_chr_fe_backend_open(&r->chr_out)) {
        return 0;
    }
    for (i = 0; i < n && chardev_queue_has_room(r); i++) {
        ret = chardev_put_one(r, &frames[i]);
        if (ret == 0) {
            break;
        } else if (ret < 0) {
            redirector_refuse(r, ret, frames[i].len);
        }
    }
    return i;
}

/*
 * The peer has nothing to say, but a connection that is not read from does not
 * show that the peer has closed it (TCP).
 */
static int chardev_can_read(void *opaque)
{
    return PACKET_LEN_MAX;
}

static void chardev_discard(void *opaque, const uint8_t *buf, int size)
{
}

static void chardev_event(void *opaque, QEMUChrEvent event)
{
    Redirector *r = opaque;

    if (event == CHR_EVENT_CLOSED) {
        /* The next peer gets the packet that this one did not get whole. */
        r->tx_sent = 0;
        chardev_stop_watching(r);
    }
    if (event == CHR_EVENT_CLOSED || event == CHR_EVENT_OPENED) {
        qemu_bh_schedule(r->bh);
    }
}

/* Packet socket */

static void inject_end(Redirector *r)
{
    packet_inject_free(r->inject);
    r->inject = NULL;
}

static void inject_close(Redirector *r)
{
    inject_end(r);
    r->out_stats.lost += r->cut.packets + r->pending.packets;
    packet_stream_destroy(&r->cut);
    packet_stream_destroy(&r->pending);
}

/*
 * QEMU does not read the TAP of a stopped vhost guest, so that packets can
 * wait in its queue; from another TAP it takes one that it may not be able to
 * keep.
 */
static bool inject_allowed(Redirector *r)
{
    return redirector_vm_runs() ||
           (r->enable_when_stopped && r->out.nc && get_vhost_net(r->out.nc));
}

static bool inject_has_room(Redirector *r)
{
    return r->inject && inject_allowed(r) && !r->waiting;
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
    if (err == -ENOBUFS && must_be_cut(r, f)) {
        err = finish(r, f, f->dir, packet_stream_room(&r->cut), cut_take);
        if (err > 0) {
            return true;
        }
        err = err ?: -EMSGSIZE;
    }
    switch (err) {
    case -ENOBUFS:
    case -ENETDOWN:
        count_stall(r);
        redirector_retry_in(r, err == -ENOBUFS ? r->retry_us
                                               : REDIRECTOR_RETRY_DOWN_US);
        r->retry_us = MIN(2 * r->retry_us, REDIRECTOR_RETRY_FULL_US);
        return false;
    case -ENODEV:
        inject_end(r);  /* inject_flush(), if at work, ends the queues */
        return false;
    default:
        redirector_refuse(r, err, f->len);
        return true;
    }
}

/* Sends packets as far as there is room. Return: how many are dealt with. */
static unsigned inject_put(Redirector *r, PacketFrame *frames, unsigned n)
{
    unsigned i = 0, sent, cut = r->cut.packets;
    int err = 0;

    /* Once a super-packet has been cut, its segments go first. */
    while (i < n && inject_has_room(r) && r->cut.packets <= cut) {
        sent = packet_inject_send(r->inject, &frames[i], n - i, &err);
        if (sent) {
            r->retry_us = REDIRECTOR_RETRY_MIN_US;
        }
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

/* Sends what is in a queue. Return: true if that is empty now. */
static bool inject_queued(Redirector *r, PacketStream *s, size_t hdr_len)
{
    PacketFrame frames[REDIRECTOR_BATCH];
    unsigned n, done;

    do {
        n = packet_stream_peek(s, hdr_len, frames, REDIRECTOR_BATCH);
        done = n ? inject_put(r, frames, n) : 0;
        packet_stream_drop(s, done);
    } while (n && done == n);
    return !s->packets;
}

/* In order: segments of a super-packet, packets of the chain, the input's. */
static bool inject_flush(Redirector *r)
{
    bool empty = inject_queued(r, &r->cut, 0) &&
                 inject_queued(r, &r->pending, redirector_hdr_len(r));

    if (!r->inject) {
        inject_close(r);
    }
    return empty;
}

/* Any output */

bool redirector_has_room(Redirector *r, EndType type)
{
    switch (type) {
    case END_CHARDEV:
        return chardev_has_room(r);
    case END_PACKET:
        return inject_has_room(r) && !r->cut.packets && !r->pending.packets;
    case END_CHAIN:
        return chain_has_room(r);
    default:
        return false;
    }
}

bool redirector_waits_for_vm(Redirector *r, EndType type)
{
    switch (type) {
    case END_PACKET:
        return !inject_allowed(r);
    case END_CHAIN:
        return !redirector_vm_runs() && !redirector_input_is_copy(r);
    default:
        return false;
    }
}

unsigned redirector_put(Redirector *r, EndType type, PacketFrame *frames,
                        unsigned n)
{
    switch (type) {
    case END_CHARDEV:
        return chardev_put(r, frames, n);
    case END_PACKET:
        return r->inject && inject_flush(r) ? inject_put(r, frames, n) : 0;
    case END_CHAIN:
        return chain_put(r, frames, n);
    default:
        return 0;
    }
}

void redirector_queue(Redirector *r, PacketFrame *f)
{
    size_t hdr_len = redirector_hdr_len(r);
    uint8_t hdr[VNET_HDR_LEN_MAX];

    vnet_hdr_convert(hdr, hdr_len, f->hdr, f->hdr_len);
    if (!r->inject ||
        !packet_stream_put(&r->pending, hdr, hdr_len, f->iov, f->iovcnt)) {
        r->out_stats.lost++;
        trace_redirector_lost(r->id, f->len);
    }
}

void redirector_out_flush(Redirector *r)
{
    if (r->out_type == END_CHARDEV) {
        chardev_flush(r);
    } else if (r->inject) {
        inject_flush(r);
    }
}

void redirector_out_start(Redirector *r)
{
    if (r->out_type == END_CHARDEV) {
        qemu_chr_fe_set_handlers(&r->chr_out, chardev_can_read,
                                 chardev_discard, chardev_event, NULL, r, NULL,
                                 true);
    }
}

void redirector_out_close(Redirector *r)
{
    chardev_stop_watching(r);
    qemu_chr_fe_deinit(&r->chr_out, false);
    packet_stream_destroy(&r->tx);
    inject_close(r);
}
