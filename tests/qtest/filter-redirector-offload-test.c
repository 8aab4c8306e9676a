/*
 * QTest of filter-redirector's netdev endpoints: offloads from TAP to TAP
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/if_ether.h>
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "filter-redirector-nic.h"

/*
 * Packets that a stack with offloads sends to the guest of TAP x are captured
 * there, go through two character devices, which the test connects, and are
 * injected into TAP y.  What can be read from y must be what was sent, if both
 * guests take such packets, and else what the kernel itself makes of it on a
 * TAP without offloads.
 */

/* Lengths of vnet headers, and how a guest gets them. */
typedef struct Length {
    unsigned len;
    const char *nic;        /* properties; NULL: no NIC */
    uint64_t features;
    uint32_t more_features;
} Length;

#define BIT(name) (1ull << VIRTIO_NET_F_##name)
#define MODERN    (1ull << VIRTIO_F_VERSION_1)
#define TUNNEL_BIT 65 /* VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO; new in QEMU 10.2 */

static const Length lengths[] = {
    { 0 },
    { 10, "disable-legacy=off,disable-modern=on" },
    { 12, "disable-legacy=on", MODERN },
    { 20, "disable-legacy=on,hash=on",
      MODERN | BIT(HASH_REPORT) | BIT(CTRL_VQ) },
    { 24, "disable-legacy=on", MODERN, 1u << (TUNNEL_BIT - 64) },
};

/* Linux cuts what is longer, Ethernet header included, unless told not to. */
#define GSO_MAX 65535

static const Offload offloads[] = {
    { "csum-udp4", .payload = 100 },
    { "csum-udp6", .ip6 = true, .payload = 101 },
    { "csum-tcp6-ext", .tcp = true, .ip6 = true, .ip6_header = true,
      .payload = 1000 },
    { "csum-vlan", .payload = 100, .tags = { ETH_P_8021Q } },
    { "csum-qinq", .tcp = true, .payload = 99,
      .tags = { ETH_P_8021AD, ETH_P_8021Q } },
    { "tso4", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1000,
      .payload = 4500 },
    { "tso4-vlan", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1448,
      .payload = 3000, .tags = { ETH_P_8021Q } },
    { "tso4-dvlan", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1448,
      .payload = 3000, .tags = { ETH_P_8021AD } },
    { "tso4-qinq", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1440,
      .payload = 3000, .tags = { ETH_P_8021AD, ETH_P_8021Q } },
    { "tso4-longest", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true,
      .gso_size = 1460, .payload = GSO_MAX - 14 - 20 - 20 },
    { "tso4-too-long", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true,
      .gso_size = 1460, .payload = 65535 - 20 - 20 },
    { "tso6", VIRTIO_NET_HDR_GSO_TCPV6, .tcp = true, .ip6 = true,
      .gso_size = 1440, .payload = 20001 },
    { "tso6-ext", VIRTIO_NET_HDR_GSO_TCPV6, .tcp = true, .ip6 = true,
      .ip6_header = true, .gso_size = 1400, .payload = 5000 },
    { "tso6-longest-vlan", VIRTIO_NET_HDR_GSO_TCPV6, .tcp = true,
      .ip6 = true, .gso_size = 1436, .payload = GSO_MAX - 18 - 40 - 20,
      .tags = { ETH_P_8021Q } },
    { "tso6-too-long-vlan", VIRTIO_NET_HDR_GSO_TCPV6, .tcp = true,
      .ip6 = true, .gso_size = 1436, .payload = 65535 - 20,
      .tags = { ETH_P_8021Q } },
    { "uso4", VIRTIO_NET_HDR_GSO_UDP_L4, .gso_size = 1200,
      .payload = 5 * 1200 },
    { "uso6", VIRTIO_NET_HDR_GSO_UDP_L4, .ip6 = true, .gso_size = 999,
      .payload = 5000 },
};

typedef struct Side {
    const Length *length;
    Port *port;
    uint64_t features;
} Side;

typedef struct Pair {
    Pc pc;
    Side from;              /* TAP x */
    Side to;                /* TAP y */
    int ci;
    int co;
    int ref;                /* a TAP without offloads: what the kernel does */
    int ref_outside;
    uint32_t marker;        /* behind each packet of the test */
} Pair;

/* Does this guest get the packet as it is? */
static bool takes(const Side *s, const Offload *o, size_t size)
{
    uint64_t wanted = BIT(GUEST_CSUM);

    switch (o->gso_type) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
        wanted |= BIT(GUEST_TSO4);
        break;
    case VIRTIO_NET_HDR_GSO_TCPV6:
        wanted |= BIT(GUEST_TSO6);
        break;
    case VIRTIO_NET_HDR_GSO_UDP_L4:
        wanted |= o->ip6 ? BIT(GUEST_USO6) : BIT(GUEST_USO4);
        break;
    }
    return (s->features & wanted) == wanted && size <= GSO_MAX;
}

/*
 * Set-up
 */

