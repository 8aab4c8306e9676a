/*
 * Tests for net/vnet-hdr.c and net/vnet-gso.c
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A case says what a packet looks like; build() makes the packet and its vnet
 * header of it. What vnet_hdr_finish() makes of that is judged twice: by
 * check_finished(), which knows what TCP, UDP and IP ask for, and, where the
 * host allows a network namespace, by the Linux kernel, which gets the same
 * packet and must deliver the same bytes.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/iov.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "standard-headers/linux/virtio_net.h"
#include "net/eth.h"
#include "net/vnet-gso.h"

#ifdef CONFIG_LINUX
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#endif

#define HDR_LEN 10
#define FUZZ_INPUTS 1000000
#define FUZZ_SEED 20261121
#define RANDOM_CASES 400
#define ETHERTYPE_MARKER 0x88b5 /* set aside for experiments */

/* Only packets from here count; the kernel may send some of its own */
static const uint8_t our_mac[ETH_ALEN] = { 2, 'v', 'n', 'e', 't', 1 };
static const uint8_t their_mac[ETH_ALEN] = { 2, 'v', 'n', 'e', 't', 2 };

typedef struct Case {
    const char *name;
    uint8_t gso_type;
    uint16_t gso_size;
    size_t payload;         /* bytes behind the TCP or UDP header */
    bool ip6;
    uint8_t proto;
    bool no_csum;           /* without NEEDS_CSUM, checksum field 0 */
    bool wrong_csum;        /* NEEDS_CSUM, but the pseudo header's sum is off */
    bool zero_csum;         /* the first resulting checksum comes out as 0 */
    uint8_t tcp_flags;
    uint8_t tcp_options;    /* bytes, a multiple of 4 */
    uint8_t ip4_options;    /* bytes, a multiple of 4 */
    uint8_t ip6_headers;    /* extension headers in front */
    uint16_t ip4_off;       /* DF and the like */
    uint16_t tpid[2];       /* VLAN tags, outermost first, 0 for none */
} Case;

typedef struct Packet {
    uint8_t hdr[HDR_LEN];
    uint8_t *data;
    size_t len;
    size_t l3, l4, payload; /* offsets */
} Packet;

#define TCP4 .proto = IP_PROTO_TCP, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4
#define TCP6 .proto = IP_PROTO_TCP, .gso_type = VIRTIO_NET_HDR_GSO_TCPV6, \
             .ip6 = true
#define USO4 .proto = IP_PROTO_UDP, .gso_type = VIRTIO_NET_HDR_GSO_UDP_L4
#define USO6 .proto = IP_PROTO_UDP, .gso_type = VIRTIO_NET_HDR_GSO_UDP_L4, \
             .ip6 = true
#define UFO4 .proto = IP_PROTO_UDP, .gso_type = VIRTIO_NET_HDR_GSO_UDP
#define CSUM_TCP4 .proto = IP_PROTO_TCP
#define CSUM_TCP6 .proto = IP_PROTO_TCP, .ip6 = true
#define CSUM_UDP4 .proto = IP_PROTO_UDP
#define CSUM_UDP6 .proto = IP_PROTO_UDP, .ip6 = true
#define ALL_FLAGS (TH_FIN | TH_PUSH | TH_ACK | TH_URG | TH_ECE | TH_CWR)

static const Case cases[] = {
    { "csum/tcp4", CSUM_TCP4, .payload = 100 },
    { "csum/tcp4-odd", CSUM_TCP4, .payload = 101 },
    { "csum/tcp4-empty", CSUM_TCP4 },
    { "csum/tcp4-zero", CSUM_TCP4, .payload = 100, .zero_csum = true },
    { "csum/tcp4-wrong", CSUM_TCP4, .payload = 100, .wrong_csum = true },
    { "csum/tcp6", CSUM_TCP6, .payload = 1280 },
    { "csum/udp4", CSUM_UDP4, .payload = 7 },
    { "csum/udp4-zero", CSUM_UDP4, .payload = 64, .zero_csum = true },
    { "csum/udp6", CSUM_UDP6, .payload = 1 },
    { "csum/udp6-zero", CSUM_UDP6, .payload = 65, .zero_csum = true },
    { "csum/udp6-ext", CSUM_UDP6, .payload = 33, .ip6_headers = 3 },
    { "csum/udp4-vlan", CSUM_UDP4, .payload = 33, .tpid = { ETH_P_VLAN } },
    { "csum/tcp6-qinq", CSUM_TCP6, .payload = 33,
      .tpid = { ETH_P_DVLAN, ETH_P_VLAN } },
    { "csum/udp4-9014", CSUM_UDP4, .payload = 9014 - 14 - 20 - 8 },

    { "tcp4/plain", TCP4, .gso_size = 1448, .payload = 10 * 1448,
      .tcp_flags = TH_ACK },
    { "tcp4/all-flags", TCP4, .gso_size = 1448, .payload = 10000,
      .tcp_flags = ALL_FLAGS },
    { "tcp4/ecn", TCP4 | VIRTIO_NET_HDR_GSO_ECN, .gso_size = 1000,
      .payload = 3500, .tcp_flags = TH_ACK | TH_CWR },
    { "tcp4/one-byte-left", TCP4, .gso_size = 500, .payload = 1501,
      .tcp_flags = TH_ACK | TH_PUSH },
    { "tcp4/odd-size", TCP4, .gso_size = 333, .payload = 5000 },
    { "tcp4/tiny-size", TCP4, .gso_size = 1, .payload = 200 },
    { "tcp4/options", TCP4, .gso_size = 1436, .payload = 65000,
      .tcp_options = 12, .tcp_flags = TH_ACK },
    { "tcp4/all-options", TCP4, .gso_size = 700, .payload = 7001,
      .tcp_options = 40, .ip4_options = 40 },
    { "tcp4/df", TCP4, .gso_size = 1460, .payload = 4000, .ip4_off = IP_DF },
    { "tcp4/largest", TCP4, .gso_size = 1460, .payload = 65535 - 40 },
    { "tcp4/fits", TCP4, .gso_size = 1460, .payload = 1460 },
    { "tcp4/fits-zero-csum", TCP4, .gso_size = 1460, .payload = 1460,
      .zero_csum = true },
    { "tcp4/no-csum", TCP4, .gso_size = 1460, .payload = 4000,
      .no_csum = true },
    { "tcp4/wrong-csum", TCP4, .gso_size = 1460, .payload = 4000,
      .wrong_csum = true },
    { "tcp4/zero-csum", TCP4, .gso_size = 1460, .payload = 4000,
      .zero_csum = true },
    { "tcp4/vlan", TCP4, .gso_size = 1448, .payload = 5000,
      .tpid = { ETH_P_VLAN } },
    { "tcp4/dvlan", TCP4, .gso_size = 1448, .payload = 5000,
      .tpid = { ETH_P_DVLAN } },
    { "tcp4/qinq", TCP4, .gso_size = 1448, .payload = 5000,
      .tpid = { ETH_P_DVLAN, ETH_P_VLAN } },
    { "tcp4/vlan-twice", TCP4, .gso_size = 1448, .payload = 5000,
      .tpid = { ETH_P_VLAN, ETH_P_VLAN } },

    { "tcp6/plain", TCP6, .gso_size = 1428, .payload = 20000,
      .tcp_flags = ALL_FLAGS, .tcp_options = 12 },
    { "tcp6/ecn", TCP6 | VIRTIO_NET_HDR_GSO_ECN, .gso_size = 1428,
      .payload = 4001, .tcp_flags = TH_ACK | TH_CWR },
    { "tcp6/ext", TCP6, .gso_size = 1400, .payload = 5000, .ip6_headers = 3 },
    { "tcp6/largest", TCP6, .gso_size = 1440, .payload = 65535 - 20 },
    { "tcp6/no-csum", TCP6, .gso_size = 1440, .payload = 4000,
      .no_csum = true },
    { "tcp6/zero-csum", TCP6, .gso_size = 1440, .payload = 4000,
      .zero_csum = true },
    { "tcp6/vlan", TCP6, .gso_size = 1440, .payload = 4000,
      .tpid = { ETH_P_VLAN } },
    { "tcp6/qinq", TCP6, .gso_size = 1440, .payload = 4000,
      .tpid = { ETH_P_DVLAN, ETH_P_VLAN } },

    { "uso4/plain", USO4, .gso_size = 1472, .payload = 10 * 1472 },
    { "uso4/odd", USO4, .gso_size = 999, .payload = 5001, .ip4_off = IP_DF },
    { "uso4/fits", USO4, .gso_size = 1472, .payload = 1000 },
    { "uso4/zero-csum", USO4, .gso_size = 1000, .payload = 4000,
      .zero_csum = true },
    { "uso4/wrong-csum", USO4, .gso_size = 1000, .payload = 4000,
      .wrong_csum = true },
    { "uso4/vlan", USO4, .gso_size = 1472, .payload = 5000,
      .tpid = { ETH_P_VLAN } },
    { "uso6/plain", USO6, .gso_size = 1452, .payload = 20001 },
    { "uso6/ext", USO6, .gso_size = 1200, .payload = 5000, .ip6_headers = 2 },
    { "uso6/zero-csum", USO6, .gso_size = 1000, .payload = 4000,
      .zero_csum = true },
    { "uso6/qinq", USO6, .gso_size = 1452, .payload = 5000,
      .tpid = { ETH_P_DVLAN, ETH_P_VLAN } },

    { "ufo4/plain", UFO4, .gso_size = 1480, .payload = 6000 },
    { "ufo4/df", UFO4, .gso_size = 1480, .payload = 6000, .ip4_off = IP_DF },
    { "ufo4/smallest", UFO4, .gso_size = 8, .payload = 100 },
    { "ufo4/largest", UFO4, .gso_size = 1480, .payload = 65535 - 28 },
    { "ufo4/fits", UFO4, .gso_size = 1480, .payload = 1472 },
    { "ufo4/fits-not", UFO4, .gso_size = 1480, .payload = 1473 },
    { "ufo4/zero-csum", UFO4, .gso_size = 1480, .payload = 6000,
      .zero_csum = true },
    { "ufo4/no-csum", UFO4, .gso_size = 1480, .payload = 6000,
      .no_csum = true },
    { "ufo4/options-vlan", UFO4, .gso_size = 1400, .payload = 6000,
      .ip4_options = 8, .tpid = { ETH_P_VLAN } },
};

