/*
 * filter-redirector: its ends, and what keeps them going
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/iov.h"
#include "filter-redirector-chain.h"
#include "filter-redirector-chardev.h"
#include "filter-redirector-int.h"
#include "filter-redirector-packet.h"

const char *redirector_id(NetFilterState *nf)
{
    return object_get_canonical_path_component(OBJECT(nf)) ?: "";
}

/* Moving packets */

static void run(RedirectorOwner *owner)
{
    Redirector *r = container_of(owner, Redirector, owner);
    Object *obj = OBJECT(owner->nf);
    bool more = false;
    unsigned i;

    /* A filter behind this one may run the main loop until it has written. */
    if (r->running) {
        return;
    }
    r->running = true;
    object_ref(obj);
    for (i = 0; i < r->n_pumps; i++) {
        more |= redirector_pump_run(&r->pumps[i]);
    }
    r->running = false;
    /* The netdev may have gone meanwhile, and the filter with it. */
    if (owner->nf->netdev) {
        if (r->chain) {
            redirector_source_update(r->chain);
        }
        if (r->lend) {
            redirector_source_update(redirector_lend_source(r->lend));
        }
        if (r->hold) {
            redirector_source_update(redirector_hold_source(r->hold));
        }
        if (more) {
            qemu_bh_schedule(r->bh);
        }
    }
    object_unref(obj);
}

static void run_later(RedirectorOwner *owner)
{
    qemu_bh_schedule(container_of(owner, Redirector, owner)->bh);
}

static void redirector_bh(void *opaque)
{
    run(opaque);
}

static bool offer(RedirectorOwner *owner, RedirectorSource *s, PacketFrame *f)
{
    Redirector *r = container_of(owner, Redirector, owner);
    unsigned i;

    for (i = 0; i < r->n_pumps; i++) {
        if (r->pumps[i].source == s) {
            return redirector_pump_offer(&r->pumps[i], f);
        }
    }
    return false;
}

static void peer(RedirectorOwner *owner, bool open)
{
    Redirector *r = container_of(owner, Redirector, owner);

    if (r->hold) {
        redirector_hold_peer(r->hold, open);
    }
}

static void said(RedirectorOwner *owner, HandoverMark mark)
{
    Redirector *r = container_of(owner, Redirector, owner);

    if (r->lend) {
        redirector_lend_said(r->lend, mark);
    }
}

/* Set-up */

bool redirector_takes_when_stopped(Redirector *r, NetFilterState *nf,
                                   const char *outdev)
{
    return r->enable_when_stopped && outdev && !r->in_netdev &&
           nf->direction != NET_FILTER_DIRECTION_RX;
}

bool redirector_holds(Redirector *r, NetFilterState *nf, const char *indev,
                      const char *outdev)
{
    return r->enable_when_stopped && indev && !outdev && !r->out_netdev &&
           nf->direction != NET_FILTER_DIRECTION_RX;
}

static bool open_input(Redirector *r, const char *indev, bool vnet_hdr,
                       Error **errp)
{
    RedirectorPacketOptions opt = {
        .netdev = r->in_netdev,
        .fd = r->in_netdev_fd,
        .ring_size = r->ring_size,
        .snaplen = r->snaplen,
        .filter = r->filter,
    };
    Chardev *chr;

    if (indev) {
        chr = redirector_find_chardev("indev", indev, errp);
        r->input = chr ? redirector_chardev_source(&r->owner, chr, vnet_hdr,
                                                   errp) : NULL;
        return r->input;
    }
    if (r->in_netdev) {
        r->input = redirector_packet_source(&r->owner, &opt, errp);
        return r->input;
    }
    return true;
}

static bool open_output(Redirector *r, const char *outdev, bool vnet_hdr,
                        Error **errp)
{
    RedirectorPacketOptions opt = {
        .netdev = r->out_netdev,
        .fd = r->out_netdev_fd,
    };
    Chardev *chr;

    if (outdev) {
        chr = redirector_find_chardev("outdev", outdev, errp);
        r->output = chr ? redirector_chardev_sink(&r->owner, chr, vnet_hdr,
                                                  r->enable_when_stopped,
                                                  errp) : NULL;
        return r->output;
    }
    if (r->out_netdev) {
        r->output = redirector_packet_sink(&r->owner, &opt, errp);
        return r->output;
    }
    return true;
}

static void add_pump(Redirector *r, RedirectorSource *source,
                     RedirectorSink *sink)
{
    r->pumps[r->n_pumps++] = (RedirectorPump) { source, sink };
}

