/*
 * virtio-net headers of packets: convert them, move them, do without them
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A packet on a TAP device, on a packet socket or in a filter chain may stand
 * behind a virtio-net header ("vnet header"), which says what is still to be
 * done to it: fill in a checksum, cut a super-packet into segments. This
 * module knows those headers and the packets behind them, and nothing else:
 * no sockets, no netdevs, no filters. All functions are reentrant, none
 * allocates, and none trusts a byte of what it is given.
 *
 * A header is passed as bytes and a length: 0 (the packet is bare), 10 (struct
 * virtio_net_hdr), 12 (with num_buffers), 20 (with the hash) or 24 (with the
 * offsets of a UDP tunnel). Only the first 10 bytes mean anything here. Their
 * fields are in the host's byte order: that is how a packet socket has them,
 * and a TAP device unless TUNSETVNETLE or TUNSETVNETBE says otherwise.
 */

#ifndef NET_VNET_HDR_H
#define NET_VNET_HDR_H

/* The longest vnet header any netdev uses, in bytes */
#define VNET_HDR_LEN_MAX 24

/* A VLAN tag (TPID and TCI) in the packet, in bytes */
#define VNET_VLAN_TAG_LEN 4

/* Linux looks for the network header behind as many VLAN tags at most */
#define VNET_VLAN_DEPTH 8

/* How many pieces vnet_vlan_insert() makes of a packet at most */
#define VNET_VLAN_IOV_MAX 3

/**
 * VnetHdrEmit() - take one packet that needs no vnet header any more
 * @opaque: what the caller gave for it
 * @iov: pieces of the bare packet, valid until this function returns
 * @iovcnt: number of pieces, 1 to 3
 */
typedef void VnetHdrEmit(void *opaque, const struct iovec *iov, int iovcnt);

/**
 * vnet_hdr_len_ok() - check that a vnet header can have this length
 * @len: length in bytes
 *
 * Return: true for 0, 10, 12, 20 and 24
 */
bool vnet_hdr_len_ok(size_t len);

/**
 * vnet_hdr_convert() - rewrite a vnet header with another length
 * @dst: where the new header goes, @dst_len bytes; must not overlap @src
 * @dst_len: length of the new header in bytes
 * @src: the old header, @src_len bytes
 * @src_len: length of the old header in bytes
 *
 * Both lengths are those vnet_hdr_len_ok() accepts. The first 10 bytes (flags,
 * GSO type and size, checksum) are kept, the rest is zero: the number of
 * buffers, the hash and the tunnel offsets belong to the device that wrote
 * them. Equal lengths make an exact copy; no old header (0) makes a header
 * that asks for nothing; no new header (0) writes nothing, so see to
 * vnet_hdr_needed() first.
 */
void vnet_hdr_convert(uint8_t *dst, size_t dst_len,
                      const uint8_t *src, size_t src_len);

/**
 * vnet_hdr_swap() - turn a vnet header's fields round, in place
 * @hdr: the header, @len bytes
 * @len: length of the header in bytes, 0 for none
 *
 * For a TAP device whose headers are not in the host's byte order. Only the
 * fields of the first 10 bytes are turned round; the rest stays as it is.
 */
void vnet_hdr_swap(uint8_t *hdr, size_t len);

/**
 * vnet_hdr_needed() - check if a packet can't do without its vnet header
 * @hdr: the header, @len bytes
 * @len: length of the header in bytes, 0 for none
 *
 * Return: true if a checksum is missing or the packet is a super-packet
 */
bool vnet_hdr_needed(const uint8_t *hdr, size_t len);

/* What the first 10 bytes of a vnet header ask for */
typedef struct VnetOffload {
    bool needs_csum;
    uint8_t gso_type;
    size_t gso_size;    /* payload of a segment, bytes */
    size_t csum_start;  /* where the checksummed part of the packet starts */
    size_t csum_pos;    /* where in the packet the checksum goes */
} VnetOffload;

/**
 * vnet_hdr_decode() - read a vnet header
 * @hdr: the header, @len bytes
 * @len: length of the header in bytes, 0 for none
 *
 * Return: what it asks for, nothing if there is none
 */
VnetOffload vnet_hdr_decode(const uint8_t *hdr, size_t len);

/**
 * vnet_offload_fits() - check what a vnet header asks for against its packet
 * @o: what it asks for
 * @len: length of the packet in bytes
 *
 * Return: false if the packet is longer than any datagram with its tags, or
 *         does not have the place where the checksum goes
 */
bool vnet_offload_fits(const VnetOffload *o, size_t len);

/**
 * vnet_hdr_complete() - fill in a packet's checksum, if that is missing
 * @hdr: the header, @hdr_len bytes
 * @hdr_len: length of the header in bytes, 0 for none
 * @pkt: the packet, Ethernet header first, VLAN tags in their places
 * @len: length of the packet in bytes
 * @emit: called for the resulting packet
 * @opaque: passed to @emit
 *
 * A super-packet stays whole: it gets the checksum that a packet of its length
 * would have. The payload is not copied.
 *
 * Return: 1; -EINVAL if the checksum's place is outside of the packet, and then
 *         nothing was emitted
 */
ssize_t vnet_hdr_complete(const uint8_t *hdr, size_t hdr_len,
                          const uint8_t *pkt, size_t len,
                          VnetHdrEmit *emit, void *opaque);

/**
 * vnet_vlan_insert() - put a VLAN tag back into a packet, without copying it
 * @hdr: the packet's vnet header, @hdr_len bytes, adjusted in place
 * @hdr_len: length of the header in bytes, 0 for none
 * @pkt: the packet without the tag, Ethernet header first
 * @len: length of the packet in bytes
 * @tpid: EtherType of the tag (0x8100, 0x88a8), host byte order
 * @tci: priority and VLAN id of the tag, host byte order
 * @tag: where the tag's bytes go; @iov points to it
 * @iov: filled with MAC addresses, tag, rest of the packet
 *
 * A packet socket has the outermost tag beside the packet, not in it, and
 * counts the offsets in the vnet header without it. A packet too short to hold
 * its MAC addresses can't have had a tag: it stays as it is, in one piece.
 *
 * Return: number of elements used in @iov, 3, or 1 for such a runt
 */
int vnet_vlan_insert(uint8_t *hdr, size_t hdr_len,
                     const uint8_t *pkt, size_t len,
                     uint16_t tpid, uint16_t tci,
                     uint8_t tag[VNET_VLAN_TAG_LEN],
                     struct iovec iov[VNET_VLAN_IOV_MAX]);

#endif /* NET_VNET_HDR_H */
