/*
 * filter-redirector: the hand-over's destination holds back what comes directly
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "qapi/qapi-events-filter-redirector.h"
#include "net/vhost_net.h"
#include "filter-redirector-chain.h"
#include "filter-redirector-chardev.h"
#include "filter-redirector-direct.h"
#include "filter-redirector-hold.h"
#include "filter-redirector-talk.h"
#include "trace.h"

/* How often to look whether a hold ends. */
#define TICK_MS 2

/*
 * What came directly goes to the guest in that time, or is lost.  Long: a
 * guest that has just moved may be slow to take anything.
 */
#define END_MS (10 * 1000)

/* Groups that only the source gets: so long for what the guest reports. */
#define GROUPS_MS 1000

typedef enum HoldState {
    HOLD_OFF,               /* packets go as if it were not there */
    HOLD_ARMED,             /* the guest does not run yet */
    HOLD_ON,                /* those of the peer only */
    HOLD_ENDS,              /* then those that came directly */
} HoldState;

struct RedirectorHold {
    RedirectorSource source;    /* what came directly */
    RedirectorSink sink;        /* what the peer sends */
    RedirectorSource *input;    /* where the peer is; NULL: there is none */
    RedirectorSink *chain;      /* where both go to */
    HoldState state;
    HandoverHold facts;
    HandoverHoldEnd how;        /* it ended */
    int64_t ends_at;            /* it began to end */
    int64_t given_at;           /* nothing was left, or 0 */
    RedirectorDirect direct;    /* what is held back */
    RedirectorWelcome welcome;  /* what is said to the source */
    unsigned asked;             /* queries that the guest has got */
    unsigned before;            /* the peer's that go before those held back */
    bool was_on;                /* packets that come now come late */
    uint64_t packets;           /* of the peer, given to the guest */
    uint64_t late;              /* of them, behind some that came directly */
    NetFilterIntake intake;     /* what the netdev has been told last */
    bool holds_vhost;           /* likewise */
    QEMUTimer *tick;
};

static NetClientState *hold_netdev(const RedirectorHold *h)
{
    return h->source.owner->nf->netdev;
}

/* What the netdev and its NIC are to do */

static bool is_on(const RedirectorHold *h)
{
    return h->state == HOLD_ON || h->state == HOLD_ENDS;
}

NetFilterIntake redirector_hold_intake(RedirectorHold *h)
{
    h->intake = h->state == HOLD_OFF ? NET_FILTER_INTAKE_DEFAULT :
                is_on(h) && !h->direct.backlog.collect && h->source.live &&
                redirector_backlog_room(&h->direct.backlog)
                ? NET_FILTER_INTAKE_TAKE : NET_FILTER_INTAKE_HOLD;
    return h->intake;
}

bool redirector_hold_holds_vhost(RedirectorHold *h)
{
    h->holds_vhost = is_on(h);
    return h->holds_vhost;
}

static void tell(RedirectorHold *h)
{
    NetFilterIntake intake = h->intake;
    bool holds = h->holds_vhost;

    if (redirector_hold_intake(h) != intake) {
        qemu_netfilter_intake_changed(h->source.owner->nf);
    }
    if (redirector_hold_holds_vhost(h) != holds) {
        qemu_netfilter_holds_vhost_changed(h->source.owner->nf);
    }
}

/* Beginning and end */

static void hold_begin(RedirectorHold *h, bool again)
{
    h->state = HOLD_ON;
    h->facts.again = again;
    h->facts.direct = false;
    h->facts.begun_at = redirector_now_ms();
    if (!again) {
        redirector_welcome_runs(&h->welcome, h->direct.twins.all);
    }
    /*
     * A source that knows marks tells when all has come.  Otherwise each packet
     * is looked at when it comes, and a hold for a late packet ends at once.
     */
    redirector_direct_begin(&h->direct, h->facts.marks && !again);
    timer_mod(h->tick, redirector_now_ms() + TICK_MS);
    trace_redirector_hold_begin(h->source.owner->id, again);
}

static void tell_done(RedirectorHold *h)
{
    RedirectorDirect *d = &h->direct;

    if (is_on(h) && !h->facts.again) {
        qapi_event_send_filter_redirector_taken_over(
            h->source.owner->id, h->how, h->packets, h->late, d->packets,
            d->cancelled, d->stale, d->lost);
    }
}

