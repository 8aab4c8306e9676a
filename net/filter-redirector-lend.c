/*
 * filter-redirector: the hand-over's source lends what its guest may still need
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "net/packet-stream.h"
#include "filter-redirector-backlog.h"
#include "filter-redirector-chain.h"
#include "filter-redirector-chardev.h"
#include "filter-redirector-lend.h"
#include "filter-redirector-talk.h"
#include "trace.h"

/* How often to look whether the guest has got all back. */
#define TICK_MS 2

/*
 * A guest that takes nothing for so long does without.  Long: it may have to
 * wake up first.
 */
#define RETURN_MS (10 * 1000)

/* What doesn't fit waits in the TAP's queue. */
#define COLLECTED_SIZE (32 * MiB)
#define KEPT_SIZE (32 * MiB)

typedef enum LendState {
    LEND_OFF,                   /* what is handed over is gone */
    LEND_COLLECTS,              /* nothing is handed over yet */
    LEND_LENDS,                 /* it is kept as well */
    LEND_RETURNS,               /* the guest goes on here, and gets it first */
} LendState;

struct RedirectorLend {
    RedirectorSource source;    /* what is given back */
    RedirectorSink sink;        /* what is to be handed over */
    RedirectorSource *chain;    /* where that comes from */
    RedirectorSink *output;     /* where it goes to */
    RedirectorSink *guest;      /* where it is given back */
    LendState state;
    RedirectorFarewell farewell;    /* what is said to the destination */
    RedirectorBacklog backlog;  /* what comes before what is in the chain */
    PacketStream kept;          /* handed over */
    bool left;                  /* the guest has */
    uint64_t returned;          /* packets */
    int64_t took_at;            /* the guest took something, or began to */
    int64_t given_at;           /* nothing was left, or 0 */
    QEMUTimer *tick;
};

static NetFilterState *lend_filter(const RedirectorLend *l)
{
    return l->source.owner->nf;
}

bool redirector_lend_returns(const RedirectorLend *l)
{
    return l->state == LEND_RETURNS;
}

static NetClientState *lend_netdev(const RedirectorLend *l)
{
    return lend_filter(l)->netdev;
}

bool redirector_lend_collects(const RedirectorLend *l)
{
    return l->left && l->backlog.collect;
}

static unsigned waiting(const RedirectorLend *l)
{
    return redirector_backlog_queued(&l->backlog);
}

/* The netdev reads nothing, and its vhost waits, until all is given back. */
static void set_state(RedirectorLend *l, LendState state)
{
    bool returned = redirector_lend_returns(l);

    l->state = state;
    if (returned != redirector_lend_returns(l)) {
        qemu_netfilter_intake_changed(lend_filter(l));
        qemu_netfilter_holds_vhost_changed(lend_filter(l));
    }
}

/* What has been handed over is not the guest's any more. */
static void lend_end(RedirectorLend *l)
{
    trace_redirector_lend_end(l->source.owner->id, l->kept.packets,
                              l->returned);
    packet_stream_destroy(&l->kept);
    set_state(l, LEND_OFF);
}

static bool is_over(const RedirectorLend *l)
{
    return l->state == LEND_LENDS &&
           !handover_lends(&l->farewell.facts, redirector_now_ms());
}

static void stop_collecting(RedirectorLend *l)
{
    redirector_backlog_stop(&l->backlog, lend_netdev(l));
}

/* All is gone. */
static void lose(RedirectorLend *l)
{
    redirector_backlog_end(&l->backlog, lend_netdev(l));
    l->output->stats.lost += l->backlog.lost;
    l->backlog.lost = 0;
    if (l->state == LEND_RETURNS) {
        l->output->stats.lost += l->kept.packets;
    }
    if (l->state != LEND_OFF) {
        lend_end(l);
    }
}

/* Beginning and end */

