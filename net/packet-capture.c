/*
 * Packet capture through a memory-mapped ring (TPACKET_V3)
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include "qapi/error.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "standard-headers/linux/virtio_net.h"
#include "packet-filter.h"
#include "packet-ring.h"
#include "packet-socket-int.h"
#include "trace.h"

/*
 * A ring of this size is made in some milliseconds; the largest one takes two
 * seconds.
 */
#define AT_ONCE_MAX (16 * MiB)

struct PacketCapture {
    int fd;
    PacketCaptureOptions options;
    PacketInterface iface;
    PacketRing ring;
    uint64_t lost;
    uint64_t errors;            /* of the ring, as far as traced */
    bool wanted;                /* to be switched on once there is a ring */

    /* A thread makes the ring, or takes it away. */
    QemuThread thread;
    QEMUBH *bh;
    bool busy;                  /* it is at work */
    bool gone;                  /* packet_capture_free() has been called */
    Error *err;                 /* its result */
};

/* Accept the wanted packets, or nothing. */
static int set_filter(PacketCapture *c, bool on, Error **errp)
{
    const bool outgoing =
        (c->options.dir == NET_FILTER_DIRECTION_TX) != c->iface.macvtap;
    PacketFilterPass pass =
        !on ? PACKET_FILTER_PASS_NONE :
        c->options.dir == NET_FILTER_DIRECTION_ALL ? PACKET_FILTER_PASS_ALL :
        outgoing ? PACKET_FILTER_PASS_OUTGOING : PACKET_FILTER_PASS_INCOMING;
    g_autofree struct sock_filter *insns =
        g_new(struct sock_filter, packet_filter_size(c->options.filter));
    unsigned n = packet_filter_join(insns, pass, c->options.filter,
                                    c->options.snaplen);

    return packet_socket_filter(c->fd, insns, n, errp);
}

/*
 * The kernel looks at a program when it is attached.  Nothing can pass yet: the
 * socket has no ring.
 */
static bool try_filter(PacketCapture *c, Error **errp)
{
    ERRP_GUARD();

    if (c->options.filter && set_filter(c, true, errp)) {
        error_prepend(errp, "filter: ");
        return false;
    }
    /* Off before there is a ring: the socket may be receiving already. */
    return set_filter(c, false, errp) == 0;
}

static bool make_ring(PacketCapture *c, Error **errp)
{
    return packet_ring_map(&c->ring, c->fd, c->options.ring_size, errp);
}

static bool start(PacketCapture *c, Error **errp)
{
    if (!packet_socket_bind(c->fd, &c->iface, ETH_P_ALL, errp)) {
        return false;
    }
    trace_packet_capture_open(c, c->iface.name, c->iface.ifindex,
                              c->ring.size);
    return true;
}

static void destroy(PacketCapture *c, bool used)
{
    packet_socket_close(c->fd, used);
    error_free(c->err);
    g_free(c);
}

/* In a thread: rings that take long */

static void *make_thread(void *opaque)
{
    PacketCapture *c = opaque;

    make_ring(c, &c->err);
    qemu_bh_schedule(c->bh);
    return NULL;
}

static void *unmap_thread(void *opaque)
{
    PacketCapture *c = opaque;

    packet_ring_unmap(&c->ring, c->fd);
    qemu_bh_schedule(c->bh);
    return NULL;
}

static void run_thread(PacketCapture *c, QEMUBHFunc *done,
                       void *(*func)(void *opaque))
{
    c->busy = true;
    c->bh = qemu_bh_new(done, c);
    qemu_thread_create(&c->thread, "capture-ring", func, c,
                       QEMU_THREAD_JOINABLE);
}

static void thread_done(PacketCapture *c)
{
    qemu_thread_join(&c->thread);
    qemu_bh_delete(c->bh);
    c->busy = false;
}

static void unmapped(void *opaque)
{
    PacketCapture *c = opaque;

    thread_done(c);
    destroy(c, true);
}

static void made(void *opaque)
{
    PacketCapture *c = opaque;
    Error *err = NULL;
    int ret;

    thread_done(c);
    if (c->gone) {
        packet_capture_free(c);
        return;
    }
    if (!c->err && start(c, &c->err) && c->wanted) {
        ret = set_filter(c, true, &c->err);
        c->wanted = ret < 0;
    }
    err = c->err ? error_copy(c->err) : NULL;
    c->options.ready(c->options.opaque, err);
}

/* Beginning and end */

static bool set_up(PacketCapture *c, Error **errp)
{
    if (!try_filter(c, errp) || !packet_socket_set_up(c->fd, errp)) {
        return false;
    }
    if (c->options.ready && c->options.ring_size > AT_ONCE_MAX) {
        run_thread(c, made, make_thread);
        return true;
    }
    return make_ring(c, errp) && start(c, errp);
}

PacketCapture *packet_capture_open(int fd, const PacketInterface *iface,
                                   const PacketCaptureOptions *options,
                                   Error **errp)
{
    PacketCapture *c = g_new0(PacketCapture, 1);

    c->fd = fd;
    c->options = *options;
    c->iface = *iface;
    c->ring.mem.max_len = PACKET_LEN_MAX - VNET_HDR_LEN_MAX - VNET_VLAN_TAG_LEN;
    c->ring.mem.cut = options->snaplen || options->filter;
    if (set_up(c, errp)) {
        return c;
    }
    packet_ring_unmap(&c->ring, fd);
    destroy(c, false);
    return NULL;
}

PacketCapture *packet_capture_new(int fd, const PacketInterface *iface,
                                  NetFilterDirection dir, uint64_t ring_size,
                                  Error **errp)
{
    PacketCaptureOptions options = { .dir = dir, .ring_size = ring_size };

    return packet_capture_open(fd, iface, &options, errp);
}

