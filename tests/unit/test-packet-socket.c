/*
 * Unit test of packet sockets: capture and injection, on real TAPs
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The test program reads and writes the TAP itself, as a guest would.  It runs
 * in a network namespace of its own; where it may not have one it skips.
 */

#include "qemu/osdep.h"
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "monitor/monitor.h"
#include "net/packet-capture.h"
#include "net/packet-inject.h"
#include "net/tap.h"
#include "standard-headers/linux/virtio_net.h"
#include "../qtest/filter-redirector-helpers.h"

#define VNET_LEN sizeof(struct virtio_net_hdr)
#define BATCH 64

/* What the modules ask QEMU for: the test has one TAP, and no monitor. */

static int tap_fd;

int tap_get_fd(NetClientState *nc)
{
    return tap_fd;
}

int qemu_find_net_clients_except(const char *id, NetClientState **ncs,
                                 NetClientDriver type, int max)
{
    static NetClientState nc;

    ncs[0] = &nc;
    return 1;
}

int monitor_fd_param(Monitor *mon, const char *name, Error **errp)
{
    return atoi(name);
}

void qtest_add_data_func_full(const char *path, void *data,
                              void (*func)(const void *),
                              GDestroyNotify data_free)
{
    g_test_add_data_func_full(path, data, func, data_free);
}

/* Packets of a private type, with a number and a pattern */

void packet_fill(uint8_t *packet, size_t size, uint32_t seq)
{
    size_t i;

    for (i = 0; i < size; i++) {
        packet[i] = seq * 31 + i * 7 + (i >> 8);
    }
    memset(packet, 2, 2 * ETH_ALEN);
    stw_be_p(packet + 12, 0x88b5);
    stl_be_p(packet + 14, seq);
}

uint32_t packet_seq(const uint8_t *packet)
{
    return ldl_be_p(packet + 14);
}

void packet_check(const uint8_t *packet, size_t size)
{
    g_autofree uint8_t *want = g_malloc(size);

    packet_fill(want, size, packet_seq(packet));
    g_assert_cmpmem(packet, size, want, size);
}

void send_packet(int fd, size_t size, uint32_t seq)
{
    g_autofree uint8_t *packet = g_malloc(size);

    packet_fill(packet, size, seq);
    g_assert_cmpint(send(fd, packet, size, 0), ==, size);
}

/* A TAP and what is on it */

typedef struct Tap {
    char name[IFNAMSIZ];
    int fd;
    int net;            /* the network's end */
    NetClientState nc;
} Tap;

static void tap_new(Tap *t)
{
    *t = (Tap) { .name = "tap-t", .nc.name = (char *)"t" };
    t->fd = tap_open(t->name, false);
    g_assert_cmpint(fcntl(t->fd, F_SETFL, O_NONBLOCK), ==, 0);
    if_set_up(t->name, true);
    t->net = if_open(t->name);
    tap_fd = t->fd;
}

static void tap_free(Tap *t)
{
    close(t->net);
    close(t->fd);
}

/* The guest sends, with a vnet header that asks for nothing. */
static void guest_send(Tap *t, size_t size, uint32_t seq)
{
    g_autofree uint8_t *buf = g_malloc0(VNET_LEN + size);

    packet_fill(buf + VNET_LEN, size, seq);
    g_assert_cmpint(write(t->fd, buf, VNET_LEN + size), ==, VNET_LEN + size);
}

/* What the guest gets, without its vnet header; 0 if there is nothing. */
static size_t guest_recv(Tap *t, uint8_t *packet)
{
    g_autofree uint8_t *buf = g_malloc(VNET_LEN + PACKET_MAX);
    ssize_t len = read(t->fd, buf, VNET_LEN + PACKET_MAX);

    if (len < 0) {
        g_assert_cmpint(errno, ==, EAGAIN);
        return 0;
    }
    memcpy(packet, buf + VNET_LEN, len - VNET_LEN);
    return len - VNET_LEN;
}

static unsigned guest_drain(Tap *t)
{
    g_autofree uint8_t *buf = g_malloc(PACKET_MAX);
    unsigned n = 0;

    while (guest_recv(t, buf)) {
        n++;
    }
    return n;
}

static void wait_ms(unsigned ms)
{
    g_usleep(ms * 1000);
}

static bool readable(int fd, int ms)
{
    GPollFD pfd = { .fd = fd, .events = G_IO_IN };

    return g_poll(&pfd, 1, ms) > 0;
}

static PacketCapture *capture_options(Tap *t, const PacketCaptureOptions *o)
{
    PacketInterface iface;
    int fd = packet_socket_open(&t->nc, &iface, &error_abort);
    PacketCapture *c = packet_capture_open(fd, &iface, o, &error_abort);

    g_assert_cmpstr(iface.name, ==, t->name);
    g_assert_cmpint(packet_capture_enable(c, true), ==, 0);
    return c;
}

static PacketCapture *capture(Tap *t)
{
    return capture_options(t, &(PacketCaptureOptions) {
        .dir = NET_FILTER_DIRECTION_RX, .ring_size = PACKET_RING_SIZE_MIN,
    });
}

static void check_frame(const PacketFrame *f, size_t size, uint32_t seq)
{
    g_autofree uint8_t *buf = g_malloc(PACKET_MAX);

    g_assert_cmpuint(f->len, ==, size);
    iov_to_buf(f->iov, f->iovcnt, 0, buf, size);
    g_assert_cmpuint(packet_seq(buf), ==, seq);
    packet_check(buf, size);
}

/* Reads packets of @size bytes numbered from @seq on. */
static void expect_captured(PacketCapture *c, size_t size, uint32_t seq,
                            unsigned n)
{
    PacketFrame frames[BATCH];
    unsigned i, got;

    while (n) {
        got = packet_capture_read(c, frames, MIN(n, BATCH));
        if (!got) {
            g_assert_true(readable(packet_capture_fd(c), 5000));
        }
        for (i = 0; i < got; i++) {
            check_frame(&frames[i], size, seq++);
        }
        packet_capture_release(c, got);
        n -= got;
    }
}

static void expect_nothing(PacketCapture *c)
{
    PacketFrame f;

    wait_ms(3 * PACKET_CAPTURE_LATENCY_MS);
    g_assert_cmpuint(packet_capture_read(c, &f, 1), ==, 0);
}

