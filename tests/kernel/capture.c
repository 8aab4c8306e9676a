/*
 * What net/packet-ring.c and net/packet-capture.c rely on in Linux
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "kernel.h"

static int tap, sock;
static uint8_t *ring;
static uint8_t packet[70000];

static void capture_new(void)
{
    tap = tap_new();
    sock = packet_socket(0);
    ring = ring_new(sock);
    bind_to(sock, ETH_P_ALL);
}

static void guest_sends(size_t len, uint8_t fill)
{
    make_packet(packet, len, fill);
    guest_send(tap, NULL, packet, len);
}

/* A filter that returns one number. */
static void filter(int fd, uint32_t k)
{
    struct sock_filter insns[] = { BPF_STMT(BPF_RET | BPF_K, k) };
    struct sock_fprog prog = { 1, insns };

    need(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog,
                    sizeof(prog)) == 0);
}

static void given_up(void)
{
    struct virtio_net_hdr hdr;
    struct tpacket3_hdr *p;
    unsigned i;
    size_t len;

    capture_new();
    /* Leaves headers of packets, and what looks like one, everywhere. */
    for (i = 0; i < BLOCKS; i++) {
        guest_sends(60000, 0xff);
        expect(ring_wait(ring, i));
        ring_release(ring, i);
    }
    drops(sock);
    guest_sends(40000, 1);
    len = make_ufo(&hdr, packet);
    guest_send(tap, &hdr, packet, len);
    guest_sends(100, 2);
    expect(ring_wait(ring, 0));
    expect(ring_block(ring, 0)->num_pkts == 3);
    p = ring_packet(ring, 0, 0);
    expect(p->tp_status & TP_STATUS_USER && p->tp_len == 40000);
    p = ring_packet(ring, 0, 1);
    expect(!(p->tp_status & TP_STATUS_USER));
    p = ring_packet(ring, 0, 2);
    expect(p->tp_status & TP_STATUS_USER && p->tp_len == 100);
    expect(drops(sock) == 1);
}

static void given_up_tagged(void)
{
    struct virtio_net_hdr hdr;
    size_t len;

    capture_new();
    len = make_ufo(&hdr, packet);
    memmove(packet + 16, packet + 12, len - 12);
    memcpy(packet + 12, "\x81\0\0\5", 4);
    hdr.hdr_len += 4;
    hdr.csum_start += 4;
    guest_send(tap, &hdr, packet, len + 4);
    expect(ring_wait(ring, 0));
    expect(ring_block(ring, 0)->num_pkts == 1);
    expect(ring_packet(ring, 0, 0)->tp_status & TP_STATUS_VLAN_VALID);
    expect(!(ring_packet(ring, 0, 0)->tp_status & TP_STATUS_USER));
}

static void described(void)
{
    struct virtio_net_hdr hdr, *got;
    struct tpacket3_hdr *p;
    struct sockaddr_ll *addr;
    size_t len;

    capture_new();
    len = make_tso(&hdr, packet);
    guest_send(tap, &hdr, packet, len);
    guest_sends(61, 1);
    expect(ring_wait(ring, 0));
    expect(ring_block(ring, 0)->offset_to_first_pkt % 8 == 0);
    p = ring_packet(ring, 0, 0);
    got = (void *)((uint8_t *)p + p->tp_mac - VNET_LEN);
    addr = (void *)((uint8_t *)p + TPACKET_ALIGN(sizeof(*p)));
    expect(p->tp_status & TP_STATUS_USER);
    expect(p->tp_mac >= TPACKET3_HDRLEN + VNET_LEN);
    expect(p->tp_len == len && p->tp_snaplen == len);
    expect(p->tp_next_offset % 8 == 0);
    expect(p->tp_next_offset >= p->tp_mac + len);
    expect(got->gso_type == VIRTIO_NET_HDR_GSO_TCPV4 && got->gso_size == 1000);
    expect(got->csum_start == 34 && got->csum_offset == 16);
    expect(addr->sll_pkttype != PACKET_OUTGOING);
    p = ring_packet(ring, 0, 1);
    expect(p->tp_len == 61 && p->tp_next_offset == 0);
}

