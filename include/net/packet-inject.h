/*
 * Packet injection into a TAP's interface
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_NET_PACKET_INJECT_H
#define QEMU_NET_PACKET_INJECT_H

#include "net/packet-socket.h"

typedef struct PacketInject PacketInject;

/* Most frames in one call of packet_inject_send(). */
#define PACKET_INJECT_BATCH 64

/**
 * packet_inject_new() - Begin injecting
 * @fd: packet socket, the injector's from now on and closed with it
 * @iface: its interface
 * @errp: set if the interface is gone, or a macvtap, where sending goes to the
 *        network instead of the guest, or the socket's owner has set it up in
 *        a way that does not go with injecting
 *
 * Return: the injector; or NULL, and @fd has been closed, but if it was
 *         inherited
 */
PacketInject *packet_inject_new(int fd, const PacketInterface *iface,
                                Error **errp);

/**
 * packet_inject_free() - Close an injector
 * @inj: injector, or NULL
 */
void packet_inject_free(PacketInject *inj);

/**
 * packet_inject_state() - See to the interface
 * @inj: injector
 * @name: as for packet_capture_state()
 *
 * Return: as packet_capture_state()
 */
int packet_inject_state(PacketInject *inj, char *name);

/**
 * packet_inject_set_netdev() - Say what shows whether the TAP is read
 * @inj: injector
 * @nc: net client of the TAP, any of its queues; NULL: it was removed, or
 *      nobody knows
 *
 * With a netdev the TAP's queue is kept short, so that it has room for what the
 * network sends, and packet_inject_send() tells why a packet is refused.
 */
void packet_inject_set_netdev(PacketInject *inj, NetClientState *nc);

/**
 * packet_inject_send() - Send packets, in order, as far as there is room
 * @inj: injector
 * @frames: packets, each with a vnet header of any known length, or bare
 * @n: number of @frames, at most PACKET_INJECT_BATCH
 * @err: result: why the first unsent frame was not sent; 0 if all were:
 *       -EAGAIN      there are enough injected packets in the TAP's queue: try
 *                    again when its reader has taken them
 *       -ENOBUFS     the TAP's queue is full, or so it seems: try again
 *       -ENETDOWN    the interface is down, or has no carrier
 *       -ENODEV      the interface was removed
 *       -EOPNOTSUPP  the packet is a super-packet, and the TAP's offloads are
 *                    off: cut it
 *       -EPERM       the TAP does not take the packet, though its queue is
 *                    empty, and was all the time: it has a filter
 *       -EMSGSIZE    the packet is longer than the interface's MTU
 *       other        the kernel refuses this packet (-EINVAL: bad vnet header)
 *       Without a netdev there is no -EAGAIN, and -ENOBUFS for what would be
 *       -EOPNOTSUPP and -EPERM.
 *
 * A packet may have one or two VLAN tags more than the MTU allows.
 *
 * Return: number of frames sent; less than @n if and only if @err is not 0
 */
unsigned packet_inject_send(PacketInject *inj, const PacketFrame *frames,
                            unsigned n, int *err);

#endif /* QEMU_NET_PACKET_INJECT_H */
