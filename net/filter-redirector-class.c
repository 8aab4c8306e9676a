/*
 * filter-redirector: its properties, and where it may sit
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "net/vhost_net.h"
#include "qom/object_interfaces.h"
#include "filter-redirector-chain.h"
#include "filter-redirector-int.h"

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
        error_prepend(errp, "filter-redirector '%s': ", redirector_id(nf));
        return false;
    }
    return true;
}

/* What netdev it may sit on */

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
           redirector_holds(r, nf, indev, outdev) ||
           (get_vhost_net(nc) && shows_copies(r, nc, outdev)) ||
           (redirector_takes_when_stopped(r, nf, outdev) && !indev &&
            !r->enable_when_running);
}

static bool accept_netdev(Redirector *r, NetFilterState *nf,
                          NetClientState *nc, int queues, const char *indev,
                          const char *outdev, Error **errp)
{
    const char *type = NetClientDriver_str(nc->info->type);
    bool tap = nc->info->type == NET_CLIENT_DRIVER_TAP;

    if (redirector_takes_when_stopped(r, nf, outdev) &&
        !nc->info->intake_changed) {
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
        error_prepend(errp, "filter-redirector '%s': ", redirector_id(nf));
        return false;
    }
    return true;
}

/* Class */

static NetFilterIntake redirector_intake(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));

    if (!r->chain && !r->hold) {
        return NET_FILTER_INTAKE_DEFAULT;
    }
    redirector_look(r);
    if (r->lend && (redirector_lend_returns(r->lend) ||
                    redirector_lend_collects(r->lend))) {
        return NET_FILTER_INTAKE_HOLD;
    }
    return r->hold ? redirector_hold_intake(r->hold)
                   : redirector_chain_intake(r->chain);
}

static void redirector_yield(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));

    if (r->hold) {
        redirector_hold_yield(r->hold);
    }
}

static bool redirector_holds_vhost(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));

    return (r->hold && redirector_hold_holds_vhost(r->hold)) ||
           (r->lend && redirector_lend_returns(r->lend));
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
                   "after creation", redirector_id(NETFILTER(obj)), name);
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
    nfc->yield = redirector_yield;
    nfc->holds_vhost = redirector_holds_vhost;
}
