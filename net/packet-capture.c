/*
 * Packet capture through a memory-mapped ring (TPACKET_V3)
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "standard-headers/linux/virtio_net.h"
#include "packet-socket-int.h"
#include "trace.h"

/*
 * A block takes the longest packet with its ring header: the kernel cuts off
 * what does not fit into one (tpacket_rcv()).  It must not be much larger: the
 * kernel closes a block after PACKET_CAPTURE_LATENCY_MS however little is in
 * it, so that the number of blocks limits how long packets can wait.
 */
#define BLOCK_SIZE (128 * KiB)
QEMU_BUILD_BUG_ON(BLOCK_SIZE < PACKET_LEN_MAX + 4 * KiB);
QEMU_BUILD_BUG_ON(PACKET_RING_SIZE_MIN < 2 * BLOCK_SIZE);

/* Only a unit of accounting in TPACKET_V3: frames have no fixed size. */
#define FRAME_SIZE 2048

/* A place in the ring: the next packet to look at. */
typedef struct RingCursor {
    unsigned block;
    bool open;                  /* the block has been found full */
    unsigned left;              /* packets not yet looked at, if open */
    struct tpacket3_hdr *next;  /* the first of them */
} RingCursor;

struct PacketCapture {
    int fd;
    NetFilterDirection dir;
    uint8_t *ring;
    size_t ring_size;
    unsigned blocks;
    RingCursor cursor;          /* the first packet not yet released */
    RingCursor ahead;           /* the first packet not yet read */
    unsigned pending;           /* packets between the two */
    uint64_t lost;
    uint64_t errors;
    PacketInterface iface;
};

