/*
 * Super-packets behind virtio-net headers: cut them as Linux does
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Segmentation follows Linux field by field, so that a packet looks the same
 * whether the kernel finished it or QEMU did. What is said about Linux here
 * was read in its sources and seen on 6.18, against which the unit test
 * compares the results.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "standard-headers/linux/virtio_net.h"
#include "net/checksum.h"
#include "net/eth.h"
#include "net/vnet-gso.h"

/*
 * Room for the headers of a segment. Ethernet, eight tags, IPv6 and the
 * longest TCP header need 146; the rest is for IPv6 extension headers.
 */
#define VNET_HEADERS_MAX 512

/* A super-packet, and the headers of the segment that is being made of it */
typedef struct VnetSuper {
    const uint8_t *pkt;
    size_t len;
    size_t gso_size;
    uint16_t l3_proto;  /* EtherType behind the VLAN tags */
    uint8_t l4_proto;
    size_t l3;          /* offset of the IP header */
    size_t l4;          /* offset of the TCP or UDP header */
    size_t payload;     /* offset of what is cut into segments */
    uint32_t csum_seed; /* checksum over the pseudo header, without length */
    uint8_t headers[VNET_HEADERS_MAX];
} VnetSuper;

/* Which super-packets can be cut: what the GSO type says must be in them */
static const struct {
    uint8_t gso_type;
    uint16_t l3_proto;
    uint8_t l4_proto;
} vnet_gso_kinds[] = {
    { VIRTIO_NET_HDR_GSO_TCPV4, ETH_P_IP, IP_PROTO_TCP },
    { VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN,
      ETH_P_IP, IP_PROTO_TCP },
    { VIRTIO_NET_HDR_GSO_TCPV6, ETH_P_IPV6, IP_PROTO_TCP },
    { VIRTIO_NET_HDR_GSO_TCPV6 | VIRTIO_NET_HDR_GSO_ECN,
      ETH_P_IPV6, IP_PROTO_TCP },
    { VIRTIO_NET_HDR_GSO_UDP_L4, ETH_P_IP, IP_PROTO_UDP },
    { VIRTIO_NET_HDR_GSO_UDP_L4, ETH_P_IPV6, IP_PROTO_UDP },
    { VIRTIO_NET_HDR_GSO_UDP, ETH_P_IP, IP_PROTO_UDP },
};

/*
 * The parsers below find one layer each, and return false if the packet is too
 * short for it or not what the GSO type needs.
 */

static bool vnet_super_find_l3(VnetSuper *s)
{
    s->l3 = ETH_HLEN;
    for (int tags = 0; tags <= VNET_VLAN_DEPTH && s->l3 <= s->len; tags++) {
        s->l3_proto = lduw_be_p(s->pkt + s->l3 - sizeof(s->l3_proto));
        if (s->l3_proto != ETH_P_VLAN && s->l3_proto != ETH_P_DVLAN) {
            return true;
        }
        s->l3 += VNET_VLAN_TAG_LEN;
    }
    return false;
}

static bool vnet_super_find_l4_ip4(VnetSuper *s)
{
    const uint8_t *ip = s->pkt + s->l3;
    size_t ihl;

    if (s->len - s->l3 < sizeof(struct ip_header)) {
        return false;
    }
    ihl = IP_HDR_GET_LEN(ip);
    s->l4 = s->l3 + ihl;
    s->l4_proto = IP_HDR_GET_P(ip);
    return ldub_p(ip) >> 4 == IP_HEADER_VERSION_4 &&
           ihl >= sizeof(struct ip_header) && s->l4 <= s->len &&
           !(lduw_be_p(ip + offsetof(struct ip_header, ip_off)) &
             (IP_OFFMASK | IP_MF));
}

/*
 * Not eth_parse_ipv6_hdr(): it also walks over headers behind which Linux
 * doesn't segment, such as the authentication header, which covers the
 * payload.
 */
