/*
 * filter-redirector: what waits for the guest while it moves
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "filter-redirector-backlog.h"

/* More is left in the TAP, and read later. */
#define DRAIN_SIZE (16 * MiB)

bool redirector_backlog_begin(RedirectorBacklog *b, size_t size)
{
    if (b->back.buf) {
        return false;
    }
    packet_stream_init(&b->back, size, true);
    packet_stream_init(&b->front, size, true);
    return true;
}

void redirector_backlog_end(RedirectorBacklog *b, NetClientState *nc)
{
    redirector_backlog_stop(b, nc);
    b->lost += redirector_backlog_queued(b);
    packet_stream_destroy(&b->back);
    packet_stream_destroy(&b->front);
}

void redirector_backlog_collect(RedirectorBacklog *b, NetClientState *nc)
{
    b->hdr_changes = nc->vnet_hdr_changes;
    b->sure = b->back.packets;
    b->collect = packet_collect_start(nc, &b->back);
}

void redirector_backlog_finish(RedirectorBacklog *b)
{
    packet_collect_finish(b->collect);
    b->collect = NULL;
}

/*
 * A guest's new driver chooses the length of vnet headers, perhaps by way of
 * another one, and the thread does not see it: what it has read since this was
 * looked at last may have been taken apart in the wrong place.
 */
void redirector_backlog_stop(RedirectorBacklog *b, NetClientState *nc)
{
    if (b->collect) {
        packet_collect_stop(b->collect);
        b->collect = NULL;
        /* A netdev that is gone has no driver any more. */
        if (nc && nc->vnet_hdr_changes != b->hdr_changes) {
            b->lost += packet_stream_truncate(&b->back, b->sure);
        }
    }
}

void redirector_backlog_look(RedirectorBacklog *b, NetClientState *nc)
{
    if (b->collect && nc->vnet_hdr_changes == b->hdr_changes) {
        b->sure = packet_collect_queued(b->collect);
    } else {
        redirector_backlog_stop(b, nc);
    }
}

bool redirector_backlog_any(RedirectorBacklog *b, PacketCollectTest *test,
                            void *opaque)
{
    return b->collect && packet_collect_any(b->collect, test, opaque);
}

unsigned redirector_backlog_queued(const RedirectorBacklog *b)
{
    return b->front.packets + (b->collect ? packet_collect_queued(b->collect)
                                          : b->back.packets);
}

bool redirector_backlog_room(const RedirectorBacklog *b)
{
    return b->collect || !b->back.buf ||
           packet_stream_room(&b->back) >= PACKET_STREAM_FRAME_MAX;
}

bool redirector_backlog_put(RedirectorBacklog *b, const PacketFrame *f)
{
    return b->collect
           ? packet_collect_put(b->collect, f)
           : packet_stream_put(&b->back, f->hdr, f->hdr_len, f->iov,
                               f->iovcnt);
}

unsigned redirector_backlog_peek(RedirectorBacklog *b, NetClientState *nc,
                                 PacketFrame *frames, unsigned max)
{
    PacketStream empty = b->front;
    unsigned i, n;

    redirector_backlog_look(b, nc);
    if (!empty.packets && b->collect) {
        packet_collect_swap(b->collect, &b->front);
        b->sure = 0;
    } else if (!empty.packets) {
        b->front = b->back;
        b->back = empty;
    }
    n = packet_stream_peek(&b->front, 0, frames, max);
    for (i = 0; i < n; i++) {
        frames[i].dir = NET_FILTER_DIRECTION_TX;
    }
    return n;
}

void redirector_backlog_drop(RedirectorBacklog *b, unsigned n)
{
    packet_stream_drop(&b->front, n);
}

unsigned redirector_backlog_drain(NetFilterState *nf,
                                  void (*look)(void *opaque,
                                               const PacketFrame *f),
                                  void *opaque)
{
    PacketStream stale;
    PacketFrame f;
    unsigned n;

    packet_stream_init(&stale, DRAIN_SIZE, true);
    packet_collect_now(nf->netdev, &stale);
    n = stale.packets;
    while (packet_stream_peek(&stale, 0, &f, 1)) {
        look(opaque, &f);
        packet_stream_drop(&stale, 1);
    }
    packet_stream_destroy(&stale);
    return n + qemu_netfilter_drain(nf);
}
