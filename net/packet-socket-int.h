/*
 * What capture and injection share
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_PACKET_SOCKET_INT_H
#define NET_PACKET_SOCKET_INT_H

#include <linux/filter.h>
#include "net/packet-socket.h"

/* Where a packet socket comes from. */
typedef enum PacketSocketOrigin {
    PACKET_SOCKET_OPENED,       /* by QEMU: nobody else has it */
    PACKET_SOCKET_PASSED,       /* to QEMU, for this use: it closes it */
    PACKET_SOCKET_INHERITED,    /* its number stays good if it is refused */
} PacketSocketOrigin;

/**
 * packet_socket_own() - Begin to use a packet socket
 * @fd: packet socket
 * @origin: where it comes from
 * @errp: set if it is in use already, or could not be left as it is now
 *
 * Return: true if it has to be closed with packet_socket_close()
 */
bool packet_socket_own(int fd, PacketSocketOrigin origin, Error **errp);

/**
 * packet_socket_given() - Has somebody else opened a packet socket?
 * @fd: packet socket in use
 */
bool packet_socket_given(int fd);

/**
 * packet_socket_close() - Leave a packet socket as it was, and close it
 * @fd: packet socket in use, without a ring
 * @used: false if it turned out that it can't be used; an inherited one is
 *        not closed then
 */
void packet_socket_close(int fd, bool used);

/**
 * packet_socket_set_up() - Set a packet socket's options
 * @fd: packet socket, without a ring
 * @errp: set on failure
 *
 * Return: true on success: it has vnet headers, and nothing unexpected
 */
bool packet_socket_set_up(int fd, Error **errp);

/**
 * packet_socket_filter() - Attach a filter to a packet socket
 * @fd: packet socket
 * @insns: what it runs (BPF)
 * @n: number of @insns
 * @errp: set on failure
 *
 * Return: 0 or -errno
 */
int packet_socket_filter(int fd, struct sock_filter *insns, unsigned short n,
                         Error **errp);

/**
 * packet_socket_bind() - Bind a packet socket to an interface
 * @fd: packet socket
 * @iface: interface
 * @protocol: ETH_P_ALL to receive, 0 to send only
 * @errp: set on failure
 *
 * Return: true on success
 */
bool packet_socket_bind(int fd, const PacketInterface *iface,
                        uint16_t protocol, Error **errp);

/**
 * packet_socket_state() - See to a packet socket's interface
 * @fd: packet socket, bound to @iface
 * @iface: interface
 * @name: result, see packet_capture_state(); may be NULL
 *
 * Return: 0, -ENETDOWN or -ENODEV
 */
int packet_socket_state(int fd, const PacketInterface *iface, char *name);

#endif /* NET_PACKET_SOCKET_INT_H */
