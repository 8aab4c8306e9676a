/*
 * A virtio-net driver that needs no processor
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <endian.h>
#include "filter-redirector-guest.h"

/* PCI configuration, and where the device's memory is put. */
#define CONFIG_ADDRESS      0xcf8
#define CONFIG_DATA         0xcfc
#define PCI_COMMAND         0x04
#define PCI_COMMAND_ON      0x06        /* memory, bus master */
#define PCI_BAR             0x10
#define PCI_CAPABILITIES    0x34
#define PCI_CAP_VENDOR      9
#define BAR_ADDRESS         0xe0000000u
#define BAR_MODERN          4           /* where QEMU has the virtio regions */

/* Types of virtio's PCI capabilities, and the registers behind them. */
#define CAP_COMMON          1
#define CAP_NOTIFY          2
#define DEVICE_FEATURE_SELECT   0x00
#define DEVICE_FEATURE      0x04
#define DRIVER_FEATURE_SELECT   0x08
#define DRIVER_FEATURE      0x0c
#define DEVICE_STATUS       0x14
#define QUEUE_SELECT        0x16
#define QUEUE_SIZE          0x18
#define QUEUE_ENABLE        0x1c
#define QUEUE_NOTIFY_OFF    0x1e
#define QUEUE_DESC          0x20
#define QUEUE_AVAIL         0x28
#define QUEUE_USED          0x30

#define STATUS_DRIVER       3           /* acknowledged, driver */
#define STATUS_FEATURES_OK  8
#define STATUS_DRIVER_OK    4

#define FEATURE(bit)        (1ull << (bit))
#define F_MRG_RXBUF         FEATURE(15)
#define F_CTRL_VQ           FEATURE(17)
#define F_MQ                FEATURE(22)
#define F_VERSION_1         FEATURE(32)
/* Checksums and super-packets, both ways; MAC address, link status. */
#define F_WANTED            (FEATURE(0) | FEATURE(1) | FEATURE(5) | \
                             FEATURE(7) | FEATURE(8) | FEATURE(9) | \
                             FEATURE(11) | FEATURE(12) | FEATURE(13) | \
                             F_MRG_RXBUF | FEATURE(16) | F_VERSION_1)

#define DESC_NEXT           1
#define DESC_WRITE          2           /* for the device to write */
#define AVAIL_NO_INTERRUPT  1
#define USED_NO_NOTIFY      1
#define CTRL_MQ             4
#define CTRL_MQ_PAIRS_SET   0

/*
 * The guest's memory: a slot for each ring's parts, then the buffers.  A ring
 * of 1024 has 16 KiB of descriptors, 2 KiB of avail and 8 KiB of used ring.
 */
#define RINGS               GUEST_USED
#define RING_SLOT           0x8000
#define RING_AVAIL          0x4000
#define RING_USED           0x5000
#define BUFFERS             0x200000
#define BUFFERS_QUEUE       ((GUEST_RX_SIZE + GUEST_TX_SIZE) * GUEST_BUFFER)

#define CONTROL_SIZE        64
#define CONTROL_WAIT_MS     10000

typedef struct Desc {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
} Desc;

typedef struct Used {
    uint32_t id;
    uint32_t length;
} Used;

_Static_assert(GUEST_RX_SIZE * sizeof(Desc) <= RING_AVAIL, "ring too long");
_Static_assert(RING_USED + 4 + GUEST_RX_SIZE * sizeof(Used) <= RING_SLOT,
               "ring too long");
_Static_assert(RINGS + (2 * GUEST_QUEUES_MAX + 1) * RING_SLOT <= BUFFERS,
               "too many rings");
_Static_assert(BUFFERS + GUEST_QUEUES_MAX * BUFFERS_QUEUE ==
               GUEST_USED + GUEST_USED_SIZE(GUEST_QUEUES_MAX),
               "the header tells another size");
_Static_assert(GUEST_USED + GUEST_USED_SIZE(GUEST_QUEUES_MAX) <= GUEST_MEMORY,
               "memory too small");

/*
 * The rings' parts in memory
 */

static uint64_t ring_address(const GuestRing *ring)
{
    return RINGS + ring->index * RING_SLOT;
}

static uint16_t load16(const Guest *g, uint64_t address)
{
    const void *place = g->memory + address;

    /* What it tells of is read after it. */
    return le16toh(__atomic_load_n((const uint16_t *)place, __ATOMIC_ACQUIRE));
}

static Used used_entry(const Guest *g, const GuestRing *ring, uint64_t position)
{
    Used used;

    memcpy(&used, g->memory + ring_address(ring) + RING_USED + 4 +
           position % ring->size * sizeof(used), sizeof(used));
    return (Used) { le32toh(used.id), le32toh(used.length) };
}

