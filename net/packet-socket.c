/*
 * Packet sockets: which interface, opening, binding
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include "qapi/error.h"
#include "net/tap.h"
#include "qemu/cutils.h"
#include "packet-socket-int.h"

#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227)    /* Linux 5.2 */
#endif

/* /dev/net/tun; a macvtap has a device node and a major of its own. */
#define TUN_MAJOR 10
#define TUN_MINOR 200

QEMU_BUILD_BUG_ON(sizeof_field(PacketInterface, name) != IFNAMSIZ);

static uint64_t inode_of_own_netns(void)
{
    struct stat st;

    return stat("/proc/self/ns/net", &st) == 0 ? st.st_ino : 0;
}

/*
 * The namespace a TAP's device lives in, 0 if the kernel doesn't tell: before
 * Linux 5.2, without CAP_NET_ADMIN over it, or for a macvtap.
 */
static uint64_t inode_of_tap_netns(int tapfd)
{
    struct stat st;
    uint64_t ino = 0;
    int nsfd = ioctl(tapfd, TUNGETDEVNETNS);

    if (nsfd >= 0) {
        if (fstat(nsfd, &st) == 0) {
            ino = st.st_ino;
        }
        close(nsfd);
    }
    return ino;
}

static bool is_macvtap(int tapfd)
{
    struct stat st;

    return fstat(tapfd, &st) == 0 &&
           (major(st.st_rdev) != TUN_MAJOR || minor(st.st_rdev) != TUN_MINOR);
}

/*
 * Where the kernel doesn't tell the TAP's namespace, a device of the same name
 * in QEMU's own is taken for the TAP only if it has the TAP's MAC address.
 */
static bool same_hwaddr(int tapfd, const char *name)
{
    struct ifreq tap = {}, dev = {};
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool same;

    if (sock < 0) {
        return false;
    }
    pstrcpy(dev.ifr_name, sizeof(dev.ifr_name), name);
    same = ioctl(tapfd, SIOCGIFHWADDR, &tap) == 0 &&
           ioctl(sock, SIOCGIFHWADDR, &dev) == 0 &&
           memcmp(&tap.ifr_hwaddr, &dev.ifr_hwaddr,
                  sizeof(dev.ifr_hwaddr)) == 0;
    close(sock);
    return same;
}

bool packet_interface_from_netdev(NetClientState *nc, PacketInterface *iface,
                                  Error **errp)
{
    int tapfd = tap_get_fd(nc);
    struct ifreq ifr = {};
    uint64_t netns;
    bool here;

    if (ioctl(tapfd, TUNGETIFF, &ifr) < 0) {
        error_setg_errno(errp, errno, "cannot get the interface of the TAP");
        return false;
    }
    pstrcpy(iface->name, sizeof(iface->name), ifr.ifr_name);
    iface->macvtap = is_macvtap(tapfd);
    iface->netns = inode_of_own_netns();
    iface->ifindex = if_nametoindex(iface->name);

    netns = inode_of_tap_netns(tapfd);
    here = iface->ifindex && (netns ? netns == iface->netns
                                    : same_hwaddr(tapfd, iface->name));
    if (!here) {
        error_setg(errp, "interface '%s' is not in QEMU's network namespace: "
                   "it was removed or lives in another one", iface->name);
    }
    return here;
}

bool packet_interface_backlogged(NetClientState *nc)
{
    NetClientState *ncs[MAX_QUEUE_NUM];
    int i, queues = qemu_find_net_clients_except(nc->name, ncs,
                                                 NET_CLIENT_DRIVER_NIC,
                                                 MAX_QUEUE_NUM);

    for (i = 0; i < queues; i++) {
        GPollFD pfd = { .fd = tap_get_fd(ncs[i]), .events = G_IO_IN };

        if (g_poll(&pfd, 1, 0) > 0) {
            return true;
        }
    }
    return false;
}

int packet_socket_open(Error **errp)
{
    const int on = 1;
    /* With a protocol it would capture from every interface until bound. */
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        if (errno == EPERM || errno == EACCES) {
            error_setg_errno(errp, errno, "a packet socket needs the "
                             "capability CAP_NET_RAW");
        } else {
            error_setg_errno(errp, errno, "cannot open a packet socket");
        }
        return -1;
    }
    /* Without it, packets with offloads (checksums, GSO) arrive broken. */
    if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0) {
        error_setg_errno(errp, errno, "the packet socket has no vnet headers");
        close(fd);
        return -1;
    }
    return fd;
}

bool packet_socket_bind(int fd, const PacketInterface *iface,
                        uint16_t protocol, Error **errp)
{
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(protocol),
        .sll_ifindex = iface->ifindex,
    };

    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        error_setg_errno(errp, errno, "cannot bind a packet socket to "
                         "interface '%s'", iface->name);
        return false;
    }
    return true;
}

int packet_socket_state(int fd, const PacketInterface *iface, char *name)
{
    struct ifreq ifr = { .ifr_ifindex = iface->ifindex };
    int err;
    socklen_t len = sizeof(err);

    getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
    if (name) {
        pstrcpy(name, sizeof(iface->name), iface->name);
    }
    /* The socket asks in the namespace it was opened in. */
    if (ioctl(fd, SIOCGIFNAME, &ifr) < 0) {
        return -ENODEV;
    }
    if (name) {
        pstrcpy(name, sizeof(iface->name), ifr.ifr_name);
    }
    if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0) {
        return -ENODEV;
    }
    return ifr.ifr_flags & IFF_UP ? 0 : -ENETDOWN;
}