/* A hand-over keeps what it sends until the guest can't go on here. */
static void add_chain_pumps(Redirector *r, const char *outdev)
{
    if (r->input || !redirector_takes_when_stopped(r, r->owner.nf, outdev)) {
        add_pump(r, r->chain, r->output);
        return;
    }
    r->into_chain = redirector_chain_sink(&r->owner, false, false,
                                          NET_FILTER_DIRECTION_TX);
    r->lend = redirector_lend_new(&r->owner, r->chain, r->output,
                                  r->into_chain);
    add_pump(r, r->chain, redirector_lend_sink(r->lend));
    add_pump(r, redirector_lend_source(r->lend), r->into_chain);
}

/* Joins the ends, with the chain where only one of them is given. */
static void join(Redirector *r, const char *indev, const char *outdev)
{
    NetFilterState *nf = r->owner.nf;
    const char *netdev = r->in_netdev ?: r->out_netdev;
    /*
     * A packet of the endpoint's own TAP is not taken out of the chain: it
     * has been captured already, or would be injected for ever.
     */
    bool own = netdev && !strcmp(netdev, nf->netdev->name);
    bool holds = redirector_holds(r, nf, indev, outdev) &&
                 nf->netdev->info->intake_changed;

    /* What is handed over is for the guest, whatever @queue says. */
    if (r->input && (!r->output || (indev && outdev))) {
        r->into_chain = redirector_chain_sink(&r->owner,
                                              own && r->in_netdev,
                                              r->in_netdev,
                                              holds ? NET_FILTER_DIRECTION_TX
                                                    : nf->direction);
    }
    if (holds) {
        r->hold = redirector_hold_new(&r->owner, r->input, r->into_chain);
        add_pump(r, r->input, redirector_hold_sink(r->hold));
        add_pump(r, redirector_hold_source(r->hold), r->into_chain);
    } else if (r->input) {
        add_pump(r, r->input, r->into_chain ?: r->output);
    }
    if (r->output && !own && (!r->input || !redirector_multiqueue(nf))) {
        r->chain = redirector_chain_source(
            &r->owner, r->output, redirector_takes_when_stopped(r, nf, outdev));
        add_chain_pumps(r, outdev);
    }
}

void redirector_setup(Redirector *r, NetFilterState *nf, const char *indev,
                      const char *outdev, bool vnet_hdr, Error **errp)
{
    ERRP_GUARD();

    r->owner.nf = nf;
    r->owner.id = g_strdup(redirector_id(nf));
    r->bh = qemu_bh_new(redirector_bh, &r->owner);
    if (!open_input(r, indev, vnet_hdr, errp) ||
        !open_output(r, outdev, vnet_hdr, errp)) {
        error_prepend(errp, "filter-redirector '%s': ", r->owner.id);
        r->owner.nf = NULL;
        return;
    }
    join(r, indev, outdev);
    redirector_follow(r);
}

Redirector *redirector_new(void)
{
    Redirector *r = g_new0(Redirector, 1);

    r->owner.run = run;
    r->owner.run_later = run_later;
    r->owner.offer = offer;
    r->owner.peer = peer;
    r->owner.said = said;
    r->enable_when_running = true;
    r->ring_size = PACKET_RING_SIZE_DEFAULT;
    return r;
}

static void free_source(RedirectorSource *s)
{
    if (s) {
        s->ops->free(s);
    }
}

static void free_sink(RedirectorSink *s)
{
    if (s) {
        s->ops->free(s);
    }
}

void redirector_free(Redirector *r)
{
    if (!r) {
        return;
    }
    redirector_hold_free(r->hold);
    r->hold = NULL;
    redirector_lend_free(r->lend);
    r->lend = NULL;
    free_source(r->input);
    free_source(r->chain);
    free_sink(r->output);
    free_sink(r->into_chain);
    if (r->owner.nf) {
        redirector_unfollow(r);
    }
    g_clear_pointer(&r->bh, qemu_bh_delete);
    g_free((char *)r->owner.id);
    g_free(r->in_netdev);
    g_free(r->out_netdev);
    g_free(r->in_netdev_fd);
    g_free(r->filter);
    g_free(r->out_netdev_fd);
    g_free(r);
}

ssize_t redirector_receive_iov(Redirector *r, NetClientState *sender,
                               unsigned flags, const struct iovec *iov,
                               int iovcnt)
{
    if (r->lend && redirector_lend_receive(r->lend, flags, iov, iovcnt)) {
        return iov_size(iov, iovcnt);
    }
    return r->hold ? redirector_hold_receive(r->hold, sender, flags, iov,
                                             iovcnt) :
           r->chain ? redirector_chain_receive(r->chain, sender, flags, iov,
                                               iovcnt) : 0;
}
