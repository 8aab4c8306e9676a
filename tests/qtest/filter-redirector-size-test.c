/*
 * QTest of filter-redirector's netdev endpoints: the shortest and the longest
 * packets, and vnet headers that are wrong
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include "qemu/bswap.h"
#include "filter-redirector-nic.h"

#define TAP_HDR_LEN 10  /* what a packet read from a TAP stands behind */
#define MTU_MAX 65521   /* of a TAP: 65,535 bytes with the Ethernet header */

/*
 * TAP x, which nobody but the test reads, and wire n.
 */
typedef struct Stage {
    Rig *r;
    Port *n;
    Port *x;
    int ci;
    int co;
} Stage;

static void stage_start(Stage *s, const char *props)
{
    *s = (Stage) { .r = rig_new() };
    s->n = rig_wire(s->r, "n");
    s->x = rig_tap(s->r, "x", TAP_HELD | TAP_STUCK);
    s->ci = rig_chardev(s->r, "ci");
    s->co = rig_chardev(s->r, "co");
    if_set_mtu(s->x->ifname, MTU_MAX);
    rig_start(s->r);
    send_packet(s->x->outside, 100, 0);
    rig_wait_tx_packets(s->r, s->x, 1);
    rig_add(s->r, props);
}

/* Also shorter than the test packets of the other files. */
static void fill(uint8_t *packet, size_t size, uint32_t seq)
{
    uint8_t whole[ETH_ZLEN];

    if (size < sizeof(whole)) {
        packet_fill(whole, sizeof(whole), seq);
        memcpy(packet, whole, size);
    } else {
        packet_fill(packet, size, seq);
    }
}

static void expect_at_tap(const Stage *s, const uint8_t *packet, size_t size)
{
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    size_t len = read_raw(s->x->tap, got);

    g_assert_cmpuint(len, >, TAP_HDR_LEN);
    g_assert_cmpmem(got + TAP_HDR_LEN, len - TAP_HDR_LEN, packet, size);
}

/*
 * Sizes
 */

static const size_t sizes[] = { 1, 13, 14, 15, 59, 60, 1514, 9014, 65535 };

static void test_capture(const void *unused)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    unsigned i, count = 0;
    Stage s;

    stage_start(&s, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co");
    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        if (sizes[i] < ETH_HLEN) {
            continue;   /* Linux has no such packets on a TAP */
        }
        fill(packet, sizes[i], i);
        send_raw(s.x->outside, packet, sizes[i]);
        g_assert_cmpmem(got, recv_frame(s.co, got, NO_VNET), packet,
                        sizes[i]);
        expect_at_tap(&s, packet, sizes[i]);
        count++;
    }
    assert_stat(s.r, "f0", "output.stats.packets", count);
    assert_stat(s.r, "f0", "input.stats.errors", 0);
    rig_free(s.r);
}

/* @data: length of the vnet header in the stream, -1 for none announced */
static void test_inject(const void *data)
{
    const int vnet = GPOINTER_TO_INT(data);
    const size_t hdr_len = MAX(vnet, 0);
    g_autofree uint8_t *frame = g_malloc0(PACKET_MAX);
    unsigned i, refused = 0;
    Stage s;

    stage_start(&s, vnet < 0 ? "id=f0,netdev=n,indev=ci,out_netdev=x"
                             : "id=f0,netdev=n,indev=ci,out_netdev=x,"
                               "vnet_hdr_support=on");
    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        fill(frame + hdr_len, sizes[i], i);
        send_frame_raw(s.ci, frame, hdr_len + sizes[i], vnet);
        if (sizes[i] < ETH_HLEN) {
            rig_wait_stat(s.r, "f0", "output.stats.errors", ++refused);
        } else {
            expect_at_tap(&s, frame + hdr_len, sizes[i]);
        }
    }
    rig_wait_stat(s.r, "f0", "output.stats.packets",
                  ARRAY_SIZE(sizes) - refused);
    assert_stat(s.r, "f0", "output.stats.errors", refused);
    rig_free(s.r);
}