static void expect_losses(PacketCapture *c, uint64_t lost, uint64_t errors)
{
    uint64_t l, e;

    packet_capture_losses(c, &l, &e);
    g_assert_cmpuint(l, ==, lost);
    g_assert_cmpuint(e, ==, errors);
}

/*
 * Keeping: a capture that nobody reads holds what there is room for
 */

static void test_keep(const void *unused)
{
    const unsigned n = 40;      /* the ring alone: four blocks */
    PacketCapture *c;
    unsigned i;
    Tap t;

    tap_new(&t);
    c = capture(&t);
    for (i = 0; i < n; i++) {
        guest_send(&t, 60 + i, i);
        wait_ms(packet_capture_keep_ms(c));
        g_assert_true(packet_capture_keep(c));
    }
    for (i = 0; i < n; i++) {
        expect_captured(c, 60 + i, i, 1);
    }
    expect_nothing(c);
    expect_losses(c, 0, 0);

    /* Half of it read when more comes. */
    for (i = 0; i < 12; i++) {
        guest_send(&t, 60, i);
        wait_ms(20);
        packet_capture_keep(c);
        if (i % 3 == 2) {
            expect_captured(c, 60, i / 3, 1);
        }
    }
    guest_send(&t, 60, i);
    expect_captured(c, 60, 4, 9);
    expect_losses(c, 0, 0);
    packet_capture_free(c);
    tap_free(&t);
}

/* Return: how many packets are sent until one is lost */
static unsigned send_until_full(void)
{
    PacketCapture *c;
    unsigned sent = 0;
    uint64_t lost, errors;
    Tap t;

    tap_new(&t);
    c = capture(&t);
    do {
        guest_send(&t, 1514, sent++);
        if (sent % 64 == 0) {
            packet_capture_keep(c);
        }
        packet_capture_losses(c, &lost, &errors);
    } while (!lost);
    g_assert_cmpuint(sent * 1514, <, PACKET_RING_SIZE_MIN * 2);
    g_assert_false(packet_capture_keep(c));
    expect_captured(c, 1514, 0, sent - 1);
    expect_losses(c, 1, 0);
    packet_capture_free(c);
    tap_free(&t);
    return sent;
}

/*
 * It takes as much memory as the ring has, and the ring itself.  If the machine
 * is busy, blocks are handed over before they are full: then it is tried again.
 */
static void test_keep_full(const void *unused)
{
    unsigned i, sent = 0;

    for (i = 0; i < 5 && sent * 1514 <= PACKET_RING_SIZE_MIN * 3 / 2; i++) {
        sent = send_until_full();
    }
    g_assert_cmpuint(sent * 1514, >, PACKET_RING_SIZE_MIN * 3 / 2);
}

static int packet_socket(const Tap *t, uint16_t protocol)
{
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET, .sll_protocol = htons(protocol),
        .sll_ifindex = if_nametoindex(t->name),
    };
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    return fd;
}

/*
 * Waits for packets of the guest at a socket that is older than the capture's:
 * the kernel serves the youngest first.
 */
static void await_seen(int witness, unsigned n)
{
    GPollFD pfd = { .fd = witness, .events = G_IO_IN };
    struct sockaddr_ll from;
    uint8_t byte;

    while (n) {
        socklen_t len = sizeof(from);

        g_assert_cmpint(g_poll(&pfd, 1, 10 * 1000), ==, 1);
        g_assert_cmpint(recvfrom(witness, &byte, 1, 0,
                                 (struct sockaddr *)&from, &len), ==, 1);
        n -= from.sll_pkttype != PACKET_OUTGOING;
    }
}

/*
 * Throwing away: what was captured before, and nothing else
 */

static void test_discard(const void *unused)
{
    PacketCapture *c;
    unsigned i;
    int witness;
    Tap t;

    tap_new(&t);
    witness = packet_socket(&t, ETH_P_ALL);
    c = capture(&t);
    packet_capture_discard(c);
    for (i = 0; i < 3; i++) {
        guest_send(&t, 60, i);
        wait_ms(20);
        g_assert_true(packet_capture_keep(c));
    }
    guest_send(&t, 60, i++);
    wait_ms(20);
    /* These, and the first of the next ones, are in a block still open. */
    for (; i < 9; i++) {
        guest_send(&t, 60, i);
    }
    await_seen(witness, i);
    close(witness);
    packet_capture_discard(c);
    for (; i < 12; i++) {
        guest_send(&t, 60, i);
    }
    expect_captured(c, 60, 9, 3);
    expect_nothing(c);
    g_assert_cmpuint(packet_capture_discarded(c), ==, 9);

    /* Several laps of the ring later there is nothing stale. */
    for (i = 0; i < 10; i++) {
        guest_send(&t, 60, i);
        expect_captured(c, 60, i, 1);
        packet_capture_discard(c);
    }
    g_assert_cmpuint(packet_capture_discarded(c), ==, 9);
    expect_losses(c, 0, 0);

    /*
     * The ring was full: the kernel has not opened the next block, which says
     * what was in it, when it gets that back.
     */
    for (i = 0; i < 5; i++) {
        guest_send(&t, 60, i);
        wait_ms(3 * PACKET_CAPTURE_LATENCY_MS);
    }
    expect_losses(c, 1, 0);
    expect_captured(c, 60, 0, 4);
    packet_capture_discard(c);
    guest_send(&t, 60, 9);
    expect_captured(c, 60, 9, 1);
    g_assert_cmpuint(packet_capture_discarded(c), ==, 9);
    packet_capture_free(c);
    tap_free(&t);
}

/*
 * Filters
 */

typedef struct BadFilter {
    const char *text;
    const char *message;
} BadFilter;

#define NO_COUNT "filter: does not begin with the number of instructions, as " \
    "'tcpdump -ddd' prints it"

