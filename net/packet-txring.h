/*
 * A ring to send packets from, for those that sendmsg() refuses
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_PACKET_TXRING_H
#define NET_PACKET_TXRING_H

#include "net/packet-frame.h"

/*
 * packet_snd(), behind sendmsg(), allows a packet the interface's MTU, an
 * Ethernet header, and one VLAN tag if that is of type 0x8100.  Linux bridges,
 * and vhost, pass packets of that length with any tag, and with two.
 * tpacket_snd(), behind a ring, leaves the check out for sockets with vnet
 * headers.  All that a socket with a ring sends goes through the ring.
 */
typedef struct PacketTxRing {
    uint8_t *map;           /* NULL: there is no ring */
    unsigned head;          /* the slot that the kernel looks at next */
} PacketTxRing;

/**
 * packet_txring_map() - Make and map a packet socket's ring
 * @r: result
 * @fd: packet socket with vnet headers
 *
 * Return: 0 or -errno
 */
int packet_txring_map(PacketTxRing *r, int fd);

/**
 * packet_txring_unmap() - Take the ring from its packet socket
 * @r: ring, which may have none
 * @fd: packet socket
 */
void packet_txring_unmap(PacketTxRing *r, int fd);

/**
 * packet_txring_send() - Send packets, in order, as far as there is room
 * @r: ring
 * @fd: its packet socket
 * @frames: packets
 * @n: number of @frames, at least 1
 * @err: result: 0 or -errno, for the first packet that was not sent
 *
 * Return: number of packets sent; not all if there are more than slots
 */
unsigned packet_txring_send(PacketTxRing *r, int fd,
                            const PacketFrame *frames, unsigned n, int *err);

#endif /* NET_PACKET_TXRING_H */
