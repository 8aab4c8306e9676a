/*
 * filter-redirector: packets to a peer at a chardev
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "chardev/char-fe.h"
#include "filter-redirector-chardev.h"
#include "trace.h"

/* Bytes of the queue: takes some of the longest packets, or many short. */
#define QUEUE_SIZE (512 * KiB)

/* When to try again where nobody tells that there is room, microseconds. */
#define RETRY_FULL_US 1000
#define RETRY_FAILED_US (100 * 1000)

typedef struct ChardevSink {
    RedirectorSink parent;
    CharFrontend chr;
    bool lossless;              /* a peer that says no more has left */
    bool reads;                 /* as then; or a write has failed */
    bool null;                  /* takes all, and never says that it's open */
    PacketStream tx;
    unsigned marks;             /* of the packets in it */
    PacketStream said;          /* what the peer says, if lossless */
    bool deaf;                  /* it makes no sense */
    uint64_t payload;           /* bytes of the packets in it, bare */
    size_t sent;                /* bytes of the first frame already written */
    guint watch;
    bool waiting;               /* for the retry timer */
    QEMUTimer *retry;
} ChardevSink;

#define CHARDEV_SINK(s) container_of(s, ChardevSink, parent)

static NetClientState *sink_netdev(ChardevSink *s)
{
    return s->parent.owner->nf->netdev;
}

static bool is_open(ChardevSink *s)
{
    return s->null || qemu_chr_fe_backend_open(&s->chr);
}

static void stop_watching(ChardevSink *s)
{
    if (s->watch) {
        g_source_remove(s->watch);
        s->watch = 0;
    }
}

static gboolean sink_writable(void *unused, GIOCondition cond, void *opaque)
{
    ChardevSink *s = opaque;

    s->watch = 0;
    s->parent.owner->run(s->parent.owner);
    return G_SOURCE_REMOVE;
}

static void sink_retry(void *opaque)
{
    ChardevSink *s = opaque;

    s->waiting = false;
    s->parent.owner->run(s->parent.owner);
}

static void sink_sent_all(ChardevSink *s)
{
    s->parent.stats.packets += s->tx.packets - s->marks;
    s->parent.stats.bytes += s->payload;
    s->parent.stalled = false;
    s->marks = 0;
    s->payload = 0;
    s->sent = 0;
    packet_stream_drop_all(&s->tx);
}

static void sink_sent(ChardevSink *s, size_t bytes)
{
    size_t frame, len;

    s->sent += bytes;
    while (s->tx.packets &&
           s->sent >= (frame = packet_stream_front(&s->tx, &len))) {
        len -= MIN(len, sink_netdev(s)->vnet_hdr_len);
        len = MIN(len, s->payload);
        /* Which ones they are makes no difference once all are sent. */
        if (s->marks == s->tx.packets) {
            s->marks--;
        } else {
            redirector_sink_count(&s->parent, len);
            s->payload -= len;
        }
        packet_stream_drop(&s->tx, 1);
        s->sent -= frame;
    }
}

static void sink_wait(ChardevSink *s, bool failed)
{
    redirector_sink_stall(&s->parent);
    if (!failed) {
        s->watch = qemu_chr_fe_add_watch(&s->chr, G_IO_OUT | G_IO_HUP,
                                         sink_writable, s);
    }
    if (!s->watch) {
        s->waiting = true;
        timer_mod(s->retry, qemu_clock_get_us(QEMU_CLOCK_REALTIME) +
                            (failed ? RETRY_FAILED_US : RETRY_FULL_US));
    }
}

/* Writes what the peer takes now, and waits until it takes the rest. */
static void sink_flush(RedirectorSink *parent, unsigned budget)
{
    ChardevSink *s = CHARDEV_SINK(parent);
    const uint8_t *data;
    size_t len;
    int ret;
    bool failed;

    if (s->watch || s->waiting || !s->tx.packets || !is_open(s)) {
        return;
    }
    data = packet_stream_data(&s->tx, &len);
    len -= s->sent;
    /*
     * Where nobody reads QEMU closes a connection on any error, and a passing
     * one is no reason.  If it is for good, reading shows that.
     */
    s->reads = true;
    ret = qemu_chr_fe_write(&s->chr, data + s->sent, len);
    failed = ret < 0 && errno != EAGAIN;
    s->reads = failed || s->lossless;
    trace_redirector_chardev_write(parent->owner->id, len, ret);
    if (ret == (int)len) {
        sink_sent_all(s);
    } else if (ret > 0) {
        sink_sent(s, ret);
    }
    /* A failed write may have closed the connection. */
    if (ret < (int)len && is_open(s)) {
        sink_wait(s, failed);
    }
}

static bool queue_has_room(ChardevSink *s)
{
    return packet_stream_room(&s->tx) >= PACKET_STREAM_FRAME_MAX;
}

static bool sink_connected(RedirectorSink *parent)
{
    return is_open(CHARDEV_SINK(parent));
}

static bool sink_room(RedirectorSink *parent)
{
    return sink_connected(parent) && queue_has_room(CHARDEV_SINK(parent));
}

static void sink_take(RedirectorSink *parent, PacketFrame *f)
{
    ChardevSink *s = CHARDEV_SINK(parent);
    uint8_t hdr[VNET_HDR_LEN_MAX];
    size_t hdr_len = redirector_hdr_write(sink_netdev(s), f, hdr);

    packet_stream_put(&s->tx, hdr, hdr_len, f->iov, f->iovcnt);
    s->payload += f->len;
}

