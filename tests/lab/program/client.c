/*
 * Lab program, role "client": sends numbered packets to the guest
 *
 *   lab-net client IFACE RATE SIZE FLOWS FLOODED DIR
 *
 * Sends RATE packets a second with SIZE bytes of payload into IFACE, FLOODED
 * of each 100 to the broadcast address (those are small ones), until SIGTERM.
 * Super-packets have different sizes, up to 4 KiB less than SIZE. It also
 * takes the guest's packets from there. Says "ready" when it does, and begins
 * to send ("running") after the guest's first: the network knows then where
 * that is. A line "rate N" on its standard input is a new rate. At the end,
 * waits for stragglers and writes into DIR what it sent and what came.
 *
 * It sends through a packet socket: at high rates the way through the
 * kernel's UDP costs more than all the rest.
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "packet.h"
#include "roles.h"

#define MAX_RATE        1000000
#define VNET            10          /* bytes, of packet sockets */
#define BATCH           32
#define FLOODED_SIZE    200
#define VARIED          4096        /* bytes */
#define NAP_NS          (NS_PER_MS / 2)
#define RECEIVE_BUFFER  (16 << 20)
#define STRAGGLER_MS    20000
#define QUIET_MS        1500
#define FIRST_LIMIT_MS  10000
/*
 * Where the machine stood still, what was due meanwhile is not sent in one
 * heap: longer than this it would be no traffic that anybody has.
 */
#define BEHIND_NS       (20 * NS_PER_MS)

typedef struct Sender {
    int fd;
    unsigned rate;
    unsigned size;
    unsigned flooded;               /* of each 100 */
    Route route;
    uint64_t start_ns;              /* of this rate, CLOCK_MONOTONIC */
    uint64_t start_count;           /* packets before it */
    uint64_t count;                 /* of both kinds */
    uint64_t numbers[2];            /* next one, by kind */
    Log sent;
} Sender;

static volatile sig_atomic_t stopping;

static void order_stop(int sig)
{
    (void)sig;
    stopping = 1;
}

static int open_packet_socket(const char *interface, int protocol)
{
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(protocol),
        .sll_ifindex = if_nametoindex(interface),
    };
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    int on = 1, room = RECEIVE_BUFFER;

    if (fd < 0 || !address.sll_ifindex ||
        setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        die("packet socket on %s: %s", interface, strerror(errno));
    }
    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    set_nonblocking(fd);
    return fd;
}

/* Every so many packets one that is flooded, evenly. */
static bool is_flooded(const Sender *s, uint64_t count)
{
    return (count + 1) * s->flooded / 100 > count * s->flooded / 100;
}

static size_t size_of(const Sender *s, uint64_t number, bool flooded)
{
    if (flooded) {
        return FLOODED_SIZE;
    }
    return s->size > 2 * VARIED ? s->size - number * 997 % VARIED : s->size;
}

/* Sends up to BATCH packets that are due; false when it got rid of none. */
static bool send_batch(Sender *s, unsigned due)
{
    static uint8_t frames[BATCH][VNET_MAX + PACKET_MAX];
    struct mmsghdr messages[BATCH] = { 0 };
    struct iovec parts[BATCH][2];
    Record records[BATCH] = { 0 };
    bool flooded[BATCH];
    uint64_t numbers[2] = { s->numbers[0], s->numbers[1] };
    int done;

    for (unsigned i = 0; i < due; i++) {
        uint8_t *vnet = frames[i], *frame = vnet + VNET_MAX;
        size_t size;

        flooded[i] = is_flooded(s, s->count + i);
        records[i].number = numbers[flooded[i]]++;
        size = packet_fill(&s->route, records[i].number, flooded[i],
                           size_of(s, records[i].number, flooded[i]), vnet,
                           frame, &records[i].sent_ns);
        parts[i][0] = (struct iovec) { vnet, VNET };
        parts[i][1] = (struct iovec) { frame, size };
        messages[i].msg_hdr.msg_iov = parts[i];
        messages[i].msg_hdr.msg_iovlen = 2;
    }
    done = sendmmsg(s->fd, messages, due, 0);
    if (done < 0 && errno != EAGAIN && errno != ENOBUFS) {
        die("sending: %s", strerror(errno));
    }
    for (int i = 0; i < done; i++) {
        *log_add(&s->sent) = records[i];
        s->numbers[flooded[i]]++;
        s->count++;
    }
    return done > 0;
}

