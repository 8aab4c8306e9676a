/*
 * filter-redirector with netdev endpoints: set-up and flow
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/visitor.h"
#include "qemu/cutils.h"
#include "qom/object_interfaces.h"
#include "filter-redirector-int.h"
#include "trace.h"

/*
 * Packets, and bytes, moved before the main loop gets its turn.  To copy them
 * for a chardev takes a tenth of the time that it takes to send them: a whole
 * block of the ring can be one write.
 */
#define BUDGET_COPY (16 * REDIRECTOR_BATCH)
#define BUDGET_SEND (2 * REDIRECTOR_BATCH)
#define BUDGET_BYTES (1 * MiB)

static const char *filter_id(NetFilterState *nf)
{
    return object_get_canonical_path_component(OBJECT(nf)) ?: "";
}

/* What the virtual machine's state allows */

bool redirector_vm_runs(void)
{
    return runstate_is_live(runstate_get());
}

bool redirector_undecided(Redirector *r)
{
    return runstate_check(RUN_STATE_FINISH_MIGRATE) && !r->handed_over;
}

bool redirector_hands_over(Redirector *r)
{
    return r->enable_when_stopped && r->chain_in && !r->in_netdev &&
           r->out_type == END_CHARDEV &&
           r->nf->direction != NET_FILTER_DIRECTION_RX;
}

bool redirector_hands_over_now(Redirector *r)
{
    /*
     * A machine that waits for its state to arrive has not stopped: what
     * reaches its TAP is for its own guest.
     */
    return redirector_hands_over(r) && !redirector_vm_runs() &&
           !runstate_check(RUN_STATE_INMIGRATE) && !redirector_undecided(r);
}

bool redirector_input_is_copy(Redirector *r)
{
    return r->in.nc && r->in.nc == r->nf->netdev;
}

/* Moving packets from the input to the output */

void redirector_retry_in(Redirector *r, int us)
{
    r->waiting = true;
    timer_mod(r->retry, qemu_clock_get_us(QEMU_CLOCK_REALTIME) + us);
}

/*
 * Postcopy says that it is done when all has been sent, but the destination
 * can still fail to load it, and the machine goes on here.
 */
static bool past_return(void)
{
    g_autoptr(MigrationInfo) info = qmp_query_migrate(NULL);

    switch (info && info->has_status ? info->status : MIGRATION_STATUS_NONE) {
    case MIGRATION_STATUS_COMPLETED:
    case MIGRATION_STATUS_POSTCOPY_ACTIVE:
    case MIGRATION_STATUS_POSTCOPY_PAUSED:
    case MIGRATION_STATUS_POSTCOPY_RECOVER_SETUP:
    case MIGRATION_STATUS_POSTCOPY_RECOVER:
        return true;
    default:
        return false;
    }
}

/* Nobody tells when the destination has begun to run in postcopy. */
static void see_to_migration(Redirector *r)
{
    if (!r->sent_all || !runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        return;
    }
    r->handed_over = past_return();
    if (r->handed_over) {
        redirector_in_decided(r, true);
    } else {
        redirector_retry_in(r, REDIRECTOR_RETRY_POSTCOPY_US);
    }
}

/* Brings everything that waits for something in line with the present state. */
static void update(Redirector *r)
{
    bool room = redirector_has_room(r, r->sink);
    NetFilterIntake intake;

    if (room) {
        r->in_stalled = false;
    } else if (r->in_stalled && r->sink == END_CHAIN && !r->waiting &&
               redirector_vm_runs()) {
        /* Nobody tells when a NIC or a TAP takes packets again. */
        redirector_retry_in(r, REDIRECTOR_RETRY_FULL_US);
    }
    if (room && r->nf->on && r->rx.packets) {
        qemu_bh_schedule(r->bh);
    }
    redirector_in_update(r);
    intake = redirector_wanted_intake(r);
    if (intake != r->intake) {
        r->intake = intake;
        qemu_netfilter_intake_changed(r->nf);
    }
}