/* A plain reference for the checksum, bytes in pairs, nothing clever */
static uint16_t fold_sum(const uint8_t *data, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i++) {
        sum += i % 2 ? data[i] : data[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

static uint16_t pseudo_sum(const uint8_t *ip, uint8_t proto, uint32_t l4_len)
{
    bool ip6 = ip[0] >> 4 == 6;
    uint16_t len_sum = (l4_len & 0xffff) + (l4_len >> 16);

    return fold_sum(ip + (ip6 ? 8 : 12), ip6 ? 32 : 8, proto + len_sum);
}

static size_t append_eth(uint8_t *p, const Case *c)
{
    size_t n = 0;

    memcpy(p, their_mac, ETH_ALEN);
    memcpy(p + ETH_ALEN, our_mac, ETH_ALEN);
    n = 2 * ETH_ALEN;
    for (int i = 0; i < 2 && c->tpid[i]; i++) {
        stw_be_p(p + n, c->tpid[i]);
        stw_be_p(p + n + 2, 0x6064 + i); /* priority 3, VLAN 100 and 101 */
        n += 4;
    }
    stw_be_p(p + n, c->ip6 ? ETH_P_IPV6 : ETH_P_IP);
    return n + 2;
}

static size_t append_ip4(uint8_t *p, const Case *c, size_t l4_len)
{
    size_t ihl = 20 + c->ip4_options;

    p[0] = 0x40 | ihl / 4;
    p[1] = 0xb9; /* any DSCP and ECN */
    stw_be_p(p + 2, ihl + l4_len);
    stw_be_p(p + 4, 0xfffe); /* wraps round soon */
    stw_be_p(p + 6, c->ip4_off);
    p[8] = 64;
    p[9] = c->proto;
    memcpy(p + 12, (uint8_t[]){ 192, 0, 2, 1, 198, 51, 100, 2 }, 8);
    memset(p + 20, 1, c->ip4_options); /* no-operation */
    stw_be_p(p + 10, ~fold_sum(p, ihl, 0));
    return ihl;
}

static size_t append_ip6(uint8_t *p, const Case *c, size_t l4_len)
{
    static const uint8_t ext_types[] = {
        IP6_HOP_BY_HOP, IP6_ROUTING, IP6_DESTINATON
    };
    uint8_t *next = p + 6;
    size_t n = 40;

    stl_be_p(p, 0x6b912345);
    p[7] = 64;
    for (int i = 8; i < 40; i++) {
        p[i] = i * 7;
    }
    for (int i = 0; i < c->ip6_headers; i++) {
        *next = ext_types[i];
        next = p + n;
        p[n + 1] = i; /* 8, 16, 24 bytes */
        memset(p + n + 2, 0, 8 * i + 6);
        p[n + 2] = ext_types[i] == IP6_ROUTING ? 0 : 1; /* PadN */
        p[n + 3] = ext_types[i] == IP6_ROUTING ? 0 : 8 * i + 4;
        n += 8 * (i + 1);
    }
    *next = c->proto;
    stw_be_p(p + 4, n - 40 + l4_len);
    return n;
}

static size_t append_l4(uint8_t *p, const Case *c)
{
    static const uint8_t start[] = { 0x30, 0x39, 0x00, 0x50 };
    size_t thl = 20 + c->tcp_options;

    memcpy(p, start, sizeof(start));
    if (c->proto == IP_PROTO_UDP) {
        stw_be_p(p + 4, 8 + c->payload);
        stw_be_p(p + 6, 0);
        return 8;
    }
    stl_be_p(p + 4, 0xfffffc00); /* wraps round soon */
    stl_be_p(p + 8, 0x12345678);
    stw_be_p(p + 12, thl / 4 << 12 | c->tcp_flags);
    stw_be_p(p + 14, 512);
    stw_be_p(p + 16, 0);
    stw_be_p(p + 18, c->tcp_flags & TH_URG ? 5 : 0);
    memset(p + 20, 1, c->tcp_options);
    return thl;
}

static size_t csum_field(const Case *c)
{
    return c->proto == IP_PROTO_TCP ? 16 : 6;
}

static void put_hdr(uint8_t *hdr, const Case *c, const Packet *p)
{
    hdr[0] = c->no_csum ? 0 : VIRTIO_NET_HDR_F_NEEDS_CSUM;
    hdr[1] = c->gso_type;
    stw_he_p(hdr + 2, c->gso_type ? p->payload : 0);
    stw_he_p(hdr + 4, c->gso_size);
    stw_he_p(hdr + 6, c->no_csum ? 0 : p->l4);
    stw_he_p(hdr + 8, c->no_csum ? 0 : csum_field(c));
}

/* What vnet_hdr_finish() gave, each packet a GByteArray */
static GPtrArray *packets_new(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)g_byte_array_unref);
}

static void collect(void *opaque, const struct iovec *iov, int iovcnt)
{
    GPtrArray *out = opaque;
    GByteArray *bytes = g_byte_array_new();

    for (int i = 0; i < iovcnt; i++) {
        g_byte_array_append(bytes, iov[i].iov_base, iov[i].iov_len);
    }
    g_ptr_array_add(out, bytes);
}

static GPtrArray *finish(const uint8_t *hdr, size_t hdr_len,
                         const uint8_t *pkt, size_t len)
{
    g_autoptr(GPtrArray) out = packets_new();
    ssize_t ret = vnet_hdr_finish(hdr, hdr_len, pkt, len, collect, out);

    if (ret < 0) {
        g_assert_cmpint(ret, ==, -EINVAL);
        g_assert_cmpuint(out->len, ==, 0);
        return NULL;
    }
    g_assert_cmpuint(out->len, ==, ret);
    g_assert_cmpint(ret, >=, 1);
    return g_steal_pointer(&out);
}

