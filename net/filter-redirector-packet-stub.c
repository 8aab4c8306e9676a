/*
 * filter-redirector: packet sockets on hosts that have none
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "filter-redirector-packet.h"

/* Not reached: without the properties nobody can ask for them. */

RedirectorSource *redirector_packet_source(RedirectorOwner *owner,
                                           const RedirectorPacketOptions *opt,
                                           Error **errp)
{
    g_assert_not_reached();
}

RedirectorSink *redirector_packet_sink(RedirectorOwner *owner,
                                       const RedirectorPacketOptions *opt,
                                       Error **errp)
{
    g_assert_not_reached();
}