/* The ring's 16-bit counter at @part, as the next step of a longer one. */
static uint64_t counter(const Guest *g, const GuestRing *ring, uint64_t part,
                        uint64_t last)
{
    uint16_t now = load16(g, ring_address(ring) + part + 2);

    return last + (int16_t)(now - (uint16_t)last);
}

/* Not written where it stands already: most of a ring never changes. */
static void put(Guest *g, uint64_t address, const void *data, size_t size)
{
    if (memcmp(g->memory + address, data, size)) {
        g->ops->copy(g->opaque, address, data, size);
    }
}

static void put_desc(Guest *g, const GuestRing *ring, unsigned id,
                     uint64_t address, uint32_t length, uint16_t flags)
{
    Desc desc = {
        htole64(address), htole32(length), htole16(flags), htole16(id + 1),
    };

    put(g, ring_address(ring) + id * sizeof(desc), &desc, sizeof(desc));
}

static void put_avail(Guest *g, const GuestRing *ring, uint64_t position,
                      uint16_t id)
{
    uint16_t value = htole16(id);

    put(g, ring_address(ring) + RING_AVAIL + 4 +
        position % ring->size * sizeof(value), &value, sizeof(value));
}

/* Gives the device the buffers up to .posted: what was put counts from here. */
static void give(Guest *g, GuestRing *ring)
{
    if (ring->given != ring->posted) {
        ring->given = ring->posted;
        g->ops->write(g->opaque, ring_address(ring) + RING_AVAIL + 2, 2,
                      ring->given & 0xffff);
    }
}

static void kick(Guest *g, GuestRing *ring)
{
    ring->kicked = ring->given;
    g->ops->write(g->opaque, ring->notify, 2, ring->index);
}

/*
 * The device
 */

typedef struct Device {
    Guest *g;
    unsigned slot;
    uint64_t common;
    uint64_t notify;
    uint32_t notify_step;
} Device;

static void config_select(Device *d, unsigned offset)
{
    d->g->ops->out(d->g->opaque, CONFIG_ADDRESS,
                   0x80000000u | d->slot << 11 | (offset & ~3u));
}

static uint32_t config_read(Device *d, unsigned offset)
{
    config_select(d, offset);
    return d->g->ops->in(d->g->opaque, CONFIG_DATA) >> 8 * (offset & 3);
}

static void config_write(Device *d, unsigned offset, uint32_t value)
{
    config_select(d, offset);
    d->g->ops->out(d->g->opaque, CONFIG_DATA, value);
}

static void find_regions(Device *d)
{
    unsigned at = config_read(d, PCI_CAPABILITIES) & 0xff;

    for (; at; at = config_read(d, at + 1) & 0xff) {
        uint64_t region = BAR_ADDRESS + config_read(d, at + 8);

        if ((config_read(d, at) & 0xff) != PCI_CAP_VENDOR ||
            (config_read(d, at + 4) & 0xff) != BAR_MODERN) {
            continue;
        }
        switch (config_read(d, at + 3) & 0xff) {
        case CAP_COMMON:
            d->common = region;
            break;
        case CAP_NOTIFY:
            d->notify = region;
            d->notify_step = config_read(d, at + 16);
            break;
        }
    }
    assert(d->common && d->notify);
}

static void switch_on(Device *d)
{
    config_write(d, PCI_BAR + 4 * BAR_MODERN, BAR_ADDRESS);
    config_write(d, PCI_BAR + 4 * (BAR_MODERN + 1), 0);
    config_write(d, PCI_COMMAND, PCI_COMMAND_ON);
    find_regions(d);
}

static uint32_t common_read(Device *d, unsigned offset, unsigned size)
{
    return d->g->ops->read(d->g->opaque, d->common + offset, size);
}

static void common_write(Device *d, unsigned offset, unsigned size,
                         uint32_t value)
{
    d->g->ops->write(d->g->opaque, d->common + offset, size, value);
}

static void negotiate(Device *d)
{
    uint64_t wanted = F_WANTED | (d->g->queues > 1 ? F_CTRL_VQ | F_MQ : 0);
    uint64_t offered = 0;
    unsigned word;

    common_write(d, DEVICE_STATUS, 1, 0);
    common_write(d, DEVICE_STATUS, 1, STATUS_DRIVER);
    for (word = 0; word < 2; word++) {
        common_write(d, DEVICE_FEATURE_SELECT, 4, word);
        offered |= (uint64_t)common_read(d, DEVICE_FEATURE, 4) << 32 * word;
    }
    d->g->features = offered & wanted;
    assert(d->g->features & F_VERSION_1 && d->g->features & F_MRG_RXBUF);
    assert(d->g->queues == 1 || d->g->features & F_MQ);
    for (word = 0; word < 2; word++) {
        common_write(d, DRIVER_FEATURE_SELECT, 4, word);
        common_write(d, DRIVER_FEATURE, 4, d->g->features >> 32 * word);
    }
    common_write(d, DEVICE_STATUS, 1, STATUS_DRIVER | STATUS_FEATURES_OK);
    assert(common_read(d, DEVICE_STATUS, 1) & STATUS_FEATURES_OK);
}

