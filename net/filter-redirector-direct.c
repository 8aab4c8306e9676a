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
#define DIRECT_SIZE (16 * MiB)

static void look_at_stale(void *opaque, const PacketFrame *f)
{
    RedirectorDirect *d = opaque;
    NetClientState *nic = d->nf->netdev->peer;

    if (nic && nic->info->type == NET_CLIENT_DRIVER_NIC) {
        redirector_twins_stale(&d->twins, f,
                               qemu_get_nic(nic)->conf->macaddr.a);
    }
}

void redirector_direct_drain(RedirectorDirect *d)
{
    redirector_twins_begin(&d->twins, true);
    d->stale += redirector_backlog_drain(d->nf, look_at_stale, d);
}

void redirector_direct_begin(RedirectorDirect *d, bool collect)
{
    redirector_twins_begin(&d->twins, false);
    redirector_backlog_begin(&d->backlog, DIRECT_SIZE);
    if (collect) {
        redirector_backlog_collect(&d->backlog, d->nf->netdev);
    }
}

void redirector_direct_end(RedirectorDirect *d)
{
    redirector_backlog_end(&d->backlog, d->nf->netdev);
    d->lost += d->backlog.lost;
    d->backlog.lost = 0;
    redirector_twins_end(&d->twins);
}

bool redirector_direct_receive(RedirectorDirect *d, unsigned flags,
                               const struct iovec *iov, int iovcnt)
{
    g_autofree uint8_t *copy = NULL;
    PacketFrame f;

    if (!redirector_frame_read(d->nf->netdev, flags, iov, iovcnt, &f, &copy) ||
        !redirector_backlog_put(&d->backlog, &f)) {
        d->lost++;
        return false;
    }
    return !handover_flooded(f.iov[0].iov_base, f.len);
}

/* Drops what the source has sent, too; false: the front is to go on. */
static bool cancel_front(RedirectorDirect *d, const PacketFrame *f)
{
    if (!redirector_twins_has_direct(&d->twins, f)) {
        return false;
    }
    redirector_twins_take_direct(&d->twins, f);
    redirector_backlog_drop(&d->backlog, 1);
    d->cancelled++;
    return true;
}

unsigned redirector_direct_read(RedirectorDirect *d, PacketFrame *frames,
                                unsigned max)
{
    unsigned n, i;

    do {
        n = redirector_backlog_peek(&d->backlog, d->nf->netdev, frames, max);
    } while (n && cancel_front(d, &frames[0]));
    /* One more that has to be cancelled is cancelled in front. */
    for (i = 1; i < n && !redirector_twins_has_direct(&d->twins, &frames[i]);
         i++) {
        ;
    }
    return MIN(i, n);
}

void redirector_direct_release(RedirectorDirect *d, const PacketFrame *frames,
                               unsigned n)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        redirector_twins_direct(&d->twins, &frames[i]);
    }
    d->packets += n;
    redirector_backlog_drop(&d->backlog, n);
}

bool redirector_direct_any(RedirectorDirect *d)
{
    PacketFrame f;

    return redirector_backlog_peek(&d->backlog, d->nf->netdev, &f, 1);
}

static bool is_copy(const PacketFrame *f, void *opaque)
{
    RedirectorDirect *d = opaque;

    return !handover_flooded(f->iov[0].iov_base, f->len) &&
           redirector_twins_has_direct(&d->twins, f);
}

bool redirector_direct_copied(RedirectorDirect *d)
{
    return redirector_backlog_any(&d->backlog, is_copy, d);
}

bool redirector_direct_takes_source(RedirectorDirect *d, const PacketFrame *f)
{
    bool came = redirector_twins_take_source(&d->twins, f);

    d->cancelled += came;
    return !came;
}
