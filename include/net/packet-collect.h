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
 * @nc: netdev, which QEMU, its vhost included, does not read meanwhile
 * @into: where packets go, behind vnet headers as the TAP has them; nobody
 *        else's until packet_collect_stop(), but for packet_collect_swap()
 *
 * Return: NULL if @nc is no TAP, or not of this host
 */
PacketCollect *packet_collect_start(NetClientState *nc, PacketStream *into);

/**
 * packet_collect_swap() - Take what has been collected until now
 * @c: what packet_collect_start() returned
 * @empty: a stream without packets, where further ones go; result: the packets
 */
void packet_collect_swap(PacketCollect *c, PacketStream *empty);

/**
 * packet_collect_stop() - End that
 * @c: what packet_collect_start() returned
 */
void packet_collect_stop(PacketCollect *c);

#endif /* QEMU_NET_PACKET_COLLECT_H */
