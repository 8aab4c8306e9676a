/*
 * What net/packet-inject.c and net/packet-txring.c rely on in Linux
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "kernel.h"
#include <linux/ethtool.h>
#include <linux/sockios.h>

#define SLOT_SIZE (128 * 1024)
#define DATA (TPACKET2_HDRLEN - sizeof(struct sockaddr_ll))

static int tap, sock;
static uint8_t buf[VNET_LEN + 70000];
static uint8_t *packet = buf + VNET_LEN;

static void inject_new(void)
{
    tap = tap_new();
    sock = packet_socket(0);
    set_option(sock, PACKET_VNET_HDR, 1);
    set_option(sock, PACKET_QDISC_BYPASS, 1);
    bind_to(sock, 0);
}

/* Return: 0 or the error */
static int inject(size_t len)
{
    return send(sock, buf, VNET_LEN + len, MSG_DONTWAIT) < 0 ? errno : 0;
}

static int inject_plain(size_t len)
{
    make_packet(packet, len, 1);
    return inject(len);
}

static void queue_full(void)
{
    unsigned i;

    inject_new();
    if_number(SIOCSIFTXQLEN, 10);
    for (i = 0; i < 10; i++) {
        expect(inject_plain(60) == 0);
    }
    expect(inject_plain(60) == ENOBUFS);
    expect(read(tap, buf, sizeof(buf)) > 0);
    memset(buf, 0, sizeof(buf));
    expect(inject_plain(60) == 0);
}

static void not_captured(void)
{
    int other;

    inject_new();
    other = packet_socket(0);
    bind_to(other, ETH_P_ALL);
    expect(inject_plain(60) == 0);
    expect(!readable(other, 50));
}

static void tap_empty(void)
{
    inject_new();
    expect(!readable(tap, 0));
    expect(inject_plain(60) == 0);
    expect(readable(tap, 0));
    expect(read(tap, buf, sizeof(buf)) > 0);
    expect(!readable(tap, 0));
}

static void length(void)
{
    inject_new();
    expect(inject_plain(1514) == 0);
    expect(inject_plain(1515) == EMSGSIZE);
    make_packet(packet, 1518, 1);
    memcpy(packet + 12, "\x81\0\0\5", 4);
    expect(inject(1518) == 0);
    memcpy(packet + 12, "\x88\xa8\0\5", 4);
    expect(inject(1518) == EMSGSIZE);
}

static void by_ring(void)
{
    struct tpacket_req req = { SLOT_SIZE, 2, SLOT_SIZE, 2 };
    struct tpacket2_hdr *hdr;
    uint8_t *ring;

    inject_new();
    set_option(sock, PACKET_VERSION, TPACKET_V2);
    need(setsockopt(sock, SOL_PACKET, PACKET_TX_RING, &req,
                    sizeof(req)) == 0);
    ring = mmap(NULL, 2 * SLOT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, sock,
                0);
    need(ring != MAP_FAILED);

    /* Full length, with two tags. */
    make_packet(packet, 1522, 1);
    memcpy(packet + 12, "\x88\xa8\0\5\x81\0\0\6", 8);
    hdr = (void *)ring;
    memcpy(ring + DATA, buf, VNET_LEN + 1522);
    hdr->tp_len = VNET_LEN + 1522;
    hdr->tp_status = TP_STATUS_SEND_REQUEST;
    expect(send(sock, NULL, 0, MSG_DONTWAIT) == 1522);
    expect(hdr->tp_status == TP_STATUS_AVAILABLE);
    expect(read(tap, buf, sizeof(buf)) == VNET_LEN + 1522);

    /* One that is refused is the next one again. */
    if_number(SIOCSIFTXQLEN, 1);
    hdr = (void *)(ring + SLOT_SIZE);
    memset(ring + SLOT_SIZE + DATA, 0, VNET_LEN);
    make_packet(ring + SLOT_SIZE + DATA + VNET_LEN, 60, 1);
    hdr->tp_len = VNET_LEN + 60;
    hdr->tp_status = TP_STATUS_SEND_REQUEST;
    expect(send(sock, NULL, 0, MSG_DONTWAIT) == 60);
    hdr = (void *)ring;
    hdr->tp_len = VNET_LEN + 60;
    hdr->tp_status = TP_STATUS_SEND_REQUEST;
    expect(send(sock, NULL, 0, MSG_DONTWAIT) < 0 && errno == ENOBUFS);
    expect(hdr->tp_status == TP_STATUS_SEND_REQUEST);
    expect(read(tap, buf, sizeof(buf)) > 0);
    expect(send(sock, NULL, 0, MSG_DONTWAIT) == 60);
}

static void super_packet(void)
{
    struct virtio_net_hdr hdr;
    size_t len;

    inject_new();
    len = make_tso(&hdr, packet);
    memcpy(buf, &hdr, VNET_LEN);
    expect(inject(len) == ENOBUFS);
    expect(!readable(tap, 0));
    need(ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) == 0);
    expect(inject(len) == 0);
}

static void tap_filter(void)
{
    struct sock_filter insns[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
    struct sock_fprog prog = { 1, insns };

    inject_new();
    need(ioctl(tap, TUNATTACHFILTER, &prog) == 0);
    expect(inject_plain(60) == ENOBUFS);
    expect(!readable(tap, 0));
}

static void carrier(void)
{
    struct ethtool_value link = { .cmd = ETHTOOL_GLINK };
    struct ifreq ifr = { .ifr_name = TAP_NAME };
    int off = 0, i;

    inject_new();
    if (ioctl(tap, TUNSETCARRIER, &off) < 0) {
        skip("the kernel has no TUNSETCARRIER");
    }
    expect(inject_plain(60) == ENOBUFS);
    ifr.ifr_data = (void *)&link;
    expect(ioctl(sock, SIOCETHTOOL, &ifr) == 0 && !link.data);
    for (i = 0; i < 200; i++) {
        need(ioctl(sock, SIOCGIFFLAGS, &ifr) == 0);
        if (!(ifr.ifr_flags & IFF_RUNNING)) {
            return;
        }
        usleep(10000);
    }
    expect(!(ifr.ifr_flags & IFF_RUNNING));
}

static void down(void)
{
    inject_new();
    if_flags(0, IFF_UP);
    expect(inject_plain(60) == ENETDOWN);
    if_flags(IFF_UP, 0);
    expect(inject_plain(60) == 0);
}

int main(void)
{
    static const Fact facts[] = {
        { "past the queueing discipline a full TAP queue is ENOBUFS",
          queue_full },
        { "... and other packet sockets don't see the packet", not_captured },
        { "poll on a TAP says whether its queue is empty", tap_empty },
        { "the MTU allows an Ethernet header and a tag of type 8100, no "
          "other", length },
        { "a ring that is sent from has no such limit, and keeps what is "
          "refused", by_ring },
        { "a super-packet to a TAP without offloads is ENOBUFS", super_packet },
        { "so is a packet that a TAP's filter drops", tap_filter },
        { "so is one without carrier, which the flags tell in the end, and "
          "ethtool at once", carrier },
        { "down is ENETDOWN", down },
    };

    return check_facts(facts, sizeof(facts) / sizeof(facts[0]));
}
