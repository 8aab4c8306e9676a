/*
 * Netdev endpoints of filter-redirector
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_NET_FILTER_REDIRECTOR_H
#define QEMU_NET_FILTER_REDIRECTOR_H

#include "net/filter.h"

#define TYPE_FILTER_REDIRECTOR "filter-redirector"

/*
 * A redirector has an input and an output.  Each is a character device, the
 * filter chain of the netdev it sits on, or a packet socket on the interface
 * of a TAP netdev.  These functions are for the object that it belongs to;
 * what is behind them is told in net/filter-redirector-end.h.
 *
 * QEMU's main loop never waits for a receiver: what can't be passed on stays
 * in the capture ring, in the TAP's queue, with the sender, or in a bounded
 * queue.
 *
 * All functions belong to the main loop, or to who holds the BQL.
 */
typedef struct Redirector Redirector;

/**
 * filter_redirector_get() - The redirector of a filter-redirector object
 * @obj: object of type TYPE_FILTER_REDIRECTOR
 *
 * Provided by who defines the type.
 */
Redirector *filter_redirector_get(Object *obj);

/**
 * redirector_new() - Make a redirector with default properties
 */
Redirector *redirector_new(void);

/**
 * redirector_free() - Stop and free a redirector
 * @r: redirector, in any state of set-up, or NULL
 */
void redirector_free(Redirector *r);

/**
 * redirector_class_init() - Add properties and methods to filter-redirector
 * @oc: class
 */
void redirector_class_init(ObjectClass *oc);

/**
 * redirector_is_extended() - Is one of the properties in use that make it more
 *                            than a redirector between chardevs and the chain?
 * @r: redirector
 */
bool redirector_is_extended(const Redirector *r);

/**
 * redirector_can_change() - May a property still be set?
 * @obj: object of type TYPE_FILTER_REDIRECTOR
 * @name: the property's name
 * @errp: set if the redirector has been set up
 */
bool redirector_can_change(Object *obj, const char *name, Error **errp);

/**
 * redirector_check() - Check the combination of properties
 * @r: redirector
 * @nf: the filter
 * @indev: id of the input chardev, or NULL
 * @outdev: id of the output chardev, or NULL
 * @errp: set if it isn't allowed; the message names the object
 *
 * Return: true if it is allowed
 */
bool redirector_check(Redirector *r, NetFilterState *nf, const char *indev,
                      const char *outdev, Error **errp);

/**
 * redirector_setup() - Open a redirector's ends
 * @r: redirector, checked
 * @nf: the filter, its netdev is known
 * @indev: id of the input chardev, or NULL
 * @outdev: id of the output chardev, or NULL
 * @vnet_hdr: packets on chardevs come with the length of their vnet header
 * @errp: set on failure; the message names the object.  Whatever was opened
 *        is closed by redirector_free().
 */
void redirector_setup(Redirector *r, NetFilterState *nf, const char *indev,
                      const char *outdev, bool vnet_hdr, Error **errp);

/**
 * redirector_status_changed() - Begin or stop to work, as the filter says
 * @r: redirector, in any state of set-up
 */
void redirector_status_changed(Redirector *r);

/**
 * redirector_receive_iov() - Take a packet that the filter chain brings
 * @r: redirector, set up
 * @sender: net client that sends it
 * @flags: QEMU_NET_PACKET_FLAG_*
 * @iov: packet, behind a vnet header of the netdev's length (unless the flags
 *       say that it is bare)
 * @iovcnt: number of pieces
 *
 * Return: 0 if the packet is to go on through the chain, else its size
 */
ssize_t redirector_receive_iov(Redirector *r, NetClientState *sender,
                               unsigned flags, const struct iovec *iov,
                               int iovcnt);

#endif /* QEMU_NET_FILTER_REDIRECTOR_H */
