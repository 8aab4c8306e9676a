/*
 * A virtio-net driver that needs no processor
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FILTER_REDIRECTOR_GUEST_H
#define FILTER_REDIRECTOR_GUEST_H

/*
 * The program that uses this is the guest of a QEMU that runs with
 * "-accel qtest": it owns the guest's memory (a file that both map), sets the
 * virtio-net-pci device up, fills and empties its rings.  vhost serves them as
 * it serves those of a guest with processors.
 *
 * What is written goes through QEMU (GuestOps), for a migration to see it; the
 * mapping is only read.  All that the driver has to remember is in the rings
 * themselves: a guest that was moved goes on with what the destination's copy
 * says, see guest_move().
 *
 * GuestOps may return before QEMU has carried a write out, but must keep the
 * order; nothing else of the driver may be called before it has been.
 */

#define GUEST_QUEUES_MAX    8
#define GUEST_RX_SIZE       1024        /* rx_queue_size= */
#define GUEST_TX_SIZE       256
#define GUEST_BUFFER        2048        /* bytes of each buffer */
#define GUEST_HEADER        12          /* bytes of a vnet header */
#define GUEST_PACKET_MAX    (64 * 1024 + GUEST_BUFFER)
#define GUEST_MEMORY        (32 << 20)  /* bytes, -m 32 */

/* What of the memory is used: rings and buffers. */
#define GUEST_USED          0x100000
#define GUEST_USED_SIZE(queues) \
    (0x100000 + (queues) * (GUEST_RX_SIZE + GUEST_TX_SIZE) * GUEST_BUFFER)

typedef struct GuestOps {
    uint32_t (*in)(void *opaque, uint16_t port);
    void (*out)(void *opaque, uint16_t port, uint32_t value);
    /* @size: 1, 2 or 4 */
    uint32_t (*read)(void *opaque, uint64_t address, unsigned size);
    void (*write)(void *opaque, uint64_t address, unsigned size,
                  uint32_t value);
    void (*copy)(void *opaque, uint64_t address, const void *data, size_t size);
} GuestOps;

/* Counted from the device's start, and so never repeated. */
typedef struct GuestRing {
    unsigned index;         /* the device's number of it */
    unsigned size;
    uint64_t buffers;       /* address of the first */
    uint64_t notify;        /* address to kick */
    uint64_t posted;        /* buffers given to the device, or to be given */
    uint64_t given;         /* .posted at the last guest_flush() */
    uint64_t taken;         /* buffers taken back (receive rings only) */
    uint64_t kicked;        /* .given at the last kick */
} GuestRing;

typedef struct Guest {
    const GuestOps *ops;
    void *opaque;           /* of GuestOps */
    const uint8_t *memory;  /* the mapping, GUEST_MEMORY bytes */
    unsigned queues;
    uint64_t features;      /* negotiated */
    GuestRing rx[GUEST_QUEUES_MAX];
    GuestRing tx[GUEST_QUEUES_MAX];
    GuestRing control;
    uint8_t gathered[GUEST_PACKET_MAX];
} Guest;

typedef struct GuestPacket {
    unsigned queue;
    uint64_t position;      /* of its last buffer in the ring, see GuestRing */
    const uint8_t *header;
    const uint8_t *data;
    size_t size;            /* of the data */
} GuestPacket;

typedef void GuestTake(void *opaque, const GuestPacket *packet);

/**
 * guest_boot() - Set the device up, and give it all receive buffers
 * @g: all zero
 * @memory: the mapping of the guest's memory
 * @slot: the device's on PCI bus 0
 * @queues: queue pairs, as many as the netdev has
 */
void guest_boot(Guest *g, const GuestOps *ops, void *opaque,
                const void *memory, unsigned slot, unsigned queues);

/**
 * guest_move() - Go on with another machine's copy of guest and device
 *
 * What the old machine was given too late for the copy has not happened: the
 * rings' .posted and .taken say from where on things happen again.
 */
void guest_move(Guest *g, void *opaque, const void *memory);

/**
 * guest_receive() - Take what has come
 * @limit: most packets to take of each queue
 * Return: number of packets
 *
 * Whoever is moved before guest_flush() takes them again.
 */
unsigned guest_receive(Guest *g, GuestTake *take, void *opaque, unsigned limit);

/**
 * guest_send() - Send a packet, with the next guest_flush()
 * @header: GUEST_HEADER bytes
 * Return: false if there is no room
 */
bool guest_send(Guest *g, unsigned queue, const uint8_t *header,
                const uint8_t *data, size_t size);

/**
 * guest_flush() - Give the device what was sent, and emptied buffers back
 */
void guest_flush(Guest *g);

/**
 * guest_kick() - Kick the device for each ring where it asks for that
 *
 * To be called once what guest_flush() gave has arrived, and now and then.
 */
void guest_kick(Guest *g);

#endif /* FILTER_REDIRECTOR_GUEST_H */
