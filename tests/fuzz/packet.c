/*
 * Packets with offloads for the fuzzers, and what is right about them
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "packet.h"

enum {
    F_NEEDS_CSUM = 1,
    GSO_NONE = 0, GSO_TCP4 = 1, GSO_UFO = 3, GSO_TCP6 = 4, GSO_USO = 5,
    GSO_ECN = 0x80,
};

/* Offsets in the vnet header */
enum { HDR_FLAGS, HDR_GSO_TYPE, HDR_LEN = 2, HDR_GSO_SIZE = 4,
       HDR_CSUM_START = 6, HDR_CSUM_OFFSET = 8, HDR_BASIC = 10 };

#define SEGMENTS_MAX 40

/* What is built, before anything is wrong with it */
typedef struct Shape {
    bool ip6;
    bool tcp;
    bool super;
    bool ufo;
    bool ecn;
    bool needs_csum;
    unsigned tags;
    unsigned ip_extra;      /* bytes of IPv4 options or extension headers */
    unsigned tcp_options;   /* bytes */
    unsigned gso_size;
    size_t payload;
} Shape;

unsigned fuzz_hdr_gso_type(const FuzzPacket *p)
{
    return p->hdr_len ? p->hdr[HDR_GSO_TYPE] : 0;
}

unsigned fuzz_hdr_gso_size(const FuzzPacket *p)
{
    return p->hdr_len ? lduw_he_p(p->hdr + HDR_GSO_SIZE) : 0;
}

unsigned fuzz_hdr_csum_start(const FuzzPacket *p)
{
    return p->hdr_len ? lduw_he_p(p->hdr + HDR_CSUM_START) : 0;
}

unsigned fuzz_hdr_csum_offset(const FuzzPacket *p)
{
    return p->hdr_len ? lduw_he_p(p->hdr + HDR_CSUM_OFFSET) : 0;
}

bool fuzz_hdr_needs_csum(const FuzzPacket *p)
{
    return p->hdr_len && (p->hdr[HDR_FLAGS] & F_NEEDS_CSUM);
}

