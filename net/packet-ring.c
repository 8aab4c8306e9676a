/*
 * The ring of a packet capture: its packets in order, and back to the kernel
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What is said about Linux here was read in net/packet/af_packet.c and seen on
 * Linux 6.1 and 6.18.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "packet-ring.h"

QEMU_BUILD_BUG_ON(PACKET_RING_BLOCK_SIZE < PACKET_LEN_MAX + 4 * KiB);
QEMU_BUILD_BUG_ON(PACKET_RING_SIZE_MIN < 2 * PACKET_RING_BLOCK_SIZE);

/* Only a unit of accounting in TPACKET_V3: frames have no fixed size. */
#define FRAME_SIZE 2048

/* Bytes of packets that a chunk has room for, or more if one needs it. */
#define CHUNK_MIN (32 * KiB)

/* Most bytes, or so, that are moved out of the ring at once. */
#define KEEP_BATCH (2 * MiB)

/* Making one */

static bool no_memory(Error **errp, const char *what, size_t size)
{
    const char *why = "";

    if (errno == ENOMEM || errno == ENOBUFS) {
        why = ": there is not enough memory";
    } else if (errno == EAGAIN) {
        /* mmap(), where mlockall() concerns all memory to come */
        why = ": QEMU's memory is locked, and its limit (RLIMIT_MEMLOCK) is "
              "too low for the ring";
    }
    error_setg_errno(errp, errno, "cannot %s a capture ring of %zu bytes%s",
                     what, size, why);
    return false;
}

static void *map_ring(int fd, size_t size)
{
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static int set_ring(int fd, unsigned blocks)
{
    struct tpacket_req3 req = { 0 };

    if (blocks) {
        req.tp_block_size = PACKET_RING_BLOCK_SIZE;
        req.tp_block_nr = blocks;
        req.tp_frame_size = FRAME_SIZE;
        req.tp_frame_nr = blocks * (PACKET_RING_BLOCK_SIZE / FRAME_SIZE);
        req.tp_retire_blk_tov = PACKET_CAPTURE_LATENCY_MS;
    }
    return setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof(req));
}

bool packet_ring_map(PacketRing *r, int fd, uint64_t size, Error **errp)
{
    QSIMPLEQ_INIT(&r->chunks);
    r->mem.blocks = DIV_ROUND_UP(size, PACKET_RING_BLOCK_SIZE);
    r->size = (size_t)r->mem.blocks * PACKET_RING_BLOCK_SIZE;
    if (set_ring(fd, r->mem.blocks) < 0) {
        return no_memory(errp, "get", r->size);
    }
    r->mem.map = map_ring(fd, r->size);
    if (r->mem.map == MAP_FAILED) {
        r->mem.map = NULL;
        no_memory(errp, "map", r->size);
        set_ring(fd, 0);
        return false;
    }
    return true;
}

static size_t chunk_memory(size_t size)
{
    return sizeof(PacketChunk) + size;
}

static void drop_chunk(PacketRing *r)
{
    PacketChunk *chunk = QSIMPLEQ_FIRST(&r->chunks);

    QSIMPLEQ_REMOVE_HEAD(&r->chunks, entry);
    r->kept -= chunk_memory(chunk->size);
    g_free(chunk);
}

void packet_ring_unmap(PacketRing *r, int fd)
{
    if (!r->mem.map) {
        return;
    }
    while (!QSIMPLEQ_EMPTY(&r->chunks)) {
        drop_chunk(r);
    }
    munmap(r->mem.map, r->size);
    r->mem.map = NULL;
    set_ring(fd, 0);
}

/* Giving back */

static void release_block(PacketRing *r, unsigned block)
{
    struct tpacket_hdr_v1 *hdr = packet_ring_block(&r->mem, block);

    r->losing |= qatomic_read(&hdr->block_status) & TP_STATUS_LOSING;
    /* Until the kernel opens it: see packet_ring_discard(). */
    qatomic_set(&hdr->num_pkts, 0);
    qatomic_store_release(&hdr->block_status, TP_STATUS_KERNEL);
}

/* Releases the block or chunk that the first place has just left. */
static void release_left(PacketRing *r, bool chunk, unsigned block)
{
    if (chunk) {
        drop_chunk(r);
    } else {
        release_block(r, block);
        r->stale = 0;
    }
}

static void first_step(PacketRing *r, PacketRingKind kind)
{
    bool chunk = r->first.chunk;
    unsigned block = r->first.block;

    if (packet_ring_step(&r->mem, &r->first, kind)) {
        release_left(r, chunk, block);
    }
}

