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

/**
 * packet_socket_set_up() - Give a packet socket vnet headers
 * @fd: packet socket, without a ring
 * @errp: set on failure
 *
 * Return: true on success
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
