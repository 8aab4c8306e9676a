/*
 * filter-redirector: what comes directly to a guest that has just moved
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "filter-redirector-direct.h"

/* What doesn't fit waits in the TAP's queue. */
#define QUEUE_SIZE (16 * MiB)

void redirector_direct_begin(RedirectorDirect *d)
{
    if (!d->queue.buf) {
        packet_stream_init(&d->queue, QUEUE_SIZE, true);
    }
}

void redirector_direct_end(RedirectorDirect *d, NetClientState *nc)
{
    redirector_direct_stop(d, nc);
    d->lost += d->collecting.packets + d->collected.packets +
               d->queue.packets;
    packet_stream_destroy(&d->collecting);
    packet_stream_destroy(&d->collected);
    packet_stream_destroy(&d->queue);
}

void redirector_direct_collect(RedirectorDirect *d, NetClientState *nc)
{
    packet_stream_init(&d->collecting, QUEUE_SIZE, true);
    packet_stream_init(&d->collected, QUEUE_SIZE, true);
    d->hdr_changes = nc->vnet_hdr_changes;
    d->sure = 0;
    d->collect = packet_collect_start(nc, &d->collecting);
}

void redirector_direct_finish(RedirectorDirect *d)
{
    packet_collect_finish(d->collect);
    d->collect = NULL;
}

/*
 * A guest's new driver chooses the length of vnet headers, perhaps by way of
 * another one, and the thread does not see it: what it has read since this was
 * looked at last may have been taken apart in the wrong place.
 */
void redirector_direct_stop(RedirectorDirect *d, NetClientState *nc)
{
    if (d->collect) {
        packet_collect_stop(d->collect);
        d->collect = NULL;
        if (nc->vnet_hdr_changes != d->hdr_changes) {
            d->lost += packet_stream_truncate(&d->collecting, d->sure);
        }
    }
}

void redirector_direct_look(RedirectorDirect *d, NetClientState *nc)
{
    if (d->collect && nc->vnet_hdr_changes == d->hdr_changes) {
        d->sure = packet_collect_queued(d->collect);
    } else {
        redirector_direct_stop(d, nc);
    }
}

bool redirector_direct_any(RedirectorDirect *d, PacketCollectTest *test,
                           void *opaque)
{
    return d->collect && packet_collect_any(d->collect, test, opaque);
}

bool redirector_direct_room(const RedirectorDirect *d)
{
    return !d->queue.buf ||
           packet_stream_room(&d->queue) >= PACKET_STREAM_FRAME_MAX;
}

bool redirector_direct_put(RedirectorDirect *d, PacketFrame *f)
{
    bool room = packet_stream_put(&d->queue, f->hdr, f->hdr_len, f->iov,
                                  f->iovcnt);

    d->lost += !room;
    return room;
}

/* Where the first ones are. */
static PacketStream *front(RedirectorDirect *d, NetClientState *nc)
{
    redirector_direct_look(d, nc);
    if (d->collect && !d->collected.packets) {
        packet_collect_swap(d->collect, &d->collected);
        d->sure = 0;
    }
    return d->collected.packets ? &d->collected :
           !d->collect && d->collecting.packets ? &d->collecting : &d->queue;
}

unsigned redirector_direct_peek(RedirectorDirect *d, NetClientState *nc,
                                PacketFrame *frames, unsigned max)
{
    PacketStream *from = front(d, nc);
    unsigned i, n = packet_stream_peek(from, 0, frames, max);

    for (i = 0; i < n; i++) {
        frames[i].dir = NET_FILTER_DIRECTION_TX;
        if (from != &d->queue) {
            redirector_hdr_read(nc, &frames[i]);
        }
    }
    return n;
}

void redirector_direct_drop(RedirectorDirect *d, NetClientState *nc,
                            unsigned n)
{
    if (n) {
        packet_stream_drop(front(d, nc), n);
    }
}

static bool is_for_guest(NetClientState *nic, const PacketFrame *f)
{
    return nic && nic->info->type == NET_CLIENT_DRIVER_NIC && f->len >= 6 &&
           !memcmp(f->iov[0].iov_base, qemu_get_nic(nic)->conf->macaddr.a, 6);
}

unsigned redirector_direct_drain(NetFilterState *nf, bool *alone)
{
    PacketStream stale;
    PacketFrame f;
    unsigned n;

    packet_stream_init(&stale, QUEUE_SIZE, true);
    packet_collect_now(nf->netdev, &stale);
    n = stale.packets;
    while (packet_stream_peek(&stale, 0, &f, 1)) {
        *alone |= is_for_guest(nf->netdev->peer, &f);
        packet_stream_drop(&stale, 1);
    }
    packet_stream_destroy(&stale);
    return n + qemu_netfilter_drain(nf);
}