static void side_add(Pair *p, Rig *r, Side *s, const Length *length,
                     const char *id)
{
    s->length = length;
    s->port = rig_tap(r, id, TAP_HELD | (length->nic ? 0 : TAP_STUCK));
    if (length->nic) {
        pc_add_nic(&p->pc, r, id, length->nic);
    }
}

static void side_enable(Pair *p, Side *s, unsigned *nic)
{
    static const unsigned bits[] = {
        VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN,
        VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
    };
    unsigned i;

    if (s->length->nic) {
        for (i = 0; i < ARRAY_SIZE(bits); i++) {
            if (pc_nic_offers(&p->pc, *nic, bits[i])) {
                s->features |= 1ull << bits[i];
            }
        }
        pc_nic_enable(&p->pc, *nic, s->features | s->length->features,
                      s->length->more_features);
        ++*nic;
    }
    /* QEMU has taken a packet for the guest, and reads no more. */
    send_packet(s->port->outside, 100, UINT32_MAX);
    rig_wait_tx_packets(p->pc.r, s->port, 1);
}

static void pair_open_ref(Pair *p)
{
    char name[16] = "tap-ref";

    p->ref = tap_open(name, false);
    if_set_up(name, true);
    p->ref_outside = if_open(name);
    set_vnet_hdr(p->ref_outside);
}

static bool has_tunnel(Pair *p, const Side *s, unsigned nic)
{
    return !s->length->more_features ||
           pc_nic_offers(&p->pc, nic, TUNNEL_BIT);
}

/* Return: false if the case has been skipped */
static bool pair_start(Pair *p, const Length *from, const Length *to)
{
    Rig *r = rig_new();
    unsigned nic = 0;

    *p = (Pair) { .pc.r = r };
    side_add(p, r, &p->from, from, "x");
    side_add(p, r, &p->to, to, "y");
    p->ci = rig_chardev(r, "ci");
    p->co = rig_chardev(r, "co");
    pc_start(&p->pc);
    if (!has_tunnel(p, &p->from, 0) || !has_tunnel(p, &p->to, !!from->nic)) {
        g_test_skip("no UDP tunnel offload (QEMU 10.2, Linux 6.17), so no "
                    "vnet headers of 24 bytes");
        pc_end(&p->pc);
        return false;
    }
    side_enable(p, &p->from, &nic);
    side_enable(p, &p->to, &nic);
    set_vnet_hdr(p->from.port->outside);
    pair_open_ref(p);
    return true;
}

static void pair_end(Pair *p)
{
    close(p->ref);
    close(p->ref_outside);
    pc_end(&p->pc);
}

/*
 * Packets: what is read is kept as a vnet header of 10 bytes and the packet.
 */

static GPtrArray *packets_new(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)g_byte_array_unref);
}

static GByteArray *packet_new(const uint8_t *hdr, const uint8_t *data,
                              size_t size)
{
    GByteArray *a = g_byte_array_new();

    g_byte_array_append(a, hdr, VNET_LEN_KERNEL);
    g_byte_array_append(a, data, size);
    /* hdr_len: a hint, for which Linux takes its buffer's first piece. */
    stw_he_p(a->data + 2, 0);
    return a;
}

static bool is_marker(const Pair *p, const uint8_t *packet, size_t size)
{
    uint8_t marker[ETH_ZLEN];

    packet_fill(marker, sizeof(marker), p->marker);
    return size == sizeof(marker) && !memcmp(packet, marker, size);
}

/* All packets from a TAP before the marker. */
static GPtrArray *read_packets(const Pair *p, int tap, size_t hdr_len)
{
    GPtrArray *out = packets_new();
    g_autofree uint8_t *buf = g_malloc(PACKET_MAX);

    for (;;) {
        size_t size = read_raw(tap, buf);

        g_assert_cmpuint(size, >, hdr_len);
        if (is_marker(p, buf + hdr_len, size - hdr_len)) {
            return out;
        }
        g_ptr_array_add(out, packet_new(buf, buf + hdr_len, size - hdr_len));
    }
}

static void send_with_marker(const Pair *p, int fd, const uint8_t *hdr,
                             const uint8_t *packet, size_t size)
{
    const uint8_t no_hdr[VNET_LEN_KERNEL] = { };
    uint8_t marker[ETH_ZLEN];

    packet_fill(marker, sizeof(marker), p->marker);
    send_offload(fd, hdr, packet, size);
    send_offload(fd, no_hdr, marker, sizeof(marker));
}

/* The stream has the form of @hdr_len; it goes on as it is. */
static void forward(const Pair *p, bool vnet, size_t hdr_len)
{
    const int announced = vnet ? hdr_len : NO_VNET;
    g_autofree uint8_t *buf = g_malloc(PACKET_MAX);
    size_t size;

    do {
        size = recv_frame(p->co, buf, announced);
        g_assert_cmpuint(size, >, hdr_len);
        send_frame_raw(p->ci, buf, size, announced);
    } while (!is_marker(p, buf + hdr_len, size - hdr_len));
}