static void packet_clear(Packet *p)
{
    g_free(p->data);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Packet, packet_clear)

/* Choose two bytes of the payload so that the first checksum becomes 0 */
static void make_csum_zero(const Case *c, Packet *p)
{
    g_autoptr(GPtrArray) out = NULL;
    GByteArray *first;

    stw_be_p(p->data + p->payload, 0);
    out = finish(p->hdr, HDR_LEN, p->data, p->len);
    first = g_ptr_array_index(out, 0);
    stw_be_p(p->data + p->payload,
             lduw_be_p(first->data + p->l4 + csum_field(c)));
}

static Packet build(const Case *c)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(c->payload);
    Packet p = { };
    size_t l4_len;

    p.data = g_malloc0(256 + c->payload);
    p.l3 = append_eth(p.data, c);
    l4_len = (c->proto == IP_PROTO_TCP ? 20 + c->tcp_options : 8) + c->payload;
    p.l4 = p.l3 + (c->ip6 ? append_ip6(p.data + p.l3, c, l4_len)
                          : append_ip4(p.data + p.l3, c, l4_len));
    p.payload = p.l4 + append_l4(p.data + p.l4, c);
    p.len = p.payload + c->payload;
    p.data = g_realloc(p.data, p.len); /* so that ASan sees its end */
    for (size_t i = p.payload; i < p.len; i++) {
        p.data[i] = g_rand_int(rand);
    }
    if (!c->no_csum) {
        stw_be_p(p.data + p.l4 + csum_field(c),
                 pseudo_sum(p.data + p.l3, c->proto, l4_len) +
                 (c->wrong_csum ? 0x101 : 0));
    }
    put_hdr(p.hdr, c, &p);
    if (c->zero_csum) {
        make_csum_zero(c, &p);
    }
    return p;
}

static size_t segment_unit(const Case *c)
{
    return c->gso_type ? c->gso_size : c->payload;
}

/* Everything IP and TCP or UDP ask of the packet numbered @index of @count */
static void check_segment(const Case *c, const Packet *p, const GByteArray *seg,
                          guint index, guint count)
{
    const uint8_t *ip = seg->data + p->l3;
    const uint8_t *l4 = seg->data + p->l4;
    size_t l4_len = seg->len - p->l4;
    size_t done = index * segment_unit(c);
    uint8_t flags = c->tcp_flags;

    if (c->ip6) {
        g_assert_cmpuint(lduw_be_p(ip + 4), ==, seg->len - p->l3 - 40);
    } else {
        g_assert_cmpuint(lduw_be_p(ip + 2), ==, seg->len - p->l3);
        g_assert_cmpuint(fold_sum(ip, p->l4 - p->l3, 0), ==, 0xffff);
        g_assert_cmpuint(lduw_be_p(ip + 4), ==, (uint16_t)(0xfffe + index));
        g_assert_cmpuint(lduw_be_p(ip + 6), ==, c->ip4_off);
    }
    if (!(c->no_csum && count == 1) && !c->wrong_csum) {
        g_assert_cmpuint(fold_sum(l4, l4_len, pseudo_sum(ip, c->proto, l4_len)),
                         ==, 0xffff);
    }
    if (c->proto == IP_PROTO_UDP) {
        g_assert_cmpuint(lduw_be_p(l4 + 4), ==, l4_len);
        g_assert_true(lduw_be_p(l4 + 6) || c->no_csum);
        return;
    }
    flags &= index == count - 1 ? 0xff : ~(TH_FIN | TH_PUSH);
    flags &= index ? ~TH_CWR : 0xff;
    g_assert_cmphex((uint32_t)ldl_be_p(l4 + 4), ==,
                    (uint32_t)(0xfffffc00 + done));
    g_assert_cmphex(l4[13], ==, flags);
}

static void check_segments(const Case *c, const Packet *p, GPtrArray *out)
{
    size_t done = 0;

    g_assert_cmpuint(out->len, ==,
                     c->payload ? DIV_ROUND_UP(c->payload, segment_unit(c))
                                : 1);
    for (guint i = 0; i < out->len; i++) {
        const GByteArray *seg = g_ptr_array_index(out, i);
        size_t part = seg->len - p->payload;

        g_assert_cmpuint(part, ==, MIN(segment_unit(c), c->payload - done));
        g_assert_cmpmem(seg->data, p->l3, p->data, p->l3);
        g_assert_cmpmem(seg->data + p->payload, part,
                        p->data + p->payload + done, part);
        check_segment(c, p, seg, i, out->len);
        done += part;
    }
    g_assert_cmpuint(done, ==, c->payload);
}

/* Put the IP fragments together again and check the UDP datagram */
static void check_fragments(const Case *c, const Packet *p, GPtrArray *out)
{
    g_autoptr(GByteArray) whole = g_byte_array_new();

    g_assert_cmpuint(out->len, >, 1);
    for (guint i = 0; i < out->len; i++) {
        const GByteArray *frag = g_ptr_array_index(out, i);
        const uint8_t *ip = frag->data + p->l3;
        uint16_t mf = i < out->len - 1 ? IP_MF : 0;

        g_assert_cmpuint(lduw_be_p(ip + 2), ==, frag->len - p->l3);
        g_assert_cmphex(lduw_be_p(ip + 4), ==, 0xfffe);
        g_assert_cmphex(lduw_be_p(ip + 6), ==, whole->len / 8 | mf);
        g_assert_cmpuint(fold_sum(ip, p->l4 - p->l3, 0), ==, 0xffff);
        g_byte_array_append(whole, frag->data + p->l4, frag->len - p->l4);
    }
    g_assert_cmpuint(whole->len, ==, 8 + c->payload);
    g_assert_cmpuint(fold_sum(whole->data, whole->len,
                              pseudo_sum(p->data + p->l3, c->proto,
                                         whole->len)), ==, 0xffff);
    g_assert_cmpmem(whole->data + 8, c->payload,
                    p->data + p->payload, c->payload);
}

static void check_finished(const Case *c, const Packet *p, GPtrArray *out)
{
    if (c->gso_type == VIRTIO_NET_HDR_GSO_UDP && 8 + c->payload > c->gso_size) {
        check_fragments(c, p, out);
    } else {
        check_segments(c, p, out);
    }
}

static void test_finish(gconstpointer data)
{
    const Case *c = data;
    g_auto(Packet) p = build(c);
    g_autoptr(GPtrArray) out = finish(p.hdr, HDR_LEN, p.data, p.len);

    g_assert_nonnull(out);
    check_finished(c, &p, out);
}

