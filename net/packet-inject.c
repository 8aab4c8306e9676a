/*
 * Packet injection through a packet socket
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <net/if.h>
#include <sys/ioctl.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "standard-headers/linux/virtio_net.h"
#include "net/packet-inject.h"
#include "packet-socket-int.h"
#include "packet-txring.h"
#include "trace.h"

/*
 * A TAP's queue holds packets for everybody.  What it has no room for the
 * kernel drops, so injection may have this part of it only, or that many
 * packets.
 */
#define QUEUE_PART 4
#define QUEUE_MAX 256

/*
 * A queue that is never found empty need not stand still.  If it is full, the
 * network sends more than its reader takes, and injection is in the race, a
 * few packets at a time; else one packet in a while goes in.
 */
#define RACE_PART 8
#define PROBE_NS (10 * SCALE_MS)

/* How often and how long an empty TAP is asked to take a packet. */
#define REFUSALS_MAX 4
#define REFUSAL_NS (20 * SCALE_MS)

/* VLAN tags that a packet of full length can have. */
#define TAGS_MAX 2

struct PacketInject {
    int fd;
    PacketInterface iface;
    NetClientState *nc;         /* the TAP, or NULL */
    unsigned limit;             /* packets in the TAP's queue */
    unsigned sent;              /* since it was last seen empty */
    bool full;                  /* it was full since then */
    int64_t sent_ns;            /* when the last packet was sent */
    unsigned refusals;          /* of the next packet, by an empty queue */
    int64_t refused_ns;         /* when the first of them was */
    PacketTxRing ring;
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

    if (packet_socket_filter(fd, none, ARRAY_SIZE(none), errp)) {
        return false;
    }
    while (recv(fd, hdr, sizeof(hdr), MSG_DONTWAIT) >= 0) {
        continue;
    }
    return true;
}

static void update_limit(PacketInject *inj)
{
    struct ifreq ifr = { .ifr_ifindex = inj->iface.ifindex };

    if (ioctl(inj->fd, SIOCGIFNAME, &ifr) == 0 &&
        ioctl(inj->fd, SIOCGIFTXQLEN, &ifr) == 0) {
        inj->limit = MIN(MAX(ifr.ifr_qlen / QUEUE_PART, 1), QUEUE_MAX);
    }
}

PacketInject *packet_inject_new(int fd, const PacketInterface *iface,
                                Error **errp)
{
    const int on = 1;
    PacketInject *inj = g_new0(PacketInject, 1);

    inj->fd = fd;
    inj->iface = *iface;
    inj->limit = 1;
    if (iface->macvtap) {
        error_setg(errp, "interface '%s' is a macvtap: injected packets would "
                   "go to the network, not to the guest", iface->name);
        goto fail;
    }
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
    update_limit(inj);
    trace_packet_inject_open(inj, iface->name, iface->ifindex);
    return inj;

fail:
    packet_socket_close(fd, false);
    g_free(inj);
    return NULL;
}

void packet_inject_free(PacketInject *inj)
{
    if (!inj) {
        return;
    }
    trace_packet_inject_close(inj, inj->iface.name);
    packet_txring_unmap(&inj->ring, inj->fd);
    packet_socket_close(inj->fd, true);
    g_free(inj);
}

void packet_inject_set_netdev(PacketInject *inj, NetClientState *nc)
{
    inj->nc = nc;
    inj->sent = 0;
    inj->full = false;
    inj->refusals = 0;
}

int packet_inject_state(PacketInject *inj, char *name)
{
    update_limit(inj);
    return packet_socket_state(inj->fd, &inj->iface, name);
}

/* Sending */

static unsigned send_messages(PacketInject *inj, const PacketFrame *frames,
                              unsigned n, int *err)
{
    struct mmsghdr msgs[PACKET_INJECT_BATCH];
    struct iovec iov[PACKET_INJECT_BATCH][1 + VNET_VLAN_IOV_MAX];
    uint8_t hdr[PACKET_INJECT_BATCH][sizeof(struct virtio_net_hdr)];
    unsigned i;
    int sent;

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
            *err = -errno;
            return i;
        }
    }
    *err = 0;
    return n;
}

static bool is_super(const PacketFrame *f)
{
    return f->hdr_len &&
           f->hdr[offsetof(struct virtio_net_hdr, gso_type)] !=
           VIRTIO_NET_HDR_GSO_NONE;
}

static unsigned count_tags(const PacketFrame *f)
{
    uint8_t head[2 * ETH_ALEN + TAGS_MAX * VNET_VLAN_TAG_LEN];
    size_t len = iov_to_buf(f->iov, f->iovcnt, 0, head, sizeof(head));
    unsigned tags = 0;

    while (tags < TAGS_MAX && len == sizeof(head)) {
        uint16_t type = lduw_be_p(head + 2 * ETH_ALEN +
                                  tags * VNET_VLAN_TAG_LEN);

        if (type != ETH_P_8021Q && type != ETH_P_8021AD) {
            break;
        }
        tags++;
    }
    return tags;
}