/* A chain carries whatever a NIC or a netdev brings; so does the chardev. */
static void test_chain(const void *unused)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    unsigned i;
    Stage s;

    stage_start(&s, "id=f0,netdev=n,queue=rx,in_netdev=x,outdev=co");
    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        fill(packet, sizes[i], i);
        send_raw(s.n->inside, packet, sizes[i]);
        g_assert_cmpmem(got, recv_frame(s.co, got, NO_VNET), packet,
                        sizes[i]);
    }
    assert_stat(s.r, "f0", "chain-packets", ARRAY_SIZE(sizes));
    rig_free(s.r);
}

/* The guest takes packets with offloads. */
static void offloads_on(const Stage *s)
{
    g_assert_cmpint(ioctl(s->x->tap, TUNSETOFFLOAD,
                          TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6), ==, 0);
}

/*
 * Super-packets that must be cut: longer than Linux gives to any device (64 KiB
 * with the Ethernet header), or for a guest that takes none
 */

static const Offload longest[] = {
    { "tso4", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1460,
      .payload = 65535 - 40 },
    { "tso4-qinq", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1448,
      .payload = 65535 - 40, .tags = { ETH_P_8021AD, ETH_P_8021Q } },
    { "tso6", VIRTIO_NET_HDR_GSO_TCPV6, .tcp = true, .ip6 = true,
      .gso_size = 1440, .payload = 65535 - 20 },
    { "uso4", VIRTIO_NET_HDR_GSO_UDP_L4, .gso_size = 1472,
      .payload = 65535 - 28 },
};

typedef struct LongestCase {
    const Offload *offload;
    bool offloads;          /* the guest takes shorter ones */
} LongestCase;

static void test_longest(const void *data)
{
    const LongestCase *c = data;
    const Offload *o = c->offload;
    g_autofree uint8_t *frame = g_malloc(PACKET_MAX);
    g_autofree uint8_t *want = g_malloc(PACKET_MAX);
    g_autoptr(GByteArray) segments = g_byte_array_new();
    size_t size, len, done;
    Stage s;

    stage_start(&s, "id=f0,netdev=n,indev=ci,out_netdev=x,"
                "vnet_hdr_support=on");
    size = offload_fill(o, frame, frame + VNET_LEN_KERNEL);
    g_assert_cmpuint(size, >, 65535);

    /* What the kernel makes of it, one segment behind another. */
    set_vnet_hdr(s.x->outside);
    send_raw(s.x->outside, frame, VNET_LEN_KERNEL + size);
    for (done = 0; done < o->payload; done += o->gso_size) {
        len = read_raw(s.x->tap, want);
        g_byte_array_append(segments, (uint8_t *)&len, sizeof(len));
        g_byte_array_append(segments, want, len);
    }

    if (c->offloads) {
        offloads_on(&s);
    }
    send_frame_raw(s.ci, frame, VNET_LEN_KERNEL + size, VNET_LEN_KERNEL);
    for (done = 0; done < segments->len; done += sizeof(len) + len) {
        memcpy(&len, segments->data + done, sizeof(len));
        expect_at_tap(&s, segments->data + done + sizeof(len) + TAP_HDR_LEN,
                      len - TAP_HDR_LEN);
    }
    send_frame(s.ci, 100, 1, 0);
    rig_wait_stat(s.r, "f0", "input.stats.packets", 2);
    assert_stat(s.r, "f0", "output.stats.errors", 0);
    rig_free(s.r);
}

/*
 * The TAP's queue is short, so that each packet meets a full one now and then;
 * packets that are cut don't overtake others, nor are they overtaken.
 */
