/*
 * Collect what arrives at a TAP: only on Linux
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "net/packet-collect.h"

PacketCollect *packet_collect_start(NetClientState *nc, PacketStream *into)
{
    return NULL;
}

void packet_collect_swap(PacketCollect *c, PacketStream *empty)
{
}

void packet_collect_stop(PacketCollect *c)
{
}
