/*
 * filter-redirector: every run state, event, role and wish of the switchover
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "../../net/filter-redirector-switchover.h"

/* The phases' first letters; those of the tables below. */
static char phase_letter(SwitchoverPhase phase)
{
    static const char letters[FILTER_REDIRECTOR_PHASE__MAX] = {
        [PHASE_INCOMING] = 'I', [PHASE_RUNNING] = 'R', [PHASE_STOPPED] = 'S',
        [PHASE_LEAVING] = 'L', [PHASE_MIGRATED] = 'M', [PHASE_LOCAL] = 'C',
    };

    return letters[phase];
}

/*
 * What follows in each run state, for each phase up to now (rows: I R S L M C)
 * and each event (columns, in the order of SwitchoverEvent: none, set-up, all
 * sent, done, failed; the same without "sent" for local migration).
 */
static const char *const runs[] = {
    "RRRRRRRR", "RRRRRRRR", "RRRRRRRR", "RRRRRRRR", "RRRRRRRR", "RRRRRRRR",
};

static const char *const waits[] = {
    "IIIIIIII", "IIIIIIII", "IIIIIIII", "IIIIIIII", "IIIIIIII", "IIIIIIII",
};

/* Stopped by something else: no migration has taken its guest away. */
static const char *const stands[] = {
    "SSSSSSSS", "SSSSSSSS", "SSSSSSSS", "SSSSSSSS", "SSSSSSSS", "SSSSSSSS",
};

/* Stopped by its migration. */
static const char *const leaves[] = {
    "SSLMSSCS",     /* it was incoming, and was loaded without being started */
    "SSLMSSCS",     /* it ran */
    "SSLMSSCS",     /* it stood */
    "LSLMSSCS",     /* it was leaving */
    "MSMMSSCS",     /* it had left */
    "CSLMSSCS",     /* it had left for another QEMU on this host */
};

typedef struct StateCase {
    RunState state;
    const char *const *phases;
} StateCase;

static const StateCase states[] = {
    { RUN_STATE_RUNNING, runs },
    { RUN_STATE_SUSPENDED, runs },
    { RUN_STATE_INMIGRATE, waits },
    { RUN_STATE_DEBUG, stands },
    { RUN_STATE_INTERNAL_ERROR, stands },
    { RUN_STATE_IO_ERROR, stands },
    { RUN_STATE_PAUSED, stands },
    { RUN_STATE_POSTMIGRATE, leaves },
    { RUN_STATE_PRELAUNCH, stands },
    { RUN_STATE_FINISH_MIGRATE, leaves },
    { RUN_STATE_RESTORE_VM, stands },
    { RUN_STATE_SAVE_VM, stands },
    { RUN_STATE_SHUTDOWN, stands },
    { RUN_STATE_WATCHDOG, stands },
    { RUN_STATE_GUEST_PANICKED, stands },
    { RUN_STATE_COLO, stands },
};

static const SwitchoverPhase rows[] = {
    PHASE_INCOMING, PHASE_RUNNING, PHASE_STOPPED, PHASE_LEAVING,
    PHASE_MIGRATED, PHASE_LOCAL,
};

QEMU_BUILD_BUG_ON(ARRAY_SIZE(states) != RUN_STATE__MAX);
QEMU_BUILD_BUG_ON(ARRAY_SIZE(rows) != FILTER_REDIRECTOR_PHASE__MAX);

static void test_next(const void *data)
{
    const StateCase *c = data;
    unsigned row, event;

    for (row = 0; row < ARRAY_SIZE(rows); row++) {
        g_assert_cmpuint(strlen(c->phases[row]), ==, SWITCHOVER__MAX);
        for (event = 0; event < SWITCHOVER__MAX; event++) {
            g_assert_cmpint(phase_letter(switchover_next(rows[row], event,
                                                         c->state)),
                            ==, c->phases[row][event]);
        }
    }
}

/* Each run state is in the table once. */
static void test_states(void)
{
    bool seen[RUN_STATE__MAX] = {};
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(states); i++) {
        g_assert_false(seen[states[i].state]);
        seen[states[i].state] = true;
    }
}

/*
 * How far packets get: o (open), k (kept), s (shut) in the phases I R S L M C,
 * for who wants to work while the machine runs; while it is stopped; always.
 */
typedef struct GateCase {
    const char *name;
    SwitchoverRole role;
    const char *running;
    const char *stopped;
    const char *always;
} GateCase;