static size_t get_mtu(PacketInject *inj)
{
    struct ifreq ifr = { .ifr_ifindex = inj->iface.ifindex };

    return ioctl(inj->fd, SIOCGIFNAME, &ifr) == 0 &&
           ioctl(inj->fd, SIOCGIFMTU, &ifr) == 0 ? ifr.ifr_mtu : 0;
}

/* What the MTU is about: without its Ethernet header and VLAN tags. */
static bool is_too_long(const PacketFrame *f, size_t mtu)
{
    return !is_super(f) && f->len > mtu + ETH_HLEN &&
           f->len > mtu + ETH_HLEN + count_tags(f) * VNET_VLAN_TAG_LEN;
}

static unsigned send_by_ring(PacketInject *inj, const PacketFrame *frames,
                             unsigned n, int *err)
{
    size_t mtu = get_mtu(inj);
    unsigned done = 0, ok;

    /* With a ring nothing is too long for the kernel. */
    do {
        ok = 0;
        while (done + ok < n && !is_too_long(&frames[done + ok], mtu)) {
            ok++;
        }
        if (!ok) {
            *err = -EMSGSIZE;
            return done;
        }
        done += packet_txring_send(&inj->ring, inj->fd, &frames[done], ok,
                                   err);
    } while (!*err && done < n);
    return done;
}

static unsigned send_some(PacketInject *inj, const PacketFrame *frames,
                          unsigned n, int *err)
{
    unsigned sent;

    if (inj->ring.map) {
        return send_by_ring(inj, frames, n, err);
    }
    sent = send_messages(inj, frames, n, err);
    if (*err == -EMSGSIZE && !is_too_long(&frames[sent], get_mtu(inj)) &&
        packet_txring_map(&inj->ring, inj->fd) == 0) {
        sent += send_by_ring(inj, &frames[sent], n - sent, err);
    }
    return sent;
}

/*
 * Has the interface a carrier, right now?  The flag that the state goes by may
 * be a second late.  This call may wait for changes of other interfaces.
 */
static bool has_carrier(PacketInject *inj)
{
    struct ethtool_value link = { .cmd = ETHTOOL_GLINK };
    struct ifreq ifr = { .ifr_ifindex = inj->iface.ifindex };

    if (ioctl(inj->fd, SIOCGIFNAME, &ifr) < 0) {
        return false;
    }
    ifr.ifr_data = (void *)&link;
    return ioctl(inj->fd, SIOCETHTOOL, &ifr) < 0 || link.data;
}

/*
 * The kernel says ENOBUFS for a full queue, where there is no carrier, for a
 * super-packet to a TAP whose offloads are off, and for what a filter of the
 * TAP drops; the latter for ever.  If the queue is empty it isn't full.
 */
static int why_refused(PacketInject *inj, const PacketFrame *f)
{
    int64_t now = get_clock();

    if (!inj->nc || packet_interface_backlogged(inj->nc)) {
        inj->refusals = 0;
        inj->full = true;
        return -ENOBUFS;
    }
    if (!inj->refusals++) {
        inj->refused_ns = now;
    }
    if (is_super(f) ? inj->refusals < 2
                    : inj->refusals < REFUSALS_MAX ||
                      now - inj->refused_ns < REFUSAL_NS) {
        return -ENOBUFS;
    }
    inj->refusals = 0;
    if (!has_carrier(inj)) {
        return -ENETDOWN;
    }
    return is_super(f) ? -EOPNOTSUPP : -EPERM;
}

static int explain(PacketInject *inj, const PacketFrame *f, int err)
{
    int state;

    switch (err) {
    case -EAGAIN:       /* no room for socket buffers: it's the same */
    case -ENOBUFS:
        state = packet_socket_state(inj->fd, &inj->iface, NULL);
        return state ? state : why_refused(inj, f);
    case -ENXIO:        /* the kernel says either for a removed interface */
    case -ENETDOWN:
        return packet_socket_state(inj->fd, &inj->iface, NULL) ?: -ENOBUFS;
    default:
        return err;
    }
}

/* How many packets may be sent now. */
static unsigned room(PacketInject *inj)
{
    if (!inj->nc) {
        return PACKET_INJECT_BATCH;
    }
    if (inj->sent >= inj->limit && !packet_interface_backlogged(inj->nc)) {
        inj->sent = 0;
        inj->full = false;
    }
    if (inj->sent < inj->limit) {
        return inj->limit - inj->sent;
    }
    return inj->full ? MAX(inj->limit / RACE_PART, 1)
                     : get_clock() - inj->sent_ns >= PROBE_NS;
}

unsigned packet_inject_send(PacketInject *inj, const PacketFrame *frames,
                            unsigned n, int *err)
{
    unsigned allowed = MIN(n, room(inj)), sent = 0;

    assert(n && n <= PACKET_INJECT_BATCH);
    *err = 0;
    if (allowed) {
        sent = send_some(inj, frames, allowed, err);
        inj->sent += sent;
        if (sent) {
            inj->sent_ns = get_clock();
            inj->refusals = 0;
        }
    }
    if (*err) {
        *err = explain(inj, &frames[sent], *err);
    } else if (sent < n) {
        *err = -EAGAIN;
    }
    trace_packet_inject_batch(inj, inj->iface.name, sent, n, *err);
    return sent;
}
