/*
 * filter-redirector: the machine and its migrations, which it follows
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-commands-migration.h"
#include "migration/misc.h"
#include "system/system.h"
#include "filter-redirector-int.h"
#include "trace.h"

/* How often to ask whether the guest has left, microseconds. */
#define LEAVING_US (10 * 1000)

/* Migrations that stay on this host. */
#define LOCAL_MODES ((BIT(MIG_MODE__MAX) - 1) & ~BIT(MIG_MODE_NORMAL))

static void set_source(Redirector *r, RedirectorSource *s)
{
    if (s) {
        s->on = r->owner.nf->on;
        s->live = r->phase == PHASE_RUNNING;
        s->gate = switchover_gate(r->phase, s->role, r->enable_when_running,
                                  r->enable_when_stopped);
        redirector_source_update(s);
    }
}

static void set_sink(Redirector *r, RedirectorSink *s)
{
    if (s) {
        s->live = r->phase == PHASE_RUNNING;
        s->gate = switchover_gate(r->phase, s->role, r->enable_when_running,
                                  r->enable_when_stopped);
    }
}

static void set_lend(Redirector *r, SwitchoverPhase before)
{
    set_source(r, redirector_lend_source(r->lend));
    set_sink(r, redirector_lend_sink(r->lend));
    if (r->phase == PHASE_MIGRATED && before != PHASE_MIGRATED) {
        redirector_lend_begin(r->lend, !r->enable_when_running);
    } else if (r->phase == PHASE_RUNNING && before != PHASE_RUNNING) {
        redirector_lend_return(r->lend);
    } else if (r->phase == PHASE_STOPPED || r->phase == PHASE_LEAVING) {
        if (r->migrating && !r->enable_when_running) {
            redirector_lend_collect(r->lend);
        } else {
            redirector_lend_wait(r->lend);
        }
    } else if (r->phase == PHASE_LOCAL || r->phase == PHASE_INCOMING) {
        redirector_lend_give_up(r->lend);
    }
}

static void set_hold(Redirector *r, SwitchoverPhase before)
{
    set_source(r, redirector_hold_source(r->hold));
    if (r->phase == PHASE_INCOMING) {
        redirector_hold_arm(r->hold);
    } else if (r->phase == PHASE_RUNNING && before != PHASE_RUNNING) {
        redirector_hold_start(r->hold);
    } else if (r->phase == PHASE_MIGRATED || r->phase == PHASE_LOCAL) {
        redirector_hold_give_up(r->hold);
    }
}

/* Brings everything in line with what has happened. */
static void settle(Redirector *r, SwitchoverEvent event)
{
    SwitchoverPhase before = r->phase;

    r->phase = switchover_next(before, event, runstate_get());
    r->migrating = event == SWITCHOVER_SETUP ||
                   (r->migrating && event != SWITCHOVER_DONE &&
                    event != SWITCHOVER_FAILED);
    trace_redirector_phase(r->owner.id, FilterRedirectorPhase_str(before),
                           event, FilterRedirectorPhase_str(r->phase));
    if (r->phase == PHASE_LEAVING) {
        timer_mod(r->leaving,
                  qemu_clock_get_us(QEMU_CLOCK_REALTIME) + LEAVING_US);
    }
    set_sink(r, r->output);
    set_sink(r, r->into_chain);
    if (r->lend) {
        set_lend(r, before);
    }
    set_source(r, r->input);
    set_source(r, r->chain);
    if (r->hold) {
        set_hold(r, before);
    }
    /* Later: only once all devices work. */
    r->owner.run_later(&r->owner);
}

/*
 * QEMU doesn't tell when a machine that does not run gets another reason not
 * to: its state has arrived, and is that of one that was stopped; or somebody
 * resets one that has left.
 */
void redirector_look(Redirector *r)
{
    if (switchover_next(r->phase, SWITCHOVER_RUN_STATE, runstate_get()) !=
        r->phase) {
        settle(r, SWITCHOVER_RUN_STATE);
    }
}

