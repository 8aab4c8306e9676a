/*
 * filter-redirector: chardevs as ends
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_CHARDEV_H
#define NET_FILTER_REDIRECTOR_CHARDEV_H

#include "chardev/char-fe.h"
#include "net/packet-stream.h"
#include "filter-redirector-end.h"

/**
 * redirector_find_chardev() - Find a chardev that a property names
 * @property: the property's name
 * @id: the chardev's
 * @errp: set if there is none, or one that does not carry a stream
 */
Chardev *redirector_find_chardev(const char *property, const char *id,
                                 Error **errp);

/* What both ends use */

/**
 * redirector_chardev_no_delay() - Have a socket send what it gets at once
 * @fe: an end's; a batch of packets is one write, and nothing is gained by
 *      waiting for more
 */
void redirector_chardev_no_delay(CharFrontend *fe);

/**
 * redirector_chardev_put_mark() - Append a mark to a stream
 * @stream: stream; there must be room
 * @nc: netdev whose vnet headers' length it has
 * @mark: which one
 */
void redirector_chardev_put_mark(PacketStream *stream,
                                 const NetClientState *nc, HandoverMark mark);

/* The ends */

/**
 * redirector_chardev_source() - Take packets that a peer sends
 * @owner: owner
 * @chr: chardev, in use by nobody else
 * @vnet_hdr: its packets come with the length of their vnet header
 * @errp: set on failure
 *
 * Return: the source, or NULL
 */
RedirectorSource *redirector_chardev_source(RedirectorOwner *owner,
                                            Chardev *chr, bool vnet_hdr,
                                            Error **errp);

/**
 * redirector_chardev_sink() - Send packets to a peer
 * @lossless: a peer that closes its direction has left: it gets no packets
 *            that it may not take any more
 *
 * Otherwise as redirector_chardev_source().
 */
RedirectorSink *redirector_chardev_sink(RedirectorOwner *owner, Chardev *chr,
                                        bool vnet_hdr, bool lossless,
                                        Error **errp);

/**
 * redirector_chardev_queued() - How many packets of the peer wait
 * @s: source
 */
unsigned redirector_chardev_queued(RedirectorSource *s);

/**
 * redirector_chardev_say() - Say something to the peer that sends packets
 * @s: source
 * @mark: what
 *
 * It is not said if the chardev is no socket, or takes no more: who speaks
 * through it must not rely on being heard.
 */
void redirector_chardev_say(RedirectorSource *s, HandoverMark mark);

/**
 * redirector_chardev_forget() - A packet that comes in counts for nothing
 * @s: source
 * @f: packet
 */
void redirector_chardev_forget(RedirectorSource *s, const PacketFrame *f);

/**
 * redirector_chardev_mark() - Send a mark behind the packets
 * @s: sink
 * @mark: which one
 *
 * Return: false if there is no room
 */
bool redirector_chardev_mark(RedirectorSink *s, HandoverMark mark);

/**
 * redirector_chardev_sent() - Has all been sent, or is nobody there?
 * @s: sink
 */
bool redirector_chardev_sent(RedirectorSink *s);

#endif /* NET_FILTER_REDIRECTOR_CHARDEV_H */
