/*
 * filter-redirector: packet sockets on a TAP's interface
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "filter-redirector-packet.h"

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

int redirector_packet_open(RedirectorPacketEnd *end, const char *property,
                           const RedirectorPacketOptions *opt, Error **errp)
{
    ERRP_GUARD();
    NetClientState *nc = find_tap(property, opt->netdev, errp);
    int fd;

    if (!nc) {
        return -1;
    }
    if (opt->fd) {
        fd = packet_socket_get(nc, opt->fd, &end->iface, errp);
        if (fd < 0) {
            error_prepend(errp, "%s_fd '%s': ", property, opt->fd);
        }
    } else {
        fd = packet_socket_open(nc, &end->iface, errp);
        if (fd < 0) {
            error_prepend(errp, "%s '%s': ", property, opt->netdev);
        }
    }
    if (fd >= 0) {
        end->nc = nc;
        end->netdev = g_strdup(opt->netdev);
    }
    return fd;
}

void redirector_packet_describe(RedirectorPacketEnd *end, const char *ifname,
                         FilterRedirectorEndpoint *info)
{
    info->name = g_strdup(end->netdev);
    info->ifname = g_strdup(ifname);
    info->has_ifindex = true;
    info->ifindex = end->iface.ifindex;
    info->has_netns = end->iface.netns != 0;
    info->netns = end->iface.netns;
}

EndState redirector_packet_state(int ret)
{
    return ret == -ENODEV ? END_STATE(GONE) :
           ret ? END_STATE(DOWN) : END_STATE(ACTIVE);
}