static void test_order(const void *unused)
{
    static const Offload o = {
        "order", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1000,
        .payload = 5000,
    };
    const unsigned count = 300;
    g_autofree uint8_t *stream = g_malloc(PACKET_MAX);
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    size_t size = offload_fill(&o, stream, stream + VNET_LEN_KERNEL);
    unsigned i, sent = 0, segment;
    Stage s;

    stage_start(&s, "id=f0,netdev=n,indev=ci,out_netdev=x,"
                "vnet_hdr_support=on");
    if_set_txqueuelen(s.x->ifname, 8);
    for (i = 0; i < count; i++) {
        /* Ahead of the reader, but not by more than QEMU can keep. */
        for (; sent < count && sent < i + 40; sent++) {
            send_frame(s.ci, 100, sent, 0);
            send_frame_raw(s.ci, stream, VNET_LEN_KERNEL + size,
                           VNET_LEN_KERNEL);
        }
        g_assert_cmpuint(read_raw(s.x->tap, got), ==, TAP_HDR_LEN + 100);
        g_assert_cmpuint(packet_seq(got + TAP_HDR_LEN), ==, i);
        for (segment = 0; segment < 5; segment++) {
            read_raw(s.x->tap, got);
            g_assert_cmphex((uint32_t)ldl_be_p(got + TAP_HDR_LEN + 38), ==,
                            0xfffff000 + segment * 1000);
        }
    }
    rig_wait_stat(s.r, "f0", "input.stats.packets", 2 * count);
    g_assert_cmpuint(rig_stat(s.r, "f0", "output.stats.stalls"), >, 0);
    assert_stat(s.r, "f0", "output.stats.errors", 0);
    rig_free(s.r);
}

/*
 * Wrong vnet headers from the peer: that packet is counted, the next passes.
 */

typedef struct Wrong {
    const char *name;
    bool tso;               /* in front of a super-packet, else of a checksum */
    unsigned field;         /* offset in the header; 0 and 1 are bytes */
    uint16_t value;
} Wrong;

static const Wrong wrongs[] = {
    { "csum-start-behind", false, 6, 1000 },
    { "csum-start-huge", false, 6, 0xffff },
    { "csum-offset-behind", false, 8, 200 },
    { "csum-offset-huge", false, 8, 0xffff },
    { "csum-hdr-len-huge", false, 2, 0xffff },
    { "gso-unknown", false, 1, 2 },
    { "gso-unknown-huge", false, 1, 0x7f },
    { "gso-ecn-only", false, 1, VIRTIO_NET_HDR_GSO_ECN },
    { "tso-size-zero", true, 4, 0 },
    { "tso-csum-start", true, 6, 0xffff },
    { "tso-hdr-len-huge", true, 2, 0xffff },
    { "tso-as-uso6", true, 1, 0x15 },
    { "tso-as-tunnel", true, 1, 0x21 },
};

typedef struct WrongCase {
    const Wrong *wrong;
    bool offloads;          /* the guest takes packets with offloads */
} WrongCase;

static void test_wrong(const void *data)
{
    static const Offload csum = { "csum", .payload = 100 };
    static const Offload tso = {
        "tso", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1000,
        .payload = 3000,
    };
    const WrongCase *c = data;
    const Wrong *w = c->wrong;
    g_autofree uint8_t *frame = g_malloc(PACKET_MAX);
    uint8_t good[ETH_ZLEN];
    size_t size = offload_fill(w->tso ? &tso : &csum, frame,
                               frame + VNET_LEN_KERNEL);
    unsigned i;
    Stage s;

    if (w->field > 1) {
        stw_he_p(frame + w->field, w->value);
    } else {
        frame[w->field] = w->value;
    }
    stage_start(&s, "id=f0,netdev=n,indev=ci,out_netdev=x,"
                "vnet_hdr_support=on");
    if (c->offloads) {
        offloads_on(&s);
    }
    for (i = 1; i <= 3; i++) {
        packet_fill(good, sizeof(good), i);
        send_frame_raw(s.ci, frame, VNET_LEN_KERNEL + size, VNET_LEN_KERNEL);
        send_frame_raw(s.ci, good, sizeof(good), 0);
        expect_at_tap(&s, good, sizeof(good));
        rig_wait_stat(s.r, "f0", "output.stats.errors", i);
    }
    rig_wait_stat(s.r, "f0", "output.stats.packets", 3);
    assert_stat(s.r, "f0", "input.stats.packets", 6);
    assert_stat(s.r, "f0", "input.stats.errors", 0);
    rig_free(s.r);
}

