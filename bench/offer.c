/*
 * Offers numbered packets: to TAPs through a packet socket, or as a stream to
 * a unix socket
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "bench.h"
#include <arpa/inet.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>

#define BATCH 64
#define TAPS_MAX 64
#define STREAM_BYTES (256 * 1024)
#define MTU_FRAME 1514
#define HEADERS 54              /* Ethernet, IPv4, TCP */

static const char usage[] =
"usage: offer [OPTION...]\n"
"  -i IF[,IF...]  interfaces, in turn\n"
"  -u PATH        a stream to this unix socket instead\n"
"  -v BYTES       vnet header's length in the stream, told there (default:\n"
"                 bare packets, only their length is told)\n"
"  -m BYTES       the stream comes out of so much memory (default 256 KiB)\n"
"  -s BYTES       packet size (default 60); above 1514: TCP super-packets\n"
"  -n PACKETS     how many (default: until killed)\n"
"  -t SECONDS     for how long (default: until killed)\n"
"  -r RATE        packets a second, together (default: as many as possible)\n"
"  -b             past the queueing discipline: a full TAP is an error, and\n"
"                 the packet is tried again\n"
"  -c FILE        counters\n";

static Counters *count;
static size_t size = 60;
static uint64_t limit = UINT64_MAX;
static uint64_t rate;
static size_t memory = STREAM_BYTES;
static uint64_t start;
static uint64_t duration = UINT64_MAX;  /* ns */

static void make_packet(uint8_t *p, struct virtio_net_hdr *vnet)
{
    static const uint8_t macs[] = {
        0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2
    };

    memset(p, 0, size);
    memset(vnet, 0, sizeof(*vnet));
    memcpy(p, macs, sizeof(macs));
    if (size <= MTU_FRAME) {
        p[12] = ETH_P_BENCH >> 8;
        p[13] = ETH_P_BENCH & 0xff;
        return;
    }
    /* TCP from 192.0.2.1 to 192.0.2.2; its checksum is left to the kernel. */
    p[12] = 0x08;
    p[14] = 0x45;
    p[16] = (size - ETH_LEN) >> 8;
    p[17] = (size - ETH_LEN) & 0xff;
    p[22] = 64;
    p[23] = 6;
    memcpy(p + 26, (uint8_t[]) { 192, 0, 2, 1, 192, 0, 2, 2 }, 8);
    p[46] = 5 << 4;
    *vnet = (struct virtio_net_hdr) {
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
        .hdr_len = HEADERS,
        .gso_size = 1460,
        .csum_start = 34,
        .csum_offset = 16,
    };
}

static void put_number(uint8_t *packet, uint64_t seq)
{
    if (size <= MTU_FRAME) {
        memcpy(packet + SEQ_OFFSET, &seq, sizeof(seq));
    }
}

/* Waits until @packets more are due. */
static void pace(unsigned packets)
{
    uint64_t due, now;

    if (!rate) {
        return;
    }
    due = start + (count->packets + packets) * (double)NS_PER_S / rate;
    while ((now = now_ns()) < due) {
        struct timespec t = { 0, due - now };

        if (due - now > 60000) {
            t.tv_sec = t.tv_nsec / NS_PER_S;
            t.tv_nsec %= NS_PER_S;
            nanosleep(&t, NULL);
        }
    }
}

static unsigned next_batch(void)
{
    uint64_t left = limit - count->packets;
    unsigned n = BATCH;

    if (duration != UINT64_MAX && now_ns() - start >= duration) {
        return 0;
    }
    /* At low rates no larger than what is due in half a millisecond. */
    if (rate && rate / 2000 < n) {
        n = rate / 2000 ? rate / 2000 : 1;
    }
    return left < n ? left : n;
}

static unsigned find_taps(char *names, struct sockaddr_ll *addrs)
{
    unsigned n = 0;
    char *name;

    for (name = strtok(names, ","); name; name = strtok(NULL, ",")) {
        if (n == TAPS_MAX) {
            fail("more than %d interfaces", TAPS_MAX);
        }
        addrs[n] = (struct sockaddr_ll) {
            .sll_family = AF_PACKET,
            .sll_protocol = htons(ETH_P_BENCH),
            .sll_ifindex = if_nametoindex(name),
            .sll_halen = 6,
        };
        if (size > MTU_FRAME) {
            addrs[n].sll_protocol = htons(0x0800);
        }
        if (!addrs[n++].sll_ifindex) {
            fail("%s", name);
        }
    }
    return n;
}