/* Return: 1 if taken, 0 if there is no room, -errno if it can't be sent */
static int sink_put_one(ChardevSink *s, PacketFrame *f)
{
    int ret;

    if (!f->len) {
        return -EINVAL;
    }
    if (sink_netdev(s)->vnet_hdr_len ||
        !vnet_hdr_needed(f->hdr, f->hdr_len)) {
        sink_take(&s->parent, f);
        return 1;
    }
    ret = redirector_finish(&s->parent, f, packet_stream_room(&s->tx),
                            sink_take);
    return ret || s->tx.packets ? ret : -EMSGSIZE;
}

static unsigned sink_put(RedirectorSink *parent, PacketFrame *frames,
                         unsigned n)
{
    ChardevSink *s = CHARDEV_SINK(parent);
    unsigned i;
    int ret;

    if (!is_open(s)) {
        return 0;
    }
    for (i = 0; i < n && queue_has_room(s); i++) {
        ret = sink_put_one(s, &frames[i]);
        if (ret == 0) {
            break;
        } else if (ret < 0) {
            redirector_sink_refuse(parent, ret, frames[i].len);
        }
    }
    return i;
}

bool redirector_chardev_mark(RedirectorSink *parent, HandoverMark mark)
{
    ChardevSink *s = CHARDEV_SINK(parent);

    if (!is_open(s) || !queue_has_room(s)) {
        return false;
    }
    redirector_chardev_put_mark(&s->tx, sink_netdev(s), mark);
    s->marks++;
    trace_redirector_say(parent->owner->id, mark, true);
    return true;
}

bool redirector_chardev_sent(RedirectorSink *parent)
{
    ChardevSink *s = CHARDEV_SINK(parent);

    return !s->tx.packets || !is_open(s);
}

/*
 * The peer has no packets, and may tell so (shutdown(SHUT_WR), as nc -N
 * does): it still gets its packets.  With TCP that can't be told from closing
 * the connection, which comes to light when the next packets are sent; they
 * are lost.  Where that must not be, a peer is to keep its direction open.
 */
static int sink_can_read(void *opaque)
{
    ChardevSink *s = opaque;

    return s->reads ? PACKET_LEN_MAX : 0;
}

static void sink_hear(void *opaque, const uint8_t *buf, int size)
{
    ChardevSink *s = opaque;
    PacketFrame f;
    HandoverMark mark;

    if (!s->said.buf || s->deaf) {
        return;
    }
    s->deaf = packet_stream_room(&s->said) < size ||
              packet_stream_add(&s->said, buf, size) < 0;
    while (packet_stream_peek(&s->said, sink_netdev(s)->vnet_hdr_len, &f, 1)) {
        mark = f.len ? handover_mark(f.iov[0].iov_base, f.len)
                     : HANDOVER_NO_MARK;
        packet_stream_drop(&s->said, 1);
        if (mark != HANDOVER_NO_MARK) {
            s->parent.owner->said(s->parent.owner, mark);
        }
    }
}

static void sink_event(void *opaque, QEMUChrEvent event)
{
    ChardevSink *s = opaque;

    if (event == CHR_EVENT_CLOSED) {
        /* The next peer gets the packet that this one did not get whole. */
        s->sent = 0;
        packet_stream_trim(&s->said);
        s->deaf = false;
        stop_watching(s);
    }
    if (event == CHR_EVENT_CLOSED || event == CHR_EVENT_OPENED) {
        s->reads = s->lossless;
        redirector_chardev_no_delay(&s->chr);
        s->parent.owner->said(s->parent.owner, HANDOVER_NO_MARK);
        s->parent.owner->run_later(s->parent.owner);
    }
}

static EndState sink_state(RedirectorSink *parent)
{
    ChardevSink *s = CHARDEV_SINK(parent);

    return !is_open(s) ? END_STATE(DISCONNECTED) :
           !queue_has_room(s) ? END_STATE(STALLED) :
           END_STATE(ACTIVE);
}

static void sink_describe(RedirectorSink *parent,
                          FilterRedirectorEndpoint *end)
{
    ChardevSink *s = CHARDEV_SINK(parent);

    end->name = g_strdup(s->chr.chr ? s->chr.chr->label : NULL);
    end->stats->queued = s->tx.packets;
}

static void sink_free(RedirectorSink *parent)
{
    ChardevSink *s = CHARDEV_SINK(parent);

    stop_watching(s);
    timer_free(s->retry);
    qemu_chr_fe_deinit(&s->chr, false);
    packet_stream_destroy(&s->tx);
    packet_stream_destroy(&s->said);
    g_free(s);
}

static const RedirectorSinkOps chardev_sink_ops = {
    .type = FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV,
    .connected = sink_connected,
    .room = sink_room,
    .put = sink_put,
    .flush = sink_flush,
    .state = sink_state,
    .describe = sink_describe,
    .free = sink_free,
};

RedirectorSink *redirector_chardev_sink(RedirectorOwner *owner, Chardev *chr,
                                        bool vnet_hdr, bool lossless,
                                        Error **errp)
{
    ChardevSink *s = g_new0(ChardevSink, 1);

    if (!qemu_chr_fe_init(&s->chr, chr, errp)) {
        g_free(s);
        return NULL;
    }
    s->parent.ops = &chardev_sink_ops;
    s->parent.owner = owner;
    s->parent.role = SWITCHOVER_SEND;
    s->lossless = s->reads = lossless;
    s->null = object_dynamic_cast(OBJECT(chr), TYPE_CHARDEV_NULL);
    packet_stream_init(&s->tx, QUEUE_SIZE, vnet_hdr);
    if (lossless) {
        packet_stream_init(&s->said, 4 * PACKET_STREAM_FRAME_MAX, vnet_hdr);
    }
    s->retry = timer_new_us(QEMU_CLOCK_REALTIME, sink_retry, s);
    qemu_chr_fe_set_handlers(&s->chr, sink_can_read, sink_hear, sink_event,
                             NULL, s, NULL, true);
    return &s->parent;
}