/*
 * What a packet socket says of a super-packet in a UDP tunnel: the header of
 * what is inside, which is not that of the packet (seen on Linux 6.18).
 */
static void test_tunnel(const void *data)
{
    static const Offload inner = {
        "inner", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1000,
        .payload = 3000,
    };
    static const Offload outer = { "outer", .payload = 8 + 14 + 40 + 3000 };
    const size_t vxlan = 14 + 20 + 8, start = vxlan + 8;
    g_autofree uint8_t *frame = g_malloc(PACKET_MAX);
    uint8_t *packet = frame + VNET_LEN_KERNEL;
    uint8_t good[ETH_ZLEN];
    size_t size;
    Stage s;

    size = offload_fill(&outer, frame, packet);
    memset(packet + vxlan, 0, 8);
    g_assert_cmpuint(start + offload_fill(&inner, frame, packet + start), ==,
                     size);
    stw_he_p(frame + 2, lduw_he_p(frame + 2) + start);
    stw_he_p(frame + 6, lduw_he_p(frame + 6) + start);

    stage_start(&s, "id=f0,netdev=n,indev=ci,out_netdev=x,"
                "vnet_hdr_support=on");
    if (data) {
        offloads_on(&s);
    }
    packet_fill(good, sizeof(good), 1);
    send_frame_raw(s.ci, frame, VNET_LEN_KERNEL + size, VNET_LEN_KERNEL);
    send_frame_raw(s.ci, good, sizeof(good), 0);
    expect_at_tap(&s, good, sizeof(good));
    rig_wait_stat(s.r, "f0", "output.stats.errors", 1);
    rig_free(s.r);
}

/*
 * A packet that no vnet header can describe: any guest can write one.  The
 * kernel has reserved its place in the ring when it finds that out, and counts
 * it as lost; what it leaves there is what lay there before.
 */

#define RING "id=f0,netdev=n,queue=rx,in_netdev=x,outdev=co,ring_size=524288"

/* Longer than the kernel waits until it hands a block of the ring over. */
#define BLOCK_US (60 * 1000)

static void guest_sends(const Stage *s, const uint8_t *packet, size_t size)
{
    g_autofree uint8_t *buf = g_malloc0(TAP_HDR_LEN + size);

    memcpy(buf + TAP_HDR_LEN, packet, size);
    g_assert_cmpint(write(s->x->tap, buf, TAP_HDR_LEN + size), ==,
                    TAP_HDR_LEN + size);
}

/* ... and who reads the stream gets it. */
static void guest_sends_through(const Stage *s, const uint8_t *packet,
                                size_t size)
{
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);

    guest_sends(s, packet, size);
    g_assert_cmpmem(got, recv_frame(s->co, got, NO_VNET), packet, size);
}

static void guest_sends_ufo(const Stage *s)
{
    static const Offload udp = { "udp", .payload = 4000 };
    g_autofree uint8_t *buf = g_malloc(PACKET_MAX);
    const uint8_t hdr[TAP_HDR_LEN] = { 1, VIRTIO_NET_HDR_GSO_UDP };
    size_t size = offload_fill(&udp, buf, buf + TAP_HDR_LEN);

    memcpy(buf, hdr, sizeof(hdr));
    stw_he_p(buf + 2, 42);
    stw_he_p(buf + 4, 1480);
    stw_he_p(buf + 6, 34);
    stw_he_p(buf + 8, 6);
    g_assert_cmpint(write(s->x->tap, buf, TAP_HDR_LEN + size), ==,
                    TAP_HDR_LEN + size);
}

/* The next packet that arrives is the next one that makes sense. */
static void expect_lost(const Stage *s, uint64_t packets)
{
    uint8_t good[ETH_ZLEN];

    g_usleep(BLOCK_US);
    packet_fill(good, sizeof(good), 77);
    guest_sends_through(s, good, sizeof(good));
    assert_stat(s->r, "f0", "input.stats.lost", 1);
    assert_stat(s->r, "f0", "input.stats.errors", 0);
    assert_stat(s->r, "f0", "input.stats.packets", packets + 1);
    expect_silence(s->co);
}