static void move_input(Redirector *r)
{
    PacketFrame frames[REDIRECTOR_BATCH];
    const unsigned budget = r->sink == END_CHARDEV ? BUDGET_COPY : BUDGET_SEND;
    unsigned i, n, done, packets = 0;
    size_t bytes = 0;

    while (packets < budget && bytes < BUDGET_BYTES) {
        n = redirector_in_read(r, frames, REDIRECTOR_BATCH);
        if (!n) {
            break;
        }
        done = redirector_put(r, r->sink, frames, n);
        for (i = 0; i < done; i++) {
            bytes += frames[i].len;
        }
        packets += done;
        redirector_in_release(r, frames, done);
        if (done < n) {
            r->in_stats.stalls += !r->in_stalled;
            r->in_stalled = true;
            break;
        }
    }
    trace_redirector_move(r->id, packets, bytes);
}

/* An endpoint ends with its netdev, not only with the interface. */
static void close_removed(Redirector *r)
{
    if (r->in_netdev && !r->in.nc) {
        redirector_in_close(r);
    }
    if (r->out_netdev && !r->out.nc) {
        redirector_out_close(r);
    }
}

void redirector_move(Redirector *r)
{
    /* A filter behind this one may run the main loop until it has written. */
    if (r->moving) {
        return;
    }
    r->moving = true;
    object_ref(OBJECT(r->nf));

    if (redirector_undecided(r)) {
        see_to_migration(r);
    }
    redirector_out_flush(r);
    move_input(r);
    redirector_out_flush(r);

    r->moving = false;
    close_removed(r);
    update(r);
    object_unref(OBJECT(r->nf));
}

static void redirector_bh(void *opaque)
{
    redirector_move(opaque);
}

static void redirector_retry(void *opaque)
{
    Redirector *r = opaque;

    r->waiting = false;
    redirector_move(r);
}

/* Events */

static void redirector_vm_change(void *opaque, bool running, RunState state)
{
    Redirector *r = opaque;

    if (running) {
        r->handed_over = r->sent_all = false;
        redirector_in_decided(r, false);
        /* Later: only once all devices work. */
        qemu_bh_schedule(r->bh);
    } else if (redirector_undecided(r)) {
        redirector_in_undecided(r);
    }
    update(r);
}

static int redirector_migration(NotifierWithReturn *notify, MigrationEvent *e,
                                Error **errp)
{
    Redirector *r = container_of(notify, Redirector, migration);

    if (!redirector_vm_runs() && e->type != MIG_EVENT_SETUP) {
        r->sent_all = e->type == MIG_EVENT_POSTCOPY_START ||
                      e->type == MIG_EVENT_DONE;
        if (!redirector_undecided(r)) {
            redirector_in_decided(r, true);
        }
        qemu_bh_schedule(r->bh);
    }
    return 0;
}

void redirector_status_changed(Redirector *r)
{
    if (r->nf) {
        update(r);
        qemu_bh_schedule(r->bh);
    }
}

static void redirector_netdev_removed(Notifier *notify, void *data)
{
    Redirector *r = container_of(notify, Redirector, netdev_removed);
    NetClientState *nc = data;

    if (nc == r->in.nc) {
        r->in.nc = NULL;
    }
    if (nc == r->out.nc) {
        r->out.nc = NULL;
    }
    if (!r->moving) {
        close_removed(r);
    }
}

/* Set-up */

bool redirector_is_extended(const Redirector *r)
{
    return r->in_netdev || r->out_netdev || r->enable_when_stopped;
}

static bool check(Redirector *r, const char *indev, const char *outdev,
                  Error **errp)
{
    if (!indev && !outdev && !r->in_netdev && !r->out_netdev) {
        error_setg(errp, "one of 'indev', 'outdev', 'in_netdev' and "
                   "'out_netdev' must be set");
    } else if (r->in_netdev && r->out_netdev) {
        error_setg(errp, "'in_netdev' ('%s') and 'out_netdev' ('%s') cannot "
                   "be used together", r->in_netdev, r->out_netdev);
    } else if (r->in_netdev && indev) {
        error_setg(errp, "'in_netdev' ('%s') and 'indev' ('%s') cannot be "
                   "used together: a redirector has one input",
                   r->in_netdev, indev);
    } else if (r->out_netdev && outdev) {
        error_setg(errp, "'out_netdev' ('%s') and 'outdev' ('%s') cannot be "
                   "used together: a redirector has one output",
                   r->out_netdev, outdev);
    } else if (indev && outdev && !strcmp(indev, outdev)) {
        error_setg(errp, "'indev' and 'outdev' are both '%s': use two "
                   "character devices", indev);
    } else if (r->ring_size_given && !r->in_netdev) {
        error_setg(errp, "'ring_size' needs 'in_netdev'");
    } else if (r->in_netdev_fd && !r->in_netdev) {
        error_setg(errp, "'in_netdev_fd' needs 'in_netdev', the netdev that "
                   "the packet socket is for");
    } else if (r->out_netdev_fd && !r->out_netdev) {
        error_setg(errp, "'out_netdev_fd' needs 'out_netdev', the netdev that "
                   "the packet socket is for");
    } else if (r->ring_size < PACKET_RING_SIZE_MIN ||
               r->ring_size > PACKET_RING_SIZE_MAX) {
        error_setg(errp, "ring_size %" PRIu64 " is out of range: use %" PRIu64
                   " to %" PRIu64 " bytes", r->ring_size,
                   (uint64_t)PACKET_RING_SIZE_MIN,
                   (uint64_t)PACKET_RING_SIZE_MAX);
    } else {
        return true;
    }
    return false;
}

