/*
 * Lab program: numbered packets
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef LAB_PACKET_H
#define LAB_PACKET_H

#include "common.h"

/*
 * Small ones are UDP, with the checksum left to do, as a local sender's are.
 * What does not fit into PACKET_SMALL is a TCP super-packet.  The payload is
 * that of traffic.c: a stamp, then a cut from a pattern.
 */
#define PACKET_HEADERS      54      /* Ethernet, IPv4, TCP */
#define PACKET_SMALL        1472    /* bytes of payload, at most */
#define PACKET_PAYLOAD_MAX  65481   /* a frame of 64 KiB would be cut */
#define PACKET_MAX          (PACKET_HEADERS + PACKET_PAYLOAD_MAX)
#define PACKET_STAMP        24      /* bytes, the least payload */
#define VNET_MAX            12
#define PACKET_PEEK         96      /* bytes that packet_peek() looks at */

/* Numbers of injected and of flooded packets begin here: streams of their own. */
#define FIRST_INJECTED      (1ull << 32)
#define FIRST_FLOODED       (1ull << 40)

#define PORT_TO_GUEST       7000    /* UDP or TCP, of the first flow */
#define PORT_FROM_GUEST     8000

typedef struct Route {
    uint8_t from[6], to[6];     /* MAC addresses */
    uint8_t from_ip[4], to_ip[4];
    unsigned port;              /* of the first flow, both sides */
    unsigned flows;             /* packet n is one of flow n % flows */
} Route;

extern const Route to_guest, from_guest;

/* The patterns, and the like: before anything else here. */
void packet_init(void);

/**
 * packet_fill() - Make packet @number, sent now
 * @flood: to the broadcast address
 * @size: of the payload
 * @vnet: VNET_MAX bytes
 * @frame: as much as the packet needs, at most PACKET_MAX bytes
 * @sent_ns: the time in its stamp
 * Return: the frame's length
 */
size_t packet_fill(const Route *route, uint64_t number, bool flood, size_t size,
                   uint8_t *vnet, uint8_t *frame, uint64_t *sent_ns);

/**
 * packet_peek() - Look whether a frame is a numbered packet
 * @size: how much of it there is, PACKET_PEEK bytes are enough
 * @record: gets number and time of sending
 * Return: false if it is none
 */
bool packet_peek(const uint8_t *frame, size_t size, Record *record);

/**
 * packet_whole() - Check that a numbered packet is what was sent
 * @vnet: its vnet header: what it leaves to do needs no checksum
 */
bool packet_whole(const uint8_t *vnet, const uint8_t *frame, size_t size);

#endif