/* One packet, of the same length, with nothing changed but its checksum */
static void test_complete(gconstpointer data)
{
    const Case *c = data;
    g_auto(Packet) p = build(c);
    g_autoptr(GPtrArray) out = packets_new();
    const GByteArray *whole;
    size_t l4_len = p.len - p.l4;

    g_assert_cmpint(vnet_hdr_complete(p.hdr, HDR_LEN, p.data, p.len, collect,
                                      out), ==, 1);
    whole = g_ptr_array_index(out, 0);
    g_assert_cmpuint(whole->len, ==, p.len);
    if (p.hdr[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        size_t pos = lduw_he_p(p.hdr + 6) + lduw_he_p(p.hdr + 8);

        if (!c->wrong_csum) {
            g_assert_cmpuint(fold_sum(whole->data + p.l4, l4_len,
                                      pseudo_sum(p.data + p.l3, c->proto,
                                                 l4_len)), ==, 0xffff);
        }
        memcpy(p.data + pos, whole->data + pos, 2);
    }
    g_assert_cmpmem(whole->data, whole->len, p.data, p.len);
}

static const size_t hdr_lens[] = { 0, 10, 12, 20, 24 };

static void test_len(void)
{
    for (size_t len = 0; len < 100; len++) {
        bool known = false;

        for (size_t i = 0; i < ARRAY_SIZE(hdr_lens); i++) {
            known |= hdr_lens[i] == len;
        }
        g_assert_cmpint(vnet_hdr_len_ok(len), ==, known);
    }
}

/* Each length to each: what is kept of a header of bytes 1, 2, 3 ... */
static void test_convert(void)
{
    static const size_t kept[5][5] = {
        /* to 0, 10, 12, 20, 24 */
        { 0,  0,  0,  0,  0 }, /* from 0 */
        { 0, 10, 10, 10, 10 },
        { 0, 10, 12, 10, 10 },
        { 0, 10, 10, 20, 10 },
        { 0, 10, 10, 10, 24 },
    };

    for (size_t from = 0; from < 5; from++) {
        for (size_t to = 0; to < 5; to++) {
            /* Blocks of the exact size, so that ASan sees one byte too much */
            g_autofree uint8_t *src = g_malloc(hdr_lens[from]);
            g_autofree uint8_t *dst = g_malloc(hdr_lens[to]);

            for (size_t i = 0; i < hdr_lens[from]; i++) {
                src[i] = i + 1;
            }
            if (dst) {
                memset(dst, 0xff, hdr_lens[to]);
            }
            vnet_hdr_convert(dst, hdr_lens[to], src, hdr_lens[from]);
            for (size_t i = 0; i < hdr_lens[to]; i++) {
                g_assert_cmpuint(dst[i], ==, i < kept[from][to] ? i + 1 : 0);
            }
        }
    }
}

/* Another byte order: what the kernel says, byte by byte, on any host. */
static void test_swap(void)
{
    static const uint8_t hdr[] = {
        0x01, 0x04,             /* flags, gso_type */
        0x12, 0x34,             /* hdr_len */
        0x56, 0x78,             /* gso_size */
        0x9a, 0xbc,             /* csum_start */
        0xde, 0xf0,             /* csum_offset */
        0x11, 0x22,             /* num_buffers: the device's */
        0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa,
        0xbb, 0xcc, 0xdd, 0xee,
    };
    static const uint8_t swapped[] = {
        0x01, 0x04, 0x34, 0x12, 0x78, 0x56, 0xbc, 0x9a, 0xf0, 0xde,
    };
    static const size_t lens[] = { 10, 12, 20, 24 };

    for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
        uint8_t buf[sizeof(hdr)];

        memcpy(buf, hdr, sizeof(hdr));
        vnet_hdr_swap(buf, lens[i]);
        g_assert_cmpmem(buf, sizeof(swapped), swapped, sizeof(swapped));
        g_assert_cmpmem(buf + 10, sizeof(hdr) - 10, hdr + 10,
                        sizeof(hdr) - 10);
        vnet_hdr_swap(buf, lens[i]);
        g_assert_cmpmem(buf, sizeof(hdr), hdr, sizeof(hdr));
    }
    vnet_hdr_swap(NULL, 0);
}

static void test_needed(void)
{
    static const struct {
        uint8_t flags, gso_type;
        bool needed;
    } table[] = {
        { 0, VIRTIO_NET_HDR_GSO_NONE, false },
        { VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_GSO_NONE, false },
        { VIRTIO_NET_HDR_F_RSC_INFO, VIRTIO_NET_HDR_GSO_NONE, false },
        { VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE, true },
        { VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4, true },
        { 0, VIRTIO_NET_HDR_GSO_TCPV6, true },
        { 0, VIRTIO_NET_HDR_GSO_ECN, true },
        { 0, 0x20, true }, /* UDP tunnel */
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        uint8_t hdr[VNET_HDR_LEN_MAX] = { table[i].flags, table[i].gso_type };

        g_assert_false(vnet_hdr_needed(NULL, 0));
        for (size_t j = 1; j < ARRAY_SIZE(hdr_lens); j++) {
            g_assert_cmpint(vnet_hdr_needed(hdr, hdr_lens[j]), ==,
                            table[i].needed);
        }
    }
}

/* A finished packet passes as it is, however short, with any header */
static void test_bare(void)
{
    uint8_t pkt[64] = { 1, 2, 3 };
    uint8_t hdr[VNET_HDR_LEN_MAX] = { VIRTIO_NET_HDR_F_DATA_VALID };

    for (size_t i = 0; i < ARRAY_SIZE(hdr_lens); i++) {
        for (size_t len = 0; len <= sizeof(pkt); len++) {
            g_autoptr(GPtrArray) out = finish(hdr, hdr_lens[i], pkt, len);
            GByteArray *bytes = g_ptr_array_index(out, 0);

            g_assert_cmpuint(out->len, ==, 1);
            g_assert_cmpmem(bytes->data, bytes->len, pkt, len);
        }
    }
}

enum { TCP4_BASE, TCP6_BASE, USO4_BASE, UFO4_BASE, CSUM_BASE };

static const Case bases[] = {
    [TCP4_BASE] = { "tcp4", TCP4, .gso_size = 100, .payload = 1000 },
    [TCP6_BASE] = { "tcp6", TCP6, .gso_size = 100, .payload = 1000,
                    .ip6_headers = 3 },
    [USO4_BASE] = { "uso4", USO4, .gso_size = 100, .payload = 1000 },
    [UFO4_BASE] = { "ufo4", UFO4, .gso_size = 104, .payload = 1000 },
    [CSUM_BASE] = { "csum", CSUM_UDP4, .payload = 100 },
};

/* One field of a good header, or one byte of a good packet, made bad */
typedef struct Bad {
    const char *name;
    int base;
    int hdr_field;      /* offset of a 16 bit field, or 0, 1: a byte; or -1 */
    uint16_t value;
    int pkt_byte;       /* offset, or 0 */
    uint8_t pkt_value;
    size_t len;         /* cut the packet to that length, or 0 */
} Bad;

#define FLAGS(v)      .hdr_field = 0, .value = (v)
#define GSO_TYPE(v)   .hdr_field = 1, .value = (v)
#define GSO_SIZE(v)   .hdr_field = 4, .value = (v)
#define CSUM_START(v) .hdr_field = 6, .value = (v)
#define CSUM_OFF(v)   .hdr_field = 8, .value = (v)
#define BYTE(at, v)   .hdr_field = -1, .pkt_byte = (at), .pkt_value = (v)
#define CUT(v)        .hdr_field = -1, .len = (v)