bool redirector_check(Redirector *r, NetFilterState *nf, const char *indev,
                      const char *outdev, Error **errp)
{
    ERRP_GUARD();

    if (!check(r, indev, outdev, errp)) {
        error_prepend(errp, "filter-redirector '%s': ", filter_id(nf));
        return false;
    }
    return true;
}

static EndType end_type(const char *chardev, const char *netdev)
{
    return chardev ? END_CHARDEV :
           netdev ? END_PACKET :
           END_CHAIN;
}

static bool is_multiqueue(NetFilterState *nf)
{
    return qemu_find_net_clients_except(nf->netdev_id, NULL,
                                        NET_CLIENT_DRIVER_NIC, 0) > 1;
}

static void find_flows(Redirector *r, const char *indev, const char *outdev)
{
    NetClientState *nc = r->nf->netdev;
    bool own_tap = nc == r->in.nc || nc == r->out.nc;

    r->in_type = end_type(indev, r->in_netdev);
    r->out_type = end_type(outdev, r->out_netdev);
    /* Two chardevs: two flows, each between one of them and the chain. */
    r->sink = indev && outdev ? END_CHAIN
                              : r->out_type;
    /*
     * A packet of the endpoint's own TAP is not taken out of the chain: it
     * has been captured already, or would be injected for ever.
     */
    r->chain_in = (outdev || r->out_netdev) && !own_tap &&
                  !is_multiqueue(r->nf);
    if (r->in_type == END_CHAIN && !r->chain_in) {
        r->in_type = END_NONE;
    }
}

static void start(Redirector *r)
{
    r->bh = qemu_bh_new(redirector_bh, r);
    r->retry = timer_new_us(QEMU_CLOCK_REALTIME, redirector_retry, r);
    r->vm_change = qemu_add_vm_change_state_handler(redirector_vm_change, r);
    migration_add_notifier(&r->migration, redirector_migration);
    r->netdev_removed.notify = redirector_netdev_removed;
    qemu_add_netdev_removed_notifier(&r->netdev_removed);

    if (redirector_undecided(r)) {
        redirector_in_undecided(r);
        r->sent_all = true;     /* perhaps */
    }
    redirector_out_start(r);
    redirector_in_start(r);
    /* The filter is not yet in its chain: the rest follows from there. */
    qemu_bh_schedule(r->bh);
}

void redirector_setup(Redirector *r, NetFilterState *nf, const char *indev,
                      const char *outdev, bool vnet_hdr, Error **errp)
{
    ERRP_GUARD();

    r->nf = nf;
    r->id = g_strdup(filter_id(nf));
    if (!redirector_open(r, indev, outdev, vnet_hdr, errp)) {
        error_prepend(errp, "filter-redirector '%s': ", r->id);
        r->nf = NULL;
        return;
    }
    r->in_name = g_strdup(indev ?: r->in_netdev);
    r->out_name = g_strdup(outdev ?: r->out_netdev);
    r->scratch = g_malloc(PACKET_LEN_MAX);
    find_flows(r, indev, outdev);
    start(r);
}

Redirector *redirector_new(void)
{
    Redirector *r = g_new0(Redirector, 1);

    r->ring_size = PACKET_RING_SIZE_DEFAULT;
    return r;
}

