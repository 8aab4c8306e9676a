/*
 * The ring of a packet capture: read without trusting what stands in it
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_PACKET_RING_PLACE_H
#define NET_PACKET_RING_PLACE_H

#include <linux/if_packet.h>
#include "qemu/atomic.h"
#include "qemu/queue.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "standard-headers/linux/virtio_net.h"
#include "net/packet-capture.h"

/*
 * What is said about Linux here was read in net/packet/af_packet.c and seen on
 * Linux 6.1 and 6.18.  The functions are inline: they are called for each
 * packet.
 */

/*
 * A block takes the longest packet with its ring header: the kernel cuts off
 * what does not fit into one (tpacket_rcv()).  It must not be much larger: the
 * number of blocks limits how long packets can wait.
 */
#define PACKET_RING_BLOCK_SIZE (128 * KiB)

/* Packets that have been moved out of the ring. */
typedef struct PacketChunk {
    QSIMPLEQ_ENTRY(PacketChunk) entry;
    unsigned packets;
    size_t used;                    /* bytes */
    size_t size;                    /* bytes of @data */
    uint64_t data[];
} PacketChunk;

/* A place: the next packet to look at. */
typedef struct PacketRingPlace {
    PacketChunk *chunk;             /* NULL: in the ring */
    unsigned block;                 /* of the ring */
    bool open;                      /* the block was found handed over */
    unsigned left;                  /* packets from here on, if open */
    size_t offset;                  /* of the packet in its block or chunk */
    size_t next;                    /* ... of the one behind it */
} PacketRingPlace;

/* Where the ring is, and what to expect there. */
typedef struct PacketRingMemory {
    uint8_t *map;
    unsigned blocks;
    uint32_t max_len;               /* of a packet; longer ones are errors */
    bool cut;                       /* packets may have been cut off */
} PacketRingMemory;

/* What the ring says of a packet. */
typedef struct PacketRingPacket {
    uint8_t *data;          /* a vnet header stands in front of it */
    uint32_t len;           /* bytes of @data */
    uint32_t wire_len;      /* bytes that the packet had */
    uint32_t status;        /* TP_STATUS_... */
    uint16_t tci;
    uint16_t tpid;
    uint8_t pkttype;
    int64_t time_ns;
} PacketRingPacket;

/* What is at a place. */
typedef enum PacketRingKind {
    PACKET_RING_NONE,       /* nothing yet */
    PACKET_RING_PACKET,
    PACKET_RING_VOID,       /* a packet that the kernel dropped, and counted */
    PACKET_RING_LONG,       /* a packet that is too long, or incomplete */
    PACKET_RING_END,        /* no packet in this block */
    PACKET_RING_BROKEN,     /* something that leads out of the block */
} PacketRingKind;

/* Bytes of the vnet header in front of a packet. */
#define PACKET_RING_VNET_LEN sizeof(struct virtio_net_hdr)

/* Where a packet begins in a chunk, bytes from its ring header. */
#define PACKET_RING_KEPT_MAC (TPACKET3_HDRLEN + PACKET_RING_VNET_LEN)

/* Ring headers start at multiples of it (V3_ALIGNMENT). */
#define PACKET_RING_ALIGNMENT 8

static inline void *packet_ring_base(const PacketRingMemory *m, unsigned block)
{
    return m->map + (size_t)block * PACKET_RING_BLOCK_SIZE;
}

/**
 * packet_ring_block() - Find a block's header
 * @m: ring
 * @block: number of the block
 *
 */
static inline struct tpacket_hdr_v1 *
packet_ring_block(const PacketRingMemory *m, unsigned block)
{
    struct tpacket_block_desc *desc = packet_ring_base(m, block);

    return &desc->hdr.bh1;
}

/**
 * packet_ring_open() - Begin with a place's block or chunk
 * @m: ring
 * @place: place
 *
 * Return: false if the kernel has not handed the block over yet
 */
static inline bool packet_ring_open(const PacketRingMemory *m,
                                    PacketRingPlace *place)
{
    struct tpacket_hdr_v1 *hdr;

    if (place->open) {
        return true;
    }
    if (place->chunk) {
        place->left = place->chunk->packets;
        place->offset = 0;
    } else {
        hdr = packet_ring_block(m, place->block);
        if (!(qatomic_load_acquire(&hdr->block_status) & TP_STATUS_USER)) {
            return false;
        }
        place->left = qatomic_read(&hdr->num_pkts);
        place->offset = qatomic_read(&hdr->offset_to_first_pkt);
    }
    place->open = true;
    return true;
}