static void common_write64(Device *d, unsigned offset, uint64_t value)
{
    common_write(d, offset, 4, value);
    common_write(d, offset + 4, 4, value >> 32);
}

static void add_ring(Device *d, GuestRing *ring, unsigned index, unsigned size)
{
    const uint16_t flags = htole16(AVAIL_NO_INTERRUPT);
    uint64_t base;

    ring->index = index;
    ring->size = size;
    base = ring_address(ring);
    put(d->g, base + RING_AVAIL, &flags, sizeof(flags));
    common_write(d, QUEUE_SELECT, 2, index);
    assert(common_read(d, QUEUE_SIZE, 2) >= size);
    common_write(d, QUEUE_SIZE, 2, size);
    common_write64(d, QUEUE_DESC, base);
    common_write64(d, QUEUE_AVAIL, base + RING_AVAIL);
    common_write64(d, QUEUE_USED, base + RING_USED);
    ring->notify = d->notify +
                   common_read(d, QUEUE_NOTIFY_OFF, 2) * d->notify_step;
    common_write(d, QUEUE_ENABLE, 2, 1);
}

static void fill_receive_ring(Guest *g, GuestRing *ring)
{
    Desc descs[GUEST_RX_SIZE];
    uint16_t ids[GUEST_RX_SIZE];
    unsigned i;

    for (i = 0; i < ring->size; i++) {
        descs[i] = (Desc) {
            htole64(ring->buffers + i * GUEST_BUFFER), htole32(GUEST_BUFFER),
            htole16(DESC_WRITE), 0,
        };
        ids[i] = htole16(i);
    }
    put(g, ring_address(ring), descs, sizeof(descs));
    put(g, ring_address(ring) + RING_AVAIL + 4, ids, sizeof(ids));
    ring->posted = ring->size;
    give(g, ring);
}

static void use_all_queues(Guest *g)
{
    const uint8_t order[] = {
        CTRL_MQ, CTRL_MQ_PAIRS_SET, g->queues & 0xff, g->queues >> 8,
    };
    GuestRing *ring = &g->control;
    uint64_t place = ring_address(ring) + 0x1000; /* behind its descriptors */
    uint64_t answer = place + sizeof(order);
    unsigned waited;

    g->ops->copy(g->opaque, place, order, sizeof(order));
    g->ops->write(g->opaque, answer, 1, 0xff);
    put_desc(g, ring, 0, place, 2, DESC_NEXT);
    put_desc(g, ring, 1, place + 2, 2, DESC_NEXT);
    put_desc(g, ring, 2, answer, 1, DESC_WRITE);
    put_avail(g, ring, 0, 0);
    ring->posted = 1;
    give(g, ring);
    kick(g, ring);
    for (waited = 0; !counter(g, ring, RING_USED, 0); waited++) {
        assert(waited < CONTROL_WAIT_MS);
        usleep(1000);
    }
    assert(g->memory[answer] == 0);
}