/* Not instrumented: it is most of the work, and none of what is tested. */
__attribute__((no_sanitize("address", "undefined", "coverage")))
uint16_t fuzz_sum(const uint8_t *data, size_t len, uint64_t start)
{
    uint64_t sum = start;
    size_t i;

    for (i = 0; i + 1 < len; i += 2) {
        sum += data[i] << 8 | data[i + 1];
    }
    if (len & 1) {
        sum += data[len - 1] << 8;
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

uint32_t fuzz_pseudo(const uint8_t *data, const FuzzLayers *l)
{
    return fuzz_sum(data + l->l3 + (l->ip6 ? 8 : 12), l->ip6 ? 32 : 8,
                    l->tcp ? 6 : 17);
}

static bool find_ip4(const uint8_t *ip, size_t len, FuzzLayers *l,
                     unsigned *proto)
{
    size_t ihl;

    if (len < 20 || ip[0] >> 4 != 4) {
        return false;
    }
    ihl = (ip[0] & 15) * 4;
    *proto = ip[9];
    l->l4 = l->l3 + ihl;
    return ihl >= 20 && ihl <= len && !(lduw_be_p(ip + 6) & 0x3fff);
}

static bool find_ip6(const uint8_t *ip, size_t len, FuzzLayers *l,
                     unsigned *proto)
{
    size_t at = 40;

    if (len < 40 || ip[0] >> 4 != 6) {
        return false;
    }
    *proto = ip[6];
    while (*proto == 0 || *proto == 43 || *proto == 60) {
        if (at + 8 > len) {
            return false;
        }
        *proto = ip[at];
        at += 8 + 8 * ip[at + 1];
    }
    l->l4 = l->l3 + at;
    l->ip6 = true;
    return at <= len;
}

bool fuzz_layers(const uint8_t *data, size_t len, FuzzLayers *l)
{
    unsigned type, proto;
    size_t at = 12;
    bool found;

    *l = (FuzzLayers) {};
    for (; at + 2 <= len; at += 4, l->tags++) {
        type = lduw_be_p(data + at);
        if (type != 0x8100 && type != 0x88a8) {
            break;
        }
    }
    l->l3 = at + 2;
    if (l->l3 > len) {
        return false;
    }
    found = type == 0x0800 ? find_ip4(data + l->l3, len - l->l3, l, &proto)
          : type == 0x86dd ? find_ip6(data + l->l3, len - l->l3, l, &proto)
          : false;
    if (!found || (proto != 6 && proto != 17)) {
        return false;
    }
    l->tcp = proto == 6;
    if (l->l4 + (l->tcp ? 20 : 8) > len) {
        return false;
    }
    l->payload = l->l4 + (l->tcp ? (data[l->l4 + 12] >> 4) * 4 : 8);
    return l->payload <= len && (!l->tcp || l->payload >= l->l4 + 20);
}

static Shape take_shape(FuzzInput *in)
{
    static const uint8_t tags[8] = { 0, 0, 0, 0, 1, 2, 7, 8 };
    static const uint8_t shifts[4] = { 0, 0, 2, 6 };
    unsigned bits = take8(in), more = take8(in);
    Shape s = {
        .ip6 = bits & 1,
        .tcp = bits & 2,
        .super = bits & 4,
        .ecn = (bits & 8) && (bits & 2),
        .needs_csum = bits & 16,
        .tags = tags[bits >> 5],
        .ip_extra = more & 3 ? (more & 3) * 8 : 0,
        .tcp_options = bits & 2 ? (more >> 2 & 15) % 11 * 4 : 0,
        .payload = take8(in) << shifts[more >> 6],
    };

    s.ufo = s.super && !s.tcp && !s.ip6 && (bits & 8);
    s.payload += take8(in);
    s.gso_size = 1 + take8(in) * (more & 64 ? 8 : 1);
    /* Not more segments than a run has time for */
    s.gso_size = MAX(s.gso_size, s.payload / SEGMENTS_MAX + 1);
    if (s.ufo) {
        s.gso_size = ROUND_UP(s.gso_size, 8);
    }
    if (s.super && !s.tcp && !s.ufo) {
        s.needs_csum = true;    /* Linux asks for it */
    }
    return s;
}

static size_t build_ip(const Shape *s, uint8_t *p, size_t l4_len,
                       unsigned proto)
{
    size_t ip_len = (s->ip6 ? 40 : 20) + s->ip_extra;
    unsigned i;

    if (!s->ip6) {
        p[0] = 0x40 | ip_len / 4;
        stw_be_p(p + 2, ip_len + l4_len);
        stw_be_p(p + 4, 0xfffe);
        stw_be_p(p + 6, s->ufo ? 0 : 0x4000);
        p[8] = 64;
        p[9] = proto;
        stl_be_p(p + 12, 0x0a010203);
        stl_be_p(p + 16, 0xc0a8fffe);
        memset(p + 20, 1, s->ip_extra);     /* no operation */
        stw_be_p(p + 10, ~fuzz_sum(p, ip_len, 0));
        return ip_len;
    }
    p[0] = 0x60;
    stw_be_p(p + 4, s->ip_extra + l4_len);
    p[6] = s->ip_extra ? 0 : proto;
    p[7] = 64;
    fill_pattern(p + 8, 32, s->payload);
    for (i = 40; i < ip_len; i += 8) {
        p[i] = i + 8 < ip_len ? 60 : proto;
        stw_be_p(p + i + 2, 0x0104);        /* padding of 4 bytes */
    }
    return ip_len;
}

static void build_hdr(const Shape *s, FuzzPacket *p, size_t l4, size_t payload)
{
    unsigned type = s->ufo ? GSO_UFO : !s->tcp ? GSO_USO
                  : (s->ip6 ? GSO_TCP6 : GSO_TCP4) | (s->ecn ? GSO_ECN : 0);

    if (s->super) {
        p->hdr[HDR_GSO_TYPE] = type;
        stw_he_p(p->hdr + HDR_GSO_SIZE, s->gso_size);
        stw_he_p(p->hdr + HDR_LEN, payload);
    }
    if (s->needs_csum) {
        p->hdr[HDR_FLAGS] = F_NEEDS_CSUM;
        stw_he_p(p->hdr + HDR_CSUM_START, l4);
        stw_he_p(p->hdr + HDR_CSUM_OFFSET, s->tcp ? 16 : 6);
    }
}

static void build(const Shape *s, FuzzPacket *p)
{
    size_t l4_hdr = s->tcp ? 20 + s->tcp_options : 8;
    size_t l4_len = l4_hdr + s->payload;
    size_t l3 = 14 + 4 * s->tags, l4;
    FuzzLayers layers;
    unsigned i;

    fill_pattern(p->data, 12, 1);
    memset(p->data + 12, 0, 200);
    for (i = 0; i < s->tags; i++) {
        stw_be_p(p->data + 12 + 4 * i, i ? 0x8100 : 0x88a8);
        stw_be_p(p->data + 14 + 4 * i, 0x2123 + i);
    }
    stw_be_p(p->data + l3 - 2, s->ip6 ? 0x86dd : 0x0800);
    l4 = l3 + build_ip(s, p->data + l3, l4_len, s->tcp ? 6 : 17);
    memset(p->data + l4, 0, l4_hdr);
    stl_be_p(p->data + l4, 0x12345678);     /* ports */
    if (s->tcp) {
        stl_be_p(p->data + l4 + 4, 0xfffffff0);
        stw_be_p(p->data + l4 + 12, (l4_hdr / 4) << 12 | 0xd9);
        memset(p->data + l4 + 20, 1, s->tcp_options);
    } else {
        stw_be_p(p->data + l4 + 4, l4_len);
    }
    fill_pattern(p->data + l4 + l4_hdr, s->payload, s->payload);
    p->len = l4 + l4_len;
    build_hdr(s, p, l4, l4 + l4_hdr);

    g_assert(fuzz_layers(p->data, p->len, &layers) && layers.l4 == l4);
    if (s->needs_csum) {
        stw_be_p(p->data + l4 + (s->tcp ? 16 : 6),
                 fuzz_sum(NULL, 0, fuzz_pseudo(p->data, &layers) + l4_len));
    }
}

/* Changes anywhere, most of them where they hurt: headers, and the length. */
static void mutate(FuzzInput *in, FuzzPacket *p)
{
    unsigned place, value;

    while (in->len >= 3) {
        place = take16(in);
        value = take8(in);
        p->mutated = true;
        if (place < HDR_BASIC) {
            p->hdr[place] = value;
        } else if (place >= 0xff00) {
            p->len = MIN(p->len, value);
        } else if (place >= 0xfe00) {
            size_t more = MIN(value * 300, FUZZ_PACKET_MAX - p->len);

            memset(p->data + p->len, value, more);
            p->len += more;
        } else if (place - HDR_BASIC < p->len) {
            p->data[place - HDR_BASIC] = value;
        }
    }
    if (fuzz_hdr_gso_size(p) < p->len / (4 * SEGMENTS_MAX)) {
        stw_he_p(p->hdr + HDR_GSO_SIZE, p->len / (4 * SEGMENTS_MAX));
    }
}

void fuzz_packet(FuzzInput *in, FuzzPacket *p)
{
    static const uint8_t hdr_lens[8] = { 10, 10, 10, 12, 12, 20, 24, 0 };
    Shape s;

    p->hdr_len = hdr_lens[take8(in) & 7];
    p->mutated = false;
    memset(p->hdr, 0, sizeof(p->hdr));
    s = take_shape(in);
    build(&s, p);
    mutate(in, p);
}
