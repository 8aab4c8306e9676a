/*
 * Collect what arrives at a TAP while the main loop stands still
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_NET_PACKET_COLLECT_H
#define QEMU_NET_PACKET_COLLECT_H

#include "net/net.h"
#include "net/packet-stream.h"

/*
 * While a migration sends its last part, the main loop stands still for most
 * of the time; and at its destination it waits for the guest's processors,
 * which have a lot to do then.  A TAP's queue holds 1,000 packets by default.
 * So a thread that needs nothing else reads them.
 */
typedef struct PacketCollect PacketCollect;

/**
 * packet_collect_start() - Begin to read all queues of a TAP
 * @nc: netdev, which QEMU, its vhost included, does not read meanwhile, and
 *      whose vnet headers keep their length: else the caller has to throw
 *      away what was read since they had it
 * @into: where packets go, behind vnet headers in host byte order; nobody
 *        else's until packet_collect_stop(), but for packet_collect_put() and
 *        packet_collect_swap()
 *
 * Return: NULL if @nc is no TAP, or not of this host
 */
PacketCollect *packet_collect_start(NetClientState *nc, PacketStream *into);

/**
 * packet_collect_queued() - How many packets have been collected until now
 * @c: what packet_collect_start() returned
 */
unsigned packet_collect_queued(PacketCollect *c);

/**
 * packet_collect_put() - Append one that has come another way
 * @c: what packet_collect_start() returned
 * @f: packet
 *
 * Return: false if there is no room
 */
bool packet_collect_put(PacketCollect *c, const PacketFrame *f);

/**
 * packet_collect_swap() - Take what has been collected until now
 * @c: what packet_collect_start() returned
 * @empty: a stream without packets, where further ones go; result: the packets
 */
void packet_collect_swap(PacketCollect *c, PacketStream *empty);

#define PACKET_COLLECT_ANY 64

typedef bool PacketCollectTest(const PacketFrame *f, void *opaque);

/**
 * packet_collect_any() - Look at the first packets collected
 * @c: what packet_collect_start() returned
 * @test: what to ask of each, PACKET_COLLECT_ANY at most; the thread waits
 * @opaque: for it
 *
 * Return: whether one has passed
 */
bool packet_collect_any(PacketCollect *c, PacketCollectTest *test,
                        void *opaque);

/**
 * packet_collect_finish() - Read what is there, and end
 * @c: what packet_collect_start() returned
 *
 * The thread may have had no processor for a while.
 */
void packet_collect_finish(PacketCollect *c);

/**
 * packet_collect_stop() - End, and leave the rest where it is
 * @c: what packet_collect_start() returned, or NULL
 */
void packet_collect_stop(PacketCollect *c);

/**
 * packet_collect_now() - Read what is there, without a thread
 * @nc: netdev, which nobody else reads; nothing is read if it is no TAP
 * @into: where packets go, as those of packet_collect_start() do; what finds no
 *        room, and more than a thousand, or so, of a queue, is left
 */
void packet_collect_now(NetClientState *nc, PacketStream *into);

#endif /* QEMU_NET_PACKET_COLLECT_H */