static void hold_off(RedirectorHold *h)
{
    redirector_direct_end(&h->direct);
    tell_done(h);
    timer_del(h->tick);
    h->state = HOLD_OFF;
    /* The guest has what came before the mark. */
    redirector_welcome_answer(&h->welcome);
    trace_redirector_hold_end(h->source.owner->id,
                              FilterRedirectorHoldEnd_str(h->how), h->packets,
                              h->direct.packets, h->direct.cancelled,
                              h->direct.stale);
}

static unsigned input_queued(const RedirectorHold *h)
{
    return h->input ? redirector_chardev_queued(h->input) : 0;
}

static void hold_end(RedirectorHold *h, HandoverHoldEnd how)
{
    h->state = HOLD_ENDS;
    h->how = how;
    h->ends_at = redirector_now_ms();
    h->given_at = 0;
    h->before = input_queued(h);
}

/*
 * The source would hand over for ever what comes here, too.  It is told once
 * that is certain: one of the first that came directly has come from it as
 * well.
 */
static void look_for_copies(RedirectorHold *h)
{
    if (h->direct.twins.all && !h->welcome.copies &&
        redirector_direct_copied(&h->direct)) {
        redirector_welcome_copies(&h->welcome);
    }
}

static bool all_given(RedirectorHold *h)
{
    return !h->before && !redirector_direct_any(&h->direct) &&
           redirector_chain_is_done(h->chain, &h->given_at);
}

/* The guest is asked once, when a group's frame shows that it matters. */
static void ask(RedirectorHold *h)
{
    PacketFrame query;

    while (h->direct.twins.missing && h->asked < REDIRECTOR_TWINS_QUERIES) {
        redirector_twins_query(h->asked, &query);
        if (!h->chain->ops->put(h->chain, &query, 1)) {
            return;
        }
        h->asked++;
    }
}

/*
 * Of what the source still sends of groups, some comes directly, too; it stops
 * when it is told that the rest has begun to.
 */
static bool waits_for_groups(RedirectorHold *h, int64_t now)
{
    if (!h->welcome.groups || h->facts.again || !h->facts.connected ||
        !h->facts.ended || h->welcome.over ||
        now - h->ends_at >= GROUPS_MS) {
        return false;
    }
    if (!h->direct.twins.missing) {
        redirector_welcome_answer(&h->welcome);
    }
    return true;
}

/*
 * Flooded frames that the source has sent as well are here by now.  What comes
 * once nobody collects is read by QEMU, behind the rest.
 */
static void end(RedirectorHold *h, int64_t now)
{
    bool late = now - h->facts.begun_at >= HANDOVER_HOLD_MS + END_MS;
    bool given = all_given(h);

    if (given && h->direct.backlog.collect && !late) {
        redirector_backlog_finish(&h->direct.backlog);
    } else if (late || (given && !waits_for_groups(h, now))) {
        hold_off(h);
    }
}

static void look(RedirectorHold *h)
{
    int64_t now = redirector_now_ms();
    HandoverHoldEnd how;

    if (!is_on(h) || !h->source.live) {
        return;
    }
    if (!h->source.on) {
        hold_off(h);
        return;
    }
    redirector_backlog_look(&h->direct.backlog, hold_netdev(h));
    h->facts.waiting = input_queued(h);
    look_for_copies(h);
    if (h->state == HOLD_ON && handover_hold_ends(&h->facts, now, &how)) {
        hold_end(h, how);
    }
    ask(h);
    if (h->state == HOLD_ENDS) {
        end(h, now);
    }
}

static void hold_tick(void *opaque)
{
    RedirectorHold *h = opaque;
    RedirectorOwner *owner = h->source.owner;

    timer_mod(h->tick, redirector_now_ms() + TICK_MS);
    look(h);
    owner->run(owner);
}