static bool vnet_super_find_l4_ip6(VnetSuper *s)
{
    const uint8_t *ip = s->pkt + s->l3;

    if (s->len - s->l3 < sizeof(struct ip6_header) ||
        ldub_p(ip) >> 4 != IP_HEADER_VERSION_6) {
        return false;
    }
    s->l4 = s->l3 + sizeof(struct ip6_header);
    s->l4_proto = ldub_p(ip + offsetof(struct ip6_header, ip6_nxt));

    while (s->l4_proto == IP6_HOP_BY_HOP || s->l4_proto == IP6_ROUTING ||
           s->l4_proto == IP6_DESTINATON) {
        const uint8_t *ext = s->pkt + s->l4;

        if (s->len - s->l4 < IP6_EXT_GRANULARITY) {
            return false;
        }
        s->l4_proto = ldub_p(ext + offsetof(struct ip6_ext_hdr, ip6r_nxt));
        s->l4 += (ldub_p(ext + offsetof(struct ip6_ext_hdr, ip6r_len)) + 1) *
                 IP6_EXT_GRANULARITY;
        if (s->l4 > s->len) {
            return false;
        }
    }
    return true;
}

static bool vnet_super_find_l4(VnetSuper *s)
{
    switch (s->l3_proto) {
    case ETH_P_IP:
        return vnet_super_find_l4_ip4(s);
    case ETH_P_IPV6:
        return vnet_super_find_l4_ip6(s);
    default:
        return false;
    }
}

static bool vnet_super_find_payload(VnetSuper *s, uint8_t gso_type)
{
    const uint8_t *l4 = s->pkt + s->l4;
    size_t l4_len;

    if (s->l4_proto == IP_PROTO_TCP) {
        if (s->len - s->l4 < sizeof(tcp_header)) {
            return false;
        }
        l4_len = (ldub_p(l4 + offsetof(tcp_header, th_offset_flags)) >> 4) * 4;
        if (l4_len < sizeof(tcp_header)) {
            return false;
        }
    } else {
        l4_len = sizeof(udp_header);
    }
    if (s->len - s->l4 < l4_len) {
        return false;
    }
    /* IP fragments: the UDP header is part of what is cut */
    s->payload = gso_type == VIRTIO_NET_HDR_GSO_UDP ? s->l4 : s->l4 + l4_len;
    return s->payload <= VNET_HEADERS_MAX;
}

static bool vnet_super_is_kind(const VnetSuper *s, uint8_t gso_type)
{
    for (size_t i = 0; i < ARRAY_SIZE(vnet_gso_kinds); i++) {
        if (vnet_gso_kinds[i].gso_type == gso_type &&
            vnet_gso_kinds[i].l3_proto == s->l3_proto &&
            vnet_gso_kinds[i].l4_proto == s->l4_proto) {
            return true;
        }
    }
    return false;
}

static size_t vnet_l4_csum_offset(const VnetSuper *s)
{
    return s->l4_proto == IP_PROTO_TCP ? offsetof(tcp_header, th_sum)
                                       : offsetof(udp_header, uh_sum);
}

/*
 * The header may lie about hdr_len, a hint that nobody needs, but not about
 * the checksum: Linux asks for the one of the TCP or UDP header, and for USO
 * it must be there.
 */
static bool vnet_super_csum_fits(const VnetSuper *s, const VnetOffload *o)
{
    if (o->gso_type == VIRTIO_NET_HDR_GSO_UDP) {
        return true;
    }
    if (!o->needs_csum) {
        return s->l4_proto == IP_PROTO_TCP;
    }
    return o->csum_start == s->l4 &&
           o->csum_pos == s->l4 + vnet_l4_csum_offset(s);
}

/* No segment, and no UFO packet as a whole, may exceed an IP datagram */
static bool vnet_super_sizes_fit(const VnetSuper *s, uint8_t gso_type)
{
    if (gso_type == VIRTIO_NET_HDR_GSO_UDP) {
        return s->gso_size % IP_FRAG_UNIT_SIZE == 0 &&
               s->len - s->l3 <= ETH_MAX_IP_DGRAM_LEN;
    }
    return s->payload - s->l3 + s->gso_size <= ETH_MAX_IP_DGRAM_LEN;
}

static bool vnet_super_parse(VnetSuper *s, const VnetOffload *o,
                             const uint8_t *pkt, size_t len)
{
    s->pkt = pkt;
    s->len = len;
    s->gso_size = o->gso_size;

    return s->gso_size != 0 &&
           vnet_super_find_l3(s) && vnet_super_find_l4(s) &&
           vnet_super_is_kind(s, o->gso_type) &&
           vnet_super_find_payload(s, o->gso_type) &&
           vnet_super_csum_fits(s, o) &&
           vnet_super_sizes_fit(s, o->gso_type);
}

