/*
 * filter-redirector: what waits for the guest while it moves
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_BACKLOG_H
#define NET_FILTER_REDIRECTOR_BACKLOG_H

#include "net/packet-collect.h"
#include "net/packet-stream.h"
#include "filter-redirector-end.h"

/*
 * Packets wait here in their order, those that a thread reads from the TAP, and
 * those that come through QEMU.
 */
typedef struct RedirectorBacklog {
    PacketCollect *collect;     /* who reads the TAP now, or NULL */
    unsigned hdr_changes;       /* of vnet headers' length when it began */
    unsigned sure;              /* packets read before it was set again */
    PacketStream back;          /* what comes now */
    PacketStream front;         /* what has come before */
    uint64_t lost;              /* result: packets that nobody gets */
} RedirectorBacklog;

/**
 * redirector_backlog_begin() - Make room for packets
 * @b: backlog
 * @size: bytes; what doesn't fit waits in the TAP's queue
 *
 * Return: false if there was room before
 *
 * redirector_backlog_end() - All that is left is lost
 * @nc: netdev, here and below
 */
bool redirector_backlog_begin(RedirectorBacklog *b, size_t size);
void redirector_backlog_end(RedirectorBacklog *b, NetClientState *nc);

/**
 * redirector_backlog_collect() - Have a thread read the TAP
 * redirector_backlog_finish() - Have it read what is there, and end
 * redirector_backlog_stop() - End it, and leave the rest in the TAP
 * redirector_backlog_look() - End it if the guest's driver has set the length
 *                             of vnet headers; to be called now and then
 */
void redirector_backlog_collect(RedirectorBacklog *b, NetClientState *nc);
void redirector_backlog_finish(RedirectorBacklog *b);
void redirector_backlog_stop(RedirectorBacklog *b, NetClientState *nc);
void redirector_backlog_look(RedirectorBacklog *b, NetClientState *nc);

/**
 * redirector_backlog_any() - Look at the first packets that the thread has read
 *
 * As packet_collect_any(); false if there is no thread.
 */
bool redirector_backlog_any(RedirectorBacklog *b, PacketCollectTest *test,
                            void *opaque);

/**
 * redirector_backlog_queued() - How many packets wait
 * redirector_backlog_room() - Is there room for one that comes through QEMU?
 * redirector_backlog_put() - Append one; false if there is none
 */
unsigned redirector_backlog_queued(const RedirectorBacklog *b);
bool redirector_backlog_room(const RedirectorBacklog *b);
bool redirector_backlog_put(RedirectorBacklog *b, const PacketFrame *f);

/**
 * redirector_backlog_peek() - Look at the first packets
 * @frames: result, valid until packets are dropped
 * @max: how many at most
 *
 * Return: how many; they are in the direction of the guest
 *
 * redirector_backlog_drop() - Drop the first @n of them
 */
unsigned redirector_backlog_peek(RedirectorBacklog *b, NetClientState *nc,
                                 PacketFrame *frames, unsigned max);
void redirector_backlog_drop(RedirectorBacklog *b, unsigned n);

/**
 * redirector_backlog_drain() - Throw away what lies in a netdev
 * @nf: filter
 * @look: called for what lies in its TAP
 * @opaque: for it
 *
 * Return: how many packets
 */
unsigned redirector_backlog_drain(NetFilterState *nf,
                                  void (*look)(void *opaque,
                                               const PacketFrame *f),
                                  void *opaque);

#endif /* NET_FILTER_REDIRECTOR_BACKLOG_H */
