/*
 * filter-redirector: packet sockets on a TAP's interface as ends
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_PACKET_H
#define NET_FILTER_REDIRECTOR_PACKET_H

#include "filter-redirector-end.h"

typedef struct RedirectorPacketOptions {
    const char *netdev;     /* id of a TAP netdev */
    const char *fd;         /* a packet socket that the user passes, or NULL */
    uint64_t ring_size;     /* capture: bytes */
    uint32_t snaplen;       /* capture: bytes of a packet, or 0 for all */
    const char *filter;     /* capture: see packet_filter_parse(); or NULL */
} RedirectorPacketOptions;

/* What both ends use */

/* An end's netdev and its interface. */
typedef struct RedirectorPacketEnd {
    NetClientState *nc;         /* NULL: removed */
    char *netdev;               /* its id */
    PacketInterface iface;
} RedirectorPacketEnd;

/**
 * redirector_packet_open() - Open, or get, a packet socket on an interface
 * @end: result; its @netdev is to be freed by the caller
 * @property: the property's name, for messages
 * @opt: options
 * @errp: set on failure
 *
 * Return: the socket, or -1
 */
int redirector_packet_open(RedirectorPacketEnd *end, const char *property,
                           const RedirectorPacketOptions *opt, Error **errp);

/**
 * redirector_packet_describe() - Its part of a query
 * @end: end
 * @ifname: the interface's name now
 * @info: result
 */
void redirector_packet_describe(RedirectorPacketEnd *end, const char *ifname,
                                FilterRedirectorEndpoint *info);

/**
 * redirector_packet_state() - The interface's state as an end's
 * @ret: of packet_capture_state() or packet_inject_state()
 */
EndState redirector_packet_state(int ret);

/* The ends */

/**
 * redirector_packet_source() - Capture what passes a TAP's interface
 * @owner: owner
 * @opt: options
 * @errp: set on failure
 *
 * Return: the source, or NULL
 */
RedirectorSource *redirector_packet_source(RedirectorOwner *owner,
                                           const RedirectorPacketOptions *opt,
                                           Error **errp);

/**
 * redirector_packet_sink() - Inject into a TAP, towards its guest
 *
 * As redirector_packet_source().
 */
RedirectorSink *redirector_packet_sink(RedirectorOwner *owner,
                                       const RedirectorPacketOptions *opt,
                                       Error **errp);

#endif /* NET_FILTER_REDIRECTOR_PACKET_H */