static const GateCase gates[] = {
    { "capture", SWITCHOVER_CAPTURE,   "sossss", "kskkos", "kokkos" },
    { "divert", SWITCHOVER_DIVERT,     "sossss", "ssssss", "sossss" },
    { "hand-over", SWITCHOVER_HAND_OVER, "sossss", "sskkos", "sokkos" },
    { "feed", SWITCHOVER_FEED,         "oooooo", "osoooo", "oooooo" },
    { "deliver", SWITCHOVER_DELIVER,   "sokkkk", "skkkkk", "sokkkk" },
    { "return", SWITCHOVER_RETURN,     "sossss", "sossss", "sossss" },
    { "inject", SWITCHOVER_INJECT,     "kokkkk", "okoook", "oooook" },
    { "send", SWITCHOVER_SEND,         "oooooo", "oooooo", "oooooo" },
};

QEMU_BUILD_BUG_ON(ARRAY_SIZE(gates) != SWITCHOVER_ROLE__MAX);

static void check_gates(const GateCase *c, const char *want, bool running,
                        bool stopped)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(rows); i++) {
        g_assert_cmpint("sko"[switchover_gate(rows[i], c->role, running,
                                              stopped)], ==, want[i]);
    }
}

static void test_gate(const void *data)
{
    const GateCase *c = data;

    check_gates(c, c->running, true, false);
    check_gates(c, c->stopped, false, true);
    check_gates(c, c->always, true, true);
}

/* Whoever takes what is meant for a guest takes nothing while it can go on. */
static void test_rule(void)
{
    static const SwitchoverPhase stays[] = {
        PHASE_INCOMING, PHASE_STOPPED, PHASE_LEAVING, PHASE_LOCAL,
    };
    unsigned i, wish;

    for (i = 0; i < ARRAY_SIZE(stays); i++) {
        for (wish = 0; wish < 4; wish++) {
            bool running = wish & 1, stopped = wish & 2;

            g_assert_cmpint(switchover_gate(stays[i], SWITCHOVER_HAND_OVER,
                                            running, stopped), !=,
                            SWITCHOVER_OPEN);
            g_assert_cmpint(switchover_gate(stays[i], SWITCHOVER_DIVERT,
                                            running, stopped), !=,
                            SWITCHOVER_OPEN);
            g_assert_cmpint(switchover_gate(stays[i], SWITCHOVER_CAPTURE,
                                            running, stopped), !=,
                            SWITCHOVER_OPEN);
        }
    }
}

/* All statuses that every supported version of the schema has. */
static void test_status(void)
{
    static const MigrationStatus sent[] = {
        MIGRATION_STATUS_SETUP, MIGRATION_STATUS_ACTIVE,
        MIGRATION_STATUS_PRE_SWITCHOVER, MIGRATION_STATUS_DEVICE,
        MIGRATION_STATUS_WAIT_UNPLUG, MIGRATION_STATUS_COLO,
    };
    static const MigrationStatus done[] = {
        MIGRATION_STATUS_COMPLETED, MIGRATION_STATUS_POSTCOPY_ACTIVE,
        MIGRATION_STATUS_POSTCOPY_PAUSED,
        MIGRATION_STATUS_POSTCOPY_RECOVER_SETUP,
        MIGRATION_STATUS_POSTCOPY_RECOVER,
    };
    static const MigrationStatus failed[] = {
        MIGRATION_STATUS_NONE, MIGRATION_STATUS_CANCELLING,
        MIGRATION_STATUS_CANCELLED, MIGRATION_STATUS_FAILED,
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(sent); i++) {
        g_assert_cmpint(switchover_event(sent[i]), ==, SWITCHOVER_SENT);
    }
    for (i = 0; i < ARRAY_SIZE(done); i++) {
        g_assert_cmpint(switchover_event(done[i]), ==, SWITCHOVER_DONE);
    }
    for (i = 0; i < ARRAY_SIZE(failed); i++) {
        g_assert_cmpint(switchover_event(failed[i]), ==, SWITCHOVER_FAILED);
    }
}

int main(int argc, char **argv)
{
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(states); i++) {
        g_autofree char *path =
            g_strdup_printf("/switchover/next/%s",
                            RunState_str(states[i].state));

        g_test_add_data_func(path, &states[i], test_next);
    }
    for (i = 0; i < ARRAY_SIZE(gates); i++) {
        g_autofree char *path = g_strdup_printf("/switchover/gate/%s",
                                                gates[i].name);

        g_test_add_data_func(path, &gates[i], test_gate);
    }
    g_test_add_func("/switchover/states", test_states);
    g_test_add_func("/switchover/rule", test_rule);
    g_test_add_func("/switchover/status", test_status);
    return g_test_run();
}
