/*
 * filter-redirector: the object type
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "net/filter-redirector.h"

OBJECT_DECLARE_SIMPLE_TYPE(FilterRedirector, FILTER_REDIRECTOR)

struct FilterRedirector {
    NetFilterState parent_obj;
    char *indev;
    char *outdev;
    bool vnet_hdr_support;
    Redirector *redirector;
};

Redirector *filter_redirector_get(Object *obj)
{
    return FILTER_REDIRECTOR(obj)->redirector;
}

static void filter_redirector_setup(NetFilterState *nf, Error **errp)
{
    FilterRedirector *s = FILTER_REDIRECTOR(nf);

    if (redirector_check(s->redirector, nf, s->indev, s->outdev, errp)) {
        redirector_setup(s->redirector, nf, s->indev, s->outdev,
                         s->vnet_hdr_support, errp);
    }
}

static void filter_redirector_status_changed(NetFilterState *nf, Error **errp)
{
    redirector_status_changed(FILTER_REDIRECTOR(nf)->redirector);
}

static void filter_redirector_cleanup(NetFilterState *nf)
{
    redirector_free(FILTER_REDIRECTOR(nf)->redirector);
}

static ssize_t filter_redirector_receive_iov(NetFilterState *nf,
                                             NetClientState *sender,
                                             unsigned flags,
                                             const struct iovec *iov,
                                             int iovcnt,
                                             NetPacketSent *sent_cb)
{
    return redirector_receive_iov(FILTER_REDIRECTOR(nf)->redirector, sender,
                                  flags, iov, iovcnt);
}

/* Accessors of a chardev's id; an empty one is none. */
#define CHARDEV_PROPERTY(field)                                         \
static char *get_##field(Object *obj, Error **errp)                     \
{                                                                       \
    return g_strdup(FILTER_REDIRECTOR(obj)->field);                     \
}                                                                       \
                                                                        \
static void set_##field(Object *obj, const char *value, Error **errp)   \
{                                                                       \
    FilterRedirector *s = FILTER_REDIRECTOR(obj);                       \
                                                                        \
    if (redirector_can_change(obj, #field, errp)) {                     \
        g_free(s->field);                                               \
        s->field = *value ? g_strdup(value) : NULL;                     \
    }                                                                   \
}

CHARDEV_PROPERTY(indev)
CHARDEV_PROPERTY(outdev)

static bool get_vnet_hdr_support(Object *obj, Error **errp)
{
    return FILTER_REDIRECTOR(obj)->vnet_hdr_support;
}

static void set_vnet_hdr_support(Object *obj, bool value, Error **errp)
{
    if (redirector_can_change(obj, "vnet_hdr_support", errp)) {
        FILTER_REDIRECTOR(obj)->vnet_hdr_support = value;
    }
}

static void filter_redirector_class_init(ObjectClass *oc, const void *data)
{
    NetFilterClass *nfc = NETFILTER_CLASS(oc);

    object_class_property_add_str(oc, "indev", get_indev, set_indev);
    object_class_property_add_str(oc, "outdev", get_outdev, set_outdev);
    object_class_property_add_bool(oc, "vnet_hdr_support",
                                   get_vnet_hdr_support,
                                   set_vnet_hdr_support);
    redirector_class_init(oc);

    nfc->setup = filter_redirector_setup;
    nfc->status_changed = filter_redirector_status_changed;
    nfc->cleanup = filter_redirector_cleanup;
    nfc->receive_iov = filter_redirector_receive_iov;
}

static void filter_redirector_init(Object *obj)
{
    FILTER_REDIRECTOR(obj)->redirector = redirector_new();
}

static void filter_redirector_finalize(Object *obj)
{
    FilterRedirector *s = FILTER_REDIRECTOR(obj);

    g_free(s->indev);
    g_free(s->outdev);
}

static const TypeInfo filter_redirector_info = {
    .name = TYPE_FILTER_REDIRECTOR,
    .parent = TYPE_NETFILTER,
    .class_init = filter_redirector_class_init,
    .instance_init = filter_redirector_init,
    .instance_finalize = filter_redirector_finalize,
    .instance_size = sizeof(FilterRedirector),
};

static void register_types(void)
{
    type_register_static(&filter_redirector_info);
}

type_init(register_types);
