/*
 * filter-redirector: the hand-over's destination holds back what comes directly
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_HOLD_H
#define NET_FILTER_REDIRECTOR_HOLD_H

#include "filter-redirector-end.h"

/*
 * What comes to the netdev of a guest that has just moved here is held back
 * until a peer has sent what came before: the peer's packets go into the chain
 * through the hold's sink, and then the others from its source.
 */
typedef struct RedirectorHold RedirectorHold;

/**
 * redirector_hold_new() - Make a hold, off
 * @owner: owner
 * @input: chardev that the peer's packets come from, or NULL
 * @chain: where they go to; a sink of redirector_chain_sink()
 */
RedirectorHold *redirector_hold_new(RedirectorOwner *owner,
                                    RedirectorSource *input,
                                    RedirectorSink *chain);
void redirector_hold_free(RedirectorHold *h);

/* Its parts; they are the hold's. */
RedirectorSource *redirector_hold_source(RedirectorHold *h);
RedirectorSink *redirector_hold_sink(RedirectorHold *h);

/**
 * redirector_hold_arm() - The machine waits for its state
 * redirector_hold_start() - Its guest is about to run, for the first time, and
 *                           nothing of it has left yet
 * redirector_hold_give_up() - It is gone
 * redirector_hold_peer() - The peer comes or goes
 */
void redirector_hold_arm(RedirectorHold *h);
void redirector_hold_start(RedirectorHold *h);
void redirector_hold_give_up(RedirectorHold *h);
void redirector_hold_peer(RedirectorHold *h, bool open);

/**
 * redirector_hold_receive() - A packet comes directly
 *
 * As redirector_chain_receive().
 */
ssize_t redirector_hold_receive(RedirectorHold *h, NetClientState *sender,
                                unsigned flags, const struct iovec *iov,
                                int iovcnt);

/**
 * redirector_hold_yield() - Pass all packets on, to a filter that takes them
 *                           along with the guest, which is about to leave
 * @h: hold, which ends
 */
void redirector_hold_yield(RedirectorHold *h);

/* What the netdev has to do with packets for its guest, and its NIC's vhost. */
NetFilterIntake redirector_hold_intake(RedirectorHold *h);
bool redirector_hold_holds_vhost(RedirectorHold *h);

#endif /* NET_FILTER_REDIRECTOR_HOLD_H */
