/*
 * The ring of a packet capture: its packets in order, and back to the kernel
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_PACKET_RING_H
#define NET_PACKET_RING_H

#include "packet-ring-place.h"

/*
 * The kernel fills the blocks of the ring one after the other, and hands each
 * over when it is full or has been open for PACKET_CAPTURE_LATENCY_MS.  A
 * block that is handed over stays ours until its last packet is released.
 *
 * So the ring's time is limited, however few packets come.  What is not to be
 * read yet can be moved out of it, to chunks of ordinary memory, as dense as
 * it goes.  The packets in the chunks come before those in the ring.
 */

typedef struct PacketRing {
    PacketRingMemory mem;
    size_t size;                    /* bytes of it */
    PacketRingPlace first;          /* the first packet not yet released */
    PacketRingPlace ahead;          /* the first packet not yet read */
    unsigned pending;               /* packets between the two */
    bool round;                     /* @ahead is back at @first's block */
    QSIMPLEQ_HEAD(, PacketChunk) chunks;
    size_t kept;                    /* bytes that the chunks take */
    unsigned stale;                 /* packets to throw away, in the ring */
    bool losing;                    /* result: the kernel lost packets */
    uint64_t errors;                /* result: packets left out */
    uint64_t discarded;             /* result: packets thrown away */
} PacketRing;

/**
 * packet_ring_map() - Make and map the ring of a packet socket
 * @r: result; all zero, but for @max_len and @cut of @mem
 * @fd: packet socket
 * @size: bytes, rounded up to whole blocks
 * @errp: set on failure
 *
 * Takes two seconds for the largest ring.
 */
bool packet_ring_map(PacketRing *r, int fd, uint64_t size, Error **errp);

/**
 * packet_ring_unmap() - Take the ring from its packet socket
 * @r: ring
 * @fd: packet socket; it has no ring then for nobody else who has it, either
 */
void packet_ring_unmap(PacketRing *r, int fd);

/**
 * packet_ring_rewind() - Begin to read
 * @r: ring
 *
 * The next packet is the first one that has not been released.
 */
void packet_ring_rewind(PacketRing *r);

/**
 * packet_ring_next() - Look at the next packet
 * @r: ring
 * @p: result, valid until packets are released
 *
 * What is too long, and what makes no sense, is counted and left out; what the
 * kernel never filled in, which it has counted itself, too.
 *
 * Return: false if there is none for now
 */
bool packet_ring_next(PacketRing *r, PacketRingPacket *p);

/**
 * packet_ring_release() - Give packets back to the kernel
 * @r: ring
 * @n: how many of those that were read since packet_ring_rewind()
 */
void packet_ring_release(PacketRing *r, unsigned n);

/**
 * packet_ring_keep() - Move packets out of the ring, if more than half is used
 * @r: ring
 * @max: bytes that the chunks may take
 *
 * At most a bounded number of blocks.  What has been read and not released is
 * read again.
 *
 * Return: false if there was no room for them
 */
bool packet_ring_keep(PacketRing *r, size_t max);

/**
 * packet_ring_discard() - Throw away all packets captured before this call
 * @r: ring
 *
 * Those in a block that the kernel is still filling are counted later.
 */
void packet_ring_discard(PacketRing *r);

#endif /* NET_PACKET_RING_H */