static const Bad bads[] = {
    { "csum-start-behind", CSUM_BASE, CSUM_START(142) },
    { "csum-start-at-last", CSUM_BASE, CSUM_START(142 - 7) },
    { "csum-start-max", CSUM_BASE, CSUM_START(0xffff) },
    { "csum-offset-behind", CSUM_BASE, CSUM_OFF(142 - 34 - 1) },
    { "csum-offset-max", CSUM_BASE, CSUM_OFF(0xffff) },
    { "csum-runt", CSUM_BASE, CUT(41) },
    { "csum-one-byte", CSUM_BASE, CUT(1) },
    { "gso-size-0", TCP4_BASE, GSO_SIZE(0) },
    { "gso-size-max", TCP4_BASE, GSO_SIZE(0xffff) },
    { "gso-size-too-big", TCP4_BASE, GSO_SIZE(65535 - 39) },
    { "gso-type-unknown", TCP4_BASE, GSO_TYPE(2) },
    { "gso-type-tunnel", TCP4_BASE, GSO_TYPE(0x21) },
    { "gso-type-only-ecn", TCP4_BASE, GSO_TYPE(VIRTIO_NET_HDR_GSO_ECN) },
    { "gso-type-uso-ecn", USO4_BASE, GSO_TYPE(VIRTIO_NET_HDR_GSO_UDP_L4 |
                                              VIRTIO_NET_HDR_GSO_ECN) },
    { "gso-type-other-ip", TCP4_BASE, GSO_TYPE(VIRTIO_NET_HDR_GSO_TCPV6) },
    { "gso-type-other-l4", TCP4_BASE, GSO_TYPE(VIRTIO_NET_HDR_GSO_UDP_L4) },
    { "gso-type-ufo6", TCP6_BASE, GSO_TYPE(VIRTIO_NET_HDR_GSO_UDP) },
    { "tcp-csum-start", TCP4_BASE, CSUM_START(36) },
    { "tcp-csum-offset", TCP4_BASE, CSUM_OFF(6) },
    { "uso-without-csum", USO4_BASE, FLAGS(0) },
    { "uso-csum-offset", USO4_BASE, CSUM_OFF(16) },
    { "not-ip", TCP4_BASE, BYTE(12, 0x99) },
    { "ip-version", TCP4_BASE, BYTE(14, 0x65) },
    { "ip-header-short", TCP4_BASE, BYTE(14, 0x44) },
    { "ip-header-long", TCP4_BASE, BYTE(14, 0x4f) },
    { "ip-icmp", TCP4_BASE, BYTE(14 + 9, 1) },
    { "ip-more-fragments", TCP4_BASE, BYTE(14 + 6, 0x20) },
    { "ip-fragment", TCP4_BASE, BYTE(14 + 7, 0x01) },
    { "ip6-version", TCP6_BASE, BYTE(14, 0x45) },
    { "ip6-fragment", TCP6_BASE, BYTE(14 + 6, IP6_FRAGMENT) },
    { "ip6-auth", TCP6_BASE, BYTE(14 + 6, IP6_AUTHENTICATION) },
    { "ip6-ext-long", TCP6_BASE, BYTE(14 + 40 + 1, 0xff) },
    { "ip6-ext-cut", TCP6_BASE, CUT(14 + 40 + 30) },
    { "ip6-cut", TCP6_BASE, CUT(14 + 39) },
    { "tcp-header-short", TCP4_BASE, BYTE(34 + 12, 0x40) },
    { "tcp-header-long", TCP4_BASE, BYTE(34 + 12, 0xf0), .len = 34 + 30 },
    { "tcp-header-cut", TCP4_BASE, CUT(34 + 19) },
    { "ip-header-cut", TCP4_BASE, CUT(14 + 19) },
    { "eth-header-cut", TCP4_BASE, CUT(13) },
    { "udp-header-cut", USO4_BASE, CUT(34 + 7) },
    { "ufo-size-not-8", UFO4_BASE, GSO_SIZE(100) },
    { "ufo-header-cut", UFO4_BASE, CUT(34 + 7) },
};

static void test_bad(gconstpointer data)
{
    const Bad *b = data;
    g_auto(Packet) p = build(&bases[b->base]);
    g_autoptr(GPtrArray) good = finish(p.hdr, HDR_LEN, p.data, p.len);
    GPtrArray *out;

    g_assert_nonnull(good);
    if (b->hdr_field == 0 || b->hdr_field == 1) {
        p.hdr[b->hdr_field] = b->value;
    } else if (b->hdr_field > 1) {
        stw_he_p(p.hdr + b->hdr_field, b->value);
    }
    if (b->pkt_byte) {
        p.data[b->pkt_byte] = b->pkt_value;
    }
    if (b->len) {
        p.len = b->len;
        p.data = g_realloc(p.data, p.len);
    }
    out = finish(p.hdr, HDR_LEN, p.data, p.len);
    g_assert_null(out);
}

static void test_complete_bad(void)
{
    g_auto(Packet) p = build(&bases[CSUM_BASE]);
    g_autoptr(GPtrArray) out = packets_new();

    for (size_t start = p.len - 17; start <= UINT16_MAX; start++) {
        stw_he_p(p.hdr + 6, start);
        stw_he_p(p.hdr + 8, 16);
        g_assert_cmpint(vnet_hdr_complete(p.hdr, HDR_LEN, p.data, p.len,
                                          collect, out), ==, -EINVAL);
    }
    g_assert_cmpuint(out->len, ==, 0);
}

/* TCP checks the checksum's place itself; without NEEDS_CSUM nobody does */
static void test_bad_without_csum(void)
{
    for (size_t len = 0; len < 34 + 20; len++) {
        g_auto(Packet) p = build(&bases[TCP4_BASE]);
        GPtrArray *out;

        p.hdr[0] = 0;
        p.data = g_realloc(p.data, MAX(len, 1));
        out = finish(p.hdr, HDR_LEN, p.data, len);
        g_assert_null(out);
    }
}

/* An IPv4 header that ends before its fields, with TCP right behind it */
static void test_bad_ihl(void)
{
    for (int words = 0; words < 5; words++) {
        g_auto(Packet) p = build(&bases[TCP4_BASE]);

        p.hdr[0] = 0;
        p.data[p.l3] = 0x40 | words;
        p.data[p.l3 + 4 * words + 12] = 0x50; /* TCP header of 20 bytes */
        g_assert_null(finish(p.hdr, HDR_LEN, p.data, p.len));
    }
}

/* The checksum in its place, but summed up from another one */
static void test_bad_csum_start(void)
{
    g_auto(Packet) p = build(&bases[TCP4_BASE]);

    stw_he_p(p.hdr + 6, p.l4 + 2);
    stw_he_p(p.hdr + 8, 16 - 2);
    g_assert_null(finish(p.hdr, HDR_LEN, p.data, p.len));
}

/* Headers too long to be copied for each segment: 648 bytes of options */
static void test_bad_headers_long(void)
{
    static const Case c = { "long", TCP6, .gso_size = 100, .payload = 3000,
                            .ip6_headers = 1 };
    g_auto(Packet) p = build(&c);

    p.hdr[0] = 0;
    p.data[p.l3 + 40 + 1] = 648 / 8 - 1;
    p.data[p.l3 + 40 + 648 + 12] = 0x50;
    g_assert_null(finish(p.hdr, HDR_LEN, p.data, p.len));
}

/* Too big for QEMU's checksum helpers, or for an IP datagram */
static void test_too_big(void)
{
    Case ufo = bases[UFO4_BASE];
    Case csum = bases[CSUM_BASE];
    g_auto(Packet) p1 = { };
    g_auto(Packet) p2 = { };

    ufo.payload = 65535 - 28 + 1;
    p1 = build(&ufo);
    g_assert_null(finish(p1.hdr, HDR_LEN, p1.data, p1.len));
    csum.payload = 70000;
    p2 = build(&csum);
    g_assert_null(finish(p2.hdr, HDR_LEN, p2.data, p2.len));
}

/* So many VLAN tags that nobody finds the end; eight are fine */
static void test_tag_depth(void)
{
    for (int tags = 0; tags <= 10; tags++) {
        g_auto(Packet) p = build(&bases[TCP4_BASE]);
        size_t room = 4 * tags;
        g_autofree uint8_t *data = g_malloc0(p.len + room);
        g_autoptr(GPtrArray) out = NULL;

        memcpy(data, p.data, 12);
        for (int i = 0; i < tags; i++) {
            stw_be_p(data + 12 + 4 * i, ETH_P_VLAN);
        }
        memcpy(data + 12 + room, p.data + 12, p.len - 12);
        stw_he_p(p.hdr + 6, p.l4 + room);
        out = finish(p.hdr, HDR_LEN, data, p.len + room);
        g_assert_cmpint(out != NULL, ==, tags <= 8);
    }
}

/* hdr_len is a hint: whatever it says, the result is the same */
static void test_hdr_len_lies(void)
{
    static const uint16_t lies[] = { 0, 1, 54, 0x7fff, 0xffff };

    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        const Case *c = &bases[TCP6_BASE];
        g_auto(Packet) p = build(c);
        g_autoptr(GPtrArray) out = NULL;

        stw_he_p(p.hdr + 2, lies[i]);
        out = finish(p.hdr, HDR_LEN, p.data, p.len);
        g_assert_nonnull(out);
        check_finished(c, &p, out);
    }
}

typedef struct Fuzz {
    size_t pkt_len;
    size_t emitted;
    uint8_t sum; /* every byte is read, so that ASan sees where it is */
} Fuzz;

static void fuzz_emit(void *opaque, const struct iovec *iov, int iovcnt)
{
    Fuzz *f = opaque;
    size_t len = iov_size(iov, iovcnt);

    f->emitted++;
    g_assert_cmpuint(len, <=, f->pkt_len);
    for (int i = 0; i < iovcnt; i++) {
        const uint8_t *base = iov[i].iov_base;

        for (size_t j = 0; j < iov[i].iov_len; j++) {
            f->sum += base[j];
        }
    }
}