static void outgoing(void)
{
    struct tpacket3_hdr *p;
    struct sockaddr_ll *addr;
    int net;

    capture_new();
    net = packet_socket(0);
    bind_to(net, 0);
    make_packet(packet, 100, 1);
    need(send(net, packet, 100, 0) == 100);
    expect(ring_wait(ring, 0));
    p = ring_packet(ring, 0, 0);
    addr = (void *)((uint8_t *)p + TPACKET_ALIGN(sizeof(*p)));
    expect(addr->sll_pkttype == PACKET_OUTGOING);
}

static void tag_beside(void)
{
    struct tpacket3_hdr *p;

    capture_new();
    make_packet(packet, 100, 1);
    memcpy(packet + 12, "\x88\xa8\0\7\x88\xb5", 6);
    guest_send(tap, NULL, packet, 100);
    expect(ring_wait(ring, 0));
    p = ring_packet(ring, 0, 0);
    expect(p->tp_status & TP_STATUS_VLAN_VALID);
    expect(p->tp_status & TP_STATUS_VLAN_TPID_VALID);
    expect(p->hv1.tp_vlan_tpid == 0x88a8 && p->hv1.tp_vlan_tci == 7);
    expect(p->tp_len == 96);
}

static void time_limit(void)
{
    capture_new();
    usleep(5 * LATENCY_MS * 1000);
    expect(!readable(sock, 0));
    guest_sends(60, 1);
    expect(readable(sock, 10 * LATENCY_MS));
    expect(ring_block(ring, 0)->num_pkts == 1);
    ring_release(ring, 0);
    expect(!readable(sock, 5 * LATENCY_MS));
}

static void unfinished(void)
{
    capture_new();
    guest_sends(60, 1);
    guest_sends(60, 1);
    guest_sends(60, 1);
    expect(ring_block(ring, 0)->num_pkts == 3);
    expect(ring_wait(ring, 0));
    expect(ring_block(ring, 0)->num_pkts == 3);
}

static void full(void)
{
    unsigned i;

    capture_new();
    for (i = 0; i < BLOCKS + 1; i++) {
        guest_sends(60, i);
        usleep(3 * LATENCY_MS * 1000);
    }
    expect(drops(sock) == 1);
    expect(drops(sock) == 0);
    for (i = 0; i < BLOCKS; i++) {
        expect(ring_block(ring, i)->num_pkts == 1);
    }
    guest_sends(60, i);
    ring_release(ring, 0);
    guest_sends(60, i);
    expect(ring_wait(ring, 0));
    expect(ring_block(ring, 0)->block_status & TP_STATUS_LOSING);
}

static void bound_late(void)
{
    tap = tap_new();
    sock = packet_socket(0);
    ring = ring_new(sock);
    guest_sends(60, 1);
    bind_to(sock, ETH_P_ALL);
    guest_sends(61, 1);
    expect(ring_wait(ring, 0));
    expect(ring_block(ring, 0)->num_pkts == 1);
    expect(ring_packet(ring, 0, 0)->tp_len == 61);
}

static void filter_switch(void)
{
    capture_new();
    filter(sock, 0);
    guest_sends(60, 1);
    filter(sock, UINT32_MAX);
    guest_sends(61, 1);
    expect(ring_wait(ring, 0));
    expect(ring_block(ring, 0)->num_pkts == 1);
    expect(ring_packet(ring, 0, 0)->tp_len == 61);
    expect(drops(sock) == 0);
}

static void filter_cuts(void)
{
    struct tpacket3_hdr *p;

    capture_new();
    filter(sock, 64);
    guest_sends(1000, 1);
    expect(ring_wait(ring, 0));
    p = ring_packet(ring, 0, 0);
    expect(p->tp_len == 1000 && p->tp_snaplen == 64);
    expect(drops(sock) == 0);
}

