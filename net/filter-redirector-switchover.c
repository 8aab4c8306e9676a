/*
 * filter-redirector: what it does in which state of the virtual machine
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "filter-redirector-switchover.h"

/* The phase that a run state tells, if the migration does not know better. */
static SwitchoverPhase phase_of(RunState state)
{
    switch (state) {
    case RUN_STATE_RUNNING:
    case RUN_STATE_SUSPENDED:   /* its devices work, and can wake it up */
        return PHASE_RUNNING;
    case RUN_STATE_INMIGRATE:
        return PHASE_INCOMING;
    default:
        return PHASE_STOPPED;
    }
}

/*
 * Only a migration that has stopped the machine itself takes its guest away.
 * Others complete, too, and nobody has left: a background snapshot, or COLO
 * that lost the other host.  QEMU tells it some time later, and by then
 * somebody may have stopped the machine.
 */
static bool stopped_by_migration(RunState state)
{
    return state == RUN_STATE_FINISH_MIGRATE ||
           state == RUN_STATE_POSTMIGRATE;
}

/*
 * What follows where its migration has stopped the machine.  A second migration
 * starts over: the first one's guest is given up.
 */
static const SwitchoverPhase next[SWITCHOVER__MAX] = {
    [SWITCHOVER_SETUP]        = PHASE_STOPPED,
    [SWITCHOVER_SENT]         = PHASE_LEAVING,
    [SWITCHOVER_DONE]         = PHASE_MIGRATED,
    [SWITCHOVER_FAILED]       = PHASE_STOPPED,
    [SWITCHOVER_LOCAL_SETUP]  = PHASE_STOPPED,
    [SWITCHOVER_LOCAL_DONE]   = PHASE_LOCAL,
    [SWITCHOVER_LOCAL_FAILED] = PHASE_STOPPED,
};

SwitchoverPhase switchover_next(SwitchoverPhase phase, SwitchoverEvent event,
                                RunState state)
{
    SwitchoverPhase told = phase_of(state);

    if (told != PHASE_STOPPED || !stopped_by_migration(state)) {
        return told;
    }
    if (phase == PHASE_RUNNING || phase == PHASE_INCOMING) {
        phase = PHASE_STOPPED;
    }
    /* What has been decided stays so. */
    if (event == SWITCHOVER_RUN_STATE ||
        (event == SWITCHOVER_SENT && phase == PHASE_MIGRATED)) {
        return phase;
    }
    return next[event];
}

SwitchoverEvent switchover_event(MigrationStatus status)
{
    switch (status) {
    case MIGRATION_STATUS_COMPLETED:
    /* From here on the destination's guest runs. */
    case MIGRATION_STATUS_POSTCOPY_ACTIVE:
    case MIGRATION_STATUS_POSTCOPY_PAUSED:
    case MIGRATION_STATUS_POSTCOPY_RECOVER_SETUP:
    case MIGRATION_STATUS_POSTCOPY_RECOVER:
        return SWITCHOVER_DONE;
    case MIGRATION_STATUS_NONE:
    case MIGRATION_STATUS_CANCELLING:
    case MIGRATION_STATUS_CANCELLED:
    case MIGRATION_STATUS_FAILED:
        return SWITCHOVER_FAILED;
    default:
        return SWITCHOVER_SENT;
    }
}

typedef struct GateRule {
    SwitchoverGate running;     /* the machine runs, and it is not wanted */
    SwitchoverGate stopped;     /* its guest may go on here */
    SwitchoverGate migrated;    /* its guest is elsewhere */
    SwitchoverGate local;       /* its guest is in another QEMU of this host */
    SwitchoverGate incoming;    /* its guest has not arrived */
} GateRule;

#define SHUT SWITCHOVER_SHUT
#define KEEP SWITCHOVER_KEEP
#define OPEN SWITCHOVER_OPEN

/* While the machine is stopped, for who wants to work then. */
static const GateRule when_stopped_rules[SWITCHOVER_ROLE__MAX] = {
    [SWITCHOVER_CAPTURE]   = { SHUT, KEEP, OPEN, SHUT, KEEP },
    [SWITCHOVER_DIVERT]    = { SHUT, SHUT, SHUT, SHUT, SHUT },
    [SWITCHOVER_HAND_OVER] = { SHUT, KEEP, OPEN, SHUT, SHUT },
    [SWITCHOVER_FEED]      = { SHUT, OPEN, OPEN, OPEN, OPEN },
    [SWITCHOVER_DELIVER]   = { KEEP, KEEP, KEEP, KEEP, SHUT },
    [SWITCHOVER_RETURN]    = { OPEN, SHUT, SHUT, SHUT, SHUT },
    [SWITCHOVER_INJECT]    = { KEEP, OPEN, OPEN, KEEP, OPEN },
    [SWITCHOVER_SEND]      = { OPEN, OPEN, OPEN, OPEN, OPEN },
};

/* The same for who doesn't. */
static const GateRule default_rules[SWITCHOVER_ROLE__MAX] = {
    [SWITCHOVER_CAPTURE]   = { SHUT, SHUT, SHUT, SHUT, SHUT },
    [SWITCHOVER_DIVERT]    = { SHUT, SHUT, SHUT, SHUT, SHUT },
    [SWITCHOVER_HAND_OVER] = { SHUT, SHUT, SHUT, SHUT, SHUT },
    /* A stopped NIC has a queue, and COLO fills it while the machine stops. */
    [SWITCHOVER_FEED]      = { SHUT, OPEN, OPEN, OPEN, OPEN },
    [SWITCHOVER_DELIVER]   = { KEEP, KEEP, KEEP, KEEP, SHUT },
    [SWITCHOVER_RETURN]    = { OPEN, SHUT, SHUT, SHUT, SHUT },
    [SWITCHOVER_INJECT]    = { KEEP, KEEP, KEEP, KEEP, KEEP },
    [SWITCHOVER_SEND]      = { OPEN, OPEN, OPEN, OPEN, OPEN },
};

SwitchoverGate switchover_gate(SwitchoverPhase phase, SwitchoverRole role,
                               bool when_running, bool when_stopped)
{
    const GateRule *rule = when_stopped ? &when_stopped_rules[role]
                                        : &default_rules[role];

    switch (phase) {
    case PHASE_RUNNING:
        return when_running ? OPEN : rule->running;
    case PHASE_STOPPED:
    case PHASE_LEAVING:
        return rule->stopped;
    case PHASE_MIGRATED:
        return rule->migrated;
    case PHASE_LOCAL:
        return rule->local;
    case PHASE_INCOMING:
        return rule->incoming;
    default:
        g_assert_not_reached();
    }
}