static void redirector_vm_change(void *opaque, bool running, RunState state)
{
    settle(opaque, SWITCHOVER_RUN_STATE);
}

static SwitchoverEvent migration_status(void)
{
    g_autoptr(MigrationInfo) info = qmp_query_migrate(NULL);

    return switchover_event(info && info->has_status ? info->status
                                                     : MIGRATION_STATUS_NONE);
}

/*
 * Postcopy says that it is done when all has been sent, but the destination
 * can still fail to load it, and the machine goes on here.  Nobody tells when
 * it has loaded it.
 */
static void redirector_leaving(void *opaque)
{
    Redirector *r = opaque;

    if (r->phase == PHASE_LEAVING) {
        settle(r, migration_status());
    }
}

static int redirector_migration(NotifierWithReturn *notify, MigrationEvent *e,
                                Error **errp)
{
    Redirector *r = container_of(notify, Redirector, migration);

    switch (e->type) {
    case MIG_EVENT_SETUP:
        settle(r, SWITCHOVER_SETUP);
        break;
    case MIG_EVENT_FAILED:
        settle(r, SWITCHOVER_FAILED);
        break;
    default:
        settle(r, migration_status());
        break;
    }
    return 0;
}

static int redirector_local_migration(NotifierWithReturn *notify,
                                      MigrationEvent *e, Error **errp)
{
    Redirector *r = container_of(notify, Redirector, local_migration);

    settle(r, e->type == MIG_EVENT_SETUP ? SWITCHOVER_LOCAL_SETUP :
              e->type == MIG_EVENT_FAILED ? SWITCHOVER_LOCAL_FAILED :
              SWITCHOVER_LOCAL_DONE);
    return 0;
}

void redirector_status_changed(Redirector *r)
{
    if (r->owner.nf) {
        settle(r, SWITCHOVER_RUN_STATE);
    }
}

static void redirector_netdev_removed(Notifier *notify, void *data)
{
    Redirector *r = container_of(notify, Redirector, netdev_removed);

    if (r->input && r->input->ops->netdev_removed) {
        r->input->ops->netdev_removed(r->input, data);
    }
    if (r->output && r->output->ops->netdev_removed) {
        r->output->ops->netdev_removed(r->output, data);
    }
    r->owner.run_later(&r->owner);
}

static void redirector_quit(Notifier *notify, void *data)
{
    Redirector *r = container_of(notify, Redirector, quit);
    bool *wait = data;

    redirector_lend_quit(r->lend);
    *wait |= redirector_lend_lingers(r->lend);
}

void redirector_follow(Redirector *r)
{
    r->leaving = timer_new_us(QEMU_CLOCK_REALTIME, redirector_leaving, r);
    /* Holds and loans begin before the netdevs send what they kept. */
    r->vm_change =
        qemu_add_vm_change_state_handler_prio(redirector_vm_change, r,
                                              r->hold || r->lend ? -1 : 0);
    migration_add_notifier(&r->migration, redirector_migration);
    migration_add_notifier_modes(&r->local_migration,
                                 redirector_local_migration,
                                 LOCAL_MODES);
    if (r->lend) {
        r->quit.notify = redirector_quit;
        qemu_add_quit_notifier(&r->quit);
    }
    r->netdev_removed.notify = redirector_netdev_removed;
    qemu_add_netdev_removed_notifier(&r->netdev_removed);
    r->phase = PHASE_STOPPED;
    /* It may come late: what has happened up to now, only the status tells. */
    settle(r, runstate_check(RUN_STATE_FINISH_MIGRATE) ||
              runstate_check(RUN_STATE_POSTMIGRATE) ? migration_status()
                                                    : SWITCHOVER_RUN_STATE);
}

void redirector_unfollow(Redirector *r)
{
    if (r->quit.notify) {
        qemu_remove_quit_notifier(&r->quit);
    }
    qemu_remove_netdev_removed_notifier(&r->netdev_removed);
    migration_remove_notifier(&r->local_migration);
    migration_remove_notifier(&r->migration);
    qemu_del_vm_change_state_handler(r->vm_change);
    timer_free(r->leaving);
}
