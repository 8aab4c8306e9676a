/*
 * Lab program: numbered packets
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <string.h>
#include "packet.h"

#define MAGIC           0x4c414254u
#define PATTERN_PERIOD  251
#define ETHERNET        14
#define IPV4            20
#define SEGMENT         1448

typedef struct Stamp {
    uint32_t magic;
    uint32_t size;          /* of the whole payload */
    uint64_t number;
    uint64_t sent_ns;
} Stamp;

_Static_assert(sizeof(Stamp) == PACKET_STAMP, "the stamp has no holes");

/* The addresses are those of tests/lab/inside/guest.py. */
const Route to_guest = {
    .from = { 0x52, 0x54, 0, 0, 0, 1 }, .to = { 0x52, 0x54, 0, 0, 0, 2 },
    .from_ip = { 10, 0, 0, 1 }, .to_ip = { 10, 0, 0, 2 },
    .port = PORT_TO_GUEST,
};

const Route from_guest = {
    .from = { 0x52, 0x54, 0, 0, 0, 2 }, .to = { 0x52, 0x54, 0, 0, 0, 1 },
    .from_ip = { 10, 0, 0, 2 }, .to_ip = { 10, 0, 0, 1 },
    .port = PORT_FROM_GUEST,
};

static uint8_t pattern[PACKET_PAYLOAD_MAX + PATTERN_PERIOD];

void packet_init(void)
{
    for (size_t i = 0; i < sizeof(pattern); i++) {
        pattern[i] = i % PATTERN_PERIOD;
    }
}

static void put16(uint8_t *p, unsigned value)
{
    p[0] = value >> 8;
    p[1] = value;
}

static unsigned get16(const uint8_t *p)
{
    return p[0] << 8 | p[1];
}

static uint32_t sum_bytes(const uint8_t *p, size_t size, uint32_t sum)
{
    for (size_t i = 0; i + 1 < size; i += 2) {
        sum += get16(p + i);
    }
    if (size & 1) {
        sum += p[size - 1] << 8;
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

/* The sum of what TCP's and UDP's checksums cover besides their own packet. */
static uint32_t pseudo_sum(const uint8_t *ip, unsigned protocol, size_t length)
{
    return sum_bytes(ip + 12, 8, protocol + length);
}

static void fill_ip(const Route *route, bool flood, unsigned protocol,
                    size_t length, uint8_t *p)
{
    memset(p, 0, IPV4);
    p[0] = 0x45;
    put16(p + 2, IPV4 + length);
    p[6] = 0x40;        /* don't fragment */
    p[8] = 64;
    p[9] = protocol;
    memcpy(p + 12, route->from_ip, 4);
    memcpy(p + 16, route->to_ip, 4);
    if (flood) {
        p[19] = 255;
    }
    put16(p + 10, ~sum_bytes(p, IPV4, 0) & 0xffff);
}

static size_t fill_layer_4(bool tcp, uint64_t number, size_t size, uint8_t *p)
{
    if (!tcp) {
        put16(p + 4, 8 + size);
        return 8;
    }
    memset(p + 4, 0, 16);
    put16(p + 4, number >> 16);
    put16(p + 6, number);
    p[12] = 5 << 4;
    p[13] = 0x18;       /* ACK, PSH */
    put16(p + 14, 512);
    return 20;
}

size_t packet_fill(const Route *route, uint64_t number, bool flood, size_t size,
                   uint8_t *vnet, uint8_t *frame, uint64_t *sent_ns)
{
    const bool tcp = size > PACKET_SMALL;
    const unsigned protocol = tcp ? IPPROTO_TCP : IPPROTO_UDP;
    const unsigned port = route->port + number % route->flows;
    uint8_t *ip = frame + ETHERNET, *l4 = ip + IPV4;
    struct virtio_net_hdr header = {
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .csum_start = l4 - frame,
        .csum_offset = tcp ? 16 : 6,
    };
    Stamp stamp = { MAGIC, size, number, 0 };
    size_t l4_header = fill_layer_4(tcp, number, size, l4);

    memcpy(frame, route->to, 6);
    if (flood) {
        memset(frame, 0xff, 6);
    }
    memcpy(frame + 6, route->from, 6);
    put16(frame + 12, 0x0800);
    fill_ip(route, flood, protocol, l4_header + size, ip);
    put16(l4, port);
    put16(l4 + 2, port);
    put16(l4 + header.csum_offset,
          pseudo_sum(ip, protocol, l4_header + size));
    if (tcp) {
        header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
        header.gso_size = SEGMENT;
        header.hdr_len = l4 + l4_header - frame;
    }
    *sent_ns = stamp.sent_ns = now_ns(CLOCK_REALTIME);
    memcpy(l4 + l4_header, &stamp, sizeof(stamp));
    memcpy(l4 + l4_header + sizeof(stamp), pattern + number % PATTERN_PERIOD,
           size - sizeof(stamp));
    memset(vnet, 0, VNET_MAX);
    memcpy(vnet, &header, sizeof(header));
    return l4 + l4_header + size - frame;
}

/* Where the payload begins; 0 if it can't be one of ours. */
static size_t payload_at(const uint8_t *frame, size_t size)
{
    size_t at = ETHERNET + IPV4;
    unsigned protocol;

    if (size < at + 8 + PACKET_STAMP || get16(frame + 12) != 0x0800 ||
        frame[ETHERNET] != 0x45) {
        return 0;
    }
    protocol = frame[ETHERNET + 9];
    at += protocol == IPPROTO_UDP ? 8 : 20;
    return (protocol == IPPROTO_UDP || protocol == IPPROTO_TCP) &&
           size >= at + PACKET_STAMP ? at : 0;
}

bool packet_peek(const uint8_t *frame, size_t size, Record *record)
{
    size_t at = payload_at(frame, size);
    Stamp stamp;

    if (!at) {
        return false;
    }
    memcpy(&stamp, frame + at, sizeof(stamp));
    if (stamp.magic != MAGIC) {
        return false;
    }
    record->number = stamp.number;
    record->sent_ns = stamp.sent_ns;
    return true;
}

static bool checksum_right(const uint8_t *frame, size_t size)
{
    const uint8_t *ip = frame + ETHERNET;
    size_t length = size - ETHERNET - IPV4;
    uint32_t sum = pseudo_sum(ip, ip[9], length);

    return sum_bytes(ip + IPV4, length, sum) == 0xffff;
}

bool packet_whole(const uint8_t *vnet, const uint8_t *frame, size_t size)
{
    size_t at = payload_at(frame, size);
    Stamp stamp;

    memcpy(&stamp, frame + at, sizeof(stamp));
    if (at + stamp.size != size || stamp.size < sizeof(stamp) ||
        stamp.size > PACKET_PAYLOAD_MAX ||
        memcmp(frame + at + sizeof(stamp),
               pattern + stamp.number % PATTERN_PERIOD,
               stamp.size - sizeof(stamp))) {
        return false;
    }
    return (vnet[0] & (VIRTIO_NET_HDR_F_NEEDS_CSUM |
                       VIRTIO_NET_HDR_F_DATA_VALID)) ||
           checksum_right(frame, size);
}
