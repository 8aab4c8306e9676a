/*
 * filter-redirector: what comes directly to a guest that has just moved
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_DIRECT_H
#define NET_FILTER_REDIRECTOR_DIRECT_H

#include "filter-redirector-backlog.h"
#include "filter-redirector-twins.h"

/* It waits until the guest has got what the source sends, and comes once. */
typedef struct RedirectorDirect {
    NetFilterState *nf;
    RedirectorBacklog backlog;
    RedirectorTwins twins;
    uint64_t packets;           /* given to the guest */
    uint64_t cancelled;         /* the source had sent the same, or did then */
    uint64_t stale;             /* thrown away: came before the guest ran */
    uint64_t lost;              /* the guest did not take them */
} RedirectorDirect;

/**
 * redirector_direct_drain() - Throw away what has come before the guest ran
 * @d: what comes directly
 *
 * redirector_direct_begin() - Keep what comes now
 * @collect: have a thread read the TAP
 *
 * redirector_direct_end() - All that is left is lost
 */
void redirector_direct_drain(RedirectorDirect *d);
void redirector_direct_begin(RedirectorDirect *d, bool collect);
void redirector_direct_end(RedirectorDirect *d);

/**
 * redirector_direct_receive() - A packet comes through QEMU
 *
 * As a filter's receive_iov(); it may be lost, which is counted.
 *
 * Return: whether it was for the guest alone
 */
bool redirector_direct_receive(RedirectorDirect *d, unsigned flags,
                               const struct iovec *iov, int iovcnt);

/**
 * redirector_direct_read() - Look at the first packets
 *
 * As RedirectorSourceOps.read(); those that the source had sent are dropped.
 *
 * redirector_direct_release() - The guest has got the first @n
 */
unsigned redirector_direct_read(RedirectorDirect *d, PacketFrame *frames,
                                unsigned max);
void redirector_direct_release(RedirectorDirect *d, const PacketFrame *frames,
                               unsigned n);

/* redirector_direct_any() - Is any left? */
bool redirector_direct_any(RedirectorDirect *d);

/**
 * redirector_direct_copied() - Is one of the first ones, and for the guest
 *                              alone, one that the source has sent, too?
 */
bool redirector_direct_copied(RedirectorDirect *d);

/**
 * redirector_direct_takes_source() - Is one that the source sends to be given
 *                                    to the guest?
 */
bool redirector_direct_takes_source(RedirectorDirect *d, const PacketFrame *f);

#endif /* NET_FILTER_REDIRECTOR_DIRECT_H */
