/*
 * Fuzzer of net/vnet-hdr.c and net/vnet-gso.c: conversion, checksums, segmentation
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A right packet must be accepted.  Whatever is accepted is compared with what
 * the headers ask for, field by field.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "packet.h"

typedef struct Output {
    const FuzzPacket *in;
    FuzzLayers l;
    bool ufo;
    unsigned n;             /* packets so far */
    size_t payload;         /* bytes of payload in them */
} Output;

static uint8_t out[FUZZ_PACKET_MAX];
static size_t out_len;

static void count(void *opaque, const struct iovec *iov, int iovcnt)
{
    unsigned *n = opaque;

    g_assert(iovcnt >= 1 && iovcnt <= VNET_VLAN_IOV_MAX);
    (*n)++;
}

static void check_ip4_sum(const uint8_t *ip)
{
    g_assert(fuzz_sum(ip, (ip[0] & 15) * 4, 0) == 0xffff);
}

static void check_segment_l3(const Output *o, unsigned index)
{
    const uint8_t *was = o->in->data + o->l.l3, *ip = out + o->l.l3;
    size_t len = out_len - o->l.l3, hdr = o->l.l4 - o->l.l3;

    if (o->l.ip6) {
        g_assert(lduw_be_p(ip + 4) == len - 40);
        g_assert(!memcmp(ip, was, 4) && !memcmp(ip + 6, was + 6, hdr - 6));
        return;
    }
    g_assert(lduw_be_p(ip + 2) == len);
    g_assert(lduw_be_p(ip + 4) == (uint16_t)(lduw_be_p(was + 4) + index));
    g_assert(!memcmp(ip, was, 2) && !memcmp(ip + 6, was + 6, 4));
    g_assert(!memcmp(ip + 12, was + 12, hdr - 12));
    check_ip4_sum(ip);
}

static void check_segment_tcp(const Output *o, bool last)
{
    const uint8_t *was = o->in->data + o->l.l4, *tcp = out + o->l.l4;
    unsigned flags = was[13];

    flags &= ~((last ? 0 : 0x09) | (o->n ? 0x80 : 0));  /* FIN, PSH; CWR */
    g_assert(tcp[13] == flags);
    g_assert(ldl_be_p(tcp + 4) == ldl_be_p(was + 4) + (uint32_t)o->payload);
    g_assert(!memcmp(tcp, was, 4) && !memcmp(tcp + 8, was + 8, 5));
    g_assert(!memcmp(tcp + 14, was + 14, 2));
    g_assert(!memcmp(tcp + 18, was + 18, o->l.payload - o->l.l4 - 18));
}

/*
 * The checksum is right if the sender left the right sum in the field, and as
 * wrong as that otherwise.
 */
static void check_segment_csum(const Output *o)
{
    const uint8_t *was = o->in->data + o->l.l4;
    size_t field = o->l.tcp ? 16 : 6, len = out_len - o->l.l4;
    size_t old_len = o->l.tcp ? o->in->len - o->l.l4 : lduw_be_p(was + 4);
    uint64_t start = fuzz_pseudo(out, &o->l) + len;

    if (fuzz_hdr_needs_csum(o->in)) {
        start = len + lduw_be_p(was + field) + (0xffff ^ fuzz_sum(NULL, 0,
                                                                  old_len));
    }
    g_assert(fuzz_sum(out + o->l.l4, len, start) % 0xffff == 0);
    if (!o->l.tcp) {
        g_assert(lduw_be_p(out + o->l.l4 + 6));
    }
}

static void take_segment(void *opaque, const struct iovec *iov, int iovcnt)
{
    Output *o = opaque;
    size_t gso = fuzz_hdr_gso_size(o->in), part;
    bool last;

    out_len = iov_to_buf(iov, iovcnt, 0, out, sizeof(out));
    g_assert(out_len == iov_size(iov, iovcnt) && out_len > o->l.payload);
    part = out_len - o->l.payload;
    last = o->l.payload + o->payload + part == o->in->len;
    g_assert(last ? part <= gso : part == gso);
    g_assert(!memcmp(out + o->l.payload,
                     o->in->data + o->l.payload + o->payload, part));
    g_assert(!memcmp(out, o->in->data, o->l.l3));
    check_segment_l3(o, o->n);
    if (o->l.tcp) {
        check_segment_tcp(o, last);
    } else {
        g_assert(!memcmp(out + o->l.l4, o->in->data + o->l.l4, 4));
        g_assert(lduw_be_p(out + o->l.l4 + 4) == out_len - o->l.l4);
    }
    check_segment_csum(o);
    o->payload += part;
    o->n++;
}

/* Fragments: put together they are the datagram, with its checksum */
static uint8_t datagram[FUZZ_PACKET_MAX];