void redirector_hold_start(RedirectorHold *h)
{
    if (h->state != HOLD_ARMED) {
        return;
    }
    h->state = HOLD_OFF;
    h->was_on = true;
    if (h->source.on && (h->facts.connected || input_queued(h))) {
        /*
         * The network did not send to this host on purpose yet: the source has
         * got, or will get, what lies here.  If some of it is for the guest
         * alone, what comes from now on may come to both, too.
         */
        if (h->facts.connected) {
            redirector_direct_drain(&h->direct);
        }
        hold_begin(h, false);
    }
    tell(h);
}

void redirector_hold_arm(RedirectorHold *h)
{
    if (h->state == HOLD_OFF && !h->was_on) {
        h->state = HOLD_ARMED;
        /* A TAP that was read before this came. */
        qemu_netfilter_take_queued(h->source.owner->nf);
        tell(h);
    }
}

void redirector_hold_give_up(RedirectorHold *h)
{
    if (h->state != HOLD_OFF) {
        hold_off(h);
        tell(h);
    }
}

void redirector_hold_peer(RedirectorHold *h, bool open)
{
    bool was = h->facts.connected;

    redirector_welcome_peer(&h->welcome, open, !h->was_on || is_on(h));
    if (open && is_on(h)) {
        h->welcome.copies = false;
        redirector_welcome_runs(&h->welcome, h->direct.twins.all);
    }
    if (!open && was && h->state == HOLD_ARMED) {
        /* What comes from now on comes to nobody else. */
        h->direct.stale += qemu_netfilter_drain(h->source.owner->nf);
    }
    h->source.owner->run_later(h->source.owner);
}

/* What comes directly */

ssize_t redirector_hold_receive(RedirectorHold *h, NetClientState *sender,
                                unsigned flags, const struct iovec *iov,
                                int iovcnt)
{
    size_t size = iov_size(iov, iovcnt);

    if (sender == hold_netdev(h)->peer || h->state == HOLD_OFF) {
        return 0;
    }
    if (h->state == HOLD_ARMED) {
        h->direct.stale++;
        return size;
    }
    h->facts.direct |= redirector_direct_receive(&h->direct, flags, iov,
                                                 iovcnt);
    if (h->state == HOLD_ENDS ||
        !redirector_backlog_room(&h->direct.backlog)) {
        h->source.owner->run_later(h->source.owner);
    }
    return size;
}

static unsigned hold_read(RedirectorSource *source, PacketFrame *frames,
                          unsigned max)
{
    RedirectorHold *h = container_of(source, RedirectorHold, source);

    return h->state == HOLD_ENDS && !h->before && source->live
           ? redirector_direct_read(&h->direct, frames, max) : 0;
}

static void hold_release(RedirectorSource *source, const PacketFrame *frames,
                         unsigned n)
{
    RedirectorHold *h = container_of(source, RedirectorHold, source);

    redirector_direct_release(&h->direct, frames, n);
}

static void hold_update(RedirectorSource *source)
{
    RedirectorHold *h = container_of(source, RedirectorHold, source);

    /* Somebody else may have to have what comes now. */
    if (!source->live) {
        redirector_backlog_stop(&h->direct.backlog, hold_netdev(h));
    }
    look(h);
    tell(h);
}

static const RedirectorSourceOps hold_source_ops = {
    .read = hold_read,
    .release = hold_release,
    .update = hold_update,
};

/* What the peer sends */

static void pass_before(RedirectorHold *h)
{
    if (h->before) {
        h->before--;
    }
}

/* vhost has the NIC: it has to stand back for a moment. */
static void hold_again(RedirectorHold *h)
{
    if (h->state == HOLD_OFF && h->chain->gate == SWITCHOVER_OPEN &&
        h->source.live && h->source.on &&
        qemu_netfilter_vhost_running(hold_netdev(h))) {
        hold_begin(h, true);
        tell(h);
    }
}

static bool is_mark(RedirectorHold *h, const PacketFrame *f)
{
    if (!redirector_welcome_hears(&h->welcome, f)) {
        return false;
    }
    if (h->state == HOLD_OFF && h->was_on) {
        redirector_welcome_answer(&h->welcome);
    }
    return true;
}