static const BadFilter bad_filters[] = {
    { "", NO_COUNT },
    { "ip", NO_COUNT },
    { "-1,6 0 0 0", NO_COUNT },
    { "1 6 0 0 0", NO_COUNT },
    { "0", "filter: has 0 instructions, not 1 to 4089" },
    { "5000,6 0 0 0", "filter: has 5000 instructions, not 1 to 4089" },
    { "2,6 0 0 0", "filter: has 1 instructions, but says 2" },
    { "1,6 0 0 0,6 0 0 0", "filter: there is more behind the 1 instructions" },
    { "1,6 0 0", "filter: instruction 1 is not four numbers ('CODE JT JF K')" },
    { "1,6 0 0 0 0",
      "filter: instruction 1 is not four numbers ('CODE JT JF K')" },
    { "1,6 0 0 4294967296",
      "filter: instruction 1 is not four numbers ('CODE JT JF K')" },
    { "1,6 256 0 0",
      "filter: instruction 1 is not four numbers ('CODE JT JF K')" },
    { "1,6 0 0 -1",
      "filter: instruction 1 is not four numbers ('CODE JT JF K')" },
    { "2,40 0 0 12,40 0 0 12", "filter: the last instruction is no 'ret'" },
    { "3,21 0 2 1,6 0 0 1,6 0 0 0",
      "filter: instruction 1 jumps out of the program" },
    { "2,5 0 0 1,6 0 0 0",
      "filter: instruction 1 jumps out of the program" },
    { "2,5 0 0 4294967295,6 0 0 0",
      "filter: instruction 1 jumps out of the program" },
};

static void test_bad_filter(const void *data)
{
    const BadFilter *bad = data;
    Error *err = NULL;

    g_assert_null(packet_filter_parse(bad->text, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, bad->message);
    error_free(err);
}

/* One that only the kernel knows to be bad: an unknown instruction. */
static void test_refused_filter(const void *unused)
{
    g_autofree PacketFilter *f = packet_filter_parse("2,65535 0 0 0,6 0 0 0",
                                                     &error_abort);
    PacketCaptureOptions o = {
        .dir = NET_FILTER_DIRECTION_RX, .ring_size = PACKET_RING_SIZE_MIN,
        .filter = f,
    };
    PacketInterface iface;
    Error *err = NULL;
    Tap t;
    int fd;

    tap_new(&t);
    fd = packet_socket_open(&t.nc, &iface, &error_abort);
    g_assert_null(packet_capture_open(fd, &iface, &o, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "filter: cannot set the packet "
                    "socket's filter: Invalid argument");
    error_free(err);
    g_assert_cmpint(fcntl(fd, F_GETFD), <, 0);
    tap_free(&t);
}

typedef struct GoodFilter {
    const char *name;
    const char *text;           /* NULL: none */
    uint32_t snaplen;
    NetFilterDirection dir;
    unsigned odd;               /* bytes expected of a packet of 200 bytes */
    unsigned even;              /* ... whose number is even */
} GoodFilter;

/* Does the last bit of the number, at byte 17, decide? */
#define BY_NUMBER "6\n48 0 0 17\n84 0 0 1\n21 0 1 1\n6 0 0 262144\n6 0 0 0\n" \
                  "6 0 0 0\n"

static const GoodFilter good_filters[] = {
    { "none", NULL, 0, NET_FILTER_DIRECTION_RX, 200, 200 },
    { "snaplen", NULL, 64, NET_FILTER_DIRECTION_RX, 64, 64 },
    { "snaplen/all", NULL, 64, NET_FILTER_DIRECTION_ALL, 64, 64 },
    { "snaplen/long", NULL, 1000, NET_FILTER_DIRECTION_RX, 200, 200 },
    { "program", BY_NUMBER, 0, NET_FILTER_DIRECTION_RX, 200, 0 },
    { "program/all", BY_NUMBER, 0, NET_FILTER_DIRECTION_ALL, 200, 0 },
    { "program/tx", BY_NUMBER, 0, NET_FILTER_DIRECTION_TX, 0, 0 },
    { "both", BY_NUMBER, 100, NET_FILTER_DIRECTION_RX, 100, 0 },
    { "ret", "1,6 0 0 80", 0, NET_FILTER_DIRECTION_RX, 80, 80 },
    { "ret/snaplen", "1,6 0 0 80", 100, NET_FILTER_DIRECTION_RX, 80, 80 },
    /* returns the packet's length, halved */
    { "computed", "3,128 0 0 0,116 0 0 1,22 0 0 0", 0,
      NET_FILTER_DIRECTION_RX, 100, 100 },
    { "computed/snaplen", "3,128 0 0 0,116 0 0 1,22 0 0 0", 99,
      NET_FILTER_DIRECTION_RX, 99, 99 },
    /* counts on the accumulator being 0 */
    { "accumulator", "3,21 0 1 0,6 0 0 262144,6 0 0 0", 0,
      NET_FILTER_DIRECTION_RX, 200, 200 },
    { "nothing", "1,6 0 0 0", 0, NET_FILTER_DIRECTION_RX, 0, 0 },
};

static void test_filter(const void *data)
{
    const GoodFilter *good = data;
    g_autofree PacketFilter *f =
        good->text ? packet_filter_parse(good->text, &error_abort) : NULL;
    PacketCaptureOptions o = {
        .dir = good->dir, .ring_size = PACKET_RING_SIZE_MIN, .filter = f,
        .snaplen = good->snaplen,
    };
    PacketCapture *c;
    PacketFrame frame;
    unsigned i, len;
    Tap t;

    tap_new(&t);
    c = capture_options(&t, &o);
    for (i = 0; i < 6; i++) {
        guest_send(&t, 200, i);
    }
    wait_ms(3 * PACKET_CAPTURE_LATENCY_MS);
    for (i = 0; i < 6; i++) {
        len = i & 1 ? good->odd : good->even;
        if (len) {
            g_assert_cmpuint(packet_capture_read(c, &frame, 1), ==, 1);
            g_assert_cmpuint(frame.len, ==, len);
            g_assert_cmpuint(frame.cut, ==, 200 - len);
            g_assert_cmpuint(packet_seq(frame.iov[0].iov_base), ==, i);
            packet_capture_release(c, 1);
        }
    }
    expect_nothing(c);
    expect_losses(c, 0, 0);
    packet_capture_free(c);
    tap_free(&t);
}

/* A super-packet of which a part is missing has no vnet header. */
static void test_cut_super(const void *unused)
{
    PacketCaptureOptions o = {
        .dir = NET_FILTER_DIRECTION_RX, .ring_size = PACKET_RING_SIZE_MIN,
        .snaplen = 100,
    };
    struct {
        struct virtio_net_hdr hdr;
        uint8_t packet[4000];
    } QEMU_PACKED buf = {
        .hdr = {
            .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
            .gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .hdr_len = 54,
            .gso_size = 1000, .csum_start = 34, .csum_offset = 16,
        },
    };
    PacketCapture *c;
    PacketFrame f;
    Tap t;

    tap_new(&t);
    stw_be_p(buf.packet + 12, ETH_P_IP);
    buf.packet[14] = 0x45;
    stw_be_p(buf.packet + 16, sizeof(buf.packet) - 14);
    buf.packet[23] = 6;
    buf.packet[46] = 0x50;
    c = capture_options(&t, &o);
    g_assert_cmpint(write(t.fd, &buf, sizeof(buf)), ==, sizeof(buf));
    g_assert_true(readable(packet_capture_fd(c), 1000));
    g_assert_cmpuint(packet_capture_read(c, &f, 1), ==, 1);
    g_assert_cmpuint(f.len, ==, 100);
    g_assert_cmpuint(f.cut, ==, 3900);
    g_assert_false(vnet_hdr_needed(f.hdr, f.hdr_len));
    packet_capture_free(c);
    tap_free(&t);
}

/*
 * Passed sockets
 */

static int option(int fd, int level, int name)
{
    int value = 0;
    socklen_t len = sizeof(value);

    g_assert_cmpint(getsockopt(fd, level, name, &value, &len), ==, 0);
    return value;
}

static void set_option(int fd, int level, int name, int value)
{
    g_assert_cmpint(setsockopt(fd, level, name, &value, sizeof(value)), ==, 0);
}

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

static const struct {
    int level;
    int name;
    int value;
} odd_options[] = {
    { SOL_PACKET, PACKET_VERSION, TPACKET_V2 },
    { SOL_PACKET, PACKET_RESERVE, 8000 },
    { SOL_PACKET, PACKET_TIMESTAMP, 64 },   /* hardware */
    { SOL_PACKET, PACKET_IGNORE_OUTGOING, 1 },
    { SOL_PACKET, PACKET_LOSS, 1 },
    { SOL_PACKET, PACKET_QDISC_BYPASS, 1 },
    { SOL_SOCKET, SO_RCVLOWAT, 100000 },
    { SOL_SOCKET, SO_NOFCS, 1 },
};

static void set_odd(int fd)
{
    struct sock_filter odd[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
        BPF_STMT(BPF_RET | BPF_K, 77),
    };
    struct sock_fprog prog = { ARRAY_SIZE(odd), odd };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(odd_options); i++) {
        set_option(fd, odd_options[i].level, odd_options[i].name,
                   odd_options[i].value);
    }
    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog,
                               sizeof(prog)), ==, 0);
}

