/*
 * filter-redirector: the pump
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_PUMP_H
#define NET_FILTER_REDIRECTOR_PUMP_H

#include "filter-redirector-end.h"

/* One way of packets.  Both ends belong to somebody else. */
typedef struct RedirectorPump {
    RedirectorSource *source;
    RedirectorSink *sink;
} RedirectorPump;

/**
 * redirector_pump_run() - Move packets, as many as there is room for
 * @p: pump
 *
 * At most a bounded number of them, and of bytes.
 *
 * Return: true if there may be more to do at once
 */
bool redirector_pump_run(RedirectorPump *p);

/**
 * redirector_pump_offer() - Move one packet that the source has at hand
 * @p: pump
 * @f: packet; it is behind all that the source still has, so that has to be
 *     nothing
 *
 * Return: false if the sink does not take it now
 */
bool redirector_pump_offer(RedirectorPump *p, PacketFrame *f);

#endif /* NET_FILTER_REDIRECTOR_PUMP_H */