/* Sends what is due. */
static void sender_work(Sender *s)
{
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    uint64_t done = s->count - s->start_count;
    uint64_t due_at = s->start_ns + done * NS_PER_S / s->rate;

    if (now > due_at + BEHIND_NS) {
        s->start_ns += now - due_at - BEHIND_NS;
    }
    for (;;) {
        uint64_t due = (now - s->start_ns) * s->rate / NS_PER_S + 1 -
                       (s->count - s->start_count);

        if (now < s->start_ns || (int64_t)due <= 0 ||
            !send_batch(s, due < BATCH ? due : BATCH)) {
            break;
        }
    }
}

/* Takes what waits; returns how many numbered packets that were. */
static unsigned receive_all(int fd, Log *arrived)
{
    uint8_t data[VNET + 2048];
    unsigned count = 0;
    ssize_t n;

    while ((n = recv(fd, data, sizeof(data), 0)) > VNET) {
        Record found = { 0 };

        if (memcmp(data + VNET + 6, from_guest.from, 6) ||
            !packet_peek(data + VNET, n - VNET, &found)) {
            continue;
        }
        found.seen_ns = now_ns(CLOCK_REALTIME);
        found.damaged = !packet_whole(data, data + VNET, n - VNET);
        *log_add(arrived) = found;
        count++;
    }
    return count;
}

static void await_stragglers(int fd, Log *arrived)
{
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    uint64_t end = now + STRAGGLER_MS * NS_PER_MS;
    uint64_t quiet_at = now + QUIET_MS * NS_PER_MS;

    while (now < end && now < quiet_at) {
        nap_ns(10 * NS_PER_MS);
        now = now_ns(CLOCK_MONOTONIC);
        if (receive_all(fd, arrived)) {
            quiet_at = now + QUIET_MS * NS_PER_MS;
        }
    }
}

/* A packet that is sent on another processor than the one before may pass it. */
static void stay_on_a_processor(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(0, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0) {
        die("staying on processor 0: %s", strerror(errno));
    }
}

static void await_first(int fd, Log *arrived)
{
    uint64_t end = now_ns(CLOCK_MONOTONIC) + FIRST_LIMIT_MS * NS_PER_MS;

    while (!receive_all(fd, arrived)) {
        if (now_ns(CLOCK_MONOTONIC) > end) {
            die("the guest sends nothing");
        }
        nap_ns(NAP_NS);
    }
}

static void start_at(Sender *sender, unsigned rate)
{
    sender->rate = rate;
    sender->start_ns = now_ns(CLOCK_MONOTONIC);
    sender->start_count = sender->count;
}

static void look_for_orders(Sender *sender)
{
    struct pollfd pfd = { .fd = STDIN_FILENO, .events = POLLIN };
    char line[64];
    ssize_t n;
    unsigned rate;

    if (poll(&pfd, 1, 0) > 0) {
        n = read(STDIN_FILENO, line, sizeof(line) - 1);
        line[n > 0 ? n : 0] = 0;
        if (sscanf(line, "rate %u", &rate) == 1 && rate && rate <= MAX_RATE) {
            start_at(sender, rate);
            puts("ok");
            fflush(stdout);
        }
    }
}

int client_main(char **argv)
{
    struct sigaction stop = { .sa_handler = order_stop };
    Log arrived = { 0 };
    Sender sender = {
        .fd = open_packet_socket(argv[0], 0),
        .rate = parse_number("RATE", argv[1], 1, MAX_RATE),
        .size = parse_number("SIZE", argv[2], PACKET_STAMP, PACKET_PAYLOAD_MAX),
        .flooded = parse_number("FLOODED", argv[4], 0, 100),
        .route = to_guest,
        .numbers = { 0, FIRST_FLOODED },
    };
    int receiver = open_packet_socket(argv[0], ETH_P_IP);

    sender.route.flows = parse_number("FLOWS", argv[3], 1, 64);
    stay_on_a_processor();
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    puts("ready");
    fflush(stdout);
    await_first(receiver, &arrived);
    start_at(&sender, sender.rate);
    puts("running");
    fflush(stdout);
    while (!stopping) {
        sender_work(&sender);
        receive_all(receiver, &arrived);
        look_for_orders(&sender);
        nap_ns(NAP_NS);
    }
    await_stragglers(receiver, &arrived);
    printf("to-guest sent %zu, from-guest arrived %zu\n", sender.sent.count,
           arrived.count);
    log_save(&sender.sent, argv[5], "to-guest.sent");
    log_save(&arrived, argv[5], "from-guest.arrived");
    return 0;
}