static void check_odd(int fd, uint16_t protocol)
{
    struct sockaddr_ll addr;
    socklen_t len = sizeof(addr), n = 2;
    struct sock_filter insns[2];
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(odd_options); i++) {
        g_assert_cmpint(option(fd, odd_options[i].level, odd_options[i].name),
                        ==, odd_options[i].value);
    }
    g_assert_cmpint(option(fd, SOL_PACKET, PACKET_VNET_HDR), ==, 0);
    g_assert_cmpint(getsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, insns, &n),
                    ==, 0);
    g_assert_cmpuint(n, ==, 2);
    g_assert_cmpuint(insns[1].k, ==, 77);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&addr, &len), ==, 0);
    g_assert_cmphex(ntohs(addr.sll_protocol), ==, protocol);
    /* There is no ring: a version can be set. */
    set_option(fd, SOL_PACKET, PACKET_VERSION, TPACKET_V1);
}

typedef struct Given {
    Tap t;
    PacketInterface iface;
    int fd;             /* QEMU's */
    int copy;           /* ours */
} Given;

static void given_new(Given *g, uint16_t protocol)
{
    tap_new(&g->t);
    g->fd = packet_socket(&g->t, protocol);
    g->copy = fcntl(g->fd, F_DUPFD_CLOEXEC, 0);
}

static int given_get(Given *g, Error **errp)
{
    g_autofree char *name = g_strdup_printf("%d", g->fd);

    return packet_socket_get(&g->t.nc, name, &g->iface, errp);
}

static void given_free(Given *g)
{
    close(g->copy);
    tap_free(&g->t);
}

/* All that can be set right is, and is as it was afterwards. */
static void test_given_capture(const void *data)
{
    const uint16_t protocol = GPOINTER_TO_UINT(data);
    PacketCapture *c;
    Given g;
    unsigned i;

    given_new(&g, protocol);
    set_odd(g.copy);
    g_assert_cmpint(given_get(&g, &error_abort), ==, g.fd);
    c = packet_capture_new(g.fd, &g.iface, NET_FILTER_DIRECTION_ALL,
                           PACKET_RING_SIZE_MIN, &error_abort);
    packet_capture_enable(c, true);
    for (i = 0; i < 5; i++) {
        guest_send(&g.t, 500, i);
        expect_captured(c, 500, i, 1);
        send_packet(g.t.net, 500, i);
        expect_captured(c, 500, i, 1);
    }
    packet_capture_free(c);
    check_odd(g.copy, protocol ?: 0xffff);
    given_free(&g);
}

static void make_frame(PacketFrame *f, uint8_t *packet, size_t size,
                       uint32_t seq)
{
    packet_fill(packet, size, seq);
    *f = (PacketFrame) {
        .iov[0] = { packet, size }, .iovcnt = 1, .len = size,
    };
}

static void test_given_inject(const void *data)
{
    const uint16_t protocol = GPOINTER_TO_UINT(data);
    uint8_t packet[500];
    PacketInject *inj;
    PacketFrame f;
    Given g;
    int err;

    given_new(&g, protocol);
    set_odd(g.copy);
    g_assert_cmpint(given_get(&g, &error_abort), ==, g.fd);
    inj = packet_inject_new(g.fd, &g.iface, &error_abort);
    make_frame(&f, packet, sizeof(packet), 1);
    g_assert_cmpuint(packet_inject_send(inj, &f, 1, &err), ==, 1);
    guest_send(&g.t, 60, 1);
    g_assert_cmpuint(guest_drain(&g.t), ==, 1);
    g_assert_cmpint(recv(g.copy, packet, sizeof(packet), MSG_DONTWAIT), <, 0);
    packet_inject_free(inj);
    check_odd(g.copy, protocol ?: 0xffff);
    given_free(&g);
}