static void fuzz_random(GRand *rand, uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        data[i] = g_rand_int(rand);
    }
}

/* Up to four bytes, mostly among the headers, get another value */
static void fuzz_mutate(GRand *rand, uint8_t *data, size_t len)
{
    int changes = g_rand_int_range(rand, 0, 5);

    while (len && changes--) {
        data[g_rand_int_range(rand, 0, MIN(len, 100))] =
            g_rand_boolean(rand) ? g_rand_int(rand)
                                 : g_rand_int_range(rand, 0, 4) * 85;
    }
}

/* Bytes nobody checked: nothing read beyond the end, nothing made up */
static void test_fuzz(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(FUZZ_SEED);
    Packet packets[ARRAY_SIZE(cases)];
    unsigned refused = 0, passed = 0;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        Case c = cases[i];

        c.payload = MIN(c.payload, 200);
        c.gso_size = c.gso_size > 16 ? c.gso_size % 128 & ~7 : c.gso_size;
        packets[i] = build(&c);
    }
    for (int i = 0; i < FUZZ_INPUTS; i++) {
        Packet *p = &packets[g_rand_int_range(rand, 0, ARRAY_SIZE(cases))];
        size_t len = g_rand_int_range(rand, 0, 4)
                     ? p->len : g_rand_int_range(rand, 0, p->len + 1);
        g_autofree uint8_t *data = g_malloc(MAX(len, 1));
        uint8_t hdr[HDR_LEN];
        Fuzz f = { .pkt_len = len };
        ssize_t ret;

        if (i % 4) {
            memcpy(hdr, p->hdr, HDR_LEN);
            memcpy(data, p->data, len);
            fuzz_mutate(rand, g_rand_boolean(rand) ? data : hdr,
                        MIN(len, HDR_LEN));
            fuzz_mutate(rand, data, len);
        } else {
            fuzz_random(rand, hdr, HDR_LEN);
            fuzz_random(rand, data, len);
        }
        ret = vnet_hdr_finish(hdr, HDR_LEN, data, len, fuzz_emit, &f);
        if (ret < 0) {
            g_assert_cmpint(ret, ==, -EINVAL);
            g_assert_cmpuint(f.emitted, ==, 0);
            refused++;
        } else {
            g_assert_cmpuint(f.emitted, ==, ret);
            passed++;
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        packet_clear(&packets[i]);
    }
    /* Both ways must have been walked, or the inputs are no good */
    g_test_message("%u refused, %u passed", refused, passed);
    g_assert_cmpuint(refused, >, FUZZ_INPUTS / 10);
    g_assert_cmpuint(passed, >, FUZZ_INPUTS / 10);
}

static void copy_out(GByteArray *to, const struct iovec *iov, int iovcnt)
{
    for (int i = 0; i < iovcnt; i++) {
        g_byte_array_append(to, iov[i].iov_base, iov[i].iov_len);
    }
}

/* The packet without the tag, and the tag: the same as built with the tag */
static void test_vlan(gconstpointer data)
{
    static const uint16_t tpids[] = { ETH_P_VLAN, ETH_P_DVLAN };
    const Case *c = data;

    for (size_t i = 0; i < ARRAY_SIZE(tpids); i++) {
        Case tagged = *c;
        g_auto(Packet) plain = build(c);
        g_auto(Packet) want = { };
        g_autoptr(GByteArray) got = g_byte_array_new();
        struct iovec iov[VNET_VLAN_IOV_MAX];
        uint8_t tag[VNET_VLAN_TAG_LEN];
        int n;

        tagged.tpid[0] = tpids[i];
        want = build(&tagged);
        n = vnet_vlan_insert(plain.hdr, HDR_LEN, plain.data, plain.len,
                             tpids[i], 0x6064, tag, iov);
        g_assert_cmpint(n, ==, 3);
        copy_out(got, iov, n);
        g_assert_cmpmem(got->data, got->len, want.data, want.len);
        g_assert_cmpmem(plain.hdr, HDR_LEN, want.hdr, HDR_LEN);
    }
}

/* Priority-only tags, tag 0, no header, no offload, no packet worth the name */
static void test_vlan_short(void)
{
    static const uint16_t tcis[] = { 0, 0xe000, 0xffff };

    for (size_t len = 0; len < 64; len++) {
        for (size_t i = 0; i < ARRAY_SIZE(tcis); i++) {
            g_autofree uint8_t *pkt = g_malloc0(MAX(len, 1));
            g_autoptr(GByteArray) got = g_byte_array_new();
            uint8_t zero[VNET_HDR_LEN_MAX] = { }, hdr[VNET_HDR_LEN_MAX] = { };
            struct iovec iov[VNET_VLAN_IOV_MAX];
            uint8_t tag[VNET_VLAN_TAG_LEN];
            int n;

            memset(pkt, 0x5a, len);
            n = vnet_vlan_insert(hdr, hdr_lens[len % 5], pkt, len,
                                 ETH_P_VLAN, tcis[i], tag, iov);
            copy_out(got, iov, n);
            g_assert_cmpmem(hdr, sizeof(hdr), zero, sizeof(zero));
            g_assert_cmpint(n, ==, len < 12 ? 1 : 3);
            g_assert_cmpuint(got->len, ==, len < 12 ? len : len + 4);
            if (len >= 12) {
                g_assert_cmphex(lduw_be_p(got->data + 12), ==, ETH_P_VLAN);
                g_assert_cmphex(lduw_be_p(got->data + 14), ==, tcis[i]);
            }
        }
    }
}

/* A header that can't be right doesn't become one that could */
static void test_vlan_wrap(void)
{
    uint8_t hdr[HDR_LEN] = {
        VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4,
    };
    uint8_t pkt[64] = { }, tag[VNET_VLAN_TAG_LEN];
    struct iovec iov[VNET_VLAN_IOV_MAX];

    stw_he_p(hdr + 2, 0xfffe);
    stw_he_p(hdr + 6, 0xfffd);
    vnet_vlan_insert(hdr, HDR_LEN, pkt, sizeof(pkt), ETH_P_VLAN, 1, tag, iov);
    g_assert_cmphex(lduw_he_p(hdr + 2), ==, 0xffff);
    g_assert_cmphex(lduw_he_p(hdr + 6), ==, 0xffff);
}

/* A random case that Linux finishes rather than refuses */
static void random_case(GRand *rand, Case *c)
{
    static const uint16_t tpids[] = { 0, ETH_P_VLAN, ETH_P_DVLAN };
    static const uint8_t types[] = {
        VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
        VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN,
        VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4,
        VIRTIO_NET_HDR_GSO_UDP_L4, VIRTIO_NET_HDR_GSO_UDP,
    };

    *c = (Case) {
        .name = "random",
        .gso_type = types[g_rand_int_range(rand, 0, ARRAY_SIZE(types))],
        .gso_size = g_rand_int_range(rand, 100, 2000),
        .ip6 = g_rand_boolean(rand),
        .proto = IP_PROTO_TCP,
        .tcp_flags = g_rand_int(rand),
        .tcp_options = g_rand_int_range(rand, 0, 11) * 4,
        .ip4_options = g_rand_int_range(rand, 0, 11) * 4,
        .ip6_headers = g_rand_int_range(rand, 0, 4),
        .ip4_off = g_rand_boolean(rand) ? IP_DF : 0,
        .wrong_csum = !g_rand_int_range(rand, 0, 8),
    };
    c->tpid[0] = tpids[g_rand_int_range(rand, 0, 3)];
    c->tpid[1] = c->tpid[0] ? tpids[g_rand_int_range(rand, 0, 3)] : 0;
    /* At most some 100 segments: Linux takes no more for USO */
    c->payload = g_rand_int_range(rand, 0, MIN(60000, c->gso_size * 100));

    switch (c->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
        c->ip6 = false;
        break;
    case VIRTIO_NET_HDR_GSO_TCPV6:
        c->ip6 = true;
        break;
    case VIRTIO_NET_HDR_GSO_UDP:
        c->ip6 = false;
        c->gso_size &= ~7;
        c->proto = IP_PROTO_UDP;
        break;
    case VIRTIO_NET_HDR_GSO_UDP_L4:
        c->proto = IP_PROTO_UDP;
        break;
    default:
        c->gso_size = 0;
        c->payload %= 9000;
        c->proto = g_rand_boolean(rand) ? IP_PROTO_TCP : IP_PROTO_UDP;
        break;
    }
}