static uint32_t vnet_pseudo_header_sum(const VnetSuper *s)
{
    const uint8_t *ip = s->pkt + s->l3;
    const uint8_t *addrs;
    int len;

    if (s->l3_proto == ETH_P_IP) {
        addrs = ip + offsetof(struct ip_header, ip_src);
        len = 2 * sizeof(uint32_t);
    } else {
        addrs = ip + offsetof(struct ip6_header, ip6_src);
        len = 2 * sizeof(struct in6_address);
    }
    return net_checksum_add(len, (uint8_t *)addrs) + s->l4_proto;
}

/*
 * Linux doesn't make the pseudo header anew where the sender left its sum in
 * the checksum field, it takes out the old length: for TCP that of the packet
 * at hand, for UDP the one in the UDP header. A wrong sum stays wrong, so that
 * the receiver sees it.
 */
static uint32_t vnet_csum_seed(const VnetSuper *s, bool needs_csum)
{
    const uint8_t *l4 = s->pkt + s->l4;
    uint32_t old_len;

    if (!needs_csum) {
        return vnet_pseudo_header_sum(s);
    }
    old_len = s->l4_proto == IP_PROTO_TCP
              ? s->len - s->l4
              : lduw_be_p(l4 + offsetof(udp_header, uh_ulen));
    return lduw_be_p(l4 + vnet_l4_csum_offset(s)) +
           net_checksum_finish(old_len);
}

static void vnet_put_ip4(uint8_t *ip, size_t ip_len, uint16_t id, uint16_t off)
{
    stw_be_p(ip + offsetof(struct ip_header, ip_len), ip_len);
    stw_be_p(ip + offsetof(struct ip_header, ip_id), id);
    stw_be_p(ip + offsetof(struct ip_header, ip_off), off);
    stw_be_p(ip + offsetof(struct ip_header, ip_sum), 0);
    stw_be_p(ip + offsetof(struct ip_header, ip_sum),
             net_raw_checksum(ip, IP_HDR_GET_LEN(ip)));
}

/* IPv4: the identification counts the segments, also where DF is set */
static void vnet_segment_put_l3(VnetSuper *s, size_t index, size_t ip_len)
{
    const uint8_t *old = s->pkt + s->l3;
    uint8_t *ip = s->headers + s->l3;

    if (s->l3_proto == ETH_P_IP) {
        vnet_put_ip4(ip, ip_len,
                     lduw_be_p(old + offsetof(struct ip_header, ip_id)) + index,
                     lduw_be_p(old + offsetof(struct ip_header, ip_off)));
    } else {
        stw_be_p(ip + offsetof(struct ip6_header, ip6_plen),
                 ip_len - sizeof(struct ip6_header));
    }
}

/*
 * FIN and PSH belong to the last byte, so to the last segment; CWR is said
 * once, so by the first, whether the header's ECN bit is set or not.
 */
static void vnet_segment_put_tcp(VnetSuper *s, size_t done, bool last)
{
    const uint8_t *old = s->pkt + s->l4;
    uint8_t *tcp = s->headers + s->l4;
    uint32_t seq = ldl_be_p(old + offsetof(tcp_header, th_seq));
    uint16_t flags = lduw_be_p(old + offsetof(tcp_header, th_offset_flags));

    if (!last) {
        flags &= ~(TH_FIN | TH_PUSH);
    }
    if (done) {
        flags &= ~TH_CWR;
    }
    stl_be_p(tcp + offsetof(tcp_header, th_seq), seq + done);
    stw_be_p(tcp + offsetof(tcp_header, th_offset_flags), flags);
}

static void vnet_segment_put_csum(VnetSuper *s, const struct iovec *iov,
                                  int iovcnt)
{
    uint8_t *field = s->headers + s->l4 + vnet_l4_csum_offset(s);
    size_t l4_len = iov_size(iov, iovcnt) - s->l4;
    uint32_t sum;

    stw_be_p(field, 0);
    sum = s->csum_seed + l4_len +
          net_checksum_add_iov(iov, iovcnt, s->l4, l4_len, 0);
    stw_be_p(field, s->l4_proto == IP_PROTO_UDP
                    ? net_checksum_finish_nozero(sum)
                    : net_checksum_finish(sum));
}

