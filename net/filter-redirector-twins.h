/*
 * filter-redirector: what reaches both hosts of a hand-over, and what doesn't
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_TWINS_H
#define NET_FILTER_REDIRECTOR_TWINS_H

#include "net/packet-frame.h"

/*
 * Flooded frames reach both hosts; in some networks, others do as well.  The
 * guest gets each of them once: one that comes directly cancels an equal one
 * that was handed over, and the other way round.
 *
 * Not all that is flooded in some networks is in others: switches that look
 * into IGMP and MLD (RFC 4541) send a multicast group's frames where its
 * members are.  QEMU's announcement says nothing to them: until the guest
 * reports at its new host that it is a member, they go on sending to the
 * source.  Some guests do that when somebody asks, which may take minutes.
 *
 * Frames and groups are remembered in bounded memory.  Nothing here does I/O.
 */
typedef struct RedirectorTwins {
    bool all;                   /* what is for the guest alone comes to both */
    unsigned missing;           /* groups that only the source gets */
    GHashTable *handed;         /* frames handed over -> how often */
    GHashTable *direct;         /* of groups, that came directly; likewise */
    size_t bytes[3];            /* of these; see bytes_of() */
    GHashTable *groups;         /* address -> it comes here */
} RedirectorTwins;

#define REDIRECTOR_TWINS_BYTES (4 * 1024 * 1024)

/**
 * redirector_twins_begin() - Begin to remember
 * @t: twins, all zero before the first time
 * @groups: groups, too: what has come here before is told
 *
 * redirector_twins_end() - Forget all but @all
 */
void redirector_twins_begin(RedirectorTwins *t, bool groups);
void redirector_twins_end(RedirectorTwins *t);

/**
 * redirector_twins_stale() - A frame came here before the guest ran
 * @f: frame
 * @guest: the guest's address, six bytes
 */
void redirector_twins_stale(RedirectorTwins *t, const PacketFrame *f,
                            const uint8_t *guest);

/**
 * redirector_twins_take_source() - Does one of the source equal one that came
 *                                  directly?
 *
 * One cancels one.
 *
 * redirector_twins_source() - The guest got one that the source had sent
 */
bool redirector_twins_take_source(RedirectorTwins *t, const PacketFrame *f);
void redirector_twins_source(RedirectorTwins *t, const PacketFrame *f);

/**
 * redirector_twins_has_direct() - Does one that came directly equal one that
 *                                 the source had sent?
 * redirector_twins_take_direct() - It has cancelled it
 * redirector_twins_direct() - The guest got one that came directly
 */
bool redirector_twins_has_direct(const RedirectorTwins *t,
                                 const PacketFrame *f);
void redirector_twins_take_direct(RedirectorTwins *t, const PacketFrame *f);
void redirector_twins_direct(RedirectorTwins *t, const PacketFrame *f);

/* To the guest: tell of which groups you are a member, by IGMP and by MLD. */
#define REDIRECTOR_TWINS_QUERIES 2

/**
 * redirector_twins_query() - Make a general query
 * @i: which one, less than REDIRECTOR_TWINS_QUERIES
 * @f: result; it is nobody's to free
 *
 * Members answer within 100 ms (IGMP) or 1 ms (MLD).  Versions are the newest,
 * which older members understand and newer ones don't get older by; and it
 * comes from addresses that no querier gives way to (RFC 3376, 3810, 4541).
 */
void redirector_twins_query(unsigned i, PacketFrame *f);

#endif /* NET_FILTER_REDIRECTOR_TWINS_H */