/* Accept the wanted directions, or nothing. */
static int set_filter(PacketCapture *c, bool on, Error **errp)
{
    const bool outgoing =
        (c->dir == NET_FILTER_DIRECTION_TX) != c->iface.macvtap;
    struct sock_filter none[] = {
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_filter all[] = {
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_filter one[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, outgoing ? UINT32_MAX : 0),
        BPF_STMT(BPF_RET | BPF_K, outgoing ? 0 : UINT32_MAX),
    };

    return !on ? packet_socket_filter(c->fd, none, ARRAY_SIZE(none), errp) :
           c->dir == NET_FILTER_DIRECTION_ALL
           ? packet_socket_filter(c->fd, all, ARRAY_SIZE(all), errp)
           : packet_socket_filter(c->fd, one, ARRAY_SIZE(one), errp);
}

static bool map_ring(PacketCapture *c, uint64_t size, Error **errp)
{
    const int version = TPACKET_V3;
    struct tpacket_req3 req = {
        .tp_block_size = BLOCK_SIZE,
        .tp_block_nr = DIV_ROUND_UP(size, BLOCK_SIZE),
        .tp_frame_size = FRAME_SIZE,
        .tp_retire_blk_tov = PACKET_CAPTURE_LATENCY_MS,
    };

    req.tp_frame_nr = req.tp_block_nr * (BLOCK_SIZE / FRAME_SIZE);
    c->blocks = req.tp_block_nr;
    c->ring_size = (size_t)c->blocks * BLOCK_SIZE;

    if (setsockopt(c->fd, SOL_PACKET, PACKET_VERSION, &version,
                   sizeof(version)) ||
        setsockopt(c->fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof(req))) {
        error_setg_errno(errp, errno, "cannot get a capture ring of %zu bytes "
                         "on interface '%s'", c->ring_size, c->iface.name);
        return false;
    }
    c->ring = mmap(NULL, c->ring_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                   c->fd, 0);
    if (c->ring == MAP_FAILED) {
        c->ring = NULL;
        error_setg_errno(errp, errno, "cannot map the capture ring of %zu "
                         "bytes on interface '%s'", c->ring_size,
                         c->iface.name);
        return false;
    }
    return true;
}

PacketCapture *packet_capture_new(int fd, const PacketInterface *iface,
                                  NetFilterDirection dir, uint64_t ring_size,
                                  Error **errp)
{
    PacketCapture *c = g_new0(PacketCapture, 1);

    c->fd = fd;
    c->dir = dir;
    c->iface = *iface;

    /* Off before there is a ring: the socket may be receiving already. */
    if (set_filter(c, false, errp) || !packet_socket_set_up(fd, errp) ||
        !map_ring(c, ring_size, errp) ||
        !packet_socket_bind(fd, iface, ETH_P_ALL, errp)) {
        goto fail;
    }
    trace_packet_capture_open(c, iface->name, iface->ifindex, c->ring_size);
    return c;

fail:
    packet_capture_free(c);
    return NULL;
}

void packet_capture_free(PacketCapture *c)
{
    if (!c) {
        return;
    }
    trace_packet_capture_close(c, c->iface.name);
    if (c->ring) {
        munmap(c->ring, c->ring_size);
    }
    qemu_close(c->fd);      /* it may be one of a monitor's fd sets */
    g_free(c);
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
    return set_filter(c, on, NULL);
}

static struct tpacket_hdr_v1 *ring_block(PacketCapture *c, unsigned block)
{
    struct tpacket_block_desc *desc = (void *)(c->ring + block * BLOCK_SIZE);

    return &desc->hdr.bh1;
}

/* The packet at @cur, or NULL if the kernel has not filled its block yet. */
static struct tpacket3_hdr *ring_peek(PacketCapture *c, RingCursor *cur)
{
    struct tpacket_hdr_v1 *block = ring_block(c, cur->block);

    if (!cur->open) {
        if (!(qatomic_load_acquire(&block->block_status) & TP_STATUS_USER)) {
            return NULL;
        }
        cur->open = true;
        cur->left = block->num_pkts;
        cur->next = (void *)(c->ring + cur->block * BLOCK_SIZE +
                             block->offset_to_first_pkt);
    }
    return cur->left ? cur->next : NULL;
}

/*
 * Moves on by one packet, in a block that is open.
 * Return: true if that was its last one
 */
static bool ring_step(PacketCapture *c, RingCursor *cur)
{
    if (--cur->left) {
        cur->next = (void *)((uint8_t *)cur->next + cur->next->tp_next_offset);
        return false;
    }
    cur->open = false;
    cur->block = (cur->block + 1) % c->blocks;
    return true;
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

static void release_block(PacketCapture *c, unsigned n)
{
    struct tpacket_hdr_v1 *block = ring_block(c, n);

    if (block->block_status & TP_STATUS_LOSING) {
        update_lost(c); /* before its 32 bits can wrap */
    }
    qatomic_store_release(&block->block_status, TP_STATUS_KERNEL);
}

/* Gives the packet at the capture's own cursor back to the kernel. */
static void release_one(PacketCapture *c)
{
    unsigned block = c->cursor.block;

    ring_peek(c, &c->cursor);   /* opens the block if it is a new one */
    if (ring_step(c, &c->cursor)) {
        release_block(c, block);
    }
}

/* Gives all packets back that have been read. */
static void release_read(PacketCapture *c)
{
    unsigned block = c->cursor.block;

    /* Else there are packets left in the block. */
    if (block != c->ahead.block || !c->ahead.open) {
        do {
            release_block(c, block);
            block = (block + 1) % c->blocks;
        } while (block != c->ahead.block);
    }
    c->cursor = c->ahead;
}

static bool is_whole(const struct tpacket3_hdr *hdr)
{
    return hdr->tp_snaplen == hdr->tp_len &&
           hdr->tp_len <= PACKET_LEN_MAX - VNET_HDR_LEN_MAX -
                          VNET_VLAN_TAG_LEN;
}

static NetFilterDirection direction(PacketCapture *c,
                                    const struct tpacket3_hdr *hdr)
{
    const struct sockaddr_ll *addr =
        (void *)((uint8_t *)hdr + TPACKET_ALIGN(sizeof(*hdr)));
    bool outgoing = addr->sll_pkttype == PACKET_OUTGOING;

    return outgoing != c->iface.macvtap ? NET_FILTER_DIRECTION_TX
                                  : NET_FILTER_DIRECTION_RX;
}

static void fill_frame(PacketCapture *c, const struct tpacket3_hdr *hdr,
                       PacketFrame *frame)
{
    uint8_t *data = (uint8_t *)hdr + hdr->tp_mac;

    /* The vnet header stands right in front of the packet. */
    frame->hdr_len = sizeof(struct virtio_net_hdr);
    memcpy(frame->hdr, data - frame->hdr_len, frame->hdr_len);
    frame->dir = direction(c, hdr);
    frame->time_ns = hdr->tp_sec * NANOSECONDS_PER_SECOND + hdr->tp_nsec;
    frame->len = hdr->tp_len;

    if (hdr->tp_status & TP_STATUS_VLAN_VALID) {
        /* The kernel took the outer tag out; before Linux 3.14 no TPID. */
        uint16_t tpid = hdr->tp_status & TP_STATUS_VLAN_TPID_VALID ?
                        hdr->hv1.tp_vlan_tpid : ETH_P_8021Q;

        frame->iovcnt = vnet_vlan_insert(frame->hdr, frame->hdr_len, data,
                                         frame->len, tpid,
                                         hdr->hv1.tp_vlan_tci, frame->tag,
                                         frame->iov);
        frame->len = iov_size(frame->iov, frame->iovcnt);
    } else {
        frame->iov[0] = (struct iovec) { data, frame->len };
        frame->iovcnt = 1;
    }
}

unsigned packet_capture_read(PacketCapture *c, PacketFrame *frames,
                             unsigned max)
{
    struct tpacket3_hdr *hdr;
    RingCursor cur;
    unsigned n = 0;

    while ((hdr = ring_peek(c, &c->cursor)) && !is_whole(hdr)) {
        c->errors++;
        trace_packet_capture_truncated(c, c->iface.name, hdr->tp_len,
                                       hdr->tp_snaplen);
        release_one(c);
    }
    cur = c->cursor;
    c->pending = 0;
    while (n < max && (hdr = ring_peek(c, &cur)) && is_whole(hdr)) {
        fill_frame(c, hdr, &frames[n++]);
        if (ring_step(c, &cur) && cur.block == c->cursor.block) {
            break;      /* once round: that block has not been released */
        }
    }
    c->ahead = cur;
    c->pending = n;
    return n;
}

void packet_capture_release(PacketCapture *c, unsigned n)
{
    if (n && n == c->pending) {
        release_read(c);
    } else {
        while (n--) {
            release_one(c);
        }
    }
    c->pending = 0;
}

void packet_capture_losses(PacketCapture *c, uint64_t *lost,
                           uint64_t *errors)
{
    update_lost(c);
    *lost = c->lost;
    *errors = c->errors;
}

int packet_capture_state(PacketCapture *c, char *name)
{
    return packet_socket_state(c->fd, &c->iface, name);
}
