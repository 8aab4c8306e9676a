/*
 * filter-redirector: what it does in which state of the virtual machine
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_SWITCHOVER_H
#define NET_FILTER_REDIRECTOR_SWITCHOVER_H

#include "qapi/qapi-types-filter-redirector.h"
#include "qapi/qapi-types-migration.h"
#include "qapi/qapi-types-run-state.h"

/*
 * Everything about "what happens when" is here, in two pure functions over
 * two tables: switchover_next() says in which phase a machine is, and
 * switchover_gate() what that means for one end of a redirector.
 *
 * The one rule behind both tables: a packet that is meant for a guest is given
 * to somebody else only once that guest cannot go on here, that is, once its
 * migration has completed.  Why the machine stopped does not matter.
 */

/* Short names for the schema's. */
typedef FilterRedirectorPhase SwitchoverPhase;

#define PHASE_INCOMING FILTER_REDIRECTOR_PHASE_INCOMING
#define PHASE_RUNNING  FILTER_REDIRECTOR_PHASE_RUNNING
#define PHASE_STOPPED  FILTER_REDIRECTOR_PHASE_STOPPED
#define PHASE_LEAVING  FILTER_REDIRECTOR_PHASE_LEAVING
#define PHASE_MIGRATED FILTER_REDIRECTOR_PHASE_MIGRATED
#define PHASE_LOCAL    FILTER_REDIRECTOR_PHASE_LOCAL

/* What can happen. */
typedef enum SwitchoverEvent {
    SWITCHOVER_RUN_STATE,   /* nothing but, perhaps, another run state */
    SWITCHOVER_SETUP,       /* a migration to another host begins */
    SWITCHOVER_SENT,        /* all is sent, but it may still fail (postcopy) */
    SWITCHOVER_DONE,        /* it has completed: no way back */
    SWITCHOVER_FAILED,      /* it failed or was cancelled */
    SWITCHOVER_LOCAL_SETUP, /* a migration within this host begins (cpr) */
    SWITCHOVER_LOCAL_DONE,  /* it has completed */
    SWITCHOVER_LOCAL_FAILED,
    SWITCHOVER__MAX
} SwitchoverEvent;

/* What one end does for its redirector. */
typedef enum SwitchoverRole {
    SWITCHOVER_CAPTURE,     /* copies what passes a TAP */
    SWITCHOVER_DIVERT,      /* takes what the filter chain brings */
    SWITCHOVER_HAND_OVER,   /* and what waits for a guest that has left */
    SWITCHOVER_FEED,        /* takes what a peer sends */
    SWITCHOVER_DELIVER,     /* gives to the guest; kept: to its NIC's queue */
    SWITCHOVER_RETURN,      /* gives back to a guest that goes on here */
    SWITCHOVER_INJECT,      /* gives to a TAP */
    SWITCHOVER_SEND,        /* gives to anybody else */
    SWITCHOVER_ROLE__MAX
} SwitchoverRole;

/* How far packets get at an end. */
typedef enum SwitchoverGate {
    SWITCHOVER_SHUT,        /* it takes none */
    SWITCHOVER_KEEP,        /* it collects them and gives them to nobody */
    SWITCHOVER_OPEN,        /* they pass */
} SwitchoverGate;

/**
 * switchover_next() - Tell which phase follows
 * @phase: the phase up to now
 * @event: what has happened
 * @state: the machine's run state now.  It may have changed without an event
 *         (QEMU does not tell when a machine that is stopped gets another
 *         reason to be), so it is looked at each time.
 */
SwitchoverPhase switchover_next(SwitchoverPhase phase, SwitchoverEvent event,
                                RunState state);

/**
 * switchover_event() - Tell what a migration's status means
 * @status: status of a migration whose source says that it has sent all
 *
 * Return: SWITCHOVER_SENT (ask again later), SWITCHOVER_DONE or
 *         SWITCHOVER_FAILED
 */
SwitchoverEvent switchover_event(MigrationStatus status);

/**
 * switchover_gate() - Tell how far packets get
 * @phase: phase
 * @role: what the end does
 * @when_running: the user wants it to work while the machine runs
 * @when_stopped: the user wants it to work while the machine is stopped
 */
SwitchoverGate switchover_gate(SwitchoverPhase phase, SwitchoverRole role,
                               bool when_running, bool when_stopped);

#endif /* NET_FILTER_REDIRECTOR_SWITCHOVER_H */