static void stop(Redirector *r)
{
    qemu_remove_netdev_removed_notifier(&r->netdev_removed);
    migration_remove_notifier(&r->migration);
    qemu_del_vm_change_state_handler(r->vm_change);
    timer_free(r->retry);
    qemu_bh_delete(r->bh);
}

void redirector_free(Redirector *r)
{
    if (!r) {
        return;
    }
    redirector_in_close(r);
    redirector_out_close(r);
    if (r->nf) {
        stop(r);
    }
    g_free(r->scratch);
    g_free(r->id);
    g_free(r->in_name);
    g_free(r->out_name);
    g_free(r->in_netdev);
    g_free(r->out_netdev);
    g_free(r->in_netdev_fd);
    g_free(r->out_netdev_fd);
    g_free(r);
}

/* Class */

static bool redirector_accept_vhost(NetFilterState *nf)
{
    return redirector_is_extended(filter_redirector_get(OBJECT(nf)));
}

/* A packet socket sees all queues of a TAP, the filter chain one. */
static bool redirector_accept_multiqueue(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));
    g_autofree char *indev = object_property_get_str(OBJECT(nf), "indev",
                                                     NULL);
    g_autofree char *outdev = object_property_get_str(OBJECT(nf), "outdev",
                                                      NULL);

    return (r->in_netdev && outdev && *outdev) ||
           (r->out_netdev && indev && *indev);
}

/* What the core let in because of a property can't be undone later. */
static bool can_change(Object *obj, const char *name, Error **errp)
{
    if (NETFILTER(obj)->netdev) {
        error_setg(errp, "filter-redirector '%s': '%s' cannot be changed "
                   "after creation", filter_id(NETFILTER(obj)), name);
        return false;
    }
    return true;
}

/* Accessors of a string property. */
#define STR_PROPERTY(field)                                             \
static char *get_##field(Object *obj, Error **errp)                     \
{                                                                       \
    return g_strdup(filter_redirector_get(obj)->field);                 \
}                                                                       \
                                                                        \
static void set_##field(Object *obj, const char *value, Error **errp)   \
{                                                                       \
    Redirector *r = filter_redirector_get(obj);                         \
                                                                        \
    if (can_change(obj, #field, errp)) {                                \
        g_free(r->field);                                               \
        r->field = g_strdup(value);                                     \
    }                                                                   \
}

STR_PROPERTY(in_netdev)
STR_PROPERTY(out_netdev)
STR_PROPERTY(in_netdev_fd)
STR_PROPERTY(out_netdev_fd)

static bool get_enable_when_stopped(Object *obj, Error **errp)
{
    return filter_redirector_get(obj)->enable_when_stopped;
}

static void set_enable_when_stopped(Object *obj, bool value, Error **errp)
{
    if (can_change(obj, "enable_when_stopped", errp)) {
        filter_redirector_get(obj)->enable_when_stopped = value;
    }
}

static void get_ring_size(Object *obj, Visitor *v, const char *name,
                          void *opaque, Error **errp)
{
    visit_type_size(v, name, &filter_redirector_get(obj)->ring_size, errp);
}

static void set_ring_size(Object *obj, Visitor *v, const char *name,
                          void *opaque, Error **errp)
{
    Redirector *r = filter_redirector_get(obj);

    if (can_change(obj, name, errp) &&
        visit_type_size(v, name, &r->ring_size, errp)) {
        r->ring_size_given = true;
    }
}

void redirector_class_init(ObjectClass *oc)
{
    NetFilterClass *nfc = NETFILTER_CLASS(oc);

    object_class_property_add_str(oc, "in_netdev", get_in_netdev,
                                  set_in_netdev);
    object_class_property_add_str(oc, "out_netdev", get_out_netdev,
                                  set_out_netdev);
    object_class_property_add_str(oc, "in_netdev_fd", get_in_netdev_fd,
                                  set_in_netdev_fd);
    object_class_property_add_str(oc, "out_netdev_fd", get_out_netdev_fd,
                                  set_out_netdev_fd);
    object_class_property_add_bool(oc, "enable_when_stopped",
                                   get_enable_when_stopped,
                                   set_enable_when_stopped);
    object_class_property_add(oc, "ring_size", "size", get_ring_size,
                              set_ring_size, NULL, NULL);

    nfc->accept_vhost = redirector_accept_vhost;
    nfc->accept_multiqueue = redirector_accept_multiqueue;
    nfc->intake = redirector_intake;
}
