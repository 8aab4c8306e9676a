/*
 * filter-redirector: the filter chain of the filter's own netdev as ends
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_CHAIN_H
#define NET_FILTER_REDIRECTOR_CHAIN_H

#include "filter-redirector-end.h"

/**
 * redirector_chain_source() - Take packets that the chain brings
 * @owner: owner
 * @sink: where they go, to which the TAP's intake is fitted
 * @hand_over: also what arrives at the TAP for a guest that has left
 */
RedirectorSource *redirector_chain_source(RedirectorOwner *owner,
                                          RedirectorSink *sink,
                                          bool hand_over);

/**
 * redirector_chain_receive() - The chain brings a packet
 * @s: source
 * @sender: net client that sends it
 * @flags: QEMU_NET_PACKET_FLAG_*
 * @iov: packet, behind a vnet header of the netdev's length, unless it's bare
 * @iovcnt: number of pieces
 *
 * Return: 0 if it is to go on through the chain, else its size
 */
ssize_t redirector_chain_receive(RedirectorSource *s, NetClientState *sender,
                                 unsigned flags, const struct iovec *iov,
                                 int iovcnt);

/**
 * redirector_chain_queued() - How many packets of the chain wait for the sink
 * @s: source
 */
unsigned redirector_chain_queued(RedirectorSource *s);

/**
 * redirector_chain_intake() - What the netdev has to do with packets for its
 *                             guest
 * @s: source
 */
NetFilterIntake redirector_chain_intake(RedirectorSource *s);

/**
 * redirector_chain_sink() - Put packets into the chain
 * @owner: owner
 * @copies: they are copies of the netdev's own: for other filters only
 * @two_way: each packet tells its direction
 * @dir: where they go otherwise
 */
RedirectorSink *redirector_chain_sink(RedirectorOwner *owner, bool copies,
                                      bool two_way, NetFilterDirection dir);

/**
 * redirector_chain_pass() - Put a packet into the chain, room or not
 * @s: sink
 * @f: packet
 *
 * For a filter behind, or for the queue of a NIC whose guest is stopped.
 */
void redirector_chain_pass(RedirectorSink *s, PacketFrame *f);

/**
 * redirector_chain_is_done() - Has the NIC taken all?  Only then can vhost, or
 *                              another queue, go on.
 * @s: sink
 * @since: the caller's: 0, then since when it has
 */
bool redirector_chain_is_done(RedirectorSink *s, int64_t *since);

#endif /* NET_FILTER_REDIRECTOR_CHAIN_H */