/* Cut a TCP or USO super-packet: every segment has all headers */
static ssize_t vnet_super_segment(VnetSuper *s, VnetHdrEmit *emit, void *opaque)
{
    ssize_t count = 0;

    for (size_t off = s->payload; off < s->len; off += s->gso_size) {
        size_t part = MIN(s->gso_size, s->len - off);
        struct iovec iov[] = {
            { s->headers, s->payload },
            { (void *)(s->pkt + off), part },
        };

        vnet_segment_put_l3(s, count, s->payload - s->l3 + part);
        if (s->l4_proto == IP_PROTO_TCP) {
            vnet_segment_put_tcp(s, off - s->payload, off + part == s->len);
        } else {
            stw_be_p(s->headers + s->l4 + offsetof(udp_header, uh_ulen),
                     s->payload - s->l4 + part);
        }
        vnet_segment_put_csum(s, iov, ARRAY_SIZE(iov));
        emit(opaque, iov, ARRAY_SIZE(iov));
        count++;
    }
    return count;
}

/* Linux makes the checksum of a UFO packet anew, whatever the header says */
static void vnet_fragment_udp_header(const VnetSuper *s, uint8_t *udp)
{
    const uint8_t *old = s->pkt + s->l4;
    size_t len = s->len - s->l4;
    uint8_t *field = udp + offsetof(udp_header, uh_sum);
    uint32_t sum;

    memcpy(udp, old, sizeof(udp_header));
    stw_be_p(field, 0);
    sum = vnet_pseudo_header_sum(s) + len +
          net_checksum_add(sizeof(udp_header), udp) +
          net_checksum_add(len - sizeof(udp_header),
                           (uint8_t *)old + sizeof(udp_header));
    stw_be_p(field, net_checksum_finish_nozero(sum));
}

/*
 * Cut a UFO packet to IP fragments: only the first has the UDP header, all
 * have the same identification, and DF is gone. Linux guests before 4.14 send
 * such packets. Linux takes them from a packet socket, but doesn't give them to
 * one: on 6.18, recv() with PACKET_VNET_HDR fails with EINVAL instead.
 */
static ssize_t vnet_super_fragment(VnetSuper *s, VnetHdrEmit *emit,
                                   void *opaque)
{
    uint16_t id = lduw_be_p(s->pkt + s->l3 + offsetof(struct ip_header, ip_id));
    uint8_t udp[sizeof(udp_header)];
    size_t lead = sizeof(udp);
    ssize_t count = 0;

    vnet_fragment_udp_header(s, udp);
    for (size_t off = s->l4; off < s->len; off += s->gso_size) {
        size_t part = MIN(s->gso_size, s->len - off);
        bool last = off + part == s->len;
        struct iovec iov[] = {
            { s->headers, s->l4 },
            { udp, lead },
            { (void *)(s->pkt + off + lead), part - lead },
        };

        vnet_put_ip4(s->headers + s->l3, s->l4 - s->l3 + part, id,
                     (off - s->l4) / IP_FRAG_UNIT_SIZE | (last ? 0 : IP_MF));
        emit(opaque, iov, ARRAY_SIZE(iov));
        lead = 0;
        count++;
    }
    return count;
}

ssize_t vnet_hdr_finish(const uint8_t *hdr, size_t hdr_len,
                        const uint8_t *pkt, size_t len,
                        VnetHdrEmit *emit, void *opaque)
{
    VnetOffload o = vnet_hdr_decode(hdr, hdr_len);
    VnetSuper s;

    if (o.gso_type == VIRTIO_NET_HDR_GSO_NONE) {
        return vnet_hdr_complete(hdr, hdr_len, pkt, len, emit, opaque);
    }
    if (!vnet_offload_fits(&o, len) || !vnet_super_parse(&s, &o, pkt, len)) {
        return -EINVAL;
    }
    /* What fits in one segment isn't a super-packet, says Linux */
    if (len - s.payload <= s.gso_size) {
        return vnet_hdr_complete(hdr, hdr_len, pkt, len, emit, opaque);
    }
    s.csum_seed = vnet_csum_seed(&s, o.needs_csum);
    memcpy(s.headers, pkt, s.payload);
    return o.gso_type == VIRTIO_NET_HDR_GSO_UDP
           ? vnet_super_fragment(&s, emit, opaque)
           : vnet_super_segment(&s, emit, opaque);
}
