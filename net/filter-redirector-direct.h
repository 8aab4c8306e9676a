/*
 * filter-redirector: what comes directly to a guest that has just moved
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_DIRECT_H
#define NET_FILTER_REDIRECTOR_DIRECT_H

#include "net/packet-collect.h"
#include "net/packet-stream.h"
#include "filter-redirector-end.h"

/*
 * Packets wait here in their order: those that a thread has read from the TAP,
 * then those that came through QEMU.
 */
typedef struct RedirectorDirect {
    PacketCollect *collect;     /* who reads the TAP now, or NULL */
    unsigned hdr_changes;       /* of vnet headers' length when it began */
    unsigned sure;              /* packets read before it was set again */
    PacketStream collecting;    /* what that fills; as the TAP has them */
    PacketStream collected;     /* what it has filled, in front of it */
    PacketStream queue;         /* what comes through QEMU, behind both */
    uint64_t lost;              /* result: packets that nobody gets */
} RedirectorDirect;

/**
 * redirector_direct_begin() - Make room for packets
 * @d: packets
 *
 * redirector_direct_end() - All that is left is lost
 * @nc: netdev, here and below
 */
void redirector_direct_begin(RedirectorDirect *d);
void redirector_direct_end(RedirectorDirect *d, NetClientState *nc);

/**
 * redirector_direct_collect() - Have a thread read the TAP
 * redirector_direct_finish() - Have it read what is there, and end
 * redirector_direct_stop() - End it, and leave the rest in the TAP
 * redirector_direct_look() - End it if the guest's driver has set the length
 *                            of vnet headers; to be called now and then
 */
void redirector_direct_collect(RedirectorDirect *d, NetClientState *nc);
void redirector_direct_finish(RedirectorDirect *d);
void redirector_direct_stop(RedirectorDirect *d, NetClientState *nc);
void redirector_direct_look(RedirectorDirect *d, NetClientState *nc);

/**
 * redirector_direct_any() - Look at the first packets that the thread has read
 *
 * As packet_collect_any(); false if there is no thread.
 */
bool redirector_direct_any(RedirectorDirect *d, PacketCollectTest *test,
                           void *opaque);

/**
 * redirector_direct_room() - Is there room for one that comes through QEMU?
 * redirector_direct_put() - Append one; false, and counted, if there is none
 */
bool redirector_direct_room(const RedirectorDirect *d);
bool redirector_direct_put(RedirectorDirect *d, PacketFrame *f);

/**
 * redirector_direct_peek() - Look at the first packets
 * @frames: result, valid until packets are dropped
 * @max: how many at most
 *
 * Return: how many; they are in the direction of the guest
 *
 * redirector_direct_drop() - Drop the first @n of them
 */
unsigned redirector_direct_peek(RedirectorDirect *d, NetClientState *nc,
                                PacketFrame *frames, unsigned max);
void redirector_direct_drop(RedirectorDirect *d, NetClientState *nc,
                            unsigned n);

/**
 * redirector_direct_drain() - Throw away what lies in a netdev
 * @nf: filter
 * @alone: set if some of it is for the guest alone
 *
 * Return: how many packets
 */
unsigned redirector_direct_drain(NetFilterState *nf, bool *alone);

#endif /* NET_FILTER_REDIRECTOR_DIRECT_H */