static void given(RedirectorHold *h, const PacketFrame *f)
{
    h->packets++;
    h->late += h->was_on && (h->facts.again || h->state == HOLD_OFF);
    /* Order has ended, and the source goes on. */
    if (h->direct.twins.all && h->facts.ended && h->facts.again) {
        redirector_welcome_copies(&h->welcome);
    }
    if (is_on(h)) {
        redirector_twins_source(&h->direct.twins, f);
    }
    if (h->direct.twins.missing) {
        redirector_welcome_groups(&h->welcome);
    }
}

static bool put_one(RedirectorHold *h, PacketFrame *f)
{
    if (is_mark(h, f)) {
        return true;
    }
    /* What is flooded goes on and on: no sign that order has not ended. */
    if (!handover_flooded(f->iov[0].iov_base, f->len)) {
        h->facts.heard_at = redirector_now_ms();
    }
    if (!redirector_direct_takes_source(&h->direct, f)) {
        return true;
    }
    hold_again(h);
    if (!h->chain->ops->put(h->chain, f, 1)) {
        return false;
    }
    given(h, f);
    return true;
}

static unsigned sink_put(RedirectorSink *sink, PacketFrame *frames, unsigned n)
{
    RedirectorHold *h = container_of(sink, RedirectorHold, sink);
    unsigned i;

    for (i = 0; i < n && hold_netdev(h) && put_one(h, &frames[i]); i++) {
        pass_before(h);
    }
    return i;
}

static bool sink_room(RedirectorSink *sink)
{
    RedirectorHold *h = container_of(sink, RedirectorHold, sink);

    return h->chain->ops->room(h->chain);
}

static EndState sink_state(RedirectorSink *sink)
{
    RedirectorHold *h = container_of(sink, RedirectorHold, sink);

    return h->chain->ops->state(h->chain);
}

static const RedirectorSinkOps hold_sink_ops = {
    .room = sink_room,
    .put = sink_put,
    .state = sink_state,
};

/* The guest moves on */

void redirector_hold_yield(RedirectorHold *h)
{
    RedirectorSource *input = h->input;
    PacketFrame f;

    if (!is_on(h)) {
        return;
    }
    redirector_backlog_stop(&h->direct.backlog, hold_netdev(h));
    while (input && input->ops->read(input, &f, 1)) {
        if (!is_mark(h, &f)) {
            redirector_chain_pass(h->chain, &f);
            given(h, &f);
        }
        input->ops->release(input, &f, 1);
    }
    while (redirector_direct_read(&h->direct, &f, 1)) {
        redirector_chain_pass(h->chain, &f);
        hold_release(&h->source, &f, 1);
    }
    h->how = FILTER_REDIRECTOR_HOLD_END_MIGRATED;
    hold_off(h);
    tell(h);
}

/* The whole */

RedirectorHold *redirector_hold_new(RedirectorOwner *owner,
                                    RedirectorSource *input,
                                    RedirectorSink *chain)
{
    RedirectorHold *h = g_new0(RedirectorHold, 1);

    h->source.ops = &hold_source_ops;
    h->source.owner = owner;
    h->source.role = SWITCHOVER_FEED;
    h->sink.ops = &hold_sink_ops;
    h->sink.owner = owner;
    h->sink.role = SWITCHOVER_DELIVER;
    h->input = input;
    h->direct.nf = owner->nf;
    h->welcome.input = input;
    h->welcome.facts = &h->facts;
    h->chain = chain;
    h->tick = timer_new_ms(QEMU_CLOCK_REALTIME, hold_tick, h);
    /* It may have been connected before. */
    if (input && input->ops->state(input) == END_STATE(ACTIVE)) {
        redirector_hold_peer(h, true);
    }
    return h;
}

/* The object goes: what the guest takes now is all it gets. */
static void give_all(RedirectorHold *h)
{
    if (is_on(h)) {
        h->state = HOLD_ENDS;
        h->before = 0;
        redirector_backlog_stop(&h->direct.backlog, hold_netdev(h));
    }
    redirector_pass_now(&h->source, h->chain);
}

void redirector_hold_free(RedirectorHold *h)
{
    if (h) {
        give_all(h);
        redirector_hold_give_up(h);
        timer_free(h->tick);
        g_free(h);
    }
}

RedirectorSource *redirector_hold_source(RedirectorHold *h)
{
    return &h->source;
}

RedirectorSink *redirector_hold_sink(RedirectorHold *h)
{
    return &h->sink;
}
