/*
 * What a capture's filter is made of
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_PACKET_FILTER_H
#define NET_PACKET_FILTER_H

#include <linux/filter.h>
#include "net/packet-capture.h"

/* Which packets a filter lets pass, before its program is asked. */
typedef enum PacketFilterPass {
    PACKET_FILTER_PASS_NONE,
    PACKET_FILTER_PASS_OUTGOING,    /* as the kernel sees it */
    PACKET_FILTER_PASS_INCOMING,
    PACKET_FILTER_PASS_ALL,
} PacketFilterPass;

/**
 * packet_filter_size() - Most instructions that a socket's filter can have
 * @f: a program, or NULL
 */
size_t packet_filter_size(const PacketFilter *f);

/**
 * packet_filter_join() - Make a socket's filter
 * @to: result, room for packet_filter_size() instructions
 * @pass: what passes at all
 * @f: a program that decides about that, or NULL
 * @snaplen: bytes that are captured of a packet at most, or 0 for all
 *
 * Return: number of instructions
 */
unsigned packet_filter_join(struct sock_filter *to, PacketFilterPass pass,
                            const PacketFilter *f, uint32_t snaplen);

#endif /* NET_PACKET_FILTER_H */
