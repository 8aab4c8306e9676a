/*
 * QTest of filter-redirector's netdev endpoints: vnet headers of a virtio-net
 * device, and migration
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/socket.h>
#include <net/if.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include "qemu/bswap.h"
#include "filter-redirector-nic.h"

#define VNET_LEN 12     /* what a modern virtio-net device makes the TAP use */

/* A virtio-net device on TAP x. */
typedef struct Nic {
    Pc pc;
    Rig *r;
    Port *x;
    Port *n;
    int ci;
    int co;
} Nic;

/* @offloads: feature bits besides the modern interface */
static void nic_start(Nic *nic, uint64_t offloads)
{
    *nic = (Nic) { .r = rig_new() };
    nic->x = rig_tap(nic->r, "x", TAP_HELD);
    nic->n = rig_wire(nic->r, "n");
    nic->ci = rig_chardev(nic->r, "ci");
    nic->co = rig_chardev(nic->r, "co");
    pc_add_nic(&nic->pc, nic->r, "x", "disable-legacy=on");
    pc_start(&nic->pc);
    pc_nic_enable(&nic->pc, 0, offloads | 1ull << VIRTIO_F_VERSION_1, 0);
}

static void nic_end(Nic *nic)
{
    pc_end(&nic->pc);
}

/*
 * Packets of this NIC have a vnet header in the stream, announced by
 * vnet_hdr_support.
 */
static void expect_nic_frame(int fd, size_t size, uint32_t seq, bool vnet)
{
    static const uint8_t zero[VNET_LEN];
    g_autofree uint8_t *data = g_malloc(PACKET_MAX);
    size_t got = recv_frame(fd, data, vnet ? VNET_LEN : NO_VNET);

    g_assert_cmpuint(got, ==, VNET_LEN + size);
    g_assert_cmpmem(data, VNET_LEN, zero, VNET_LEN);
    g_assert_cmpuint(packet_seq(data + VNET_LEN), ==, seq);
    packet_check(data + VNET_LEN, size);
}

static void test_nic_capture(const void *data)
{
    const bool vnet = data;
    Nic nic;

    nic_start(&nic, 0);
    rig_add(nic.r, vnet ? "id=f0,netdev=x,queue=tx,in_netdev=x,outdev=co,"
                          "vnet_hdr_support=on"
                        : "id=f0,netdev=x,queue=tx,in_netdev=x,outdev=co");
    send_packet(nic.x->outside, 60, 0);
    expect_nic_frame(nic.co, 60, 0, vnet);
    send_packet(nic.x->outside, 1514, 1);
    expect_nic_frame(nic.co, 1514, 1, vnet);
    assert_stat(nic.r, "f0", "output.stats.bytes", 60 + 1514);
    nic_end(&nic);
}

/* QEMU has taken a packet for the guest, and reads no more. */
static void nic_block(Nic *nic)
{
    send_packet(nic->x->outside, 100, UINT32_MAX);
    rig_wait_tx_packets(nic->r, nic->x, 1);
}

static void expect_tap_packet(Nic *nic, const uint8_t *vnet,
                              const uint8_t *packet, size_t size)
{
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    size_t len = read_raw(nic->x->tap, got);

    g_assert_cmpuint(len, ==, VNET_LEN + size);
    g_assert_cmpmem(got, VNET_LEN, vnet, VNET_LEN);
    g_assert_cmpmem(got + VNET_LEN, size, packet, size);
}

static void test_nic_inject(const void *data)
{
    const bool vnet = data;
    static const uint8_t zero[VNET_LEN];
    uint8_t packet[VNET_LEN + 1514] = { };
    Nic nic;

    nic_start(&nic, 0);
    nic_block(&nic);
    rig_add(nic.r, vnet ? "id=f0,netdev=x,indev=ci,out_netdev=x,"
                          "vnet_hdr_support=on"
                        : "id=f0,netdev=x,indev=ci,out_netdev=x");
    packet_fill(packet + VNET_LEN, 1514, 7);
    send_frame_raw(nic.ci, packet, sizeof(packet), vnet ? VNET_LEN : NO_VNET);
    expect_tap_packet(&nic, zero, packet + VNET_LEN, 1514);
    if (vnet) {
        /* from a sender whose netdev has no vnet header, or an old one's */
        send_frame_raw(nic.ci, packet + VNET_LEN, 1514, 0);
        expect_tap_packet(&nic, zero, packet + VNET_LEN, 1514);
        send_frame_raw(nic.ci, packet + 2, 10 + 1514, 10);
        expect_tap_packet(&nic, zero, packet + VNET_LEN, 1514);
    }
    rig_wait_stat(nic.r, "f0", "output.stats.packets", vnet ? 3 : 1);
    nic_end(&nic);
}