void redirector_lend_collect(RedirectorLend *l)
{
    NetFilterState *nf = lend_filter(l);

    if (!nf->on || !l->output->ops->connected(l->output)) {
        stop_collecting(l);
        return;
    }
    if (l->backlog.collect ||
        (l->state != LEND_OFF && l->state != LEND_COLLECTS)) {
        return;
    }
    l->state = LEND_COLLECTS;
    if (redirector_backlog_begin(&l->backlog, COLLECTED_SIZE)) {
        /* These come first. */
        qemu_netfilter_take_queued(nf);
    }
    redirector_backlog_collect(&l->backlog, nf->netdev);
}

void redirector_lend_wait(RedirectorLend *l)
{
    stop_collecting(l);
}

bool redirector_lend_receive(RedirectorLend *l, unsigned flags,
                             const struct iovec *iov, int iovcnt)
{
    size_t size = iov_size(iov, iovcnt);
    g_autofree uint8_t *copy = NULL;
    PacketFrame f;

    if (l->state != LEND_COLLECTS || l->backlog.collect) {
        return false;
    }
    if (!redirector_frame_read(lend_netdev(l), flags, iov, iovcnt, &f,
                               &copy)) {
        redirector_sink_refuse(l->output, -EMSGSIZE, size);
    } else if (!redirector_backlog_put(&l->backlog, &f)) {
        redirector_sink_lose(l->output, size);
    }
    return true;
}

unsigned redirector_lend_queued(const RedirectorLend *l)
{
    return l->backlog.collect && !l->left ? 0 : waiting(l);
}

/*
 * The main loop has a lot to do when a migration has completed.  A destination
 * that tells when its guest runs may take its time until then.
 */
void redirector_lend_begin(RedirectorLend *l, bool lends)
{
    if (!lends || !l->farewell.facts.marks || l->farewell.facts.runs) {
        stop_collecting(l);
    }
    if (l->state == LEND_LENDS || l->state == LEND_RETURNS) {
        lend_end(l);
    }
    l->left = true;
    redirector_farewell_begin(&l->farewell);
    l->returned = 0;
    l->state = lends ? LEND_LENDS : LEND_OFF;
    timer_mod(l->tick, redirector_now_ms() + TICK_MS);
}

void redirector_lend_return(RedirectorLend *l)
{
    l->left = false;
    redirector_farewell_end(&l->farewell);
    l->took_at = redirector_now_ms();
    l->given_at = 0;
    stop_collecting(l);
    if (is_over(l)) {
        lend_end(l);
    }
    if (l->kept.packets || waiting(l) ||
        (l->state != LEND_OFF && redirector_chain_queued(l->chain))) {
        timer_mod(l->tick, l->took_at + TICK_MS);
        set_state(l, LEND_RETURNS);
    } else {
        lose(l);
    }
}

void redirector_lend_give_up(RedirectorLend *l)
{
    l->left = false;
    lose(l);
}

static bool all_returned(RedirectorLend *l)
{
    return !l->kept.packets && !waiting(l) &&
           !redirector_chain_queued(l->chain) &&
           redirector_chain_is_done(l->guest, &l->given_at);
}

/* Has all been sent that has come until now? */
static bool all_sent(const RedirectorLend *l)
{
    return !waiting(l) && !redirector_chain_queued(l->chain) &&
           redirector_chardev_sent(l->output);
}

/* Is there something to look for now and then? */
static bool watches(const RedirectorLend *l)
{
    return l->state != LEND_OFF ||
           (l->left && redirector_farewell_waits(&l->farewell));
}

/* What comes from now on is read by QEMU, which sees when there is no more. */
static void end_collecting(RedirectorLend *l)
{
    if (redirector_lend_collects(l)) {
        redirector_backlog_finish(&l->backlog);
        qemu_netfilter_intake_changed(lend_filter(l));
    }
}

void redirector_lend_said(RedirectorLend *l, HandoverMark mark)
{
    const HandoverSource *facts = &l->farewell.facts;

    redirector_farewell_said(&l->farewell, mark);
    if (mark != HANDOVER_HELLO && (facts->runs || !facts->marks)) {
        end_collecting(l);
    }
    if (watches(l)) {
        timer_mod(l->tick, redirector_now_ms() + TICK_MS);
    }
    l->source.owner->run_later(l->source.owner);
}