static void to_taps(char *names, bool bypass)
{
    static uint8_t packets[BATCH][PACKET_MAX];
    struct sockaddr_ll addrs[TAPS_MAX];
    struct virtio_net_hdr vnet;
    struct iovec iov[BATCH][2];
    struct mmsghdr msgs[BATCH];
    unsigned n, i, taps = find_taps(names, addrs), turn = 0;
    const int on = 1;
    int fd = socket(AF_PACKET, SOCK_RAW, 0), ret;

    /* What is not needed is left out: who offers must not be the slowest. */
    if (fd < 0 ||
        (size > MTU_FRAME && setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on,
                                        sizeof(on))) ||
        (taps == 1 && bind(fd, (struct sockaddr *)&addrs[0],
                           sizeof(addrs[0]))) ||
        (bypass && setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on,
                              sizeof(on)))) {
        fail("packet socket");
    }
    for (i = 0; i < BATCH; i++) {
        make_packet(packets[i], &vnet);
    }
    start = count->first_ns = now_ns();
    while ((n = next_batch())) {
        pace(n);
        for (i = 0; i < n; i++) {
            put_number(packets[i], count->packets + i);
            iov[i][0] = (struct iovec) { &vnet, sizeof(vnet) };
            iov[i][1] = (struct iovec) { packets[i], size };
            msgs[i].msg_hdr = (struct msghdr) {
                .msg_name = taps > 1 ? &addrs[(turn + i) % taps] : NULL,
                .msg_namelen = taps > 1 ? sizeof(addrs[0]) : 0,
                .msg_iov = size > MTU_FRAME ? iov[i] : &iov[i][1],
                .msg_iovlen = size > MTU_FRAME ? 2 : 1,
            };
        }
        for (i = 0; i < n; i += ret) {
            ret = sendmmsg(fd, &msgs[i], n - i, 0);
            count->calls++;
            if (ret < 0) {
                if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR) {
                    fail("sendmmsg");
                }
                count->retries++;
                ret = 0;
            }
            count->packets += ret;
        }
        turn = (turn + n) % taps;
    }
}

static void to_socket(const char *path, int hdr_len)
{
    const size_t prefix = hdr_len < 0 ? 4 : 8 + hdr_len;
    const size_t frame = prefix + size;
    unsigned n, i, at = 0, most = STREAM_BYTES / frame ?: 1;
    unsigned frames = memory / frame > most ? memory / frame : most;
    uint8_t *buf = malloc(frames * frame);
    int fd = socket_connect(path);
    struct virtio_net_hdr vnet;

    for (i = 0; i < frames; i++) {
        uint8_t *p = buf + i * frame;
        uint32_t len = htonl(frame - (hdr_len < 0 ? 4 : 8));

        memset(p, 0, prefix);
        make_packet(p + prefix, &vnet);
        memcpy(p, &len, 4);
        if (hdr_len >= 0) {
            len = htonl(hdr_len);
            memcpy(p + 4, &len, 4);
            memcpy(p + 8, &vnet, hdr_len < 10 ? hdr_len : 10);
        }
    }
    start = count->first_ns = now_ns();
    while ((n = next_batch())) {
        if (n > most || (!rate && limit - count->packets >= most)) {
            n = most;
        }
        pace(n);
        for (i = 0; i < n; i++) {
            put_number(buf + (at + i) * frame + prefix, count->packets + i);
        }
        write_all(fd, buf + at * frame, n * frame);
        at = at + n + most <= frames ? at + n : 0;
        count->calls++;
        count->packets += n;
    }
    /* Stays connected until killed: the receiver may still be reading. */
    count->last_ns = now_ns();
    count->done = 1;
    pause();
}

int main(int argc, char **argv)
{
    const char *path = NULL;
    char *taps = NULL;
    bool bypass = false;
    int opt, hdr_len = -1;

    program_init();
    while ((opt = getopt(argc, argv, "i:u:v:m:s:n:t:r:bc:")) != -1) {
        switch (opt) {
        case 'i': taps = optarg; break;
        case 'u': path = optarg; break;
        case 'v': hdr_len = number(optarg); break;
        case 'm': memory = number(optarg); break;
        case 's': size = number(optarg); break;
        case 'n': limit = number(optarg); break;
        case 't': duration = strtod(optarg, NULL) * NS_PER_S; break;
        case 'r': rate = number(optarg); break;
        case 'b': bypass = true; break;
        case 'c': count = counters_open(optarg); break;
        default: fputs(usage, stderr); return 2;
        }
    }
    if (!taps == !path || size < 60 || size > 65550 || optind < argc) {
        fputs(usage, stderr);
        return 2;
    }
    if (!count) {
        count = counters_open(NULL);
    }
    if (path) {
        to_socket(path, hdr_len);
    } else {
        to_taps(taps, bypass);
    }
    count->bytes = count->packets * size;
    count->last_ns = now_ns();
    count->done = 1;
    return 0;
}