/*
 * Offloads: a UDP packet whose checksum is still to be filled in
 */

#define UDP_START (ETH_HLEN + 20)
#define UDP_SIZE (UDP_START + 8 + 100)

static uint32_t sum16(const uint8_t *data, size_t size, uint32_t sum)
{
    size_t i;

    for (i = 0; i < size; i += 2) {
        sum += lduw_be_p(data + i);
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

static uint32_t udp_pseudo_sum(const uint8_t *packet)
{
    return sum16(packet + ETH_HLEN + 12, 8, 17 + UDP_SIZE - UDP_START);
}

/* @partial: with the checksum of the pseudo header only */
static void udp_fill(uint8_t *packet, bool partial)
{
    static const uint8_t ip[] = {
        0x45, 0, 0, UDP_SIZE - ETH_HLEN, 0, 1, 0x40, 0, 64, 17, 0, 0,
        192, 0, 2, 1, 192, 0, 2, 2,
    };
    uint8_t *udp = packet + UDP_START;
    uint32_t sum;

    packet_fill(packet, UDP_SIZE, 0);
    stw_be_p(packet + 12, ETH_P_IP);
    memcpy(packet + ETH_HLEN, ip, sizeof(ip));
    stw_be_p(packet + ETH_HLEN + 10, ~sum16(ip, sizeof(ip), 0));
    stw_be_p(udp, 1000);
    stw_be_p(udp + 2, 2000);
    stw_be_p(udp + 4, UDP_SIZE - UDP_START);
    stw_be_p(udp + 6, 0);
    sum = udp_pseudo_sum(packet);
    if (!partial) {
        sum = ~sum16(udp, UDP_SIZE - UDP_START, sum);
    }
    stw_be_p(udp + 6, sum);
}

static void vnet_fill(uint8_t *hdr, bool partial)
{
    memset(hdr, 0, VNET_LEN);
    if (partial) {
        hdr[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        stw_le_p(hdr + 6, UDP_START);
        stw_le_p(hdr + 8, 6);
    }
}

/* Send into the TAP what a stack with checksum offload sends. */
static void send_partial(Nic *nic)
{
    uint8_t buf[VNET_LEN + UDP_SIZE];
    const uint16_t start = UDP_START, offset = 6;

    /* The kernel's header: native byte order, 10 bytes. */
    memset(buf, 0, VNET_LEN_KERNEL);
    buf[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    memcpy(buf + 6, &start, sizeof(start));
    memcpy(buf + 8, &offset, sizeof(offset));
    udp_fill(buf + VNET_LEN_KERNEL, true);
    set_vnet_hdr(nic->x->outside);
    send_raw(nic->x->outside, buf, VNET_LEN_KERNEL + UDP_SIZE);
}

/* The guest can do checksums: the packet stays as it is, with its header. */
static void test_csum_capture(const void *unused)
{
    uint8_t want[VNET_LEN + UDP_SIZE], got[PACKET_MAX];
    Nic nic;

    nic_start(&nic, 1ull << VIRTIO_NET_F_GUEST_CSUM);
    rig_add(nic.r, "id=f0,netdev=x,queue=tx,in_netdev=x,outdev=co,"
            "vnet_hdr_support=on");
    send_partial(&nic);
    vnet_fill(want, true);
    udp_fill(want + VNET_LEN, true);
    g_assert_cmpmem(got, recv_frame(nic.co, got, VNET_LEN), want,
                    sizeof(want));
    nic_end(&nic);
}

/* It can't: the kernel has filled it in. */
static void test_csum_capture_off(const void *unused)
{
    uint8_t want[VNET_LEN + UDP_SIZE], got[PACKET_MAX];
    Nic nic;

    nic_start(&nic, 0);
    rig_add(nic.r, "id=f0,netdev=x,queue=tx,in_netdev=x,outdev=co,"
            "vnet_hdr_support=on");
    send_partial(&nic);
    vnet_fill(want, false);
    udp_fill(want + VNET_LEN, false);
    g_assert_cmpmem(got, recv_frame(nic.co, got, VNET_LEN), want,
                    sizeof(want));
    nic_end(&nic);
}

/* Captured for a chain without vnet headers: QEMU fills it in. */
static void test_csum_foreign(const void *unused)
{
    uint8_t want[UDP_SIZE], got[PACKET_MAX];
    Nic nic;

    nic_start(&nic, 1ull << VIRTIO_NET_F_GUEST_CSUM);
    rig_add(nic.r, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co");
    rig_add(nic.r, "id=f1,netdev=n,queue=tx,in_netdev=x");
    send_partial(&nic);
    udp_fill(want, false);
    g_assert_cmpmem(got, recv_frame(nic.co, got, NO_VNET), want,
                    sizeof(want));
    g_assert_cmpmem(got, recv_raw(nic.n->inside, got), want, sizeof(want));
    nic_end(&nic);
}

static void test_csum_inject(const void *data)
{
    const bool guest_csum = data;
    uint8_t frame[VNET_LEN + UDP_SIZE], want[UDP_SIZE], vnet[VNET_LEN];
    Nic nic;

    nic_start(&nic, guest_csum ? 1ull << VIRTIO_NET_F_GUEST_CSUM : 0);
    nic_block(&nic);
    rig_add(nic.r, "id=f0,netdev=x,indev=ci,out_netdev=x,"
            "vnet_hdr_support=on");
    vnet_fill(frame, true);
    udp_fill(frame + VNET_LEN, true);
    send_frame_raw(nic.ci, frame, sizeof(frame), VNET_LEN);
    vnet_fill(vnet, guest_csum);
    udp_fill(want, guest_csum);
    expect_tap_packet(&nic, vnet, want, sizeof(want));
    nic_end(&nic);
}

/*
 * Offloads: a TCP super-packet
 */

#define TSO_START (ETH_HLEN + 20)
#define TSO_DATA (TSO_START + 20)
#define TSO_MSS 1000
#define TSO_SEGMENTS 5
#define TSO_SIZE (TSO_DATA + TSO_SEGMENTS * TSO_MSS)
#define TSO_SEQ 0xfffff000u /* wraps in the second segment */

#define OFFLOAD_TSO (1ull << VIRTIO_NET_F_GUEST_CSUM | \
                     1ull << VIRTIO_NET_F_GUEST_TSO4)

/* As a stack with segmentation offload sends it; @hdr_len: 10 or 12 */
static void tcp_fill(uint8_t *buf, size_t hdr_len)
{
    static const uint8_t ip[] = {
        0x45, 0, (TSO_SIZE - ETH_HLEN) >> 8, (TSO_SIZE - ETH_HLEN) & 0xff,
        0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    };
    uint8_t *packet = buf + hdr_len;
    uint8_t *tcp = packet + TSO_START;

    memset(buf, 0, hdr_len);
    buf[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    buf[1] = VIRTIO_NET_HDR_GSO_TCPV4;
    stw_le_p(buf + 2, TSO_DATA);
    stw_le_p(buf + 4, TSO_MSS);
    stw_le_p(buf + 6, TSO_START);
    stw_le_p(buf + 8, 16);

    packet_fill(packet, TSO_SIZE, 0);
    stw_be_p(packet + 12, ETH_P_IP);
    memcpy(packet + ETH_HLEN, ip, sizeof(ip));
    stw_be_p(packet + ETH_HLEN + 10, ~sum16(ip, sizeof(ip), 0));
    memset(tcp, 0, 20);
    stw_be_p(tcp, 1000);
    stw_be_p(tcp + 2, 2000);
    stl_be_p(tcp + 4, TSO_SEQ);
    tcp[12] = 5 << 4;
    tcp[13] = 0x18; /* ACK, PSH */
    stw_be_p(tcp + 16, sum16(packet + ETH_HLEN + 12, 8,
                             6 + TSO_SIZE - TSO_START));
}

/* One segment, complete and right, as any host would take it. */
static void tcp_check_segment(const uint8_t *packet, size_t size, unsigned i)
{
    g_autofree uint8_t *whole = g_malloc(VNET_LEN + TSO_SIZE);
    const uint8_t *ip = packet + ETH_HLEN;
    const uint8_t *tcp = packet + TSO_START;
    const size_t len = 20 + TSO_MSS;

    tcp_fill(whole, VNET_LEN);
    g_assert_cmpuint(size, ==, TSO_DATA + TSO_MSS);
    g_assert_cmpmem(packet, ETH_HLEN, whole + VNET_LEN, ETH_HLEN);
    g_assert_cmpuint(lduw_be_p(ip + 2), ==, 20 + len);
    g_assert_cmphex(sum16(ip, 20, 0), ==, 0xffff);
    g_assert_cmphex(sum16(tcp, len, sum16(ip + 12, 8, 6 + len)), ==, 0xffff);
    g_assert_cmphex((uint32_t)ldl_be_p(tcp + 4), ==,
                    TSO_SEQ + i * TSO_MSS);
    g_assert_cmpmem(packet + TSO_DATA, TSO_MSS,
                    whole + VNET_LEN + TSO_DATA + i * TSO_MSS, TSO_MSS);
}

/* Into a TAP whose guest takes super-packets, and into one whose doesn't. */
static void test_tso_inject(const void *data)
{
    const uint64_t offloads = data ? OFFLOAD_TSO : 0;
    g_autofree uint8_t *frame = g_malloc(VNET_LEN + TSO_SIZE);
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    unsigned i;
    Nic nic;

    nic_start(&nic, offloads);
    nic_block(&nic);
    rig_add(nic.r, "id=f0,netdev=x,indev=ci,out_netdev=x,"
            "vnet_hdr_support=on");
    tcp_fill(frame, VNET_LEN);
    send_frame(nic.ci, 100, 1, VNET_LEN);
    send_frame_raw(nic.ci, frame, VNET_LEN + TSO_SIZE, VNET_LEN);
    send_frame(nic.ci, 100, 2, VNET_LEN);

    g_assert_cmpuint(read_raw(nic.x->tap, got), ==, VNET_LEN + 100);
    g_assert_cmpuint(packet_seq(got + VNET_LEN), ==, 1);
    if (offloads) {
        expect_tap_packet(&nic, frame, frame + VNET_LEN, TSO_SIZE);
    }
    for (i = 0; !offloads && i < TSO_SEGMENTS; i++) {
        size_t len = read_raw(nic.x->tap, got);

        tcp_check_segment(got + VNET_LEN, len - VNET_LEN, i);
    }
    g_assert_cmpuint(read_raw(nic.x->tap, got), ==, VNET_LEN + 100);
    g_assert_cmpuint(packet_seq(got + VNET_LEN), ==, 2);
    rig_wait_stat(nic.r, "f0", "input.stats.packets", 3);
    assert_stat(nic.r, "f0", "output.stats.errors", 0);
    nic_end(&nic);
}

static void send_super_packet(Nic *nic)
{
    g_autofree uint8_t *buf = g_malloc(VNET_LEN_KERNEL + TSO_SIZE);

    tcp_fill(buf, VNET_LEN_KERNEL);
    set_vnet_hdr(nic->x->outside);
    send_raw(nic->x->outside, buf, VNET_LEN_KERNEL + TSO_SIZE);
}

/* One packet for a chain with vnet headers, segments for one without. */
static void test_tso_capture(const void *unused)
{
    g_autofree uint8_t *want = g_malloc(VNET_LEN + TSO_SIZE);
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    unsigned i;
    Nic nic;

    nic_start(&nic, OFFLOAD_TSO);
    rig_add(nic.r, "id=f0,netdev=x,queue=tx,in_netdev=x,outdev=co,"
            "vnet_hdr_support=on");
    rig_add(nic.r, "id=f1,netdev=n,queue=tx,in_netdev=x");
    send_super_packet(&nic);
    tcp_fill(want, VNET_LEN);
    g_assert_cmpmem(got, recv_frame(nic.co, got, VNET_LEN), want,
                    VNET_LEN + TSO_SIZE);
    for (i = 0; i < TSO_SEGMENTS; i++) {
        tcp_check_segment(got, recv_raw(nic.n->inside, got), i);
    }
    nic_end(&nic);
}

static void test_tso_capture_bare(const void *unused)
{
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    unsigned i;
    Nic nic;

    nic_start(&nic, OFFLOAD_TSO);
    rig_add(nic.r, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co");
    send_super_packet(&nic);
    for (i = 0; i < TSO_SEGMENTS; i++) {
        size_t len = recv_frame(nic.co, got, NO_VNET);

        tcp_check_segment(got, len, i);
    }
    nic_end(&nic);
}

/*
 * Migration
 */

/* What a migrated guest's TAP gets is handed over, all of it. */
static void test_migrate_source(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    int co = rig_chardev(r, "co");

    rig_start(r);
    rig_add(r, "id=f0,netdev=x,queue=tx,outdev=co,enable_when_stopped=on");
    rig_migrate(r, "/dev/null");
    send_packets(x->outside, 100, 0, 500);
    expect_frames(co, 100, 0, 500);
    rig_sync(r);
    expect_silence(x->inside);
    rig_wait_stat(r, "f0", "output.stats.packets", 500);
    rig_free(r);
}

/* The same by capture: also what came while the migration was on its way. */
static void test_migrate_capture(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    int co = rig_chardev(r, "co");

    rig_start(r);
    rig_add(r, "id=f0,netdev=x,queue=tx,in_netdev=x,outdev=co,"
            "enable_when_stopped=on");
    send_packets(x->outside, 100, 0, 5);
    expect_frames(co, 100, 0, 5);
    rig_migrate(r, "/dev/null");
    send_packets(x->outside, 100, 5, 500);
    expect_frames(co, 100, 5, 500);
    rig_wait_stat(r, "f0", "output.stats.packets", 505);
    assert_stat(r, "f0", "input.stats.discarded", 0);
    rig_free(r);
}

/* The destination keeps what is handed to it until its machine runs. */
static void test_migrate_destination(const void *unused)
{
    g_autofree char *dir = g_dir_make_tmp("qtest-redirector-XXXXXX", NULL);
    g_autofree char *file = g_strdup_printf("%s/state", dir);
    Rig *from = rig_new(), *to = rig_new();
    Port *x;
    int ci;

    rig_start(from);
    rig_migrate(from, file);
    rig_free(from);

    x = rig_tap(to, "x", TAP_GUEST);
    ci = rig_chardev(to, "ci");
    g_string_append(to->args, "-incoming defer ");
    rig_start(to);
    rig_add(to, "id=f0,netdev=x,indev=ci,out_netdev=x,"
            "enable_when_stopped=on");
    send_frames(ci, 100, 0, 50);
    rig_wait_state(to, "f0", "output", "held");
    rig_sync(to);
    assert_stat(to, "f0", "output.stats.packets", 0);
    g_assert_cmpuint(if_tx_packets(x->ifname), ==, 0);
    {
        g_autofree char *uri = g_strdup_printf("exec:cat %s", file);

        qtest_qmp_assert_success(to->qts, "{'execute': 'migrate-incoming', "
                                 "'arguments': {'uri': %s}}", uri);
    }
    expect_packets(x->inside, 100, 0, 50);
    assert_stat(to, "f0", "output.stats.packets", 50);
    rig_free(to);
    unlink(file);
    rmdir(dir);
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    if (qtest_has_device("virtio-net-pci")) {
        case_add("/filter-redirector/nic/capture/bare", test_nic_capture,
                 NULL);
        case_add("/filter-redirector/nic/capture/vnet_hdr", test_nic_capture,
                 "vnet");
        case_add("/filter-redirector/nic/inject/bare", test_nic_inject, NULL);
        case_add("/filter-redirector/nic/inject/vnet_hdr", test_nic_inject,
                 "vnet");
        case_add("/filter-redirector/nic/csum/capture", test_csum_capture,
                 NULL);
        case_add("/filter-redirector/nic/csum/capture-off",
                 test_csum_capture_off, NULL);
        case_add("/filter-redirector/nic/csum/foreign", test_csum_foreign,
                 NULL);
        case_add("/filter-redirector/nic/csum/inject", test_csum_inject,
                 "guest_csum");
        case_add("/filter-redirector/nic/csum/inject-off", test_csum_inject,
                 NULL);
        case_add("/filter-redirector/nic/tso/inject", test_tso_inject, "tso");
        case_add("/filter-redirector/nic/tso/inject-off", test_tso_inject,
                 NULL);
        case_add("/filter-redirector/nic/tso/capture", test_tso_capture, NULL);
        case_add("/filter-redirector/nic/tso/capture-bare",
                 test_tso_capture_bare, NULL);
    }
    case_add("/filter-redirector/migrate/source", test_migrate_source, NULL);
    case_add("/filter-redirector/migrate/capture", test_migrate_capture, NULL);
    case_add("/filter-redirector/migrate/destination",
             test_migrate_destination, NULL);

    return g_test_run();
}