void guest_boot(Guest *g, const GuestOps *ops, void *opaque,
                const void *memory, unsigned slot, unsigned queues)
{
    Device d = { .g = g, .slot = slot };
    unsigned i;

    assert(queues && queues <= GUEST_QUEUES_MAX);
    g->ops = ops;
    g->opaque = opaque;
    g->memory = memory;
    g->queues = queues;
    switch_on(&d);
    negotiate(&d);
    for (i = 0; i < queues; i++) {
        g->rx[i].buffers = BUFFERS + i * BUFFERS_QUEUE;
        g->tx[i].buffers = g->rx[i].buffers + GUEST_RX_SIZE * GUEST_BUFFER;
        add_ring(&d, &g->rx[i], 2 * i, GUEST_RX_SIZE);
        add_ring(&d, &g->tx[i], 2 * i + 1, GUEST_TX_SIZE);
        fill_receive_ring(g, &g->rx[i]);
    }
    if (queues > 1) {
        add_ring(&d, &g->control, 2 * queues, CONTROL_SIZE);
    }
    common_write(&d, DEVICE_STATUS, 1,
                 STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    if (queues > 1) {
        use_all_queues(g);
    }
}

void guest_move(Guest *g, void *opaque, const void *memory)
{
    unsigned i;

    g->opaque = opaque;
    g->memory = memory;
    for (i = 0; i < g->queues; i++) {
        GuestRing *rx = &g->rx[i], *tx = &g->tx[i];

        rx->posted = counter(g, rx, RING_AVAIL, rx->posted);
        rx->given = rx->posted;
        rx->taken = rx->posted - rx->size;
        rx->kicked = 0;
        tx->posted = counter(g, tx, RING_AVAIL, tx->posted);
        tx->given = tx->posted;
        tx->kicked = 0;
    }
}

/*
 * Packets
 */

static const uint8_t *buffer_of(const Guest *g, const GuestRing *ring,
                                uint64_t position)
{
    Used used = used_entry(g, ring, position);

    assert(used.id < ring->size && used.length <= GUEST_BUFFER);
    return g->memory + ring->buffers + used.id * GUEST_BUFFER;
}

/* Copies the packet's @count buffers together. */
static void gather(Guest *g, const GuestRing *ring, unsigned count,
                   GuestPacket *packet)
{
    size_t size = 0;
    unsigned i;

    for (i = 0; i < count; i++) {
        Used used = used_entry(g, ring, ring->taken + i);

        assert(size + used.length <= sizeof(g->gathered));
        memcpy(g->gathered + size, buffer_of(g, ring, ring->taken + i),
               used.length);
        size += used.length;
    }
    packet->header = g->gathered;
    packet->size = size - GUEST_HEADER;
}

/* Takes one packet of the ring; its buffers are to be posted again. */
static void receive_one(Guest *g, unsigned queue, uint64_t done,
                        GuestTake *take, void *opaque)
{
    GuestRing *ring = &g->rx[queue];
    Used used = used_entry(g, ring, ring->taken);
    GuestPacket packet = { .queue = queue };
    unsigned count, i;
    uint16_t buffers;

    packet.header = buffer_of(g, ring, ring->taken);
    packet.size = used.length - GUEST_HEADER;
    memcpy(&buffers, packet.header + 10, sizeof(buffers));
    count = le16toh(buffers);
    assert(used.length > GUEST_HEADER && count && ring->taken + count <= done);
    if (count > 1) {
        gather(g, ring, count, &packet);
    }
    packet.data = packet.header + GUEST_HEADER;
    packet.position = ring->taken + count - 1;
    take(opaque, &packet);
    for (i = 0; i < count; i++) {
        put_avail(g, ring, ring->posted++,
                  used_entry(g, ring, ring->taken++).id);
    }
}

unsigned guest_receive(Guest *g, GuestTake *take, void *opaque, unsigned limit)
{
    unsigned total = 0;
    unsigned i, n;

    for (i = 0; i < g->queues; i++) {
        GuestRing *ring = &g->rx[i];
        uint64_t done = counter(g, ring, RING_USED, ring->taken);

        for (n = 0; ring->taken < done && n < limit; n++) {
            receive_one(g, i, done, take, opaque);
        }
        total += n;
    }
    return total;
}

bool guest_send(Guest *g, unsigned queue, const uint8_t *header,
                const uint8_t *data, size_t size)
{
    GuestRing *ring = &g->tx[queue];
    unsigned id = ring->posted % ring->size;
    uint64_t done = counter(g, ring, RING_USED, ring->posted);
    uint8_t buffer[GUEST_BUFFER];

    assert(size + GUEST_HEADER <= sizeof(buffer));
    if (ring->posted - done >= ring->size) {
        return false;
    }
    memcpy(buffer, header, GUEST_HEADER);
    memcpy(buffer + GUEST_HEADER, data, size);
    put(g, ring->buffers + id * GUEST_BUFFER, buffer, GUEST_HEADER + size);
    put_desc(g, ring, id, ring->buffers + id * GUEST_BUFFER,
             GUEST_HEADER + size, 0);
    put_avail(g, ring, ring->posted++, id);
    return true;
}

static void kick_if_asked(Guest *g, GuestRing *ring)
{
    uint16_t flags = load16(g, ring_address(ring) + RING_USED);

    if (ring->kicked != ring->given && !(flags & USED_NO_NOTIFY)) {
        kick(g, ring);
    }
}

void guest_flush(Guest *g)
{
    unsigned i;

    for (i = 0; i < g->queues; i++) {
        give(g, &g->rx[i]);
        give(g, &g->tx[i]);
        /* One that asks for it only now is kicked by guest_kick(). */
        kick_if_asked(g, &g->rx[i]);
        kick_if_asked(g, &g->tx[i]);
    }
}

void guest_kick(Guest *g)
{
    unsigned i;

    for (i = 0; i < g->queues; i++) {
        kick_if_asked(g, &g->rx[i]);
        kick_if_asked(g, &g->tx[i]);
    }
}