/**
 * packet_ring_peek() - Look at what is at a place
 * @m: ring
 * @place: place, opened if it was not
 * @p: result: the packet, if it is one
 *
 * No field of a packet leads outside of its block, whatever stands there.
 * Everything is read once: who else has the socket may have mapped the ring,
 * too.
 */
static inline PacketRingKind packet_ring_peek(const PacketRingMemory *m,
                                              PacketRingPlace *place,
                                              PacketRingPacket *p)
{
    const size_t size = place->chunk ? place->chunk->used
                                     : PACKET_RING_BLOCK_SIZE;
    struct tpacket3_hdr *hdr;
    struct sockaddr_ll *addr;
    uint32_t mac, next;

    if (!place->open && !packet_ring_open(m, place)) {
        return PACKET_RING_NONE;
    }
    if (!place->left) {
        return PACKET_RING_END;
    }
    if (place->offset > size - TPACKET3_HDRLEN ||
        place->offset % PACKET_RING_ALIGNMENT) {
        return PACKET_RING_BROKEN;
    }
    hdr = (void *)((uint8_t *)(place->chunk ? place->chunk->data :
                               packet_ring_base(m, place->block)) +
                   place->offset);
    addr = (void *)((uint8_t *)hdr + TPACKET_ALIGN(sizeof(*hdr)));

    /* What is nonsense here comes to light at the next packet. */
    next = qatomic_read(&hdr->tp_next_offset);
    place->next = next ? place->offset + next : size;

    /*
     * The kernel sets the status to 0, or to that there is a VLAN tag, when it
     * reserves a packet's place (prb_fill_vlan_info()), and adds this bit when
     * it has filled it in.  In between it gives some up, which it counts as
     * dropped: those with a GSO type that has no vnet header.  Then the rest
     * of the place is what lay there before, and a guest may have written it.
     */
    p->status = qatomic_read(&hdr->tp_status);
    if (!(p->status & TP_STATUS_USER)) {
        return PACKET_RING_VOID;
    }
    mac = qatomic_read(&hdr->tp_mac);
    p->len = qatomic_read(&hdr->tp_snaplen);
    if (mac < PACKET_RING_KEPT_MAC ||
        mac > size - place->offset ||
        p->len > size - place->offset - mac) {
        return PACKET_RING_BROKEN;
    }
    p->wire_len = qatomic_read(&hdr->tp_len);
    if (p->len > m->max_len || (p->len != p->wire_len && !m->cut)) {
        return PACKET_RING_LONG;
    }
    p->data = (uint8_t *)hdr + mac;
    p->tci = qatomic_read(&hdr->hv1.tp_vlan_tci);
    p->tpid = qatomic_read(&hdr->hv1.tp_vlan_tpid);
    p->pkttype = qatomic_read(&addr->sll_pkttype);
    p->time_ns = qatomic_read(&hdr->tp_sec) * NANOSECONDS_PER_SECOND +
                 qatomic_read(&hdr->tp_nsec);
    return PACKET_RING_PACKET;
}

/**
 * packet_ring_next_block() - Move a place on to the next block, or chunk, and
 *                            from the last chunk to the ring
 * @m: ring
 * @place: place
 */
static inline void packet_ring_next_block(const PacketRingMemory *m,
                                          PacketRingPlace *place)
{
    place->open = false;
    if (place->chunk) {
        place->chunk = QSIMPLEQ_NEXT(place->chunk, entry);
    } else {
        place->block = (place->block + 1) % m->blocks;
    }
}

/**
 * packet_ring_step() - Move a place on to the next packet
 * @m: ring
 * @place: place
 * @kind: what packet_ring_peek() has found there
 *
 * Return: true if that was the last packet of its block
 */
static inline bool packet_ring_step(const PacketRingMemory *m,
                                    PacketRingPlace *place,
                                    PacketRingKind kind)
{
    if (kind == PACKET_RING_END || kind == PACKET_RING_BROKEN ||
        place->left == 1) {
        packet_ring_next_block(m, place);
        return true;
    }
    place->left--;
    place->offset = place->next;
    return false;
}

#endif /* NET_PACKET_RING_PLACE_H */
