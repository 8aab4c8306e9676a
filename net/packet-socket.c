/*
 * Packet sockets: opening them, and whether they are on the right interface
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sched.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include "qapi/error.h"
#include "monitor/monitor.h"
#include "net/tap.h"
#include "qemu/config-file.h"
#include "qemu/ctype.h"
#include "qemu/cutils.h"
#include "qemu/option.h"
#include "qemu/thread.h"
#include "packet-socket-int.h"

#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227)    /* Linux 5.2 */
#endif

/* /dev/net/tun; a macvtap has a device node and a major of its own. */
#define TUN_MAJOR 10
#define TUN_MINOR 200

QEMU_BUILD_BUG_ON(sizeof_field(PacketInterface, name) != IFNAMSIZ);

static uint64_t netns_inode(int nsfd)
{
    struct stat st;

    return nsfd >= 0 && fstat(nsfd, &st) == 0 ? st.st_ino : 0;
}

static uint64_t own_netns(void)
{
    struct stat st;

    return stat("/proc/self/ns/net", &st) == 0 ? st.st_ino : 0;
}

/* For a call that opens a network namespace. */
static uint64_t netns_by_ioctl(int fd, unsigned long request)
{
    int nsfd = ioctl(fd, request);
    uint64_t ino = netns_inode(nsfd);

    if (nsfd >= 0) {
        close(nsfd);
    }
    return ino;
}

/*
 * The namespace a TAP's device lives in, 0 if the kernel doesn't tell: before
 * Linux 5.2, without CAP_NET_ADMIN over it, or for a macvtap.
 */
static uint64_t tap_netns(int tapfd)
{
    return netns_by_ioctl(tapfd, TUNGETDEVNETNS);
}

#ifdef SO_NETNS_COOKIE
static bool in_own_netns(int fd)
{
    uint64_t cookie, own_cookie;
    socklen_t len = sizeof(cookie);
    int own = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool same;

    if (own < 0) {
        return false;
    }
    same = !getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) &&
           !getsockopt(own, SOL_SOCKET, SO_NETNS_COOKIE, &own_cookie, &len) &&
           cookie == own_cookie;
    close(own);
    return same;
}
#else
static bool in_own_netns(int fd)
{
    return false;
}
#endif

/*
 * The namespace a socket belongs to, 0 if the kernel doesn't tell: with
 * neither CAP_NET_ADMIN over it nor Linux 5.14.
 */
static uint64_t socket_netns(int fd)
{
    return netns_by_ioctl(fd, SIOCGSKNS) ?:
           in_own_netns(fd) ? own_netns() : 0;
}

static bool is_macvtap(int tapfd)
{
    struct stat st;

    return fstat(tapfd, &st) == 0 &&
           (major(st.st_rdev) != TUN_MAJOR || minor(st.st_rdev) != TUN_MINOR);
}

static bool get_tap(int tapfd, PacketInterface *iface, Error **errp)
{
    struct ifreq ifr = {};

    if (ioctl(tapfd, TUNGETIFF, &ifr) < 0) {
        error_setg_errno(errp, errno, "cannot get the interface of the TAP");
        return false;
    }
    pstrcpy(iface->name, sizeof(iface->name), ifr.ifr_name);
    iface->macvtap = is_macvtap(tapfd);
    return true;
}

/* The same MAC address is a sign only: see is_tap(). */
static bool same_mac(int tapfd, int fd, struct ifreq *dev)
{
    struct ifreq tap = {};

    return ioctl(fd, SIOCGIFHWADDR, dev) == 0 &&
           ioctl(tapfd, SIOCGIFHWADDR, &tap) == 0 &&
           memcmp(dev->ifr_hwaddr.sa_data, tap.ifr_hwaddr.sa_data,
                  ETH_ALEN) == 0;
}

/*
 * Is the TAP's device the interface @ifindex, where the socket @fd is?  Where
 * the kernel doesn't tell the namespaces, name and MAC address must do.
 */
static bool is_tap_now(int tapfd, int fd, int ifindex, PacketInterface *iface)
{
    struct ifreq dev = { .ifr_ifindex = ifindex };
    uint64_t netns = tap_netns(tapfd);

    return get_tap(tapfd, iface, NULL) &&
           ioctl(fd, SIOCGIFNAME, &dev) == 0 &&
           !strcmp(dev.ifr_name, iface->name) &&
           (netns ? netns == socket_netns(fd) : same_mac(tapfd, fd, &dev));
}

/*
 * udev may be giving a new interface its name and its address right now, so
 * that two answers don't fit each other.
 */
#define ASK_AGAIN 10

