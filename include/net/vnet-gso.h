/*
 * Super-packets behind virtio-net headers: cut them as Linux does
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_VNET_GSO_H
#define NET_VNET_GSO_H

#include "net/vnet-hdr.h"

/**
 * vnet_hdr_finish() - turn a packet into packets that need no vnet header
 * @hdr: the header, @hdr_len bytes
 * @hdr_len: length of the header in bytes, 0 for none
 * @pkt: the packet, Ethernet header first, VLAN tags in their places
 * @len: length of the packet in bytes
 * @emit: called for each resulting packet, in order
 * @opaque: passed to @emit
 *
 * Fills in the checksum, or cuts a TCP (IPv4, IPv6) or UDP (USO, IPv4, IPv6)
 * super-packet to segments, or a legacy UFO packet (IPv4) to IP fragments, byte
 * for byte as Linux does. Up to eight VLAN tags and, for IPv6, the extension
 * headers that Linux segments behind (hop-by-hop, routing, destination
 * options) may stand in front. The payload is not copied.
 *
 * Refused are headers that don't fit the packet, and what can't be cut without
 * knowing more than the first 10 bytes of the header say: UDP tunnels, legacy
 * UFO over IPv6 (the fragments need an identification that nobody chose),
 * packets longer than an IP datagram can be (jumbograms).
 *
 * Return: the number of packets, at least 1; -EINVAL if the packet is refused,
 *         and then nothing was emitted
 */
ssize_t vnet_hdr_finish(const uint8_t *hdr, size_t hdr_len,
                        const uint8_t *pkt, size_t len,
                        VnetHdrEmit *emit, void *opaque);

#endif /* NET_VNET_GSO_H */
