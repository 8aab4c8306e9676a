/*
 * filter-redirector: how source and destination of a hand-over speak
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_TALK_H
#define NET_FILTER_REDIRECTOR_TALK_H

#include "filter-redirector-end.h"

/* What the source knows of the destination, and says to it and its manager. */
typedef struct RedirectorFarewell {
    RedirectorSink *output;     /* where the destination is */
    HandoverSource facts;
    bool told;                  /* that QEMU may be ended */
    uint64_t packets;           /* handed over; counted by the owner */
    uint64_t discarded;         /* not to be handed over */
} RedirectorFarewell;

/**
 * redirector_farewell_begin() - The guest has left
 * @w: farewell
 *
 * redirector_farewell_end() - It is about to run here again
 */
void redirector_farewell_begin(RedirectorFarewell *w);
void redirector_farewell_end(RedirectorFarewell *w);

/* redirector_farewell_said() - The destination says something */
void redirector_farewell_said(RedirectorFarewell *w, HandoverMark mark);

/**
 * redirector_farewell_takes() - Is a packet to be handed over?
 *
 * What the guest's new host has anyway, or sent itself, is not, and counted.
 */
bool redirector_farewell_takes(RedirectorFarewell *w, const PacketFrame *f);

/**
 * redirector_farewell_look() - Say what is to be said now, if there is anything
 * @sent: all that has come until now has been sent
 *
 * redirector_farewell_waits() - Will there be?
 */
void redirector_farewell_look(RedirectorFarewell *w, bool sent);
bool redirector_farewell_waits(const RedirectorFarewell *w);

/**
 * redirector_farewell_lingers() - Has QEMU, told to quit, to wait?
 * @sent: as above
 */
bool redirector_farewell_lingers(const RedirectorFarewell *w, bool sent);

/* What the destination knows of the source, and says to it. */
typedef struct RedirectorWelcome {
    RedirectorSource *input;    /* where the source is; NULL: there is none */
    HandoverHold *facts;        /* the owner's */
    bool answered;              /* that the source has sent all */
    bool over;                  /* after that it has sent no more of groups */
    bool copies;                /* it knows that all comes here, too */
    bool groups;                /* ... that some groups don't */
} RedirectorWelcome;

/**
 * redirector_welcome_peer() - The source comes or goes
 * @w: welcome
 * @speaks: there is something to speak of
 *
 * redirector_welcome_runs() - The guest runs here
 * @doubt: what is for it alone may go to both
 */
void redirector_welcome_peer(RedirectorWelcome *w, bool open, bool speaks);
void redirector_welcome_runs(RedirectorWelcome *w, bool doubt);

/**
 * redirector_welcome_hears() - Does the source say something by a frame?
 *
 * Such marks are not for the guest.
 */
bool redirector_welcome_hears(RedirectorWelcome *w, const PacketFrame *f);

/**
 * redirector_welcome_copies() - Say that all comes here, too
 * redirector_welcome_groups() - Say that some groups don't
 * redirector_welcome_answer() - Say that the guest has what came before the
 *                               source's mark, if that has come
 *
 * It is said once.
 */
void redirector_welcome_copies(RedirectorWelcome *w);
void redirector_welcome_groups(RedirectorWelcome *w);
void redirector_welcome_answer(RedirectorWelcome *w);

#endif /* NET_FILTER_REDIRECTOR_TALK_H */
