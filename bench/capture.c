/*
 * Two other ways to capture from a TAP: the ring alone, which is the limit,
 * and one packet at a time, which is the plain way
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "bench.h"
#include <arpa/inet.h>
#include <getopt.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>

/* As net/packet-capture.c has it. */
#define BLOCK_SIZE (128 * 1024)
#define RING_SIZE (16 * 1024 * 1024)
#define BLOCKS (RING_SIZE / BLOCK_SIZE)
#define LATENCY_MS 16

static const char usage[] =
"usage: capture -i IF [-c FILE] [-u PATH]\n"
"  -i IF     interface\n"
"  -u PATH   one packet at a time, to this unix socket: poll, recv, and a\n"
"            write for each field (default: read a ring, and only count)\n"
"  -c FILE   counters\n";

static Counters *count;

static void bind_to(int fd, const char *name)
{
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = if_nametoindex(name),
    };

    if (!addr.sll_ifindex ||
        bind(fd, (struct sockaddr *)&addr, sizeof(addr))) {
        fail("%s", name);
    }
}

static int open_socket(void)
{
    const int on = 1;
    int fd = socket(AF_PACKET, SOCK_RAW, 0);

    if (fd < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on))) {
        fail("packet socket");
    }
    return fd;
}

static void read_block(struct tpacket_hdr_v1 *block, uint8_t *base)
{
    struct tpacket3_hdr *p = (void *)(base + block->offset_to_first_pkt);
    unsigned i;

    for (i = 0; i < block->num_pkts; i++) {
        count->bytes += p->tp_snaplen;
        p = (void *)((uint8_t *)p + p->tp_next_offset);
    }
    count->packets += block->num_pkts;
}

static void read_ring(const char *name)
{
    const int version = TPACKET_V3;
    struct tpacket_req3 req = {
        .tp_block_size = BLOCK_SIZE,
        .tp_block_nr = BLOCKS,
        .tp_frame_size = 2048,
        .tp_frame_nr = RING_SIZE / 2048,
        .tp_retire_blk_tov = LATENCY_MS,
    };
    int fd = open_socket();
    uint8_t *ring;
    unsigned next = 0;

    if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version,
                   sizeof(version)) ||
        setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof(req))) {
        fail("ring");
    }
    ring = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ring == MAP_FAILED) {
        fail("ring");
    }
    bind_to(fd, name);
    count->done = 1; /* ready */
    for (;;) {
        uint8_t *base = ring + next * BLOCK_SIZE;
        struct tpacket_hdr_v1 *block =
            &((struct tpacket_block_desc *)base)->hdr.bh1;

        if (!(__atomic_load_n(&block->block_status, __ATOMIC_ACQUIRE) &
              TP_STATUS_USER)) {
            struct pollfd p = { fd, POLLIN, 0 };

            poll(&p, 1, -1);
            count->calls++;
            continue;
        }
        read_block(block, base);
        __atomic_store_n(&block->block_status, TP_STATUS_KERNEL,
                         __ATOMIC_RELEASE);
        next = (next + 1) % BLOCKS;
        count->last_ns = now_ns();
    }
}

static void one_by_one(const char *name, const char *path)
{
    static uint8_t buf[PACKET_MAX];
    const int room = RING_SIZE;
    int fd = open_socket(), out = socket_connect(path);

    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    bind_to(fd, name);
    count->done = 1; /* ready */
    for (;;) {
        struct pollfd p = { fd, POLLIN, 0 };
        uint32_t len, hdr_len = htonl(sizeof(struct virtio_net_hdr));
        ssize_t ret;

        poll(&p, 1, -1);
        ret = recv(fd, buf, sizeof(buf), 0);
        if (ret < 0) {
            fail("recv");
        }
        len = htonl(ret);
        write_all(out, (void *)&len, sizeof(len));
        write_all(out, (void *)&hdr_len, sizeof(hdr_len));
        write_all(out, buf, ret);
        count->packets++;
        count->bytes += ret;
    }
}

int main(int argc, char **argv)
{
    const char *name = NULL, *path = NULL;
    int opt;

    program_init();
    while ((opt = getopt(argc, argv, "i:u:c:")) != -1) {
        switch (opt) {
        case 'i': name = optarg; break;
        case 'u': path = optarg; break;
        case 'c': count = counters_open(optarg); break;
        default: fputs(usage, stderr); return 2;
        }
    }
    if (!name || optind < argc) {
        fputs(usage, stderr);
        return 2;
    }
    if (!count) {
        count = counters_open(NULL);
    }
    if (path) {
        one_by_one(name, path);
    }
    read_ring(name);
}
