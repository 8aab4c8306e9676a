/*
 * The alternative: a packet socket as a character device would use it
 *
 * Bytes by read() and write(), nothing else: one packet each, no ring, no
 * ancillary data (where VLAN tags are), no room asked for.  With -v it knows
 * what its descriptor is: vnet headers, and a full TAP is waited for.
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

#define HDR_LEN sizeof(struct virtio_net_hdr)
#define STREAM_READ (64 * 1024)
#define RETRY_US 100            /* what QEMU's chardevs wait before they retry */

static const char usage[] =
"usage: chardev -i IF {-u PATH | -l PATH} [-v] [-b BYTES] [-c FILE]\n"
"  -i IF     interface\n"
"  -u PATH   its packets go to this unix socket\n"
"  -l PATH   packets from this one, where the other side connects, go to it\n"
"  -v        with vnet headers; a full TAP is tried again\n"
"  -b BYTES  read so much at once (default: enough for any packet)\n"
"  -c FILE   counters: missing are packets that could not be sent\n";

static Counters *count;
static bool vnet;

/* @protocol 0: nothing is received. */
static int open_socket(const char *name, int protocol)
{
    /* The same memory as a capture's ring. */
    const int on = 1, room = 16 * 1024 * 1024;
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(protocol),
        .sll_ifindex = if_nametoindex(name),
    };
    int fd = socket(AF_PACKET, SOCK_RAW, 0);

    if (fd < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) ||
        (vnet && setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on,
                            sizeof(on))) ||
        (vnet && !protocol && setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS,
                                         &on, sizeof(on)))) {
        fail("packet socket");
    }
    if (!addr.sll_ifindex ||
        bind(fd, (struct sockaddr *)&addr, sizeof(addr))) {
        fail("%s", name);
    }
    return fd;
}

static void capture(const char *name, const char *path, size_t most)
{
    static uint8_t buf[8 + PACKET_MAX];
    const uint32_t hdr_len = htonl(HDR_LEN);
    const size_t prefix = vnet ? 8 : 4;
    int fd = open_socket(name, ETH_P_ALL), out = socket_connect(path);

    memcpy(buf + 4, &hdr_len, 4);
    count->done = 1; /* ready */
    for (;;) {
        struct pollfd p = { fd, POLLIN, 0 };
        ssize_t ret;
        uint32_t len;

        poll(&p, 1, -1);
        ret = read(fd, buf + prefix, most);
        if (ret < 0) {
            fail("read");
        }
        len = htonl(ret);
        memcpy(buf, &len, 4);
        write_all(out, buf, prefix + ret);
        count->packets++;
        count->bytes += ret;
        count->calls++;
    }
}

/* A chardev that fails to write has nobody to tell: the packet is gone. */
static void send_packet(int fd, const uint8_t *packet, size_t len)
{
    while (write(fd, packet, len) < 0) {
        if (!vnet || errno != ENOBUFS) {
            count->missing++;
            return;
        }
        count->retries++;
        usleep(RETRY_US);
    }
    count->packets++;
    count->bytes += len;
}

/* Return: bytes used of the @have at @p */
static size_t send_packets(int fd, const uint8_t *p, size_t have)
{
    const size_t prefix = vnet ? 8 : 4;
    size_t pos = 0;
    uint32_t len;

    while (have - pos >= prefix) {
        memcpy(&len, p + pos, 4);
        len = ntohl(len);
        errno = 0;
        if (len > PACKET_MAX) {
            fail("these are no packets: length %u", len);
        }
        if (have - pos < prefix + len) {
            break;
        }
        send_packet(fd, p + pos + prefix, len);
        pos += prefix + len;
    }
    return pos;
}

static void inject(const char *name, const char *path)
{
    static uint8_t buf[STREAM_READ + PACKET_MAX];
    int fd = open_socket(name, 0), in = socket_accept(path);
    size_t have = 0, used;
    ssize_t ret;

    while ((ret = read(in, buf + have, STREAM_READ)) > 0) {
        have += ret;
        used = send_packets(fd, buf, have);
        memmove(buf, buf + used, have - used);
        have -= used;
        count->calls++;
    }
    pause();
}

int main(int argc, char **argv)
{
    const char *name = NULL, *to = NULL, *from = NULL;
    size_t most = PACKET_MAX;
    int opt;

    program_init();
    while ((opt = getopt(argc, argv, "i:u:l:vb:c:")) != -1) {
        switch (opt) {
        case 'i': name = optarg; break;
        case 'u': to = optarg; break;
        case 'l': from = optarg; break;
        case 'v': vnet = true; break;
        case 'b': most = number(optarg); break;
        case 'c': count = counters_open(optarg); break;
        default: fputs(usage, stderr); return 2;
        }
    }
    if (!name || !to == !from || most > PACKET_MAX || optind < argc) {
        fputs(usage, stderr);
        return 2;
    }
    if (!count) {
        count = counters_open(NULL);
    }
    if (from) {
        inject(name, from);
    } else {
        capture(name, to, most);
    }
}
