/*
 * filter-redirector: what ends of all kinds have in common
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "net/vnet-gso.h"
#include "filter-redirector-end.h"
#include "trace.h"

void redirector_source_update(RedirectorSource *s)
{
    if (s->ops->update) {
        s->ops->update(s);
    }
}

void redirector_source_count(RedirectorSource *s, const PacketFrame *frames,
                             unsigned n)
{
    unsigned i;

    s->stats.packets += n;
    for (i = 0; i < n; i++) {
        s->stats.bytes += frames[i].len;
    }
}

void redirector_sink_count(RedirectorSink *s, size_t bytes)
{
    s->stats.packets++;
    s->stats.bytes += bytes;
    s->stalled = false;
}

void redirector_sink_stall(RedirectorSink *s)
{
    s->stats.stalls += !s->stalled;
    s->stalled = true;
    trace_redirector_out_stalled(s->owner->id);
}

void redirector_sink_refuse(RedirectorSink *s, int err, size_t len)
{
    s->stats.errors++;
    trace_redirector_refused(s->owner->id, len, err);
}

void redirector_sink_lose(RedirectorSink *s, size_t len)
{
    s->stats.lost++;
    trace_redirector_lost(s->owner->id, len);
}

void redirector_hdr_read(NetClientState *nc, PacketFrame *f)
{
    if (nc->vnet_hdr_swapped) {
        vnet_hdr_swap(f->hdr, f->hdr_len);
    }
}

size_t redirector_hdr_write(NetClientState *nc, const PacketFrame *f,
                            uint8_t *hdr)
{
    size_t len = nc->vnet_hdr_len;

    vnet_hdr_convert(hdr, len, f->hdr, f->hdr_len);
    if (nc->vnet_hdr_swapped) {
        vnet_hdr_swap(hdr, len);
    }
    return len;
}

typedef struct FinishContext {
    RedirectorSink *sink;
    RedirectorTake *take;
    const PacketFrame *frame;   /* what they are made of */
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
        .dir = ctx->frame->dir,
        .time_ns = ctx->frame->time_ns,
    };

    memcpy(f.iov, iov, iovcnt * sizeof(iov[0]));
    ctx->take(ctx->sink, &f);
}

int redirector_finish(RedirectorSink *s, const PacketFrame *f, size_t room,
                      RedirectorTake *take)
{
    FinishContext ctx = { .sink = s, .take = take, .frame = f };
    g_autofree uint8_t *copy = NULL;
    const uint8_t *pkt = f->iov[0].iov_base;

    if (f->iovcnt > 1) {
        pkt = copy = g_malloc(f->len);
        iov_to_buf(f->iov, f->iovcnt, 0, copy, f->len);
    }
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

bool redirector_multiqueue(NetFilterState *nf)
{
    return qemu_find_net_clients_except(nf->netdev_id, NULL,
                                        NET_CLIENT_DRIVER_NIC, 0) > 1;
}

void redirector_pass_now(RedirectorSource *source, RedirectorSink *sink)
{
    PacketFrame f;

    while (source->ops->read(source, &f, 1) && sink->ops->put(sink, &f, 1)) {
        source->ops->release(source, &f, 1);
    }
}

bool redirector_frame_read(NetClientState *nc, unsigned flags,
                           const struct iovec *iov, int iovcnt,
                           PacketFrame *f, uint8_t **copy)
{
    size_t size = iov_size(iov, iovcnt);
    size_t hdr_len = flags & QEMU_NET_PACKET_FLAG_RAW ? 0 : nc->vnet_hdr_len;
    uint8_t *data = iov[0].iov_base;

    if (size <= hdr_len || size > PACKET_LEN_MAX - VNET_HDR_LEN_MAX) {
        return false;
    }
    if (iovcnt > 1) {
        data = *copy = g_malloc(size);
        iov_to_buf(iov, iovcnt, 0, data, size);
    }
    memcpy(f->hdr, data, hdr_len);
    f->hdr_len = hdr_len;
    f->len = size - hdr_len;
    f->iov[0] = (struct iovec) { data + hdr_len, f->len };
    f->iovcnt = 1;
    f->cut = 0;
    f->time_ns = 0;
    redirector_hdr_read(nc, f);
    return true;
}
