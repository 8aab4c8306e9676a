/*
 * Packet injection through a packet socket
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/if_packet.h>
#include "qapi/error.h"
#include "standard-headers/linux/virtio_net.h"
#include "packet-socket-int.h"
#include "trace.h"

struct PacketInject {
    int fd;
    PacketInterface iface;
};

/*
 * Copies of what passes the interface are for captures.  A socket that somebody
 * else opened may have begun to collect some; that many it holds at most.
 */
static bool stop_receiving(int fd, Error **errp)
{
    struct sock_filter none[] = {
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    uint8_t hdr[sizeof(struct virtio_net_hdr)];     /* no room for less */
    const int on = 1;

    if (packet_socket_filter(fd, none, ARRAY_SIZE(none), errp)) {
        return false;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on)) < 0) {
        error_setg_errno(errp, errno, "cannot lock the packet socket's filter");
        return false;
    }
    while (recv(fd, hdr, sizeof(hdr), MSG_DONTWAIT) >= 0) {
        continue;
    }
    return true;
}

PacketInject *packet_inject_new(int fd, const PacketInterface *iface,
                                Error **errp)
{
    const int on = 1;
    PacketInject *inj = g_new0(PacketInject, 1);

    assert(!iface->macvtap);
    inj->fd = fd;
    inj->iface = *iface;
    if (!packet_socket_set_up(fd, errp)) {
        goto fail;
    }
    /*
     * Past the queueing discipline a full TAP queue is an error (ENOBUFS)
     * instead of a silent drop, and packet sockets don't see the packet, so
     * that it is not captured again.
     */
    if (setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on,
                   sizeof(on)) < 0) {
        error_setg_errno(errp, errno, "cannot bypass the queueing discipline "
                         "of interface '%s'", iface->name);
        goto fail;
    }
    if (!packet_socket_bind(fd, iface, 0, errp) ||
        !stop_receiving(fd, errp)) {
        goto fail;
    }
    trace_packet_inject_open(inj, iface->name, iface->ifindex);
    return inj;

fail:
    packet_inject_free(inj);
    return NULL;
}

void packet_inject_free(PacketInject *inj)
{
    if (!inj) {
        return;
    }
    trace_packet_inject_close(inj, inj->iface.name);
    qemu_close(inj->fd);    /* it may be one of a monitor's fd sets */
    g_free(inj);
}

int packet_inject_state(PacketInject *inj, char *name)
{
    return packet_socket_state(inj->fd, &inj->iface, name);
}

unsigned packet_inject_send(PacketInject *inj, const PacketFrame *frames,
                            unsigned n, int *err)
{
    struct mmsghdr msgs[PACKET_INJECT_BATCH];
    struct iovec iov[PACKET_INJECT_BATCH][1 + VNET_VLAN_IOV_MAX];
    uint8_t hdr[PACKET_INJECT_BATCH][sizeof(struct virtio_net_hdr)];
    unsigned i;
    int sent;

    assert(n && n <= PACKET_INJECT_BATCH);
    for (i = 0; i < n; i++) {
        const PacketFrame *f = &frames[i];

        vnet_hdr_convert(hdr[i], sizeof(hdr[i]), f->hdr, f->hdr_len);
        iov[i][0] = (struct iovec) { hdr[i], sizeof(hdr[i]) };
        memcpy(&iov[i][1], f->iov, f->iovcnt * sizeof(f->iov[0]));
        msgs[i].msg_hdr = (struct msghdr) {
            .msg_iov = iov[i],
            .msg_iovlen = 1 + f->iovcnt,
        };
    }

    /* An error is told by the call that begins with the packet concerned. */
    for (i = 0; i < n; i += sent) {
        sent = RETRY_ON_EINTR(sendmmsg(inj->fd, &msgs[i], n - i,
                                       MSG_DONTWAIT));
        if (sent < 0) {
            /* No room for socket buffers: to the caller it's the same. */
            *err = errno == EAGAIN ? -ENOBUFS : -errno;
            if (*err == -ENXIO || *err == -ENETDOWN) {
                /* The kernel says either for a removed interface. */
                *err = packet_inject_state(inj, NULL) ?: -ENOBUFS;
            }
            trace_packet_inject_batch(inj, inj->iface.name, i, n, *err);
            return i;
        }
    }
    *err = 0;
    trace_packet_inject_batch(inj, inj->iface.name, n, n, 0);
    return n;
}
