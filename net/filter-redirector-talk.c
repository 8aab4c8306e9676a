/*
 * filter-redirector: how source and destination of a hand-over speak
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-events-filter-redirector.h"
#include "filter-redirector-chardev.h"
#include "filter-redirector-talk.h"

/* The source */

void redirector_farewell_begin(RedirectorFarewell *w)
{
    w->told = false;
    w->packets = w->discarded = 0;
    w->facts = (HandoverSource) {
        .since = redirector_now_ms(),
        .marks = w->facts.marks,
        /* It may have begun before this side has seen that all is sent. */
        .runs = w->facts.runs,
        .runs_at = w->facts.runs_at,
        .doubt = w->facts.doubt,
        .copies = w->facts.copies,
        .groups = w->facts.groups,
    };
}

void redirector_farewell_end(RedirectorFarewell *w)
{
    w->facts.runs = w->facts.doubt = w->facts.copies = false;
    w->facts.groups = false;
}

void redirector_farewell_said(RedirectorFarewell *w, HandoverMark mark)
{
    if (mark == HANDOVER_HELLO) {
        w->facts.marks = redirector_chardev_mark(w->output, HANDOVER_HELLO);
    } else {
        handover_source_said(&w->facts, mark, redirector_now_ms());
    }
}

/* The NIC's own address is enough: that is the one QEMU announces. */
static HandoverKind kind_of(const RedirectorFarewell *w, const PacketFrame *f)
{
    NetClientState *nic = w->output->owner->nf->netdev->peer;
    bool known = nic && nic->info->type == NET_CLIENT_DRIVER_NIC;

    return handover_kind(f->iov[0].iov_base, f->len,
                         known ? &qemu_get_nic(nic)->conf->macaddr.a : NULL,
                         known);
}

bool redirector_farewell_takes(RedirectorFarewell *w, const PacketFrame *f)
{
    bool takes = handover_source_takes(&w->facts, kind_of(w, f),
                                       redirector_now_ms());

    w->discarded += !takes;
    return takes;
}

void redirector_farewell_look(RedirectorFarewell *w, bool sent)
{
    int64_t now = redirector_now_ms();

    if (sent && handover_source_ends(&w->facts, now)) {
        w->facts.ended = redirector_chardev_mark(w->output, HANDOVER_END);
    }
    if (handover_source_over(&w->facts)) {
        w->facts.over = redirector_chardev_mark(w->output, HANDOVER_END);
    }
    if (!w->told && handover_source_done(&w->facts, sent, now)) {
        w->told = true;
        qapi_event_send_filter_redirector_handed_over(
            w->output->owner->id, w->packets, w->discarded);
    }
}

bool redirector_farewell_waits(const RedirectorFarewell *w)
{
    return !w->told &&
           redirector_now_ms() - w->facts.since < HANDOVER_LEND_MS;
}

bool redirector_farewell_lingers(const RedirectorFarewell *w, bool sent)
{
    return w->facts.quit_at && w->output->ops->connected(w->output) &&
           handover_source_lingers(&w->facts, sent, redirector_now_ms());
}

/* The destination */

/* What is to be known comes before what it is about. */
void redirector_welcome_runs(RedirectorWelcome *w, bool doubt)
{
    if (doubt) {
        redirector_chardev_say(w->input, HANDOVER_DOUBT);
    }
    if (w->groups) {
        redirector_chardev_say(w->input, HANDOVER_GROUPS);
    }
    redirector_chardev_say(w->input, HANDOVER_RUNS);
}

void redirector_welcome_peer(RedirectorWelcome *w, bool open, bool speaks)
{
    w->facts->connected = open;
    w->facts->marks = w->facts->ended = w->answered = w->over = false;
    if (open && speaks) {
        redirector_chardev_say(w->input, HANDOVER_HELLO);
    }
}

bool redirector_welcome_hears(RedirectorWelcome *w, const PacketFrame *f)
{
    HandoverMark mark = handover_mark(f->iov[0].iov_base, f->len);

    if (mark == HANDOVER_NO_MARK) {
        return false;
    }
    w->facts->marks = true;
    if (mark == HANDOVER_END) {
        w->over = w->answered;
        w->facts->ended = true;
    }
    redirector_chardev_forget(w->input, f);
    return true;
}

static void say_once(RedirectorWelcome *w, bool *said, HandoverMark mark)
{
    if (!*said) {
        *said = true;
        redirector_chardev_say(w->input, mark);
    }
}

void redirector_welcome_copies(RedirectorWelcome *w)
{
    say_once(w, &w->copies, HANDOVER_COPIES);
}

void redirector_welcome_groups(RedirectorWelcome *w)
{
    say_once(w, &w->groups, HANDOVER_GROUPS);
}

void redirector_welcome_answer(RedirectorWelcome *w)
{
    if (w->facts->ended) {
        say_once(w, &w->answered, HANDOVER_TAKEN);
    }
}