#ifdef CONFIG_LINUX
/*
 * The kernel's own opinion. A child process enters a network namespace of its
 * own, makes a veth pair there with all offloads off, and hands out a packet
 * socket on each end; the namespace lives as long as these two.
 */
typedef struct Veth {
    int tx;
    int rx;
} Veth;

typedef struct NlMsg {
    struct nlmsghdr nh;
    struct ifinfomsg ifi;
    uint8_t attrs[256];
} NlMsg;

static struct rtattr *nl_add(NlMsg *m, int type, const void *data, size_t len)
{
    struct rtattr *a = (void *)((uint8_t *)m + NLMSG_ALIGN(m->nh.nlmsg_len));

    a->rta_type = type;
    a->rta_len = RTA_LENGTH(len);
    if (len) {
        memcpy(RTA_DATA(a), data, len);
    }
    m->nh.nlmsg_len = NLMSG_ALIGN(m->nh.nlmsg_len) + RTA_ALIGN(a->rta_len);
    return a;
}

static void nl_end(NlMsg *m, struct rtattr *a)
{
    a->rta_len = (uint8_t *)m + m->nh.nlmsg_len - (uint8_t *)a;
}

/* All functions of the child return NULL or what went wrong */

static const char *veth_create(void)
{
    NlMsg m = {
        .nh.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
        .nh.nlmsg_type = RTM_NEWLINK,
        .nh.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE,
    };
    struct ifinfomsg peer = { };
    struct {
        struct nlmsghdr nh;
        struct nlmsgerr err;
        uint8_t more[1024];
    } reply;
    struct rtattr *info, *data, *end;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    nl_add(&m, IFLA_IFNAME, "a", 2);
    info = nl_add(&m, IFLA_LINKINFO, NULL, 0);
    nl_add(&m, IFLA_INFO_KIND, "veth", 4);
    data = nl_add(&m, IFLA_INFO_DATA, NULL, 0);
    end = nl_add(&m, VETH_INFO_PEER, &peer, sizeof(peer));
    nl_add(&m, IFLA_IFNAME, "b", 2);
    nl_end(&m, end);
    nl_end(&m, data);
    nl_end(&m, info);

    if (fd < 0 || send(fd, &m, m.nh.nlmsg_len, 0) < 0 ||
        recv(fd, &reply, sizeof(reply), 0) < 0) {
        return "netlink";
    }
    close(fd);
    errno = -reply.err.error;
    return errno ? "making a veth pair" : NULL;
}

static const char *dev_offloads_off(int fd, struct ifreq *ifr)
{
    const size_t words = 4; /* Linux has 64 features, in words of 32 */
    g_autofree struct ethtool_gfeatures *get =
        g_malloc0(sizeof(*get) + words * sizeof(get->features[0]));
    g_autofree struct ethtool_sfeatures *set =
        g_malloc0(sizeof(*set) + words * sizeof(set->features[0]));

    get->cmd = ETHTOOL_GFEATURES;
    get->size = words;
    ifr->ifr_data = (void *)get;
    if (ioctl(fd, SIOCETHTOOL, ifr) < 0) {
        return "ETHTOOL_GFEATURES";
    }
    set->cmd = ETHTOOL_SFEATURES;
    set->size = get->size; /* now what there is */
    for (size_t i = 0; i < MIN(set->size, words); i++) {
        set->features[i].valid = get->features[i].available &
                                 ~get->features[i].never_changed;
    }
    ifr->ifr_data = (void *)set;
    return ioctl(fd, SIOCETHTOOL, ifr) < 0 ? "ETHTOOL_SFEATURES" : NULL;
}

static const char *dev_up(const char *name)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr = { };
    const char *err;

    pstrcpy(ifr.ifr_name, sizeof(ifr.ifr_name), name);
    err = dev_offloads_off(fd, &ifr);
    if (err) {
        return err;
    }
    ifr.ifr_mtu = 65535;
    if (ioctl(fd, SIOCSIFMTU, &ifr) < 0) {
        return "SIOCSIFMTU";
    }
    ifr.ifr_flags = IFF_UP;
    if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0) {
        return "SIOCSIFFLAGS";
    }
    close(fd);
    return NULL;
}

static const char *packet_socket(const char *dev, int protocol, int *out)
{
    struct sockaddr_ll sll = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(protocol),
        .sll_ifindex = if_nametoindex(dev),
    };
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    int on = 1, bytes = 64 * MiB;

    if (fd < 0) {
        return "socket(AF_PACKET)";
    }
    if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) < 0) {
        return "setsockopt(SOL_PACKET)";
    }
    /* Without the privilege for it the default must do */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    }
    if (bind(fd, (struct sockaddr *)&sll, sizeof(sll)) < 0) {
        return "bind";
    }
    *out = fd;
    return NULL;
}

static const char *veth_make(Veth *v)
{
    const char *err;

    if (unshare(CLONE_NEWNET) < 0 &&
        unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
        return "unshare";
    }
    err = veth_create();
    err = err ?: dev_up("a");
    err = err ?: dev_up("b");
    err = err ?: packet_socket("a", 0, &v->tx);
    err = err ?: packet_socket("b", ETH_P_ALL, &v->rx);
    return err;
}

typedef union FdMsg {
    struct cmsghdr align;
    char buf[CMSG_SPACE(sizeof(Veth))];
} FdMsg;

/* In the child: send the reason for failing, or "" with the two sockets */
static void veth_child(int chan)
{
    Veth v;
    const char *err = veth_make(&v);
    char text[128] = "";
    struct iovec iov = { text, sizeof(text) };
    FdMsg fds = { };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (err) {
        snprintf(text, sizeof(text), "no veth pair to compare with: %s: %s",
                 err, strerror(errno));
    } else {
        msg.msg_control = &fds;
        msg.msg_controllen = sizeof(fds);
        *CMSG_FIRSTHDR(&msg) = (struct cmsghdr) {
            .cmsg_level = SOL_SOCKET,
            .cmsg_type = SCM_RIGHTS,
            .cmsg_len = CMSG_LEN(sizeof(v)),
        };
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &v, sizeof(v));
    }
    _exit(sendmsg(chan, &msg, 0) < 0);
}

/* Get the child's sockets, or the reason why there are none into @why */
static bool veth_open(Veth *v, char *why, size_t size)
{
    struct iovec iov = { why, size };
    FdMsg fds = { };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1,
        .msg_control = &fds, .msg_controllen = sizeof(fds),
    };
    int chan[2], status;
    ssize_t n;
    pid_t pid;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_DGRAM, 0, chan), ==, 0);
    /* A process with a second thread, RCU's, may not enter a user namespace */
    rcu_disable_atfork();
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (!pid) {
        veth_child(chan[1]);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_cmpint(status, ==, 0);
    n = recvmsg(chan[0], &msg, 0);
    close(chan[0]);
    close(chan[1]);
    g_assert_cmpint(n, >, 0);
    if (why[0]) {
        return false;
    }
    g_assert_nonnull(CMSG_FIRSTHDR(&msg));
    memcpy(v, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(*v));
    return true;
}

static void veth_send(Veth *v, const uint8_t *hdr, const uint8_t *pkt,
                      size_t len)
{
    struct iovec iov[] = {
        { (void *)hdr, HDR_LEN },
        { (void *)pkt, len },
    };
    ssize_t n = writev(v->tx, iov, 2);

    if (n < 0) {
        g_test_message("the kernel refuses this packet: %s", strerror(errno));
    }
    g_assert_cmpint(n, ==, HDR_LEN + len);
}

