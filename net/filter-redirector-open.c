/*
 * filter-redirector with netdev endpoints: opening what the properties name
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "filter-redirector-int.h"

static NetClientState *find_tap(const char *property, const char *id,
                                Error **errp)
{
    NetClientState *nc = qemu_find_netdev(id);

    if (!nc) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND,
                  "%s '%s': there is no netdev of this id", property, id);
        return NULL;
    }
    if (nc->info->type != NET_CLIENT_DRIVER_TAP) {
        error_setg(errp, "%s '%s' is a netdev of type '%s': only a TAP has an "
                   "interface for a packet socket", property, id,
                   NetClientDriver_str(nc->info->type));
        return NULL;
    }
    return nc;
}

/* Return: a packet socket on the interface of the netdev @id, or -1 */
static int open_socket(const char *property, const char *id, const char *name,
                       PacketEnd *end, Error **errp)
{
    ERRP_GUARD();
    NetClientState *nc = find_tap(property, id, errp);
    int fd;

    if (!nc) {
        return -1;
    }
    if (name) {
        fd = packet_socket_get(nc, name, &end->iface, errp);
        if (fd < 0) {
            error_prepend(errp, "%s_fd '%s': ", property, name);
        }
    } else {
        fd = packet_socket_open(nc, &end->iface, errp);
        if (fd < 0) {
            error_prepend(errp, "%s '%s': ", property, id);
        }
    }
    if (fd >= 0) {
        end->nc = nc;
    }
    return fd;
}

static bool open_in_netdev(Redirector *r, Error **errp)
{
    ERRP_GUARD();
    int fd = open_socket("in_netdev", r->in_netdev, r->in_netdev_fd, &r->in,
                         errp);

    if (fd < 0) {
        return false;
    }
    r->capture = packet_capture_new(fd, &r->in.iface, r->nf->direction,
                                    r->ring_size, errp);
    if (!r->capture) {
        error_prepend(errp, "in_netdev '%s': ", r->in_netdev);
    }
    return r->capture;
}

static bool open_out_netdev(Redirector *r, Error **errp)
{
    ERRP_GUARD();
    int fd = open_socket("out_netdev", r->out_netdev, r->out_netdev_fd,
                         &r->out, errp);

    if (fd < 0) {
        return false;
    }
    r->inject = packet_inject_new(fd, &r->out.iface, errp);
    if (!r->inject) {
        error_prepend(errp, "out_netdev '%s': ", r->out_netdev);
        return false;
    }
    r->retry_us = REDIRECTOR_RETRY_MIN_US;
    packet_stream_init(&r->cut, REDIRECTOR_QUEUE_SIZE, false);
    packet_stream_init(&r->pending, REDIRECTOR_QUEUE_SIZE, false);
    return true;
}

static bool open_chardev(CharFrontend *fe, const char *property,
                         const char *id, Error **errp)
{
    Chardev *chr = qemu_chr_find(id);

    if (!chr) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "%s '%s': there is no "
                  "chardev of this id", property, id);
        return false;
    }
    return qemu_chr_fe_init(fe, chr, errp);
}

bool redirector_open(Redirector *r, const char *indev, const char *outdev,
                     bool vnet_hdr, Error **errp)
{
    if (indev) {
        packet_stream_init(&r->rx, REDIRECTOR_QUEUE_SIZE, vnet_hdr);
        if (!open_chardev(&r->chr_in, "indev", indev, errp)) {
            return false;
        }
    }
    if (outdev) {
        packet_stream_init(&r->tx, REDIRECTOR_QUEUE_SIZE, vnet_hdr);
        if (!open_chardev(&r->chr_out, "outdev", outdev, errp)) {
            return false;
        }
    }
    if (r->in_netdev && !open_in_netdev(r, errp)) {
        return false;
    }
    return !r->out_netdev || open_out_netdev(r, errp);
}
