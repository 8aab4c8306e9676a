/*
 * filter-redirector: its ends, and what keeps them going
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/visitor.h"
#include "migration/misc.h"
#include "net/vhost_net.h"
#include "qom/object_interfaces.h"
#include "filter-redirector-int.h"
#include "trace.h"

/* How often to ask whether the guest has left, microseconds. */
#define LEAVING_US (10 * 1000)

/* Migrations that stay on this host. */
#define LOCAL_MODES ((BIT(MIG_MODE__MAX) - 1) & ~BIT(MIG_MODE_NORMAL))

static const char *filter_id(NetFilterState *nf)
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

/* Events */

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

/* Brings everything in line with what has happened. */
static void settle(Redirector *r, SwitchoverEvent event)
{
    SwitchoverPhase before = r->phase;

    r->phase = switchover_next(before, event, runstate_get());
    trace_redirector_phase(r->owner.id, FilterRedirectorPhase_str(before),
                           event, FilterRedirectorPhase_str(r->phase));
    if (r->phase == PHASE_LEAVING) {
        timer_mod(r->leaving,
                  qemu_clock_get_us(QEMU_CLOCK_REALTIME) + LEAVING_US);
    }
    set_sink(r, r->output);
    set_sink(r, r->into_chain);
    set_source(r, r->input);
    set_source(r, r->chain);
    /* Later: only once all devices work. */
    run_later(&r->owner);
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
    run_later(&r->owner);
}

/* What properties may be together */

bool redirector_is_extended(const Redirector *r)
{
    return r->in_netdev || r->out_netdev || r->enable_when_stopped ||
           !r->enable_when_running;
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
    } else if (!r->enable_when_running && !r->enable_when_stopped) {
        error_setg(errp, "'enable_when_running' and 'enable_when_stopped' "
                   "are both off: it would never work");
    } else if (r->ring_size_given && !r->in_netdev) {
        error_setg(errp, "'ring_size' needs 'in_netdev'");
    } else if ((r->snaplen || r->filter) && !r->in_netdev) {
        error_setg(errp, "'%s' needs 'in_netdev'",
                   r->filter ? "filter" : "snaplen");
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

/* What netdev it may sit on */

/* Is the chain what it takes a stopped guest's packets from? */
static bool takes_when_stopped(Redirector *r, NetFilterState *nf,
                               const char *outdev)
{
    return r->enable_when_stopped && outdev && !r->in_netdev &&
           nf->direction != NET_FILTER_DIRECTION_RX;
}

/* Is @nc what it captures, for the filters behind it to look at? */
static bool shows_copies(const Redirector *r, const NetClientState *nc,
                         const char *outdev)
{
    return r->in_netdev && !outdev && !strcmp(r->in_netdev, nc->name);
}

/*
 * Of several queues the chain sees one; a packet socket and a hand-over all,
 * and who is shown what a packet socket captures.
 */
static bool takes_all_queues(Redirector *r, NetFilterState *nf,
                             NetClientState *nc, const char *indev,
                             const char *outdev)
{
    return (r->in_netdev && outdev) || (r->out_netdev && indev) ||
           (get_vhost_net(nc) && shows_copies(r, nc, outdev)) ||
           (takes_when_stopped(r, nf, outdev) && !indev &&
            !r->enable_when_running);
}

static bool accept_netdev(Redirector *r, NetFilterState *nf,
                          NetClientState *nc, int queues, const char *indev,
                          const char *outdev, Error **errp)
{
    const char *type = NetClientDriver_str(nc->info->type);
    bool tap = nc->info->type == NET_CLIENT_DRIVER_TAP;

    if (takes_when_stopped(r, nf, outdev) && !nc->info->intake_changed) {
        error_setg(errp, "netdev '%s' is of type '%s', which can't keep a "
                   "stopped guest's packets until they are handed over: use "
                   "a TAP, or leave 'enable_when_stopped' off", nc->name,
                   type);
    } else if (get_vhost_net(nc) && !tap) {
        error_setg(errp, "netdev '%s' is of type '%s', whose packets QEMU has "
                   "no way to", nc->name, type);
    } else if (get_vhost_net(nc) && !redirector_is_extended(r)) {
        error_setg(errp, "netdev '%s' uses vhost, so that its packets don't "
                   "pass through QEMU: capture them with 'in_netdev', inject "
                   "with 'out_netdev', or hand over a stopped guest's with "
                   "'enable_when_stopped'", nc->name);
    } else if (queues > 1 && !takes_all_queues(r, nf, nc, indev, outdev)) {
        error_setg(errp, "netdev '%s' has %d queues, and the filter chain is "
                   "that of the first one: join 'in_netdev' to 'outdev' or "
                   "'indev' to 'out_netdev', or hand over with 'outdev', "
                   "'enable_when_stopped=on' and 'enable_when_running=off'",
                   nc->name, queues);
    } else {
        return true;
    }
    return false;
}

static bool redirector_accept_netdev(NetFilterState *nf, NetClientState *nc,
                                     int queues, Error **errp)
{
    ERRP_GUARD();
    Object *obj = OBJECT(nf);
    g_autofree char *indev = object_property_get_str(obj, "indev", NULL);
    g_autofree char *outdev = object_property_get_str(obj, "outdev", NULL);

    if (!accept_netdev(filter_redirector_get(obj), nf, nc, queues,
                       indev && *indev ? indev : NULL,
                       outdev && *outdev ? outdev : NULL, errp)) {
        error_prepend(errp, "filter-redirector '%s': ", filter_id(nf));
        return false;
    }
    return true;
}

/* Set-up */

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
    bool multiqueue = qemu_find_net_clients_except(nf->netdev_id, NULL,
                                                   NET_CLIENT_DRIVER_NIC,
                                                   0) > 1;

    if (r->input && (!r->output || (indev && outdev))) {
        r->into_chain = redirector_chain_sink(&r->owner,
                                              own && r->in_netdev,
                                              r->in_netdev);
    }
    if (r->input) {
        add_pump(r, r->input, r->into_chain ?: r->output);
    }
    if (r->output && !own && (!r->input || !multiqueue)) {
        r->chain = redirector_chain_source(&r->owner, r->output,
                                           takes_when_stopped(r, nf, outdev));
        add_pump(r, r->chain, r->output);
    }
}