static bool is_tap(int tapfd, int fd, int ifindex, PacketInterface *iface)
{
    unsigned i;

    for (i = 0; i < ASK_AGAIN; i++) {
        if (is_tap_now(tapfd, fd, ifindex, iface)) {
            return true;
        }
    }
    return false;
}

/* Return: the index of the TAP's interface, where the socket is, or 0 */
static int find_tap(int tapfd, int fd, PacketInterface *iface)
{
    struct ifreq ifr = {};
    unsigned i;

    for (i = 0; i < ASK_AGAIN; i++) {
        pstrcpy(ifr.ifr_name, sizeof(ifr.ifr_name), iface->name);
        if (ioctl(fd, SIOCGIFINDEX, &ifr) == 0 &&
            is_tap_now(tapfd, fd, ifr.ifr_ifindex, iface)) {
            return ifr.ifr_ifindex;
        }
        get_tap(tapfd, iface, NULL);
    }
    return 0;
}

/* Opening a socket in the namespace of a TAP */

/*
 * With a protocol the socket would capture from every interface until it is
 * bound.
 */
static int open_here(void)
{
    return socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

typedef struct NetnsOpen {
    int nsfd;
    int fd;
    int err;            /* 0, or errno */
    bool entered;
} NetnsOpen;

/* In a thread of its own: a namespace belongs to the thread. */
static void *open_there(void *opaque)
{
    NetnsOpen *job = opaque;

    job->entered = setns(job->nsfd, CLONE_NEWNET) == 0;
    job->fd = job->entered ? open_here() : -1;
    job->err = errno;
    return NULL;
}

/* -sandbox spawn=deny kills a thread that calls it, see qemu-seccomp.c. */
static bool sandbox_forbids_setns(void)
{
    QemuOptsList *list = qemu_find_opts_err("sandbox", NULL);
    QemuOpts *opts = list ? qemu_opts_find(list, NULL) : NULL;

    return opts && !g_strcmp0(qemu_opt_get(opts, "spawn"), "deny");
}

static bool enter_and_open(int nsfd, NetnsOpen *job)
{
    QemuThread thread;

    *job = (NetnsOpen) { .nsfd = nsfd, .fd = -1, .err = EPERM };
    if (!sandbox_forbids_setns()) {
        qemu_thread_create(&thread, "netns-open", open_there, job,
                           QEMU_THREAD_JOINABLE);
        qemu_thread_join(&thread);
    }
    return job->fd >= 0;
}

static int open_in_netns(int tapfd, const char *name, Error **errp)
{
    int nsfd = ioctl(tapfd, TUNGETDEVNETNS);
    uint64_t netns = netns_inode(nsfd);
    NetnsOpen job = { .fd = -1, .entered = true };

    if (!netns || netns == own_netns()) {
        job.fd = open_here();
        job.err = errno;
    } else {
        enter_and_open(nsfd, &job);
    }
    if (nsfd >= 0) {
        close(nsfd);
    }
    if (!job.entered) {
        error_setg_errno(errp, job.err, "interface '%s' is in another network "
                         "namespace (inode %" PRIu64 "), which QEMU may not "
                         "enter; pass an open packet socket (in_netdev_fd, "
                         "out_netdev_fd)", name, netns);
    } else if (job.fd < 0 && (job.err == EPERM || job.err == EACCES)) {
        error_setg_errno(errp, job.err, "a packet socket needs the capability "
                         "CAP_NET_RAW, or an open one (in_netdev_fd, "
                         "out_netdev_fd)");
    } else if (job.fd < 0) {
        error_setg_errno(errp, job.err, "cannot open a packet socket");
    }
    return job.fd;
}

int packet_socket_open(NetClientState *nc, PacketInterface *iface,
                       Error **errp)
{
    int tapfd = tap_get_fd(nc);
    int fd;

    if (!get_tap(tapfd, iface, errp)) {
        return -1;
    }
    fd = open_in_netns(tapfd, iface->name, errp);
    if (fd < 0) {
        return -1;
    }
    iface->ifindex = find_tap(tapfd, fd, iface);
    if (!iface->ifindex) {
        error_setg(errp, "interface '%s' is not in QEMU's network namespace, "
                   "and QEMU may not ask for the one it is in; pass an open "
                   "packet socket (in_netdev_fd, out_netdev_fd)",
                   iface->name);
        close(fd);
        return -1;
    }
    iface->netns = socket_netns(fd);
    if (!packet_socket_own(fd, PACKET_SOCKET_OPENED, errp)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Sockets opened by somebody else */

static bool check_type(int fd, Error **errp)
{
    int domain, type;
    socklen_t len = sizeof(int);

    if (fcntl(fd, F_GETFD) < 0) {
        error_setg(errp, "file descriptor %d is not open", fd);
    } else if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
               getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0) {
        error_setg_errno(errp, errno, "file descriptor %d is not a packet "
                         "socket", fd);
    } else if (domain != AF_PACKET) {
        error_setg(errp, "file descriptor %d is a socket of address family "
                   "%d, not a packet socket (AF_PACKET, %d)", fd, domain,
                   AF_PACKET);
    } else if (type != SOCK_RAW) {
        error_setg(errp, "file descriptor %d is a packet socket of type %d, "
                   "not SOCK_RAW (%d)", fd, type, SOCK_RAW);
    } else {
        return true;
    }
    return false;
}

static bool take(NetClientState *nc, int fd, PacketSocketOrigin origin,
                 PacketInterface *iface, Error **errp)
{
    int tapfd = tap_get_fd(nc);
    struct sockaddr_ll addr;
    socklen_t len = sizeof(addr);
    struct ifreq ifr = {};

    if (!check_type(fd, errp) || !get_tap(tapfd, iface, errp)) {
        return false;
    }
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0) {
        error_setg_errno(errp, errno, "cannot tell the interface of the "
                         "packet socket %d", fd);
        return false;
    }
    if (addr.sll_ifindex <= 0) {
        error_setg(errp, "the packet socket %d is not bound to an interface: "
                   "bind it to '%s'", fd, iface->name);
        return false;
    }
    ifr.ifr_ifindex = addr.sll_ifindex;
    if (ioctl(fd, SIOCGIFNAME, &ifr) < 0) {
        error_setg_errno(errp, errno, "the packet socket %d is bound to an "
                         "interface that is gone (index %d)", fd,
                         addr.sll_ifindex);
        return false;
    }
    if (!is_tap(tapfd, fd, addr.sll_ifindex, iface)) {
        error_setg(errp, "the packet socket %d is bound to interface '%s' "
                   "(index %d, network namespace %" PRIu64 "), not to the "
                   "TAP's '%s' (network namespace %" PRIu64 "); 0: the kernel "
                   "does not tell", fd, ifr.ifr_name, addr.sll_ifindex,
                   socket_netns(fd), iface->name, tap_netns(tapfd));
        return false;
    }
    if (!packet_socket_own(fd, origin, errp)) {
        return false;
    }
    iface->ifindex = addr.sll_ifindex;
    iface->netns = socket_netns(fd);
    qemu_set_cloexec(fd);
    return true;
}

bool packet_socket_take(NetClientState *nc, int fd, PacketInterface *iface,
                        Error **errp)
{
    return take(nc, fd, PACKET_SOCKET_PASSED, iface, errp);
}

int packet_socket_get(NetClientState *nc, const char *name,
                      PacketInterface *iface, Error **errp)
{
    bool inherited = qemu_isdigit(name[0]);
    int fd = g_str_has_prefix(name, "/dev/fdset/")
             ? qemu_open(name, O_RDWR, errp)
             : monitor_fd_param(monitor_cur(), name, errp);

    if (fd >= 0 && !take(nc, fd, inherited ? PACKET_SOCKET_INHERITED
                                           : PACKET_SOCKET_PASSED,
                         iface, errp)) {
        /* Of a wrong number nothing is known, not even that it's not QEMU's. */
        if (!inherited) {
            qemu_close(fd);
        }
        return -1;
    }
    return fd;
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
    struct sockaddr_ll addr;
    socklen_t addr_len = sizeof(addr);
    int err;
    socklen_t len = sizeof(err);

    getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
    if (name) {
        pstrcpy(name, sizeof(iface->name), iface->name);
    }
    /*
     * The kernel unbinds the socket when the interface is removed or moved to
     * another namespace, for good: it may come back, even with its index.
     */
    if (getsockname(fd, (struct sockaddr *)&addr, &addr_len) < 0 ||
        addr.sll_ifindex != iface->ifindex) {
        return -ENODEV;
    }
    /* The socket asks in the namespace it was opened in. */
    if (ioctl(fd, SIOCGIFNAME, &ifr) < 0) {
        return -ENODEV;
    }
    if (name) {
        pstrcpy(name, sizeof(iface->name), ifr.ifr_name);
    }
    /*
     * Without a carrier (IFF_RUNNING) the interface passes nothing either.
     * While it is being renamed it is not found by either name: as good as
     * down, for a moment.
     */
    return ioctl(fd, SIOCGIFFLAGS, &ifr) == 0 && ifr.ifr_flags & IFF_UP &&
           ifr.ifr_flags & IFF_RUNNING ? 0 : -ENETDOWN;
}