static void look(RedirectorLend *l)
{
    if (is_over(l)) {
        lend_end(l);
    } else if (l->state == LEND_RETURNS && l->source.live &&
               (all_returned(l) ||
                redirector_now_ms() - l->took_at >= RETURN_MS)) {
        lose(l);
    }
}

void redirector_lend_quit(RedirectorLend *l)
{
    if (l->left && !l->farewell.facts.quit_at) {
        l->farewell.facts.quit_at = redirector_now_ms();
        timer_mod(l->tick, redirector_now_ms() + TICK_MS);
    }
}

bool redirector_lend_lingers(const RedirectorLend *l)
{
    return l->left &&
           redirector_farewell_lingers(&l->farewell, all_sent(l));
}

static void lend_tick(void *opaque)
{
    RedirectorLend *l = opaque;
    RedirectorOwner *owner = l->source.owner;

    l->farewell.facts.looks++;
    look(l);
    if (l->left) {
        redirector_farewell_look(&l->farewell, all_sent(l));
    }
    if (watches(l) || redirector_lend_lingers(l)) {
        timer_mod(l->tick, redirector_now_ms() + TICK_MS);
    }
    owner->run(owner);
}

/* What is handed over */

/*
 * A loan that is full waits for a peer that will tell when its guest runs.
 * Without such a peer only what is in the TAP could end it, unread: then the
 * loan ends, see keep().
 */
static bool has_room(const RedirectorLend *l)
{
    return l->state != LEND_LENDS || !l->farewell.facts.marks || !l->kept.buf ||
           packet_stream_room(&l->kept) >= PACKET_STREAM_FRAME_MAX;
}

static void keep(RedirectorLend *l, const PacketFrame *f)
{
    if (!l->kept.buf) {
        packet_stream_init(&l->kept, KEPT_SIZE, true);
    }
    if (!packet_stream_put(&l->kept, f->hdr, f->hdr_len, f->iov, f->iovcnt)) {
        lend_end(l);
    }
}

static bool hand_over(RedirectorLend *l, PacketFrame *f)
{
    if (!has_room(l)) {
        return false;
    }
    if (!l->sink.live && !redirector_farewell_takes(&l->farewell, f)) {
        l->chain->stats.discarded++;
        look(l);
        return true;
    }
    if (!l->output->ops->put(l->output, f, 1)) {
        return false;
    }
    l->farewell.packets++;
    if (l->state == LEND_LENDS) {
        keep(l, f);
    }
    return true;
}

/* Those that were collected come first. */
static void hand_over_collected(RedirectorLend *l)
{
    PacketFrame f;

    while (l->left && l->source.on &&
           redirector_backlog_peek(&l->backlog, lend_netdev(l), &f, 1)) {
        size_t len = f.len;

        if (!hand_over(l, &f)) {
            return;
        }
        redirector_backlog_drop(&l->backlog, 1);
        l->chain->stats.packets++;
        l->chain->stats.bytes += len;
    }
}

static bool put_one(RedirectorLend *l, PacketFrame *f)
{
    if (waiting(l)) {
        return false;
    }
    if (l->state != LEND_RETURNS) {
        return hand_over(l, f);
    }
    f->dir = NET_FILTER_DIRECTION_TX;
    if (l->kept.packets || !l->guest->ops->put(l->guest, f, 1)) {
        return false;
    }
    l->took_at = redirector_now_ms();
    return true;
}

static unsigned sink_put(RedirectorSink *sink, PacketFrame *frames, unsigned n)
{
    RedirectorLend *l = container_of(sink, RedirectorLend, sink);
    unsigned i;

    for (i = 0; i < n && put_one(l, &frames[i]); i++) {
        ;
    }
    return i;
}

