/*
 * Packet sockets: which are in use, and how they were given
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Who opened a packet socket for QEMU may have another descriptor of it, and
 * use it for something else afterwards.
 */

#include "qemu/osdep.h"
#include <linux/filter.h>
#include <linux/if_packet.h>
#include "qapi/error.h"
#include "qemu/queue.h"
#include "packet-socket-int.h"

/* linux/if_packet.h has it since Linux 4.20. */
#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

/* ... and since Linux 6.6. */
#ifndef PACKET_VNET_HDR_SZ
#define PACKET_VNET_HDR_SZ 24
#endif

#ifndef SO_GET_FILTER
#define SO_GET_FILTER SO_ATTACH_FILTER
#endif

/* What a socket must be set to, in this order.  A kernel may lack some. */
static const struct {
    int level;
    int name;
    int value;
    const char *what;
} options[] = {
    /* Without it, packets with offloads (checksums, GSO) arrive broken. */
    { SOL_PACKET, PACKET_VNET_HDR, 1, "get vnet headers of" },
    { SOL_PACKET, PACKET_VERSION, TPACKET_V3, "set the ring's version of" },
    { SOL_PACKET, PACKET_RESERVE, 0, "set PACKET_RESERVE of" },
    { SOL_PACKET, PACKET_LOSS, 0, "set PACKET_LOSS of" },
    { SOL_PACKET, PACKET_TX_HAS_OFF, 0, "set PACKET_TX_HAS_OFF of" },
    /* The kernel's own clock. */
    { SOL_PACKET, PACKET_TIMESTAMP, 0, "set PACKET_TIMESTAMP of" },
    { SOL_PACKET, PACKET_IGNORE_OUTGOING, 0, "set PACKET_IGNORE_OUTGOING of" },
    { SOL_PACKET, PACKET_QDISC_BYPASS, 0, "set PACKET_QDISC_BYPASS of" },
    { SOL_SOCKET, SO_RCVLOWAT, 1, "set SO_RCVLOWAT of" },
    { SOL_SOCKET, SO_NOFCS, 0, "set SO_NOFCS of" },
};

int packet_socket_filter(int fd, struct sock_filter *insns, unsigned short n,
                         Error **errp)
{
    struct sock_fprog prog = { n, insns };
    int ret = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog,
                         sizeof(prog)) < 0 ? -errno : 0;

    if (ret) {
        error_setg_errno(errp, -ret, "cannot set the packet socket's filter%s",
                         ret == -EPERM ? ": it is locked" : "");
    }
    return ret;
}

typedef struct OwnSocket {
    QLIST_ENTRY(OwnSocket) entry;
    int fd;
    dev_t dev;                  /* both together: the socket, whatever its */
    ino_t ino;                  /* descriptor's number */
    PacketSocketOrigin origin;

    /* If it was given, how. */
    struct sockaddr_ll addr;
    bool has[ARRAY_SIZE(options)];
    int value[ARRAY_SIZE(options)];
    int vnet_hdr_len;           /* 0: the kernel has one length only */
    struct sock_filter *filter;
    unsigned filter_len;        /* instructions; 0: none */
} OwnSocket;

static QLIST_HEAD(, OwnSocket) sockets = QLIST_HEAD_INITIALIZER(sockets);

static OwnSocket *own_find(int fd)
{
    OwnSocket *s;

    QLIST_FOREACH(s, &sockets, entry) {
        if (s->fd == fd) {
            return s;
        }
    }
    return NULL;
}

static bool get_option(int fd, int level, int name, int *value)
{
    socklen_t len = sizeof(*value);

    return getsockopt(fd, level, name, value, &len) == 0;
}

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value));
}

static bool save_filter(OwnSocket *s, Error **errp)
{
    socklen_t n = 0;            /* in instructions, here */

    if (getsockopt(s->fd, SOL_SOCKET, SO_GET_FILTER, NULL, &n) < 0) {
        error_setg_errno(errp, errno, "the packet socket %d has a filter that "
                         "cannot be read, and so not put back (eBPF): detach "
                         "it", s->fd);
        return false;
    }
    if (!n) {
        return true;
    }
    s->filter = g_new(struct sock_filter, n);
    if (getsockopt(s->fd, SOL_SOCKET, SO_GET_FILTER, s->filter, &n) < 0) {
        error_setg_errno(errp, errno, "cannot read the filter of the packet "
                         "socket %d", s->fd);
        return false;
    }
    s->filter_len = n;
    return true;
}