/* A second user is refused, whatever the descriptor, and nothing is closed. */
static void test_given_twice(const void *unused)
{
    PacketCapture *c;
    PacketInterface iface;
    Error *err = NULL;
    Given g;

    given_new(&g, 0);
    given_get(&g, &error_abort);
    c = packet_capture_new(g.fd, &g.iface, NET_FILTER_DIRECTION_RX,
                           PACKET_RING_SIZE_MIN, &error_abort);
    packet_capture_enable(c, true);
    g_assert_cmpint(given_get(&g, &err), ==, -1);
    g_assert_nonnull(strstr(error_get_pretty(err), "is in use already"));
    error_free(err);
    err = NULL;
    g_assert_false(packet_socket_take(&g.t.nc, g.copy, &iface, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "is in use already"));
    error_free(err);
    guest_send(&g.t, 60, 3);
    expect_captured(c, 60, 3, 1);
    packet_capture_free(c);

    /* It can be used again. */
    g.fd = fcntl(g.copy, F_DUPFD_CLOEXEC, 0);
    given_get(&g, &error_abort);
    c = packet_capture_new(g.fd, &g.iface, NET_FILTER_DIRECTION_RX,
                           PACKET_RING_SIZE_MIN, &error_abort);
    packet_capture_enable(c, true);
    guest_send(&g.t, 60, 4);
    expect_captured(c, 60, 4, 1);
    packet_capture_free(c);
    given_free(&g);
}

static void test_given_fanout(const void *unused)
{
    Error *err = NULL;
    Given g;

    given_new(&g, ETH_P_ALL);
    /* Group 0 of kind 0: what PACKET_FANOUT tells is 0, as for none. */
    set_option(g.copy, SOL_PACKET, PACKET_FANOUT, 0);
    g_assert_cmpint(given_get(&g, &err), ==, -1);
    g_assert_nonnull(strstr(error_get_pretty(err), "PACKET_FANOUT"));
    error_free(err);
    g_assert_cmpint(fcntl(g.fd, F_GETFD), >=, 0);
    close(g.fd);
    given_free(&g);
}

/* Unfit for what only shows later: it stays open, and as it was. */
static void test_given_ring(const void *data)
{
    struct tpacket_req req = { 4096, 1, 2048, 2 };
    const bool inject = data;
    Error *err = NULL;
    Given g;

    given_new(&g, 0);
    g_assert_cmpint(setsockopt(g.copy, SOL_PACKET, PACKET_RX_RING, &req,
                               sizeof(req)), ==, 0);
    given_get(&g, &error_abort);
    if (inject) {
        g_assert_null(packet_inject_new(g.fd, &g.iface, &err));
    } else {
        g_assert_null(packet_capture_new(g.fd, &g.iface,
                                         NET_FILTER_DIRECTION_RX,
                                         PACKET_RING_SIZE_MIN, &err));
    }
    g_assert_nonnull(strstr(error_get_pretty(err), "it has a ring already"));
    error_free(err);
    g_assert_cmpint(fcntl(g.fd, F_GETFD), >=, 0);
    close(g.fd);
    given_free(&g);
}

/* Renamed after it was bound: it is still the TAP's. */
static void test_given_renamed(const void *unused)
{
    PacketCapture *c;
    Given g;

    given_new(&g, 0);
    if_rename(g.t.name, "tap-r");
    strcpy(g.t.name, "tap-r");
    given_get(&g, &error_abort);
    g_assert_cmpstr(g.iface.name, ==, "tap-r");
    c = packet_capture_new(g.fd, &g.iface, NET_FILTER_DIRECTION_RX,
                           PACKET_RING_SIZE_MIN, &error_abort);
    packet_capture_enable(c, true);
    guest_send(&g.t, 60, 3);
    expect_captured(c, 60, 3, 1);
    packet_capture_free(c);
    given_free(&g);
}

/* udev, busy with names and addresses, does not make opening fail. */
static int stop_udev;

static void *udev_thread(void *opaque)
{
    unsigned i;

    for (i = 0; !qatomic_read(&stop_udev); i++) {
        if_rename(i & 1 ? "tap-u" : "tap-t", i & 1 ? "tap-t" : "tap-u");
        if_set_mac(i & 1 ? "tap-t" : "tap-u", i);
        g_usleep(200);
    }
    if (i & 1) {
        if_rename("tap-u", "tap-t");
    }
    return NULL;
}

static void test_udev(const void *unused)
{
    PacketInterface iface;
    unsigned i, failed = 0;
    GThread *thread;
    Tap t;
    int fd;

    tap_new(&t);
    stop_udev = 0;
    thread = g_thread_new("udev", udev_thread, NULL);
    for (i = 0; i < 300; i++) {
        PacketCapture *c;

        fd = packet_socket_open(&t.nc, &iface, NULL);
        if (fd < 0) {
            failed++;
            continue;
        }
        c = packet_capture_new(fd, &iface, NET_FILTER_DIRECTION_RX,
                               PACKET_RING_SIZE_MIN, &error_abort);
        packet_capture_free(c);
    }
    qatomic_set(&stop_udev, 1);
    g_thread_join(thread);
    g_assert_cmpuint(failed, ==, 0);
    tap_free(&t);
}

/*
 * Rings that take long
 */

typedef struct Ready {
    bool called;
    char *error;
} Ready;

static void ready(void *opaque, Error *err)
{
    Ready *r = opaque;

    r->called = true;
    r->error = err ? g_strdup(error_get_pretty(err)) : NULL;
    error_free(err);
}

/* Threads end, and sockets are closed, in the main loop. */
static void wait_closed(int fd)
{
    while (fcntl(fd, F_GETFD) >= 0) {
        main_loop_wait(true);
        wait_ms(10);
    }
}

static void wait_ready(Ready *r)
{
    while (!r->called) {
        main_loop_wait(false);
    }
}