/* An old packet does not arrive again. */
static void test_void(const void *unused)
{
    const unsigned laps = 2, blocks = 4;
    uint8_t packet[100];
    unsigned i;
    Stage s;

    stage_start(&s, RING);
    for (i = 0; i < laps * blocks; i++) {
        packet_fill(packet, sizeof(packet), i);
        guest_sends_through(&s, packet, sizeof(packet));
        g_usleep(BLOCK_US);
    }
    guest_sends_ufo(&s);
    expect_lost(&s, laps * blocks);
    rig_free(s.r);
}

/*
 * Nor does one that was made up: lap 1 leaves what looks like the ring's
 * header of a packet wherever one may begin, lap 2 has one begin there.
 */
static void test_forged(const void *unused)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    const unsigned blocks = 4;
    unsigned i, word;
    Stage s;

    stage_start(&s, RING);
    packet_fill(packet, ETH_ZLEN, 0);
    for (word = 16; word < 60000; word += 4) {
        stl_he_p(packet + word, 0x0000ff00);
    }
    for (i = 0; i < blocks; i++) {
        guest_sends_through(&s, packet, 60000);
        g_usleep(BLOCK_US);
    }
    for (i = 0; i < blocks - 1; i++) {
        guest_sends_through(&s, packet, ETH_ZLEN);
        g_usleep(BLOCK_US);
    }
    guest_sends(&s, packet, 40000);
    guest_sends_ufo(&s);
    g_assert_cmpuint(recv_frame(s.co, packet, NO_VNET), ==, 40000);
    expect_lost(&s, 2 * blocks);
    rig_free(s.r);
}

static void add_wrong_cases(void)
{
    static WrongCase wrong_cases[2 * ARRAY_SIZE(wrongs)];
    unsigned i;

    for (i = 0; i < 2 * ARRAY_SIZE(wrongs); i++) {
        WrongCase *c = &wrong_cases[i];
        g_autofree char *path = NULL;

        *c = (WrongCase) { &wrongs[i / 2], i % 2 };
        path = g_strdup_printf("/filter-redirector/wrong-header/%s%s",
                               c->wrong->name,
                               c->offloads ? "/offloads" : "");
        case_add(path, test_wrong, c);
    }
}

int main(int argc, char **argv)
{
    static LongestCase longest_cases[2 * ARRAY_SIZE(longest)];
    unsigned i;

    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    case_add("/filter-redirector/size/capture", test_capture, NULL);
    case_add("/filter-redirector/size/chain", test_chain, NULL);
    case_add("/filter-redirector/size/inject/bare", test_inject,
             GINT_TO_POINTER(NO_VNET));
    case_add("/filter-redirector/size/inject/0", test_inject,
             GINT_TO_POINTER(0));
    case_add("/filter-redirector/size/inject/24", test_inject,
             GINT_TO_POINTER(24));
    for (i = 0; i < 2 * ARRAY_SIZE(longest); i++) {
        LongestCase *c = &longest_cases[i];
        g_autofree char *path = NULL;

        *c = (LongestCase) { &longest[i / 2], i % 2 };
        path = g_strdup_printf("/filter-redirector/size/longest/%s%s",
                               c->offload->name,
                               c->offloads ? "/offloads" : "");
        case_add(path, test_longest, c);
    }
    case_add("/filter-redirector/order/cut", test_order, NULL);
    case_add("/filter-redirector/wrong-header/tunnel", test_tunnel, NULL);
    case_add("/filter-redirector/wrong-header/tunnel/offloads", test_tunnel,
             "offloads");
    case_add("/filter-redirector/ring/void", test_void, NULL);
    case_add("/filter-redirector/ring/forged", test_forged, NULL);
    add_wrong_cases();
    return g_test_run();
}