static void take_fragment(void *opaque, const struct iovec *iov, int iovcnt)
{
    Output *o = opaque;
    const uint8_t *ip = out + o->l.l3;
    size_t part;
    bool last;

    out_len = iov_to_buf(iov, iovcnt, 0, out, sizeof(out));
    g_assert(out_len == iov_size(iov, iovcnt) && out_len > o->l.l4);
    part = out_len - o->l.l4;
    last = o->l.l4 + o->payload + part == o->in->len;
    g_assert(last ? part <= fuzz_hdr_gso_size(o->in)
                  : part == fuzz_hdr_gso_size(o->in));
    g_assert(!memcmp(out, o->in->data, o->l.l3));
    g_assert(lduw_be_p(ip + 2) == out_len - o->l.l3);
    g_assert(!memcmp(ip + 4, o->in->data + o->l.l3 + 4, 2));
    g_assert(lduw_be_p(ip + 6) == (o->payload / 8 | (last ? 0 : 0x2000)));
    g_assert(o->payload % 8 == 0);
    g_assert(!memcmp(ip + 12, o->in->data + o->l.l3 + 12,
                     o->l.l4 - o->l.l3 - 12));
    check_ip4_sum(ip);
    memcpy(datagram + o->payload, out + o->l.l4, part);
    o->payload += part;
    o->n++;
}

static void check_datagram(const Output *o)
{
    const uint8_t *was = o->in->data + o->l.l4;
    size_t len = o->in->len - o->l.l4;

    g_assert(o->payload == len);
    g_assert(!memcmp(datagram, was, 6) && !memcmp(datagram + 8, was + 8,
                                                  len - 8));
    g_assert(lduw_be_p(datagram + 6));
    g_assert(fuzz_sum(datagram, len, fuzz_pseudo(o->in->data, &o->l) + len) ==
             0xffff);
}

/* Not cut: only the checksum may be new */
static void take_whole(void *opaque, const struct iovec *iov, int iovcnt)
{
    Output *o = opaque;
    const FuzzPacket *p = o->in;
    size_t start = fuzz_hdr_csum_start(p), pos;
    uint16_t csum;

    out_len = iov_to_buf(iov, iovcnt, 0, out, sizeof(out));
    g_assert(out_len == p->len && !o->n++);
    if (fuzz_hdr_needs_csum(p)) {
        pos = start + fuzz_hdr_csum_offset(p);
        csum = ~fuzz_sum(p->data + start, p->len - start, 0);
        g_assert(lduw_be_p(out + pos) == (csum ?: 0xffff));
        stw_be_p(out + pos, lduw_be_p(p->data + pos));
    }
    g_assert(!memcmp(out, p->data, out_len));
}

static void check_finish(const FuzzPacket *p)
{
    static uint8_t copy[FUZZ_PACKET_MAX];
    unsigned counted = 0;
    unsigned type = fuzz_hdr_gso_type(p);
    Output o = { .in = p, .ufo = type == 3 };
    bool cut;
    ssize_t ret;

    memcpy(copy, p->data, p->len);
    ret = vnet_hdr_finish(p->hdr, p->hdr_len, p->data, p->len, count, &counted);
    if (ret < 0) {
        g_assert(ret == -EINVAL && !counted && p->mutated);
        g_assert(vnet_hdr_needed(p->hdr, p->hdr_len));
        return;
    }
    g_assert(ret == counted && ret >= 1);
    g_assert(vnet_hdr_needed(p->hdr, p->hdr_len) ==
             (type || fuzz_hdr_needs_csum(p)));
    if (!fuzz_layers(p->data, p->len, &o.l)) {
        g_assert(!type);
    }
    if (o.ufo) {
        o.l.payload = o.l.l4;
    }
    cut = type && p->len - o.l.payload > fuzz_hdr_gso_size(p);
    ret = vnet_hdr_finish(p->hdr, p->hdr_len, p->data, p->len,
                          !cut ? take_whole : o.ufo ? take_fragment
                                                    : take_segment, &o);
    g_assert(ret == counted && o.n == counted);
    if (cut && o.ufo) {
        check_datagram(&o);
    } else if (cut) {
        g_assert(o.l.payload + o.payload == p->len);
    }
    g_assert(!memcmp(copy, p->data, p->len));
}

/* One packet of the same length, or none: take_whole() looks at it. */
static void check_complete(const FuzzPacket *p)
{
    Output o = { .in = p };
    ssize_t ret = vnet_hdr_complete(p->hdr, p->hdr_len, p->data, p->len,
                                    take_whole, &o);

    g_assert(ret == (o.n ? 1 : -EINVAL));
    g_assert(ret == 1 || fuzz_hdr_needs_csum(p));
}

static void check_convert(const FuzzPacket *p)
{
    static const uint8_t lens[] = { 0, 10, 12, 20, 24 };
    uint8_t dst[VNET_HDR_LEN_MAX + 1];
    unsigned i, j;

    for (i = 0; i < ARRAY_SIZE(lens); i++) {
        size_t len = lens[i];
        size_t same = len == p->hdr_len ? len : MIN(MIN(len, p->hdr_len), 10);

        memset(dst, 0xa5, sizeof(dst));
        vnet_hdr_convert(dst, len, p->hdr, p->hdr_len);
        g_assert(!memcmp(dst, p->hdr, same));
        for (j = same; j < sizeof(dst); j++) {
            g_assert(dst[j] == (j < len ? 0 : 0xa5));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static FuzzPacket p;
    FuzzInput in = { data, len };

    fuzz_packet(&in, &p);
    check_convert(&p);
    check_finish(&p);
    check_complete(&p);
    return 0;
}
