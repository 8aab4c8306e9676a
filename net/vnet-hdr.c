/*
 * virtio-net headers of packets: convert them, move them, do without them
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What is said about Linux here was read in its sources and seen on 6.18.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "standard-headers/linux/virtio_net.h"
#include "net/checksum.h"
#include "net/eth.h"
#include "net/vnet-hdr.h"

/*
 * The longest packet that is worked on: the longest IPv6 datagram. QEMU's
 * checksum helpers add up in 32 bits, which is enough for 128 KiB.
 */
#define VNET_PKT_MAX (ETH_HLEN + VNET_VLAN_DEPTH * VNET_VLAN_TAG_LEN + \
                      sizeof(struct ip6_header) + ETH_MAX_IP_DGRAM_LEN)

QEMU_BUILD_BUG_ON(VNET_HDR_LEN_MAX <
                  sizeof(struct virtio_net_hdr_v1_hash) + 2 * sizeof(uint16_t));
QEMU_BUILD_BUG_ON(VNET_PKT_MAX > 128 * 1024);

bool vnet_hdr_len_ok(size_t len)
{
    switch (len) {
    case 0:
    case sizeof(struct virtio_net_hdr):
    case sizeof(struct virtio_net_hdr_mrg_rxbuf):
    case sizeof(struct virtio_net_hdr_v1_hash):
    case VNET_HDR_LEN_MAX:
        return true;
    default:
        return false;
    }
}

void vnet_hdr_convert(uint8_t *dst, size_t dst_len,
                      const uint8_t *src, size_t src_len)
{
    size_t keep = dst_len == src_len
                  ? src_len
                  : MIN(MIN(dst_len, src_len), sizeof(struct virtio_net_hdr));

    /* From a packet socket to a modern driver: known lengths make it cheap */
    if (dst_len == sizeof(struct virtio_net_hdr_mrg_rxbuf) &&
        keep == sizeof(struct virtio_net_hdr)) {
        memcpy(dst, src, sizeof(struct virtio_net_hdr));
        memset(dst + sizeof(struct virtio_net_hdr), 0,
               sizeof(struct virtio_net_hdr_mrg_rxbuf) -
               sizeof(struct virtio_net_hdr));
        return;
    }
    /* A length of 0 may come with a null pointer, which memcpy() forbids */
    if (keep) {
        memcpy(dst, src, keep);
    }
    if (dst_len > keep) {
        memset(dst + keep, 0, dst_len - keep);
    }
}

/* Header fields are at odd addresses as often as not: read them bytewise */
static size_t vnet_hdr_field(const uint8_t *hdr, size_t offset)
{
    return lduw_he_p(hdr + offset);
}

VnetOffload vnet_hdr_decode(const uint8_t *hdr, size_t len)
{
    VnetOffload o = { .gso_type = VIRTIO_NET_HDR_GSO_NONE };

    if (len < sizeof(struct virtio_net_hdr)) {
        return o;
    }
    o.needs_csum = hdr[offsetof(struct virtio_net_hdr, flags)] &
                   VIRTIO_NET_HDR_F_NEEDS_CSUM;
    o.gso_type = hdr[offsetof(struct virtio_net_hdr, gso_type)];
    o.gso_size = vnet_hdr_field(hdr, offsetof(struct virtio_net_hdr, gso_size));
    o.csum_start = vnet_hdr_field(hdr, offsetof(struct virtio_net_hdr,
                                                csum_start));
    o.csum_pos = o.csum_start +
                 vnet_hdr_field(hdr, offsetof(struct virtio_net_hdr,
                                              csum_offset));
    return o;
}

void vnet_hdr_swap(uint8_t *hdr, size_t len)
{
    static const uint8_t fields[] = {
        offsetof(struct virtio_net_hdr, hdr_len),
        offsetof(struct virtio_net_hdr, gso_size),
        offsetof(struct virtio_net_hdr, csum_start),
        offsetof(struct virtio_net_hdr, csum_offset),
    };
    unsigned i;

    for (i = 0; len && i < ARRAY_SIZE(fields); i++) {
        stw_he_p(hdr + fields[i], bswap16(lduw_he_p(hdr + fields[i])));
    }
}