/* What the kernel has counted is not counted again. */
static void count_no_packet(PacketRing *r, PacketRingKind kind)
{
    r->errors += kind == PACKET_RING_LONG || kind == PACKET_RING_BROKEN;
}

/*
 * Moves the first place on to a packet, past all that is none.
 * Return: false if there is none
 */
static bool first_settle(PacketRing *r, PacketRingPacket *p)
{
    for (;;) {
        PacketRingKind kind = packet_ring_peek(&r->mem, &r->first, p);
        bool stale = r->stale && !r->first.chunk;

        if (kind == PACKET_RING_NONE ||
            (kind == PACKET_RING_PACKET && !stale)) {
            return kind == PACKET_RING_PACKET;
        }
        if (kind == PACKET_RING_PACKET) {
            r->discarded++;
        } else {
            count_no_packet(r, kind);
        }
        r->stale -= stale;
        first_step(r, kind);
    }
}

void packet_ring_rewind(PacketRing *r)
{
    PacketRingPacket p;

    first_settle(r, &p);
    r->ahead = r->first;
    r->pending = 0;
    r->round = false;
}

bool packet_ring_next(PacketRing *r, PacketRingPacket *p)
{
    bool in_ring = !r->ahead.chunk;

    /* What is no packet is dealt with once it is the first. */
    if (r->round ||
        packet_ring_peek(&r->mem, &r->ahead, p) != PACKET_RING_PACKET) {
        return false;
    }
    if (packet_ring_step(&r->mem, &r->ahead, PACKET_RING_PACKET) && in_ring &&
        r->ahead.block == r->first.block) {
        r->round = true;
    }
    r->pending++;
    return true;
}

static void release_first(PacketRing *r)
{
    bool chunk = r->first.chunk;
    unsigned block = r->first.block;

    packet_ring_next_block(&r->mem, &r->first);
    release_left(r, chunk, block);
}

/* Gives all packets back that have been read. */
static void release_read(PacketRing *r)
{
    while (r->first.chunk != r->ahead.chunk) {
        release_first(r);
    }
    while (r->round || r->first.block != r->ahead.block) {
        r->round = false;
        release_first(r);
    }
    r->first = r->ahead;
}

void packet_ring_release(PacketRing *r, unsigned n)
{
    PacketRingPacket p;

    if (n && n == r->pending) {
        release_read(r);
    } else {
        while (n--) {
            first_step(r, packet_ring_peek(&r->mem, &r->first, &p));
        }
    }
    r->ahead = r->first;
    r->pending = 0;
}

/* Keeping */

/* Bytes that a packet takes in a chunk. */
static size_t kept_size(const PacketRingPacket *p)
{
    return ROUND_UP(PACKET_RING_KEPT_MAC + p->len, PACKET_RING_ALIGNMENT);
}

/* Bytes that the packets of a block, from @place on, take in a chunk. */
static size_t measure(PacketRing *r, PacketRingPlace place)
{
    const unsigned block = place.block;
    PacketRingPacket p;
    size_t size = 0;
    PacketRingKind kind;

    while (place.block == block) {
        kind = packet_ring_peek(&r->mem, &place, &p);
        size += kind == PACKET_RING_PACKET ? kept_size(&p) : 0;
        packet_ring_step(&r->mem, &place, kind);
    }
    return MIN(size, PACKET_RING_BLOCK_SIZE);
}

/* Return: a chunk with room for @size bytes, or NULL */
static PacketChunk *chunk_with_room(PacketRing *r, size_t size, size_t max)
{
    PacketChunk *chunk = QSIMPLEQ_LAST(&r->chunks, PacketChunk, entry);

    if (chunk && size <= chunk->size - chunk->used) {
        return chunk;
    }
    size = MAX(size, CHUNK_MIN);
    if (chunk_memory(size) > max - MIN(max, r->kept)) {
        return NULL;
    }
    chunk = g_try_malloc(chunk_memory(size));
    if (chunk) {
        chunk->packets = 0;
        chunk->used = 0;
        chunk->size = size;
        QSIMPLEQ_INSERT_TAIL(&r->chunks, chunk, entry);
        r->kept += chunk_memory(size);
    }
    return chunk;
}

