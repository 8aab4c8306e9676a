/*
 * Fuzzer of vnet_vlan_insert(): the tag goes where it belongs
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The packet with its tag is compared with one put together here.  And it must
 * not matter if the tag is put back before a super-packet is cut or after.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "qemu/units.h"
#include "packet.h"

#define OUT_MAX (4 * MiB)
#define MACS 12

/* Packets, one behind another, each behind its length. */
typedef struct Collected {
    uint8_t *buf;
    size_t len;
    const uint8_t *tag;     /* to put into each, or NULL */
    bool overflow;
} Collected;

static void append(Collected *c, const void *data, size_t len)
{
    memcpy(c->buf + c->len, data, len);
    c->len += len;
}

static void collect(void *opaque, const struct iovec *iov, int iovcnt)
{
    static uint8_t packet[FUZZ_PACKET_MAX];
    Collected *c = opaque;
    uint32_t len = iov_to_buf(iov, iovcnt, 0, packet, sizeof(packet));
    uint32_t total = len + (c->tag ? VNET_VLAN_TAG_LEN : 0);

    if (c->overflow || c->len + 8 + total > OUT_MAX) {
        c->overflow = true;
        return;
    }
    append(c, &total, sizeof(total));
    append(c, packet, MACS);
    if (c->tag) {
        append(c, c->tag, VNET_VLAN_TAG_LEN);
    }
    append(c, packet + MACS, len - MACS);
}

/* Do the limits of either way differ for this packet? */
static bool comparable(const FuzzPacket *p, uint16_t tpid)
{
    FuzzLayers l;

    fuzz_layers(p->data, p->len, &l);
    return (tpid == 0x8100 || tpid == 0x88a8) && l.tags < 8 &&
           p->len >= 14 && p->len < 65535 &&
           (!fuzz_hdr_needs_csum(p) ||
            (fuzz_hdr_csum_start(p) >= 14 &&
             fuzz_hdr_csum_start(p) < UINT16_MAX - 4));
}

static void check_commutes(const FuzzPacket *p, const FuzzPacket *tagged,
                           const uint8_t *tag)
{
    static uint8_t *bufs[2];
    Collected a, b;
    ssize_t first, second;

    if (!bufs[0]) {
        bufs[0] = g_malloc(OUT_MAX);
        bufs[1] = g_malloc(OUT_MAX);
    }
    a = (Collected) { .buf = bufs[0], .tag = tag };
    b = (Collected) { .buf = bufs[1] };
    first = vnet_hdr_finish(p->hdr, p->hdr_len, p->data, p->len, collect, &a);
    second = vnet_hdr_finish(tagged->hdr, tagged->hdr_len, tagged->data,
                             tagged->len, collect, &b);
    /* Headers may be just too long with the tag, sums of tags may differ. */
    if (first < 0 || second < 0) {
        g_assert(first == second || p->mutated);
        return;
    }
    g_assert(first == second);
    g_assert(a.overflow || b.overflow ||
             (a.len == b.len && !memcmp(a.buf, b.buf, a.len)));
}

static void check_hdr(const FuzzPacket *p, const FuzzPacket *tagged)
{
    FuzzPacket want;
    unsigned value;

    memcpy(want.hdr, p->hdr, sizeof(want.hdr));
    if (fuzz_hdr_needs_csum(p)) {
        value = lduw_he_p(p->hdr + 6) + VNET_VLAN_TAG_LEN;
        stw_he_p(want.hdr + 6, MIN(value, UINT16_MAX));
    }
    if (fuzz_hdr_gso_type(p)) {
        value = lduw_he_p(p->hdr + 2) + VNET_VLAN_TAG_LEN;
        stw_he_p(want.hdr + 2, MIN(value, UINT16_MAX));
    }
    g_assert(!memcmp(want.hdr, tagged->hdr, sizeof(want.hdr)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static FuzzPacket p, tagged;
    FuzzInput in = { data, len };
    static const uint16_t tpids[4] = { 0x8100, 0x88a8, 0x9100, 0 };
    uint16_t tpid = tpids[take8(&in) & 3], tci = take16(&in);
    uint8_t tag[VNET_VLAN_TAG_LEN], want[VNET_VLAN_TAG_LEN];
    struct iovec iov[VNET_VLAN_IOV_MAX];
    int n;

    fuzz_packet(&in, &p);
    p.len = MIN(p.len, sizeof(p.data) - VNET_VLAN_TAG_LEN);
    memcpy(tagged.hdr, p.hdr, sizeof(p.hdr));
    tagged.hdr_len = p.hdr_len;
    n = vnet_vlan_insert(tagged.hdr, tagged.hdr_len, p.data, p.len, tpid, tci,
                         tag, iov);
    tagged.len = iov_to_buf(iov, n, 0, tagged.data, sizeof(tagged.data));
    g_assert(tagged.len == iov_size(iov, n));
    if (p.len < MACS) {
        g_assert(n == 1 && tagged.len == p.len);
        g_assert(!memcmp(tagged.data, p.data, p.len));
        g_assert(!memcmp(tagged.hdr, p.hdr, sizeof(p.hdr)));
        return 0;
    }
    stw_be_p(want, tpid);
    stw_be_p(want + 2, tci);
    g_assert(tagged.len == p.len + VNET_VLAN_TAG_LEN);
    g_assert(!memcmp(tagged.data, p.data, MACS));
    g_assert(!memcmp(tagged.data + MACS, want, sizeof(want)));
    g_assert(!memcmp(tagged.data + MACS + VNET_VLAN_TAG_LEN, p.data + MACS,
                     p.len - MACS));
    check_hdr(&p, &tagged);
    if (comparable(&p, tpid)) {
        check_commutes(&p, &tagged, want);
    }
    return 0;
}