bool vnet_offload_fits(const VnetOffload *o, size_t len)
{
    return len <= VNET_PKT_MAX &&
           (!o->needs_csum || o->csum_pos + sizeof(uint16_t) <= len);
}

bool vnet_hdr_needed(const uint8_t *hdr, size_t len)
{
    VnetOffload o = vnet_hdr_decode(hdr, len);

    return o.needs_csum || o.gso_type != VIRTIO_NET_HDR_GSO_NONE;
}

static struct iovec vnet_piece(const uint8_t *data, size_t len)
{
    return (struct iovec) { .iov_base = (void *)data, .iov_len = len };
}

static ssize_t vnet_emit_bare(const uint8_t *pkt, size_t len,
                              VnetHdrEmit *emit, void *opaque)
{
    struct iovec iov = vnet_piece(pkt, len);

    emit(opaque, &iov, 1);
    return 1;
}

/* The sender left the pseudo header's sum in the field: just add up */
static ssize_t vnet_emit_checksummed(const VnetOffload *o,
                                     const uint8_t *pkt, size_t len,
                                     VnetHdrEmit *emit, void *opaque)
{
    uint32_t sum = net_checksum_add(len - o->csum_start,
                                    (uint8_t *)pkt + o->csum_start);
    size_t behind = o->csum_pos + sizeof(uint16_t);
    uint8_t csum[sizeof(uint16_t)];
    struct iovec iov[] = {
        vnet_piece(pkt, o->csum_pos),
        vnet_piece(csum, sizeof(csum)),
        vnet_piece(pkt + behind, len - behind),
    };

    /* 0 means "no checksum" in UDP. Linux writes 0xffff for TCP as well. */
    stw_be_p(csum, net_checksum_finish_nozero(sum));
    emit(opaque, iov, ARRAY_SIZE(iov));
    return 1;
}

ssize_t vnet_hdr_complete(const uint8_t *hdr, size_t hdr_len,
                          const uint8_t *pkt, size_t len,
                          VnetHdrEmit *emit, void *opaque)
{
    VnetOffload o = vnet_hdr_decode(hdr, hdr_len);

    if (!o.needs_csum) {
        return vnet_emit_bare(pkt, len, emit, opaque);
    }
    if (!vnet_offload_fits(&o, len)) {
        return -EINVAL;
    }
    return vnet_emit_checksummed(&o, pkt, len, emit, opaque);
}

/* Make up for bytes inserted in front; what no packet can have stays so */
static void vnet_hdr_move(uint8_t *hdr, size_t offset, size_t bytes)
{
    size_t value = vnet_hdr_field(hdr, offset) + bytes;

    stw_he_p(hdr + offset, MIN(value, UINT16_MAX));
}

int vnet_vlan_insert(uint8_t *hdr, size_t hdr_len,
                     const uint8_t *pkt, size_t len,
                     uint16_t tpid, uint16_t tci,
                     uint8_t tag[VNET_VLAN_TAG_LEN],
                     struct iovec iov[VNET_VLAN_IOV_MAX])
{
    VnetOffload o = vnet_hdr_decode(hdr, hdr_len);
    const size_t macs = 2 * ETH_ALEN;

    if (len < macs) {
        iov[0] = vnet_piece(pkt, len);
        return 1;
    }
    if (o.needs_csum) {
        vnet_hdr_move(hdr, offsetof(struct virtio_net_hdr, csum_start),
                      VNET_VLAN_TAG_LEN);
    }
    if (o.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
        vnet_hdr_move(hdr, offsetof(struct virtio_net_hdr, hdr_len),
                      VNET_VLAN_TAG_LEN);
    }
    stw_be_p(tag, tpid);
    stw_be_p(tag + sizeof(tpid), tci);
    iov[0] = vnet_piece(pkt, macs);
    iov[1] = vnet_piece(tag, VNET_VLAN_TAG_LEN);
    iov[2] = vnet_piece(pkt + macs, len - macs);
    return VNET_VLAN_IOV_MAX;
}