static void down_and_up(void)
{
    int err = 0;
    socklen_t len = sizeof(err);

    capture_new();
    if_flags(0, IFF_UP);
    expect(getsockopt(sock, SOL_SOCKET, SO_ERROR, &err, &len) == 0);
    expect(err == ENETDOWN);
    expect(getsockopt(sock, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && !err);
    if_flags(IFF_UP, 0);
    guest_sends(61, 1);
    expect(ring_wait(ring, 0));
}

static void removed(void)
{
    struct sockaddr_ll addr;
    socklen_t len = sizeof(addr);
    int index;

    capture_new();
    index = if_index();
    close(tap);
    expect(getsockname(sock, (struct sockaddr *)&addr, &len) == 0);
    expect(addr.sll_ifindex != index);
}

static void get_filter(void)
{
    struct sock_filter insns[4];
    socklen_t n = 0;

    capture_new();
    expect(getsockopt(sock, SOL_SOCKET, SO_ATTACH_FILTER, NULL, &n) == 0);
    expect(n == 0);
    filter(sock, 77);
    expect(getsockopt(sock, SOL_SOCKET, SO_ATTACH_FILTER, NULL, &n) == 0);
    expect(n == 1);
    expect(getsockopt(sock, SOL_SOCKET, SO_ATTACH_FILTER, insns, &n) == 0);
    expect(n == 1 && insns[0].k == 77);
}

static void ring_removed(void)
{
    struct tpacket_req3 req = { 0 };

    capture_new();
    expect(setsockopt(sock, SOL_PACKET, PACKET_RX_RING, &req,
                      sizeof(req)) < 0 && errno == EBUSY);
    munmap(ring, BLOCKS * BLOCK_SIZE);
    expect(setsockopt(sock, SOL_PACKET, PACKET_RX_RING, &req,
                      sizeof(req)) == 0);
    set_option(sock, PACKET_VERSION, TPACKET_V1);
}

static void no_way_back(void)
{
    struct sockaddr_ll addr;
    socklen_t len = sizeof(addr);

    capture_new();
    bind_to(sock, 0);
    expect(getsockname(sock, (struct sockaddr *)&addr, &len) == 0);
    expect(addr.sll_protocol == htons(ETH_P_ALL));
    bind_to(sock, 0xffff);
    guest_sends(61, 1);
    expect(!readable(sock, 5 * LATENCY_MS));
}

static void fanout(void)
{
    struct sockaddr_ll addr;
    socklen_t len = sizeof(addr);

    capture_new();
    expect(getsockname(sock, (struct sockaddr *)&addr, &len) == 0);
    expect(bind(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    set_option(sock, PACKET_FANOUT, 0);
    expect(bind(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0);
    expect(errno == EINVAL);
}

int main(void)
{
    static const Fact facts[] = {
        { "a packet that the kernel gives up has no TP_STATUS_USER, whatever "
          "stood in its place, and is counted as dropped once", given_up },
        { "so has one with a VLAN tag", given_up_tagged },
        { "a packet that is filled in: status, offsets, vnet header",
          described },
        { "what goes to the TAP's reader is PACKET_OUTGOING", outgoing },
        { "a VLAN tag is beside the packet, with its type", tag_beside },
        { "a block is handed over after its time, an empty one is not",
          time_limit },
        { "a block that is being filled says how many packets it has",
          unfinished },
        { "a full ring drops and counts; the block after that says so", full },
        { "nothing is received before the socket is bound", bound_late },
        { "a filter switches capturing at once, and what it keeps out is not "
          "counted", filter_switch },
        { "a filter's result cuts packets", filter_cuts },
        { "down is an error of the socket once; up goes on", down_and_up },
        { "a removed interface unbinds the socket", removed },
        { "a socket's filter can be read", get_filter },
        { "a ring that is not mapped can be taken away", ring_removed },
        { "binding to no protocol keeps the old one; none has 0xffff",
          no_way_back },
        { "a member of a fanout group can't be bound", fanout },
    };

    return check_facts(facts, sizeof(facts) / sizeof(facts[0]));
}