/* As if nobody could do anything about checksums. */
static void complete(GByteArray *a)
{
    g_assert_cmpuint(a->data[1], ==, VIRTIO_NET_HDR_GSO_NONE);
    offload_complete(a->data, a->data + VNET_LEN_KERNEL,
                     a->len - VNET_LEN_KERNEL);
    memset(a->data, 0, VNET_LEN_KERNEL);
}

static void check(GPtrArray *got, GPtrArray *want, bool kept)
{
    guint i;

    g_assert_cmpuint(got->len, ==, want->len);
    for (i = 0; i < got->len; i++) {
        GByteArray *a = g_ptr_array_index(got, i);
        GByteArray *b = g_ptr_array_index(want, i);

        if (!kept) {
            complete(a);
        }
        g_assert_cmpmem(a->data, a->len, b->data, b->len);
    }
}

static void test_offload(Pair *p, const Offload *o, bool vnet)
{
    const unsigned from = p->from.length->len, to = p->to.length->len;
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    uint8_t hdr[VNET_LEN_KERNEL];
    size_t size = offload_fill(o, hdr, packet);
    g_autoptr(GPtrArray) sent = packets_new();
    g_autoptr(GPtrArray) cut = NULL, original = NULL, copy = NULL;
    const bool from_takes = takes(&p->from, o, size);
    const bool to_takes = takes(&p->to, o, size);

    g_test_message("%s", o->name);
    p->marker++;
    g_ptr_array_add(sent, packet_new(hdr, packet, size));
    send_with_marker(p, p->ref_outside, hdr, packet, size);
    cut = read_packets(p, p->ref, VNET_LEN_KERNEL);
    g_assert_cmpuint(cut->len, ==, o->gso_type ? DIV_ROUND_UP(o->payload,
                                                              o->gso_size)
                                               : 1);

    send_with_marker(p, p->from.port->outside, hdr, packet, size);
    original = read_packets(p, p->from.port->tap, from ?: VNET_LEN_KERNEL);
    check(original, from_takes ? sent : cut, from_takes);
    forward(p, vnet, vnet ? from : to);
    copy = read_packets(p, p->to.port->tap, to ?: VNET_LEN_KERNEL);
    check(copy, from_takes && to_takes ? sent : cut, from_takes && to_takes);
}

/*
 * With vnet_hdr_support each redirector sits on its own TAP's netdev, and the
 * stream says which header a packet has.  Without, both sit on y, so that they
 * agree about the form: y's.
 */
static void test_stream(Pair *p, bool vnet)
{
    Rig *r = p->pc.r;
    unsigned i;

    rig_add(r, vnet ? "id=f0,netdev=x,queue=tx,in_netdev=x,outdev=co,"
                      "vnet_hdr_support=on"
                    : "id=f0,netdev=y,queue=tx,in_netdev=x,outdev=co");
    rig_add(r, vnet ? "id=f1,netdev=y,indev=ci,out_netdev=y,"
                      "vnet_hdr_support=on"
                    : "id=f1,netdev=y,indev=ci,out_netdev=y");
    for (i = 0; i < ARRAY_SIZE(offloads); i++) {
        test_offload(p, &offloads[i], vnet);
    }
    assert_stat(r, "f0", "input.stats.lost", 0);
    assert_stat(r, "f0", "input.stats.errors", 0);
    assert_stat(r, "f0", "output.stats.errors", 0);
    assert_stat(r, "f1", "output.stats.lost", 0);
    assert_stat(r, "f1", "output.stats.errors", 0);
    assert_stat(r, "f1", "input.stats.packets",
                rig_stat(r, "f0", "output.stats.packets"));
    rig_del(r, "f0");
    rig_del(r, "f1");
}

typedef struct PairCase {
    const Length *from;
    const Length *to;
    bool old_kernel;        /* without PACKET_VNET_HDR_SZ */
} PairCase;

static void run_pair(const void *data)
{
    const PairCase *c = data;
    Pair p;

    if (c->old_kernel) {
        deny_vnet_hdr_sz();
    }
    if (pair_start(&p, c->from, c->to)) {
        test_stream(&p, true);
        test_stream(&p, false);
        pair_end(&p);
    }
}

static void test_pair(const void *data)
{
    run_isolated(run_pair, data);
}

static void add_pair_cases(void)
{
    static PairCase cases[2 * ARRAY_SIZE(lengths) * ARRAY_SIZE(lengths)];
    unsigned i;

    for (i = 0; i < 2 * ARRAY_SIZE(lengths) * ARRAY_SIZE(lengths); i++) {
        PairCase *c = &cases[i];
        g_autofree char *path = NULL;

        *c = (PairCase) {
            .from = &lengths[i / 2 / ARRAY_SIZE(lengths)],
            .to = &lengths[i / 2 % ARRAY_SIZE(lengths)],
            .old_kernel = i % 2,
        };
        path = g_strdup_printf("/filter-redirector/offload/%u-to-%u%s",
                               c->from->len, c->to->len,
                               c->old_kernel ? "/no-vnet-hdr-sz" : "");
        case_add(path, test_pair, c);
    }
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    if (qtest_has_device("virtio-net-pci")) {
        add_pair_cases();
    }
    return g_test_run();
}