static void test_large_ring(const void *unused)
{
    Ready r = { };
    PacketCaptureOptions o = {
        .dir = NET_FILTER_DIRECTION_RX, .ring_size = 512 * MiB,
        .ready = ready, .opaque = &r,
    };
    int64_t longest = 0, begin;
    PacketFrame f;
    PacketCapture *c;
    Tap t;
    int fd;

    tap_new(&t);
    begin = g_get_monotonic_time();
    c = capture_options(&t, &o);        /* also switches it on */
    longest = g_get_monotonic_time() - begin;
    g_assert_cmpint(packet_capture_state(c, NULL), ==, -EINPROGRESS);
    g_assert_cmpuint(packet_capture_read(c, &f, 1), ==, 0);
    g_assert_true(packet_capture_keep(c));
    packet_capture_discard(c);
    wait_ready(&r);
    g_test_message("512 MiB took %" PRId64 " us, of the caller %" PRId64,
                   g_get_monotonic_time() - begin, longest);
    g_assert_null(r.error);
    g_assert_cmpint(longest, <, 100 * 1000);
    g_assert_cmpint(packet_capture_state(c, NULL), ==, 0);
    guest_send(&t, 60, 3);
    expect_captured(c, 60, 3, 1);
    begin = g_get_monotonic_time();
    fd = packet_capture_fd(c);
    packet_capture_free(c);
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 100 * 1000);
    wait_closed(fd);

    /* Ended before there is a ring: the callback is not called. */
    r = (Ready) { };
    c = capture_options(&t, &o);
    fd = packet_capture_fd(c);
    packet_capture_free(c);
    wait_closed(fd);
    g_assert_false(r.called);
    tap_free(&t);
}

/* Bytes of address space that this process has. */
static uint64_t address_space(void)
{
    g_autofree char *text = NULL;
    const char *end;
    uint64_t pages;

    g_assert_true(g_file_get_contents("/proc/self/statm", &text, NULL, NULL));
    g_assert_cmpint(qemu_strtou64(text, &end, 10, &pages), ==, 0);
    return pages * qemu_real_host_page_size();
}

/* The limit of the address space stands for no memory. */
static void test_no_memory(const void *data)
{
    const bool later = data;
    struct rlimit old, limit;
    Ready r = { };
    PacketCaptureOptions o = {
        .dir = NET_FILTER_DIRECTION_RX, .ring_size = 1 * GiB,
        .ready = later ? ready : NULL, .opaque = &r,
    };
    PacketInterface iface;
    PacketCapture *c;
    Error *err = NULL;
    Tap t;
    int fd;

    tap_new(&t);
    fd = packet_socket_open(&t.nc, &iface, &error_abort);
    getrlimit(RLIMIT_AS, &old);
    limit = (struct rlimit) { address_space() + 512 * MiB, old.rlim_max };
    g_assert_cmpint(setrlimit(RLIMIT_AS, &limit), ==, 0);
    c = packet_capture_open(fd, &iface, &o, &err);
    if (later) {
        g_assert_nonnull(c);
        wait_ready(&r);
        g_assert_cmpint(packet_capture_state(c, NULL), ==, -ENOMEM);
        packet_capture_free(c);
    } else {
        g_assert_null(c);
        r.error = g_strdup(error_get_pretty(err));
        error_free(err);
    }
    setrlimit(RLIMIT_AS, &old);
    g_assert_cmpstr(r.error, ==, "cannot map a capture ring of 1073741824 "
                    "bytes: there is not enough memory: Cannot allocate "
                    "memory");
    g_free(r.error);
    tap_free(&t);
}

/* Memory that is locked as it is mapped, and a limit of it. */
static void no_lock(const void *unused)
{
    struct rlimit old, limit;
    PacketCaptureOptions o = {
        .dir = NET_FILTER_DIRECTION_RX, .ring_size = 128 * MiB,
    };
    PacketInterface iface;
    Error *err = NULL;
    bool locks;
    Tap t;
    int fd;

    tap_new(&t);
    fd = packet_socket_open(&t.nc, &iface, &error_abort);
    getrlimit(RLIMIT_MEMLOCK, &old);
    limit = (struct rlimit) { MIN(64 * MiB, old.rlim_max), old.rlim_max };
    g_assert_cmpint(setrlimit(RLIMIT_MEMLOCK, &limit), ==, 0);
    drop_caps(CAP_BIT(CAP_IPC_LOCK));
    mlockall(MCL_FUTURE);
    locks = mmap(NULL, o.ring_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                 0) == MAP_FAILED;
    if (locks) {
        g_assert_null(packet_capture_open(fd, &iface, &o, &err));
    }
    munlockall();
    setrlimit(RLIMIT_MEMLOCK, &old);
    if (locks) {
        g_assert_cmpstr(error_get_pretty(err), ==, "cannot map a capture ring "
                        "of 134217728 bytes: QEMU's memory is locked, and its "
                        "limit (RLIMIT_MEMLOCK) is too low for the ring: "
                        "Resource temporarily unavailable");
        error_free(err);
    } else {
        g_test_skip("mlockall() does nothing here (a sanitizer's?)");
        close(fd);
    }
    tap_free(&t);
}

static void test_no_lock(const void *unused)
{
    run_isolated(no_lock, NULL);
}

/*
 * Injection
 */

static PacketInject *inject(Tap *t)
{
    PacketInterface iface;
    int fd = packet_socket_open(&t->nc, &iface, &error_abort);
    PacketInject *inj = packet_inject_new(fd, &iface, &error_abort);

    packet_inject_set_netdev(inj, &t->nc);
    return inj;
}

/* A packet with VLAN tags of the given types, 0 for none. */
static void make_tagged(PacketFrame *f, uint8_t *packet, size_t payload,
                        uint16_t outer, uint16_t inner)
{
    size_t tags = 4 * (!!outer + !!inner);

    make_frame(f, packet, ETH_HLEN + tags + payload, 9);
    if (outer) {
        stw_be_p(packet + 12, outer);
        stw_be_p(packet + 14, 100);
    }
    if (inner) {
        stw_be_p(packet + 16, inner);
        stw_be_p(packet + 18, 200);
    }
    stw_be_p(packet + 12 + tags, 0x88b5);
}

typedef struct TagCase {
    const char *name;
    uint16_t outer;
    uint16_t inner;
    int more;           /* than the MTU */
    int err;
} TagCase;