/* The kernel takes the outermost tag out of the packet: put it back */
static GByteArray *with_tag(struct msghdr *msg, uint8_t *hdr,
                            const uint8_t *pkt, size_t len)
{
    GByteArray *out = g_byte_array_new();
    struct iovec iov[VNET_VLAN_IOV_MAX] = { { (void *)pkt, len } };
    uint8_t tag[VNET_VLAN_TAG_LEN];
    int n = 1;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        struct tpacket_auxdata aux;

        if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA) {
            continue;
        }
        memcpy(&aux, CMSG_DATA(c), sizeof(aux));
        if (aux.tp_status & TP_STATUS_VLAN_VALID) {
            n = vnet_vlan_insert(hdr, HDR_LEN, pkt, len, aux.tp_vlan_tpid,
                                 aux.tp_vlan_tci, tag, iov);
        }
    }
    copy_out(out, iov, n);
    return out;
}

/* The next packet that is ours */
static GByteArray *veth_recv(Veth *v)
{
    static uint8_t buf[HDR_LEN + 70000];
    struct pollfd pfd = { .fd = v->rx, .events = POLLIN };

    for (;;) {
        union {
            struct cmsghdr align;
            char buf[256];
        } control;
        struct iovec iov = { buf, sizeof(buf) };
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1,
            .msg_control = &control, .msg_controllen = sizeof(control),
        };
        ssize_t n;

        g_assert_cmpint(poll(&pfd, 1, 5000), ==, 1);
        n = recvmsg(v->rx, &msg, 0);
        g_assert_cmpint(n, >=, HDR_LEN + ETH_HLEN);
        if (!memcmp(buf + HDR_LEN + ETH_ALEN, our_mac, ETH_ALEN)) {
            g_assert_false(vnet_hdr_needed(buf, HDR_LEN));
            return with_tag(&msg, buf, buf + HDR_LEN, n - HDR_LEN);
        }
    }
}

/* A frame that no test sends, from @src */
static void veth_send_marker(Veth *v, const uint8_t *src)
{
    uint8_t hdr[HDR_LEN] = { }, marker[ETH_ZLEN] = { };

    memcpy(marker, their_mac, ETH_ALEN);
    memcpy(marker + ETH_ALEN, src, ETH_ALEN);
    stw_be_p(marker + 12, ETHERTYPE_MARKER);
    veth_send(v, hdr, marker, sizeof(marker));
}

/* What the kernel makes of a packet: all that comes before the marker */
static GPtrArray *veth_finish(Veth *v, const Packet *p)
{
    g_autoptr(GPtrArray) out = packets_new();

    veth_send(v, p->hdr, p->data, p->len);
    veth_send_marker(v, our_mac);
    for (;;) {
        GByteArray *bytes = veth_recv(v);

        if (lduw_be_p(bytes->data + 12) == ETHERTYPE_MARKER) {
            g_byte_array_unref(bytes);
            return g_steal_pointer(&out);
        }
        g_ptr_array_add(out, bytes);
    }
}

/*
 * A new device silently drops what it is given until the kernel's link watch
 * has been round: try until something comes through.
 */
static void veth_wait(Veth *v)
{
    struct pollfd pfd = { .fd = v->rx, .events = POLLIN };
    uint8_t buf[HDR_LEN + ETH_ZLEN] = { };
    int tries = 500;

    while (lduw_be_p(buf + HDR_LEN + 12) != ETHERTYPE_MARKER) {
        g_assert_cmpint(tries--, >, 0);
        veth_send_marker(v, their_mac);
        if (poll(&pfd, 1, 10) > 0) {
            g_assert_cmpint(recv(v->rx, buf, sizeof(buf), 0), >, 0);
        }
    }
}

/* The veth pair of all tests, or NULL after skipping the test at hand */
static Veth *veth_get(void)
{
    static enum { UNTRIED, OPEN, FAILED } state;
    static char why[128];
    static Veth veth;

    if (state == UNTRIED) {
        state = veth_open(&veth, why, sizeof(why)) ? OPEN : FAILED;
        if (state == OPEN) {
            veth_wait(&veth);
        }
    }
    if (state == FAILED) {
        g_test_skip(why);
        return NULL;
    }
    return &veth;
}

static void compare_with_kernel(Veth *v, const Case *c)
{
    g_auto(Packet) p = build(c);
    g_autoptr(GPtrArray) ours = finish(p.hdr, HDR_LEN, p.data, p.len);
    g_autoptr(GPtrArray) theirs = veth_finish(v, &p);

    g_test_message("%s: type 0x%x size %u payload %zu ip6 %d proto %u "
                   "tags 0x%x 0x%x: %u packets", c->name, c->gso_type,
                   c->gso_size, c->payload, c->ip6, c->proto, c->tpid[0],
                   c->tpid[1], theirs->len);
    g_assert_nonnull(ours);
    g_assert_cmpuint(ours->len, ==, theirs->len);
    for (guint i = 0; i < ours->len; i++) {
        GByteArray *a = g_ptr_array_index(ours, i);
        GByteArray *b = g_ptr_array_index(theirs, i);

        g_assert_cmpmem(a->data, a->len, b->data, b->len);
    }
}

static void test_kernel(gconstpointer data)
{
    Veth *v = veth_get();

    if (v) {
        compare_with_kernel(v, data);
    }
}

static void test_kernel_random(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(FUZZ_SEED);
    Veth *v = veth_get();

    for (int i = 0; v && i < RANDOM_CASES; i++) {
        Case c;

        random_case(rand, &c);
        compare_with_kernel(v, &c);
    }
}
#endif /* CONFIG_LINUX */

static void add_cases(const char *prefix, const Case *list, size_t n,
                      GTestDataFunc func)
{
    for (size_t i = 0; i < n; i++) {
        g_autofree char *path = g_strdup_printf("/vnet-hdr/%s/%s", prefix,
                                                list[i].name);

        g_test_add_data_func(path, &list[i], func);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/vnet-hdr/len", test_len);
    g_test_add_func("/vnet-hdr/convert", test_convert);
    g_test_add_func("/vnet-hdr/swap", test_swap);
    g_test_add_func("/vnet-hdr/needed", test_needed);
    g_test_add_func("/vnet-hdr/bare", test_bare);
    add_cases("finish", cases, ARRAY_SIZE(cases), test_finish);
    for (size_t i = 0; i < ARRAY_SIZE(bads); i++) {
        g_autofree char *path = g_strdup_printf("/vnet-hdr/bad/%s",
                                                bads[i].name);

        g_test_add_data_func(path, &bads[i], test_bad);
    }
    g_test_add_func("/vnet-hdr/bad/without-csum", test_bad_without_csum);
    g_test_add_func("/vnet-hdr/bad/ihl", test_bad_ihl);
    g_test_add_func("/vnet-hdr/bad/csum-start", test_bad_csum_start);
    g_test_add_func("/vnet-hdr/bad/headers-long", test_bad_headers_long);
    g_test_add_func("/vnet-hdr/bad/too-big", test_too_big);
    add_cases("complete", cases, ARRAY_SIZE(cases), test_complete);
    g_test_add_func("/vnet-hdr/complete/bad", test_complete_bad);
    g_test_add_func("/vnet-hdr/tag-depth", test_tag_depth);
    g_test_add_func("/vnet-hdr/hdr-len-lies", test_hdr_len_lies);
    g_test_add_func("/vnet-hdr/fuzz", test_fuzz);
    add_cases("vlan", bases, ARRAY_SIZE(bases), test_vlan);
    g_test_add_func("/vnet-hdr/vlan/short", test_vlan_short);
    g_test_add_func("/vnet-hdr/vlan/wrap", test_vlan_wrap);
#ifdef CONFIG_LINUX
    add_cases("kernel", cases, ARRAY_SIZE(cases), test_kernel);
    g_test_add_func("/vnet-hdr/kernel/random", test_kernel_random);
#endif
    return g_test_run();
}