/* The same as the kernel writes; only so much as packet_ring_peek() reads. */
static void keep_packet(PacketChunk *chunk, const PacketRingPacket *p)
{
    struct tpacket3_hdr *hdr = (void *)((uint8_t *)chunk->data + chunk->used);
    struct sockaddr_ll *addr =
        (void *)((uint8_t *)hdr + TPACKET_ALIGN(sizeof(*hdr)));

    *hdr = (struct tpacket3_hdr) {
        .tp_next_offset = kept_size(p),
        .tp_sec = p->time_ns / NANOSECONDS_PER_SECOND,
        .tp_nsec = p->time_ns % NANOSECONDS_PER_SECOND,
        .tp_snaplen = p->len,
        .tp_len = p->wire_len,
        .tp_status = p->status,
        .hv1 = { .tp_vlan_tci = p->tci, .tp_vlan_tpid = p->tpid },
        .tp_mac = PACKET_RING_KEPT_MAC,
    };
    addr->sll_pkttype = p->pkttype;
    memcpy((uint8_t *)hdr + TPACKET3_HDRLEN, p->data - PACKET_RING_VNET_LEN,
           PACKET_RING_VNET_LEN + p->len);
    chunk->used += kept_size(p);
    chunk->packets++;
}

/* Moves the packets of a block, from @place on, to a chunk. */
static void keep_block(PacketRing *r, PacketRingPlace place,
                       PacketChunk *chunk)
{
    const unsigned block = place.block;
    PacketRingPacket p;
    PacketRingKind kind;

    while (place.block == block) {
        kind = packet_ring_peek(&r->mem, &place, &p);
        if (kind != PACKET_RING_PACKET) {
            count_no_packet(r, kind);
        } else if (r->stale) {
            r->discarded++;
        } else if (chunk &&
                   kept_size(&p) <= chunk->size - chunk->used) {
            keep_packet(chunk, &p);
        } else {
            /* Packets that overlap: this one can't be right. */
            count_no_packet(r, PACKET_RING_BROKEN);
        }
        r->stale -= MIN(r->stale, 1);
        packet_ring_step(&r->mem, &place, kind);
    }
    release_left(r, false, block);
}

/*
 * Moves a block's packets to a chunk.
 * Return: false if there is no room for it
 */
static bool keep_one(PacketRing *r, PacketRingPlace place, size_t max,
                     size_t *total)
{
    size_t size = measure(r, place);
    PacketChunk *chunk = size ? chunk_with_room(r, size, max) : NULL;
    unsigned packets = chunk ? chunk->packets : 0;

    if (size && !chunk) {
        return false;
    }
    keep_block(r, place, chunk);
    *total += size;
    r->first.block = (place.block + 1) % r->mem.blocks;
    if (!r->first.chunk) {
        r->first.chunk = QSIMPLEQ_FIRST(&r->chunks);
        r->first.open = false;
    } else if (r->first.chunk == chunk && r->first.open) {
        r->first.left += chunk->packets - packets;
    }
    return true;
}

/* Has the kernel handed over more than half of the ring? */
static bool half_full(PacketRing *r)
{
    unsigned half = (r->first.block + r->mem.blocks / 2) % r->mem.blocks;

    struct tpacket_hdr_v1 *hdr = packet_ring_block(&r->mem, half);

    return qatomic_load_acquire(&hdr->block_status) & TP_STATUS_USER;
}

bool packet_ring_keep(PacketRing *r, size_t max)
{
    PacketRingPlace place;
    size_t total = 0;
    bool room = true;

    while (room && total < KEEP_BATCH && half_full(r)) {
        place = r->first;
        if (place.chunk) {
            place = (PacketRingPlace) { .block = r->first.block };
        }
        packet_ring_open(&r->mem, &place);
        room = keep_one(r, place, max, &total);
    }
    packet_ring_rewind(r);
    return room;
}

/* Throwing away */

/* How many packets a block can have. */
static unsigned sane(unsigned packets)
{
    return MIN(packets, PACKET_RING_BLOCK_SIZE / PACKET_RING_KEPT_MAC);
}

void packet_ring_discard(PacketRing *r)
{
    PacketRingPlace *first = &r->first;
    struct tpacket_hdr_v1 *hdr;
    unsigned blocks = r->mem.blocks;

    while (blocks && packet_ring_open(&r->mem, first)) {
        blocks -= !first->chunk;
        r->discarded += sane(first->left);
        release_first(r);
    }
    /*
     * The kernel is filling this block, or has not opened it since it was
     * released with a count of 0.
     */
    hdr = packet_ring_block(&r->mem, first->block);
    r->stale = sane(qatomic_read(&hdr->num_pkts));
    packet_ring_rewind(r);
}
