/*
 * Packet sockets on a TAP's interface
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_NET_PACKET_SOCKET_H
#define QEMU_NET_PACKET_SOCKET_H

#include "net/packet-frame.h"

/*
 * With vhost-net the kernel moves packets between a TAP device and the guest,
 * past QEMU.  A packet socket (packet(7), Linux only) bound to the TAP's
 * interface still reaches them.  This module owns these sockets:
 *
 *  - packet_socket_open() and packet_socket_take() give a socket in the TAP's
 *    network namespace, and PacketInterface says which interface that is.
 *  - PacketCapture reads copies of the packets that cross it, out of a
 *    memory-mapped ring (TPACKET_V3).
 *  - PacketInject sends packets towards the guest, in batches.
 *
 * It knows nothing of netfilters.  Nothing here blocks, and but for
 * packet_capture_keep() nothing allocates once an object exists.  All functions
 * belong to the main loop's thread.
 * The user polls the file descriptors; packet(7) sockets become readable
 * when a block of the ring is full or PACKET_CAPTURE_LATENCY_MS have passed.
 *
 * A socket that somebody else has opened is set to what it is needed for, and
 * left as it was given: options, filter, protocol (one that had none gets one
 * that no packet has), no ring.  Nobody else should use it meanwhile.
 */

/* The interface of a TAP. */
typedef struct PacketInterface {
    char name[16];      /* at set-up time; renaming does no harm afterwards */
    int ifindex;
    uint64_t netns;     /* inode number of its network namespace, 0: unknown */
    bool macvtap;       /* incoming and outgoing are turned round */
} PacketInterface;

/**
 * packet_socket_open() - Open a packet socket for the interface of a TAP
 * @nc: net client of a TAP, any of its queues
 * @iface: result: the TAP's interface
 * @errp: set if the TAP has no interface any more, if the caller lacks
 *        CAP_NET_RAW, or may not enter the TAP's network namespace; set, too,
 *        if where the kernel does not tell the TAP's namespace, the caller's
 *        own has no interface that looks the same
 *
 * The socket is opened in the network namespace that the TAP lives in; another
 * one than the caller's takes CAP_SYS_ADMIN there.  It receives nothing yet.
 *
 * Return: file descriptor, to be given to packet_capture_new() or
 *         packet_inject_new(); or -1
 */
int packet_socket_open(NetClientState *nc, PacketInterface *iface,
                       Error **errp);

/**
 * packet_socket_take() - Use a packet socket that somebody else has opened
 * @nc: net client of a TAP, any of its queues
 * @fd: what should be a packet socket (AF_PACKET, SOCK_RAW) that is bound to
 *      the TAP's interface, whatever its protocol
 * @iface: result: the TAP's interface
 * @errp: set if it is anything else, is in use already, or could not be left
 *        as it was; @fd is as before then
 *
 * Needs no privilege.
 *
 * Return: true if @fd can be given to packet_capture_new() or
 *         packet_inject_new()
 */
bool packet_socket_take(NetClientState *nc, int fd, PacketInterface *iface,
                        Error **errp);

/**
 * packet_socket_get() - Use a packet socket that the user names
 * @nc: net client of a TAP, any of its queues
 * @name: number of a descriptor that QEMU inherited, name of one that the
 *        monitor got (getfd), or a set of descriptors (/dev/fdset/N)
 * @iface: result: the TAP's interface
 * @errp: as for packet_socket_take(), and if there is no such descriptor
 *
 * An inherited descriptor that turns out to be unfit stays open.
 *
 * Return: file descriptor, to be given to packet_capture_open() or
 *         packet_inject_new(); or -1
 */
int packet_socket_get(NetClientState *nc, const char *name,
                      PacketInterface *iface, Error **errp);

/**
 * packet_interface_backlogged() - Is a packet waiting to be read from a TAP?
 * @nc: net client of a TAP, any of its queues
 *
 * Return: true if at least one of the TAP's queues is not empty
 */
bool packet_interface_backlogged(NetClientState *nc);

#endif /* QEMU_NET_PACKET_SOCKET_H */