static void start(Redirector *r)
{
    r->leaving = timer_new_us(QEMU_CLOCK_REALTIME, redirector_leaving, r);
    r->vm_change = qemu_add_vm_change_state_handler(redirector_vm_change, r);
    migration_add_notifier(&r->migration, redirector_migration);
    migration_add_notifier_modes(&r->local_migration,
                                 redirector_local_migration,
                                 LOCAL_MODES);
    r->netdev_removed.notify = redirector_netdev_removed;
    qemu_add_netdev_removed_notifier(&r->netdev_removed);
    r->phase = PHASE_STOPPED;
    /* It may come late: what has happened up to now, only the status tells. */
    settle(r, runstate_check(RUN_STATE_FINISH_MIGRATE) ||
              runstate_check(RUN_STATE_POSTMIGRATE) ? migration_status()
                                                    : SWITCHOVER_RUN_STATE);
}

static void stop(Redirector *r)
{
    qemu_remove_netdev_removed_notifier(&r->netdev_removed);
    migration_remove_notifier(&r->local_migration);
    migration_remove_notifier(&r->migration);
    qemu_del_vm_change_state_handler(r->vm_change);
    timer_free(r->leaving);
}

void redirector_setup(Redirector *r, NetFilterState *nf, const char *indev,
                      const char *outdev, bool vnet_hdr, Error **errp)
{
    ERRP_GUARD();

    r->owner.nf = nf;
    r->owner.id = g_strdup(filter_id(nf));
    r->bh = qemu_bh_new(redirector_bh, &r->owner);
    if (!open_input(r, indev, vnet_hdr, errp) ||
        !open_output(r, outdev, vnet_hdr, errp)) {
        error_prepend(errp, "filter-redirector '%s': ", r->owner.id);
        r->owner.nf = NULL;
        return;
    }
    join(r, indev, outdev);
    start(r);
}

