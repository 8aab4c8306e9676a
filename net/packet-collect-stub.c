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

unsigned packet_collect_queued(PacketCollect *c)
{
    return 0;
}

bool packet_collect_put(PacketCollect *c, const PacketFrame *f)
{
    return false;
}

void packet_collect_swap(PacketCollect *c, PacketStream *empty)
{
}

bool packet_collect_any(PacketCollect *c, PacketCollectTest *test,
                        void *opaque)
{
    return false;
}

void packet_collect_finish(PacketCollect *c)
{
}

void packet_collect_stop(PacketCollect *c)
{
}

void packet_collect_now(NetClientState *nc, PacketStream *into)
{
}