static const TagCase tag_cases[] = {
    { "bare", 0, 0, 0, 0 },
    { "bare/long", 0, 0, 1, -EMSGSIZE },
    { "8021q", 0x8100, 0, 0, 0 },
    { "8021q/long", 0x8100, 0, 1, -EMSGSIZE },
    { "8021ad", 0x88a8, 0, 0, 0 },
    { "8021ad/long", 0x88a8, 0, 1, -EMSGSIZE },
    { "double", 0x88a8, 0x8100, 0, 0 },
    { "double/long", 0x88a8, 0x8100, 1, -EMSGSIZE },
    { "double/8100", 0x8100, 0x8100, 0, 0 },
    { "double/8100/long", 0x8100, 0x8100, 1, -EMSGSIZE },
};

static void expect_injected(Tap *t, const PacketFrame *f)
{
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);

    g_assert_true(readable(t->fd, 1000));
    g_assert_cmpmem(got, guest_recv(t, got), f->iov[0].iov_base, f->len);
}

/* @data: with a MTU as long as it can be, or the usual one */
static void test_tags(const void *data)
{
    const size_t mtu = data ? 65521 : 1500;
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    PacketInject *inj;
    unsigned i, round;
    PacketFrame f;
    Tap t;
    int err;

    tap_new(&t);
    if_set_mtu(t.name, mtu);
    inj = inject(&t);
    /* Twice: from the first long packet on there is a ring. */
    for (round = 0; round < 2; round++) {
        for (i = 0; i < ARRAY_SIZE(tag_cases); i++) {
            const TagCase *c = &tag_cases[i];

            make_tagged(&f, packet, mtu + c->more, c->outer, c->inner);
            if (f.len > PACKET_LEN_MAX) {
                continue;
            }
            packet_inject_send(inj, &f, 1, &err);
            g_test_message("%s: %d", c->name, err);
            g_assert_cmpint(err, ==, c->err);
            if (!err) {
                expect_injected(&t, &f);
            }
        }
    }
    packet_inject_free(inj);
    tap_free(&t);
}

/* Many packets, long ones between: all arrive in order. */
static void test_mixed(const void *unused)
{
    static uint8_t packets[BATCH][1600];
    PacketFrame f[BATCH];
    unsigned i, done = 0;
    PacketInject *inj;
    Tap t;
    int err;

    tap_new(&t);
    inj = inject(&t);
    for (i = 0; i < BATCH; i++) {
        make_tagged(&f[i], packets[i], 1500 - i, i % 3 ? 0x88a8 : 0,
                    i % 3 == 2 ? 0x8100 : 0);
    }
    while (done < BATCH) {
        unsigned sent = packet_inject_send(inj, f + done, BATCH - done, &err);

        g_assert_true(err == 0 || err == -EAGAIN);
        for (i = done; i < done + sent; i++) {
            expect_injected(&t, &f[i]);
        }
        done += sent;
    }
    packet_inject_free(inj);
    tap_free(&t);
}

/* The TAP's queue is kept short until its reader has taken all. */
static void test_short_queue(const void *unused)
{
    uint8_t packet[100];
    unsigned i, sent = 0;
    PacketInject *inj;
    PacketFrame f;
    Tap t;
    int err;

    tap_new(&t);
    if_set_txqueuelen(t.name, 200);
    inj = inject(&t);
    make_frame(&f, packet, sizeof(packet), 0);
    do {
        sent += packet_inject_send(inj, &f, 1, &err);
    } while (!err);
    g_assert_cmpint(err, ==, -EAGAIN);
    g_assert_cmpuint(sent, ==, 50);
    /* There is room for the network's own. */
    for (i = 0; i < 150; i++) {
        send_packet(t.net, 60, i);
    }
    for (i = 0; i < 200; i++) {
        g_assert_cmpuint(guest_recv(&t, packet), >, 0);
    }
    g_assert_cmpuint(guest_drain(&t), ==, 0);
    packet_inject_send(inj, &f, 1, &err);
    g_assert_cmpint(err, ==, 0);
    packet_inject_free(inj);
    tap_free(&t);
}

#define DIRECT_LEN 200

/* The network sends more than the guest takes: neither stands still. */
static void test_overload(const void *unused)
{
    uint8_t packet[100], got[DIRECT_LEN];
    unsigned round, injected = 0, direct = 0, i;
    PacketInject *inj;
    PacketFrame f;
    Tap t;
    int err;

    tap_new(&t);
    inj = inject(&t);
    make_frame(&f, packet, sizeof(packet), 0);
    for (round = 0; round < 1000; round++) {
        for (i = 0; i < 20; i++) {
            send_packet(t.net, DIRECT_LEN, i);
        }
        for (i = 0; i < 10; i++) {
            packet_inject_send(inj, &f, 1, &err);
        }
        for (i = 0; i < 10; i++) {
            size_t len = guest_recv(&t, got);

            injected += len == sizeof(packet);
            direct += len == DIRECT_LEN;
        }
        if (round > 200) {
            g_usleep(20);
        }
    }
    g_test_message("%u injected, %u direct", injected, direct);
    g_assert_cmpuint(injected, >, 1000 / 4);
    g_assert_cmpuint(direct, >, 1000);
    packet_inject_free(inj);
    tap_free(&t);
}

/*
 * A flood is injected while the network sends, too: the guest, slower than the
 * flood, gets all of what the network sends.
 */

typedef struct Guest {
    Tap *t;
    int stop;
    unsigned injected;
    unsigned direct;
} Guest;

static void *guest_thread(void *opaque)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    Guest *g = opaque;
    size_t len;

    while ((len = guest_recv(g->t, packet)) || !qatomic_read(&g->stop)) {
        g->direct += len == DIRECT_LEN;
        g->injected += len && len != DIRECT_LEN;
        g_usleep(10);
    }
    return NULL;
}

static void test_flood(const void *unused)
{
    const unsigned direct = 500;
    static uint8_t packets[BATCH][100];
    int64_t begin = g_get_monotonic_time();
    unsigned i, sent = 0, injected = 0;
    PacketFrame f[BATCH];
    PacketInject *inj;
    GThread *thread;
    Guest g = { };
    Tap t;
    int err;

    tap_new(&t);
    inj = inject(&t);
    for (i = 0; i < BATCH; i++) {
        make_frame(&f[i], packets[i], sizeof(packets[i]), i);
    }
    g.t = &t;
    thread = g_thread_new("guest", guest_thread, &g);
    while (sent < direct) {
        injected += packet_inject_send(inj, f, BATCH, &err);
        if (g_get_monotonic_time() - begin > sent * 1000) {
            send_packet(t.net, DIRECT_LEN, sent++);
        }
        if (err) {
            g_usleep(125);
        }
    }
    qatomic_set(&g.stop, 1);
    g_thread_join(thread);
    g_test_message("%u injected, %u direct", g.injected, g.direct);
    g_assert_cmpuint(g.direct, ==, direct);
    g_assert_cmpuint(g.injected, ==, injected);
    g_assert_cmpuint(g.injected, >, 5 * direct);
    packet_inject_free(inj);
    tap_free(&t);
}