void packet_capture_free(PacketCapture *c)
{
    if (!c) {
        return;
    }
    c->options.filter = NULL;
    if (c->busy) {
        c->gone = true;         /* the thread can't be stopped */
        return;
    }
    trace_packet_capture_close(c, c->iface.name);
    set_filter(c, false, NULL);
    if (c->ring.size > AT_ONCE_MAX && c->options.ready) {
        run_thread(c, unmapped, unmap_thread);
        return;
    }
    packet_ring_unmap(&c->ring, packet_socket_given(c->fd) ? c->fd : -1);
    destroy(c, true);
}

int packet_capture_fd(PacketCapture *c)
{
    return c->fd;
}

/*
 * The kernel's filter switches capturing: at once, without the RCU grace
 * period that unbinding the socket would have the main loop wait for.
 */
int packet_capture_enable(PacketCapture *c, bool on)
{
    if (c->busy || !c->ring.mem.map) {
        /* The thread holds the socket's lock. */
        c->wanted = on;
        return 0;
    }
    return set_filter(c, on, NULL);
}

/* Reading */

static NetFilterDirection direction(PacketCapture *c, uint8_t pkttype)
{
    bool outgoing = pkttype == PACKET_OUTGOING;

    return outgoing != c->iface.macvtap ? NET_FILTER_DIRECTION_TX
                                        : NET_FILTER_DIRECTION_RX;
}

static void fill_frame(PacketCapture *c, const PacketRingPacket *p,
                       PacketFrame *frame)
{
    frame->hdr_len = sizeof(struct virtio_net_hdr);
    if (p->len == p->wire_len) {
        memcpy(frame->hdr, p->data - frame->hdr_len, frame->hdr_len);
    } else {
        /* Neither a checksum nor segments can be made of a part. */
        memset(frame->hdr, 0, frame->hdr_len);
    }
    frame->dir = direction(c, p->pkttype);
    frame->time_ns = p->time_ns;
    frame->len = p->len;
    frame->cut = p->wire_len - p->len;

    if (p->status & TP_STATUS_VLAN_VALID) {
        /* The kernel took the outer tag out; before Linux 3.14 no TPID. */
        uint16_t tpid = p->status & TP_STATUS_VLAN_TPID_VALID ? p->tpid
                                                              : ETH_P_8021Q;

        frame->iovcnt = vnet_vlan_insert(frame->hdr, frame->hdr_len, p->data,
                                         frame->len, tpid, p->tci, frame->tag,
                                         frame->iov);
        frame->len = iov_size(frame->iov, frame->iovcnt);
    } else {
        frame->iov[0] = (struct iovec) { p->data, frame->len };
        frame->iovcnt = 1;
    }
}

/* PACKET_STATISTICS clears the kernel's counters as it reads them. */
static void update_lost(PacketCapture *c)
{
    struct tpacket_stats_v3 stats;
    socklen_t len = sizeof(stats);

    if (getsockopt(c->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) == 0 &&
        stats.tp_drops) {
        c->lost += stats.tp_drops;
        trace_packet_capture_lost(c, c->iface.name, stats.tp_drops);
    }
}

/* What the ring tells: losses, before the kernel's 32 bits can wrap. */
static void see_to_ring(PacketCapture *c)
{
    if (c->ring.errors != c->errors) {
        trace_packet_capture_errors(c, c->iface.name,
                                    c->ring.errors - c->errors);
        c->errors = c->ring.errors;
    }
    if (c->ring.losing) {
        c->ring.losing = false;
        update_lost(c);
    }
}

static bool has_ring(PacketCapture *c)
{
    return !c->busy && c->ring.mem.map;
}

unsigned packet_capture_read(PacketCapture *c, PacketFrame *frames,
                             unsigned max)
{
    PacketRingPacket p;
    unsigned n = 0;

    if (!has_ring(c)) {
        return 0;
    }
    packet_ring_rewind(&c->ring);
    while (n < max && packet_ring_next(&c->ring, &p)) {
        fill_frame(c, &p, &frames[n++]);
    }
    see_to_ring(c);
    return n;
}

void packet_capture_release(PacketCapture *c, unsigned n)
{
    if (n) {
        packet_ring_release(&c->ring, n);
        see_to_ring(c);
    }
}

bool packet_capture_keep(PacketCapture *c)
{
    bool room = !has_ring(c) ||
                packet_ring_keep(&c->ring, c->options.ring_size);

    see_to_ring(c);
    return room;
}

int packet_capture_keep_ms(PacketCapture *c)
{
    uint64_t blocks = c->options.ring_size / PACKET_RING_BLOCK_SIZE;

    /* Half of the ring lasts twice as long. */
    return blocks * PACKET_CAPTURE_LATENCY_MS / 4;
}

void packet_capture_discard(PacketCapture *c)
{
    if (has_ring(c)) {
        packet_ring_discard(&c->ring);
        see_to_ring(c);
    }
}

void packet_capture_losses(PacketCapture *c, uint64_t *lost,
                           uint64_t *errors)
{
    update_lost(c);
    *lost = c->lost;
    *errors = c->ring.errors;
}

uint64_t packet_capture_discarded(PacketCapture *c)
{
    return c->ring.discarded;
}

int packet_capture_state(PacketCapture *c, char *name)
{
    int ret = packet_socket_state(c->fd, &c->iface, name);

    /* It is not bound before it has a ring. */
    return c->busy ? -EINPROGRESS : c->err ? -ENOMEM : ret;
}
