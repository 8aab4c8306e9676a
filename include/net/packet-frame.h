/*
 * A packet on its way through QEMU
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_NET_PACKET_FRAME_H
#define QEMU_NET_PACKET_FRAME_H

#include "qapi/qapi-types-common.h"
#include "net/net.h"
#include "net/vnet-hdr.h"

/* The longest packet that is carried, bytes, vnet header included. */
#define PACKET_LEN_MAX NET_BUFSIZE

/*
 * A packet with its vnet header.  The payload belongs to who made the frame,
 * and stays where it is until the frame is released there.  A frame must not
 * be moved: @iov may point to @tag.
 */
typedef struct PacketFrame {
    uint8_t hdr[VNET_HDR_LEN_MAX];
    size_t hdr_len;                 /* 0: bare packet */
    struct iovec iov[VNET_VLAN_IOV_MAX];
    unsigned iovcnt;
    size_t len;                     /* bytes of payload */
    size_t cut;                     /* bytes that were left out behind it */
    NetFilterDirection dir;         /* tx: towards the guest; rx: from it */
    int64_t time_ns;                /* when captured: host clock; or 0 */
    uint8_t tag[VNET_VLAN_TAG_LEN]; /* of a captured packet: its VLAN tag */
} PacketFrame;

#endif /* QEMU_NET_PACKET_FRAME_H */