/* A filter of the TAP drops it: an error after a while. */
static void test_never_taken(const void *unused)
{
    struct sock_filter insns[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
    struct sock_fprog prog = { ARRAY_SIZE(insns), insns };
    uint8_t packet[100];
    unsigned tries = 0;
    int64_t begin = g_get_monotonic_time();
    PacketInject *inj;
    PacketFrame f;
    Tap t;
    int err;

    tap_new(&t);
    g_assert_cmpint(ioctl(t.fd, TUNATTACHFILTER, &prog), ==, 0);
    inj = inject(&t);
    make_frame(&f, packet, sizeof(packet), 0);
    do {
        g_assert_cmpuint(packet_inject_send(inj, &f, 1, &err), ==, 0);
        wait_ms(1);
        tries++;
    } while (err == -ENOBUFS);
    g_assert_cmpint(err, ==, -EPERM);
    g_assert_cmpuint(tries, >=, 4);
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 2 * 1000 * 1000);
    g_assert_cmpint(ioctl(t.fd, TUNDETACHFILTER, &prog), ==, 0);
    g_assert_cmpuint(packet_inject_send(inj, &f, 1, &err), ==, 1);
    packet_inject_free(inj);
    tap_free(&t);
}

/* @data: a super-packet */
static void test_no_carrier(const void *data)
{
    uint8_t packet[3000];
    int i, err, off = 0, on = 1;
    PacketInject *inj;
    PacketFrame f;
    Tap t;

    tap_new(&t);
    inj = inject(&t);
    make_frame(&f, packet, data ? 3000 : 60, 0);
    if (data) {
        f.hdr_len = VNET_LEN;
        f.hdr[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        f.hdr[1] = VIRTIO_NET_HDR_GSO_TCPV4;
        stw_he_p(f.hdr + 4, 1000);
        stw_he_p(f.hdr + 6, 34);
        stw_he_p(f.hdr + 8, 16);
        stw_be_p(packet + 12, ETH_P_IP);
        packet[14] = 0x45;
        packet[23] = 6;
        packet[46] = 0x50;
    }
    if (ioctl(t.fd, TUNSETCARRIER, &off) < 0) {
        g_test_skip("the kernel has no TUNSETCARRIER");
    } else {
        for (i = 0; i < 5; i++) {
            do {
                packet_inject_send(inj, &f, 1, &err);
            } while (err == -ENOBUFS);
            g_assert_cmpint(err, ==, -ENETDOWN);
        }
        for (i = 0; packet_inject_state(inj, NULL) == 0; i++) {
            g_assert_cmpint(i, <, 200);     /* the flag is late */
            wait_ms(10);
        }
        g_assert_cmpint(packet_inject_state(inj, NULL), ==, -ENETDOWN);
        g_assert_cmpint(ioctl(t.fd, TUNSETCARRIER, &on), ==, 0);
        for (i = 0; packet_inject_state(inj, NULL); i++) {
            g_assert_cmpint(i, <, 200);
            wait_ms(10);
        }
        do {
            packet_inject_send(inj, &f, 1, &err);
        } while (err == -ENOBUFS);
        g_assert_cmpint(err, ==, data ? -EOPNOTSUPP : 0);
    }
    packet_inject_free(inj);
    tap_free(&t);
}

static void add(const char *group, const char *name,
                void (*func)(const void *data), const void *data)
{
    g_autofree char *path = g_strdup_printf("/packet-socket/%s/%s", group,
                                            name);

    case_add(path, func, data);
}

int main(int argc, char **argv)
{
    unsigned i;

    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);

    add("capture", "keep", test_keep, NULL);
    add("capture", "keep/full", test_keep_full, NULL);
    add("capture", "discard", test_discard, NULL);
    add("capture", "large", test_large_ring, NULL);
    add("capture", "no-memory/at-once", test_no_memory, NULL);
    add("capture", "no-memory/later", test_no_memory, "later");
    add("capture", "no-memory/locked", test_no_lock, NULL);
    add("capture", "udev", test_udev, NULL);
    for (i = 0; i < ARRAY_SIZE(bad_filters); i++) {
        g_autofree char *number = g_strdup_printf("%u", i);

        add("filter/bad", number, test_bad_filter, &bad_filters[i]);
    }
    add("filter/bad", "kernel", test_refused_filter, NULL);
    for (i = 0; i < ARRAY_SIZE(good_filters); i++) {
        add("filter", good_filters[i].name, test_filter, &good_filters[i]);
    }
    add("filter", "super-packet", test_cut_super, NULL);
    add("given", "capture", test_given_capture, NULL);
    add("given", "capture/protocol", test_given_capture,
        GUINT_TO_POINTER(ETH_P_ALL));
    add("given", "inject", test_given_inject, NULL);
    add("given", "inject/protocol", test_given_inject,
        GUINT_TO_POINTER(ETH_P_IP));
    add("given", "twice", test_given_twice, NULL);
    add("given", "fanout", test_given_fanout, NULL);
    add("given", "ring/capture", test_given_ring, NULL);
    add("given", "ring/inject", test_given_ring, "inject");
    add("given", "renamed", test_given_renamed, NULL);
    add("inject", "tags", test_tags, NULL);
    add("inject", "tags/long", test_tags, "long");
    add("inject", "mixed", test_mixed, NULL);
    add("inject", "short-queue", test_short_queue, NULL);
    add("inject", "flood", test_flood, NULL);
    add("inject", "overload", test_overload, NULL);
    add("inject", "never-taken", test_never_taken, NULL);
    add("inject", "no-carrier", test_no_carrier, NULL);
    add("inject", "no-carrier/super-packet", test_no_carrier, "super");

    return g_test_run();
}