Redirector *redirector_new(void)
{
    Redirector *r = g_new0(Redirector, 1);

    r->owner.run = run;
    r->owner.run_later = run_later;
    r->owner.offer = offer;
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
    free_source(r->input);
    free_source(r->chain);
    free_sink(r->output);
    free_sink(r->into_chain);
    if (r->owner.nf) {
        stop(r);
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
    return r->chain ? redirector_chain_receive(r->chain, sender, flags, iov,
                                               iovcnt) : 0;
}

/* Class */

static NetFilterIntake redirector_intake(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));

    if (!r->chain) {
        return NET_FILTER_INTAKE_DEFAULT;
    }
    redirector_look(r);
    return redirector_chain_intake(r->chain);
}

static bool redirector_shows_copies(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));

    return r->into_chain && shows_copies(r, nf->netdev, NULL);
}

bool redirector_can_change(Object *obj, const char *name, Error **errp)
{
    if (NETFILTER(obj)->netdev) {
        error_setg(errp, "filter-redirector '%s': '%s' cannot be changed "
                   "after creation", filter_id(NETFILTER(obj)), name);
        return false;
    }
    return true;
}

static bool redirector_can_set(NetFilterState *nf, const char *property,
                               Error **errp)
{
    return redirector_can_change(OBJECT(nf), property, errp);
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
    if (redirector_can_change(obj, #field, errp)) {                     \
        g_free(r->field);                                               \
        r->field = g_strdup(value);                                     \
    }                                                                   \
}

/* Likewise of a boolean one. */
#define BOOL_PROPERTY(field)                                            \
static bool get_##field(Object *obj, Error **errp)                      \
{                                                                       \
    return filter_redirector_get(obj)->field;                           \
}                                                                       \
                                                                        \
static void set_##field(Object *obj, bool value, Error **errp)          \
{                                                                       \
    if (redirector_can_change(obj, #field, errp)) {                     \
        filter_redirector_get(obj)->field = value;                      \
    }                                                                   \
}

STR_PROPERTY(in_netdev)
STR_PROPERTY(out_netdev)
STR_PROPERTY(in_netdev_fd)
STR_PROPERTY(out_netdev_fd)
STR_PROPERTY(filter)
BOOL_PROPERTY(enable_when_stopped)
BOOL_PROPERTY(enable_when_running)

static void get_ring_size(Object *obj, Visitor *v, const char *name,
                          void *opaque, Error **errp)
{
    visit_type_size(v, name, &filter_redirector_get(obj)->ring_size, errp);
}

static void set_ring_size(Object *obj, Visitor *v, const char *name,
                          void *opaque, Error **errp)
{
    Redirector *r = filter_redirector_get(obj);

    if (redirector_can_change(obj, name, errp) &&
        visit_type_size(v, name, &r->ring_size, errp)) {
        r->ring_size_given = true;
    }
}

static void get_snaplen(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    visit_type_uint32(v, name, &filter_redirector_get(obj)->snaplen, errp);
}

static void set_snaplen(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    if (redirector_can_change(obj, name, errp)) {
        visit_type_uint32(v, name, &filter_redirector_get(obj)->snaplen, errp);
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
    object_class_property_add_bool(oc, "enable_when_running",
                                   get_enable_when_running,
                                   set_enable_when_running);
    object_class_property_add(oc, "ring_size", "size", get_ring_size,
                              set_ring_size, NULL, NULL);
    object_class_property_add(oc, "snaplen", "uint32", get_snaplen,
                              set_snaplen, NULL, NULL);
    object_class_property_add_str(oc, "filter", get_filter, set_filter);

    nfc->accept_netdev = redirector_accept_netdev;
    nfc->can_change = redirector_can_set;
    nfc->shows_copies = redirector_shows_copies;
    nfc->intake = redirector_intake;
}