/* Binding a member of a fanout group is an error, even to where it is. */
static bool check_fanout(OwnSocket *s, Error **errp)
{
    if (bind(s->fd, (struct sockaddr *)&s->addr, sizeof(s->addr)) == 0) {
        return true;
    }
    error_setg_errno(errp, errno, "the packet socket %d cannot be bound%s",
                     s->fd, errno == EINVAL ? ": it belongs to a group "
                     "(PACKET_FANOUT), which gets part of the packets only"
                     : "");
    return false;
}

static bool save_state(OwnSocket *s, Error **errp)
{
    socklen_t len = sizeof(s->addr);
    size_t i;

    if (getsockname(s->fd, (struct sockaddr *)&s->addr, &len) < 0) {
        error_setg_errno(errp, errno, "cannot tell the interface of the "
                         "packet socket %d", s->fd);
        return false;
    }
    for (i = 0; i < ARRAY_SIZE(options); i++) {
        s->has[i] = get_option(s->fd, options[i].level, options[i].name,
                               &s->value[i]);
    }
    if (!get_option(s->fd, SOL_PACKET, PACKET_VNET_HDR_SZ,
                    &s->vnet_hdr_len)) {
        s->vnet_hdr_len = 0;
    }
    return check_fanout(s, errp) && save_filter(s, errp);
}

/* As well as the kernel lets one; somebody else may have it mapped. */
static void restore_state(OwnSocket *s)
{
    size_t i;

    for (i = 0; i < ARRAY_SIZE(options); i++) {
        if (s->has[i]) {
            set_option(s->fd, options[i].level, options[i].name, s->value[i]);
        }
    }
    if (s->vnet_hdr_len) {
        set_option(s->fd, SOL_PACKET, PACKET_VNET_HDR_SZ, s->vnet_hdr_len);
    }
    /*
     * There is no way back to no protocol: instead of that, one that no packet
     * has.  (The type 0xffff is reserved.)
     */
    if (!s->addr.sll_protocol) {
        s->addr.sll_protocol = htons(0xffff);
    }
    bind(s->fd, (struct sockaddr *)&s->addr, sizeof(s->addr));
    if (s->filter_len) {
        packet_socket_filter(s->fd, s->filter, s->filter_len, NULL);
    } else {
        set_option(s->fd, SOL_SOCKET, SO_DETACH_FILTER, 0);
    }
}

bool packet_socket_own(int fd, PacketSocketOrigin origin, Error **errp)
{
    OwnSocket *s, *other;
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot use the packet socket %d", fd);
        return false;
    }
    QLIST_FOREACH(other, &sockets, entry) {
        if (other->dev == st.st_dev && other->ino == st.st_ino) {
            error_setg(errp, "the packet socket %d is in use already, by "
                       "another redirector or the other end of this one: each "
                       "needs one of its own", fd);
            return false;
        }
    }
    s = g_new0(OwnSocket, 1);
    s->fd = fd;
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    s->origin = origin;
    if (origin != PACKET_SOCKET_OPENED && !save_state(s, errp)) {
        g_free(s->filter);
        g_free(s);
        return false;
    }
    QLIST_INSERT_HEAD(&sockets, s, entry);
    return true;
}

bool packet_socket_given(int fd)
{
    OwnSocket *s = own_find(fd);

    return s && s->origin != PACKET_SOCKET_OPENED;
}

void packet_socket_close(int fd, bool used)
{
    OwnSocket *s = own_find(fd);

    if (!s || s->origin == PACKET_SOCKET_OPENED) {
        used = true;
    } else {
        restore_state(s);
        used |= s->origin != PACKET_SOCKET_INHERITED;
    }
    if (s) {
        QLIST_REMOVE(s, entry);
        g_free(s->filter);
        g_free(s);
    }
    if (used) {
        qemu_close(fd);     /* it may be one of a monitor's fd sets */
    }
}

bool packet_socket_set_up(int fd, Error **errp)
{
    size_t i;
    int value;

    for (i = 0; i < ARRAY_SIZE(options); i++) {
        if (!get_option(fd, options[i].level, options[i].name, &value)) {
            continue;           /* the kernel has no such option */
        }
        if ((value == options[i].value &&
             options[i].name != PACKET_VNET_HDR) ||
            set_option(fd, options[i].level, options[i].name,
                       options[i].value) == 0) {
            continue;
        }
        error_setg_errno(errp, errno, "cannot %s the packet socket%s",
                         options[i].what, errno == EBUSY ?
                         ": it has a ring already" : "");
        return false;
    }
    return true;
}