static bool sink_room(RedirectorSink *sink)
{
    RedirectorLend *l = container_of(sink, RedirectorLend, sink);

    if (waiting(l)) {
        return false;
    }
    return l->state == LEND_RETURNS
           ? !l->kept.packets && l->guest->ops->room(l->guest)
           : has_room(l) && l->output->ops->room(l->output);
}

static void sink_flush(RedirectorSink *sink, unsigned budget)
{
    RedirectorLend *l = container_of(sink, RedirectorLend, sink);

    hand_over_collected(l);
    if (l->output->ops->flush) {
        l->output->ops->flush(l->output, budget);
    }
}

static EndState sink_state(RedirectorSink *sink)
{
    RedirectorLend *l = container_of(sink, RedirectorLend, sink);

    return l->output->ops->state(l->output);
}

static const RedirectorSinkOps lend_sink_ops = {
    .room = sink_room,
    .put = sink_put,
    .flush = sink_flush,
    .state = sink_state,
};

/* What is given back */

static unsigned lend_read(RedirectorSource *source, PacketFrame *frames,
                          unsigned max)
{
    RedirectorLend *l = container_of(source, RedirectorLend, source);
    unsigned i, n;

    if (l->state != LEND_RETURNS || !source->live) {
        return 0;
    }
    /* What was handed over comes before what was only collected. */
    n = packet_stream_peek(&l->kept, 0, frames, max);
    for (i = 0; i < n; i++) {
        frames[i].dir = NET_FILTER_DIRECTION_TX;
    }
    return n ? n : redirector_backlog_peek(&l->backlog, lend_netdev(l),
                                           frames, max);
}

static void lend_release(RedirectorSource *source, const PacketFrame *frames,
                         unsigned n)
{
    RedirectorLend *l = container_of(source, RedirectorLend, source);

    if (!n) {
        return;
    }
    l->returned += n;
    l->took_at = redirector_now_ms();
    if (l->kept.packets) {
        packet_stream_drop(&l->kept, n);
    } else {
        redirector_backlog_drop(&l->backlog, n);
    }
}

static void lend_update(RedirectorSource *source)
{
    look(container_of(source, RedirectorLend, source));
}

static const RedirectorSourceOps lend_source_ops = {
    .read = lend_read,
    .release = lend_release,
    .update = lend_update,
};

/* The whole */

RedirectorLend *redirector_lend_new(RedirectorOwner *owner,
                                    RedirectorSource *chain,
                                    RedirectorSink *output,
                                    RedirectorSink *guest)
{
    RedirectorLend *l = g_new0(RedirectorLend, 1);

    l->source.ops = &lend_source_ops;
    l->source.owner = owner;
    l->source.role = SWITCHOVER_RETURN;
    l->sink.ops = &lend_sink_ops;
    l->sink.owner = owner;
    l->sink.role = SWITCHOVER_SEND;
    l->chain = chain;
    l->output = output;
    l->farewell.output = output;
    l->guest = guest;
    l->tick = timer_new_ms(QEMU_CLOCK_REALTIME, lend_tick, l);
    guest->role = SWITCHOVER_RETURN;
    return l;
}

/* To the NIC's queue, where a stopped guest finds it. */
static void give_collected(RedirectorLend *l)
{
    PacketFrame f;

    while (redirector_backlog_peek(&l->backlog, lend_netdev(l), &f, 1)) {
        redirector_chain_pass(l->guest, &f);
        redirector_backlog_drop(&l->backlog, 1);
    }
}

/* The object goes: what the guest takes now is all it gets. */
static void give_all(RedirectorLend *l)
{
    stop_collecting(l);
    if (l->state == LEND_COLLECTS) {
        give_collected(l);
    }
    redirector_pass_now(&l->source, l->guest);
}

void redirector_lend_free(RedirectorLend *l)
{
    if (l) {
        give_all(l);
        redirector_lend_give_up(l);
        timer_free(l->tick);
        g_free(l);
    }
}

RedirectorSource *redirector_lend_source(RedirectorLend *l)
{
    return &l->source;
}

RedirectorSink *redirector_lend_sink(RedirectorLend *l)
{
    return &l->sink;
}
