/*
 * Lab traffic: numbered, time-stamped UDP packets in both directions
 *
 * One program, several roles:
 *
 *   traffic peer PORT FLOWS [GROUP INTERFACE]
 *       In the guest, as a member of a multicast group where one is named (of
 *       IPv4 or IPv6; then its packets are of that).
 *       Records every numbered packet that reaches one of the FLOWS UDP ports from PORT on, sends such packets itself when told to,
 *       and takes orders on TCP port PORT, one to a connection:
 *           start UDPPORT RATE SIZE   send to the asker's UDPPORT
 *           stop                      stop sending
 *           dump                      answer with what was sent and what came
 *           sink                      throw away what the asker sends
 *           source BYTES              answer with so many bytes
 *           queues                    answer with the card's counters
 *           counters                  answer with what this side's network
 *                                     stack has counted (files of /proc/net)
 *   traffic run HOST PORT RATE BACK SIZE FLOWS DIR
 *       In the client. Sends RATE packets a second and has the peer send BACK
 *       (0: none), with SIZE bytes of UDP payload, until SIGTERM; packet n is
 *       one of flow n % FLOWS, as many as the peer was given. The peer begins.
 *       At the end, waits for the stragglers, fetches the peer's records and
 *       writes into DIR:
 *           to-guest.sent.csv    to-guest.arrived.csv
 *           from-guest.sent.csv  from-guest.arrived.csv
 *   traffic fetch HOST PORT DIR
 *       In the client. Only fetches the peer's records.
 *   traffic send HOST PORT RATE SIZE DIR
 *       Only sends, as "run" does, until SIGTERM; HOST may be a broadcast
 *       or multicast address. Writes DIR/to-guest.sent.csv; "fetch" gets what arrived.
 *   traffic own PORT INTERFACE
 *       In the guest. Records each frame that comes in on INTERFACE though its
 *       source is the interface's own address (number: its EtherType), and
 *       answers "dump" on TCP port PORT like a peer.
 *   traffic bulk HOST PORT BYTES
 *       In the client. Sends BYTES over TCP to the peer's sink, then reads as
 *       many from its source.
 *   traffic queues HOST PORT
 *       In the client. Prints the counters of the peer's network card.
 *   traffic counters HOST PORT
 *       In the client. Prints what the peer's network stack has counted.
 *   traffic set-queues INTERFACE N
 *       In the guest. Has the network card use N queues.
 *
 * Times are CLOCK_REALTIME in nanoseconds, of the side that took them: the two
 * sides' clocks are not the same, whoever reads the files has to align them. An
 * arrival is stamped by the kernel when the packet reaches the receiving side's
 * network stack, not when this program wakes up.
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "queues.h"

#define MAGIC           0x4c414254u     /* "TBAL": lab traffic */
#define MAX_PAYLOAD     65000
#define MAX_RATE        1000000
#define MAX_FLOWS       64
#define MAX_QUEUES      256
#define CARD            "eth0"
#define NS_PER_S        1000000000ULL
#define BATCH           16

#define ARRAY_LENGTH(a) (sizeof(a) / sizeof((a)[0]))

/*
 * The peer looks every PEER_NAP_NS instead of being woken by each packet: the
 * kernel has stamped the arrivals, and a wake-up is what costs most in a guest
 * whose processor is emulated (twice).
 */
#define PEER_NAP_NS     100000000

#define RECEIVE_BUFFER  (32 * 1024 * 1024)

/*
 * After "stop", stragglers are awaited until QUIET_MS pass without one,
 * STRAGGLER_MS at most.
 */
#define QUIET_MS        1500
#define STRAGGLER_MS    20000
#define CONTROL_TIMEOUT_S 60

/*
 * An emulated guest takes seconds to send its first packet, and longer while
 * packets come in: it sends so many (or so many of each flow, if that is more)
 * before the first one goes to it.
 */
#define WARM_UP_PACKETS 32
#define WARM_UP_PER_FLOW 6
#define WARM_UP_S       90

/*
 * Start of each packet's payload, in the byte order of both sides (the same);
 * the rest is pattern_of() the number.
 */
typedef struct {
    uint32_t magic;
    uint32_t size;              /* of the whole payload */
    uint64_t number;            /* 0, 1, 2, ... in each direction */
    uint64_t sent_ns;
} Stamp;

typedef struct {
    uint64_t number;
    uint64_t sent_ns;
    uint64_t arrived_ns;        /* 0 in the log of what was sent */
    uint64_t damaged;           /* 1: the payload is not what was sent */
} Record;

typedef struct {
    Record *records;
    size_t count;
    size_t room;
} Log;

/*
 * One socket for each flow, bound to ports in a row: a multi-queue card sends
 * a flow's packets through one queue, and different flows through several.
 * Each is in order by itself only, and so are the logs.
 */
typedef struct {
    struct pollfd pfds[MAX_FLOWS];
    unsigned count;
} Flows;

typedef union {
    struct sockaddr any;
    struct sockaddr_in ip4;
    struct sockaddr_in6 ip6;    /* its port is in the same place */
} Address;

typedef struct {
    bool on;
    Address to;                 /* of flow 0 */
    unsigned shift;             /* flow i goes to port i + shift */
    unsigned rate;
    unsigned size;
    uint64_t start_ns;          /* CLOCK_MONOTONIC */
    uint64_t number;            /* next to send */
    Log sent;
} Sender;

static volatile sig_atomic_t stopping;

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("traffic: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static unsigned parse_number(const char *what, const char *text,
                             unsigned min, unsigned max)
{
    char *end;
    unsigned long value;

    errno = 0;
    value = strtoul(text, &end, 10);
    if (errno || end == text || *end || value < min || value > max) {
        die("%s '%s' is not a number from %u to %u", what, text, min, max);
    }
    return value;
}

/* ---- addresses ---- */

static Address parse_address(const char *host, unsigned port)
{
    Address address = { .ip4 = { .sin_family = AF_INET } };

    if (inet_pton(AF_INET, host, &address.ip4.sin_addr) != 1) {
        address = (Address) { .ip6 = { .sin6_family = AF_INET6 } };
        if (inet_pton(AF_INET6, host, &address.ip6.sin6_addr) != 1) {
            die("'%s' is no address", host);
        }
    }
    address.ip4.sin_port = htons(port);
    return address;
}

/* ---- logs ---- */

static void log_add(Log *log, Record record)
{
    if (log->count == log->room) {
        log->room = log->room ? log->room * 2 : 4096;
        log->records = realloc(log->records, log->room * sizeof(Record));
        if (!log->records) {
            die("out of memory for %zu records", log->room);
        }
    }
    log->records[log->count++] = record;
}

static void log_write_csv(const Log *log, const char *dir, const char *name)
{
    char path[4096];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s.csv", dir, name);
    file = fopen(path, "w");
    if (!file) {
        die("%s: %s", path, strerror(errno));
    }
    fputs("number,sent_ns,arrived_ns,damaged\n", file);
    for (size_t i = 0; i < log->count; i++) {
        const Record *r = &log->records[i];

        fprintf(file, "%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\n",
                r->number, r->sent_ns, r->arrived_ns, r->damaged);
    }
    if (fclose(file)) {
        die("%s: %s", path, strerror(errno));
    }
}

/* ---- packets ---- */

/*
 * What follows the stamp: a cut from one endless pattern, at a place that
 * depends on the number, so that a mixed-up or shifted payload shows. A table,
 * because the guest's processor is slow.
 */
#define PATTERN_PERIOD  251

static uint8_t pattern[MAX_PAYLOAD + PATTERN_PERIOD];

static void make_pattern(void)
{
    for (unsigned i = 0; i < sizeof(pattern); i++) {
        pattern[i] = (uint8_t)(i % PATTERN_PERIOD);
    }
}

static const uint8_t *pattern_of(uint64_t number)
{
    return pattern + number % PATTERN_PERIOD;
}

static Address sender_address(const Sender *s, unsigned flow, unsigned flows)
{
    Address to = s->to;

    to.ip4.sin_port = htons(ntohs(to.ip4.sin_port) + (flow + s->shift) % flows);
    return to;
}

static void sender_send_one(Sender *s, const Flows *flows)
{
    static uint8_t payload[MAX_PAYLOAD];
    unsigned flow = s->number % flows->count;
    Address to = sender_address(s, flow, flows->count);
    Stamp stamp = {
        .magic = MAGIC,
        .size = s->size,
        .number = s->number,
        .sent_ns = now_ns(CLOCK_REALTIME),
    };

    memcpy(payload, &stamp, sizeof(stamp));
    memcpy(payload + sizeof(stamp), pattern_of(s->number),
           s->size - sizeof(stamp));
    if (sendto(flows->pfds[flow].fd, payload, s->size, MSG_DONTWAIT,
               &to.any, sizeof(to)) < 0) {
        /* Not sent, so not counted: the same number is tried again soon. */
        return;
    }
    log_add(&s->sent, (Record) {
        .number = s->number,
        .sent_ns = stamp.sent_ns,
    });
    s->number++;
}

/* Sends what is due; returns the nanoseconds until the next packet is. */
static uint64_t sender_work(Sender *s, const Flows *flows)
{
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    uint64_t due = s->start_ns + s->number * NS_PER_S / s->rate;

    if (now >= due) {
        sender_send_one(s, flows);
        due = s->start_ns + s->number * NS_PER_S / s->rate;
        now = now_ns(CLOCK_MONOTONIC);
    }
    return due > now ? due - now : 0;
}

static uint64_t kernel_stamp(struct msghdr *msg)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;

            memcpy(&t, CMSG_DATA(c), sizeof(t));
            return t.tv_sec * NS_PER_S + t.tv_nsec;
        }
    }
    return now_ns(CLOCK_REALTIME);
}

static void log_packet(Log *arrived, const uint8_t *payload, size_t size,
                       struct msghdr *msg)
{
    Stamp stamp;

    if (size < sizeof(stamp)) {
        return;     /* not ours */
    }
    memcpy(&stamp, payload, sizeof(stamp));
    if (stamp.magic != MAGIC) {
        return;
    }
    log_add(arrived, (Record) {
        .number = stamp.number,
        .sent_ns = stamp.sent_ns,
        .arrived_ns = kernel_stamp(msg),
        .damaged = stamp.size != size || size > MAX_PAYLOAD ||
                   memcmp(payload + sizeof(stamp), pattern_of(stamp.number),
                          size - sizeof(stamp)),
    });
}

/* Takes up to BATCH packets that wait; returns how many it took. */
static int receive_batch(int fd, Log *arrived)
{
    static uint8_t payloads[BATCH][MAX_PAYLOAD + 1];
    static uint8_t controls[BATCH][128];
    struct iovec iovs[BATCH];
    struct mmsghdr msgs[BATCH];
    int count;

    for (int i = 0; i < BATCH; i++) {
        iovs[i] = (struct iovec) { payloads[i], sizeof(payloads[i]) };
        msgs[i].msg_hdr = (struct msghdr) {
            .msg_iov = &iovs[i], .msg_iovlen = 1,
            .msg_control = controls[i], .msg_controllen = sizeof(controls[i]),
        };
    }
    count = recvmmsg(fd, msgs, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++) {
        log_packet(arrived, payloads[i], msgs[i].msg_len, &msgs[i].msg_hdr);
    }
    return count > 0 ? count : 0;
}

static int open_udp(unsigned port, int family)
{
    Address addr = { .any = { .sa_family = family } };
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int on = 1, room = RECEIVE_BUFFER;

    addr.ip4.sin_port = htons(port);
    if (fd < 0 || bind(fd, &addr.any, sizeof(addr)) < 0) {
        die("UDP port %u: %s", port, strerror(errno));
    }
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
    /* The receiver must not be what loses packets: seconds have to fit. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    }
    return fd;
}

static void open_flows(Flows *flows, unsigned port, unsigned count,
                       int family)
{
    flows->count = count;
    for (unsigned i = 0; i < count; i++) {
        flows->pfds[i] = (struct pollfd) {
            .fd = open_udp(port + i, family),
            .events = POLLIN,
        };
    }
}

/* Takes what waits; when that is much, some of it. */
static void receive_ready(const Flows *flows, Log *arrived)
{
    for (unsigned i = 0; i < flows->count; i++) {
        if (flows->pfds[i].revents) {
            receive_batch(flows->pfds[i].fd, arrived);
        }
    }
}

/* ---- TCP orders ---- */

static void write_all(int fd, const void *data, size_t size)
{
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

        if (n <= 0) {
            die("TCP connection broke while writing: %s", strerror(errno));
        }
        data = (const char *)data + n;
        size -= n;
    }
}

static void read_all(int fd, void *data, size_t size)
{
    while (size) {
        ssize_t n = recv(fd, data, size, 0);

        if (n <= 0) {
            die("TCP connection broke while reading: %s",
                n ? strerror(errno) : "closed");
        }
        data = (char *)data + n;
        size -= n;
    }
}

static int connect_tcp(const char *host, unsigned port)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
    };
    struct timeval limit = { .tv_sec = CONTROL_TIMEOUT_S };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (inet_pton(AF_INET, host, &addr.sin_addr) != 1) {
        die("'%s' is not an IPv4 address", host);
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        die("%s port %u: %s", host, port, strerror(errno));
    }
    return fd;
}

static void send_log(int fd, const Log *log)
{
    uint64_t count = log->count;

    write_all(fd, &count, sizeof(count));
    write_all(fd, log->records, log->count * sizeof(Record));
}

static void receive_log(int fd, Log *log)
{
    uint64_t count;

    read_all(fd, &count, sizeof(count));
    log->count = log->room = count;
    log->records = malloc(count * sizeof(Record) + 1);
    if (!log->records) {
        die("out of memory for %" PRIu64 " records", count);
    }
    read_all(fd, log->records, count * sizeof(Record));
}

static void discard_all(int fd)
{
    static char buffer[65536];

    while (recv(fd, buffer, sizeof(buffer), 0) > 0) {
        continue;
    }
}

static void send_bytes(int fd, unsigned long bytes)
{
    static char buffer[65536];

    while (bytes) {
        size_t n = bytes < sizeof(buffer) ? bytes : sizeof(buffer);

        write_all(fd, buffer, n);
        bytes -= n;
    }
}

/* ---- peer ---- */

/*
 * What a receiver's own stack drops no network has lost.  One line for each
 * line of a file, behind the file's name.
 */
static void send_counters(int fd)
{
    static const char *const names[] = { "udp", "snmp", "dev", "softnet_stat" };
    FILE *out = fdopen(dup(fd), "w");
    char line[1024], path[64];

    for (size_t i = 0; out && i < ARRAY_LENGTH(names); i++) {
        FILE *file;

        snprintf(path, sizeof(path), "/proc/net/%s", names[i]);
        file = fopen(path, "r");
        while (file && fgets(line, sizeof(line), file)) {
            fprintf(out, "%s %s", names[i], line);
        }
        if (file) {
            fclose(file);
        }
    }
    if (out) {
        fclose(out);
    }
}

/* A transfer must not keep the peer from its packets, nor break it. */
static bool peer_answers_in_child(const char *order)
{
    return !strcmp(order, "dump\n") || !strcmp(order, "sink\n") ||
           !strcmp(order, "counters\n") || !strncmp(order, "source ", 7);
}

static void peer_answer(int fd, const char *order, const Sender *sender,
                        const Log *arrived)
{
    unsigned long bytes;

    if (!strcmp(order, "dump\n")) {
        send_log(fd, &sender->sent);
        send_log(fd, arrived);
    } else if (!strcmp(order, "sink\n")) {
        discard_all(fd);
    } else if (!strcmp(order, "counters\n")) {
        send_counters(fd);
    } else if (sscanf(order, "source %lu", &bytes) == 1) {
        send_bytes(fd, bytes);
    }
}

static void peer_obey(int fd, const struct sockaddr_in *asker, Sender *sender,
                      const Log *arrived)
{
    char order[128] = "";
    unsigned port, rate, size;
    ssize_t n = 0;

    while (n < (ssize_t)sizeof(order) - 1 && !strchr(order, '\n')) {
        ssize_t got = recv(fd, order + n, 1, 0);

        if (got <= 0) {
            return;
        }
        n += got;
    }
    if (sscanf(order, "start %u %u %u", &port, &rate, &size) == 3 && rate) {
        sender->to.ip4 = *asker;
        sender->to.ip4.sin_port = htons(port);
        sender->rate = rate;
        sender->size = size;
        sender->start_ns = now_ns(CLOCK_MONOTONIC);
        /*
         * Not just the reverse of the flows that come: a TAP sends a flow to
         * the queue on which it last saw the guest answer it, and a flow that
         * changes its queue may overtake itself.
         */
        sender->shift = 1;
        sender->on = true;
        write_all(fd, "ok\n", 3);
    } else if (!strcmp(order, "stop\n")) {
        sender->on = false;
        write_all(fd, "ok\n", 3);
    } else if (!strcmp(order, "queues\n")) {
        FILE *out = fdopen(dup(fd), "w");

        if (out) {
            queues_show(CARD, out);
            fclose(out);
        }
    } else if (peer_answers_in_child(order) && fork() == 0) {
        peer_answer(fd, order, sender, arrived);
        _exit(0);
    }
}

static int listen_tcp(unsigned port)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
    };
    int type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    int fd = socket(AF_INET, type, 0);
    int on = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        listen(fd, 8) < 0) {
        die("TCP port %u: %s", port, strerror(errno));
    }
    return fd;
}

static void peer_accept(int listener, Sender *sender, const Log *arrived)
{
    struct sockaddr_in asker;
    socklen_t length = sizeof(asker);
    struct timeval limit = { .tv_sec = 1 };
    int fd = accept4(listener, (struct sockaddr *)&asker, &length,
                     SOCK_CLOEXEC);

    if (fd >= 0) {
        /* An asker that says nothing must not hold up the packets. */
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
        peer_obey(fd, &asker, sender, arrived);
        close(fd);
    }
}

static void join(int fd, const char *group, const char *interface)
{
    struct group_req request = { .gr_interface = if_nametoindex(interface) };
    Address address = parse_address(group, 0);

    memcpy(&request.gr_group, &address, sizeof(address));
    if (setsockopt(fd, address.any.sa_family == AF_INET6 ? IPPROTO_IPV6
                                                         : IPPROTO_IP,
                   MCAST_JOIN_GROUP, &request, sizeof(request)) < 0) {
        die("group %s on %s: %s", group, interface, strerror(errno));
    }
}

static void __attribute__((noreturn)) peer_main(unsigned port, unsigned count,
                                                const char *group,
                                                const char *interface)
{
    Sender sender = { 0 };
    Log arrived = { 0 };
    Flows flows;
    int listener = listen_tcp(port);

    open_flows(&flows, port, count,
               group ? parse_address(group, port).any.sa_family : AF_INET);
    if (group) {
        join(flows.pfds[0].fd, group, interface);
    }
    signal(SIGCHLD, SIG_IGN);
    puts("traffic: peer ready");
    fflush(stdout);
    for (;;) {
        uint64_t wait = sender.on ? sender_work(&sender, &flows) : PEER_NAP_NS;
        struct timespec nap = { 0, wait < PEER_NAP_NS ? wait : PEER_NAP_NS };

        nanosleep(&nap, NULL);
        for (unsigned i = 0; i < flows.count; i++) {
            while (receive_batch(flows.pfds[i].fd, &arrived) == BATCH) {
                continue;
            }
        }
        peer_accept(listener, &sender, &arrived);
    }
}

/* ---- frames from the own address ---- */

/* Passes what comes in from `mac`; what the interface sends is no news. */
static void filter_own(int fd, const uint8_t *mac)
{
    uint32_t high = (uint32_t)mac[0] << 8 | mac[1];
    uint32_t low = (uint32_t)mac[2] << 24 | (uint32_t)mac[3] << 16 |
                   (uint32_t)mac[4] << 8 | mac[5];
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 5, 0),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, ETH_ALEN),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, high, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ETH_ALEN + 2),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, low, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, ETH_HLEN),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = { ARRAY_LENGTH(code), code };

    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program,
                   sizeof(program)) < 0) {
        die("packet filter: %s", strerror(errno));
    }
}

static int open_own(const char *interface)
{
    struct ifreq request = { 0 };
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = if_nametoindex(interface),
    };
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    int on = 1;

    strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0) {
        die("%s: %s", interface, strerror(errno));
    }
    filter_own(fd, (const uint8_t *)request.ifr_hwaddr.sa_data);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        die("%s: %s", interface, strerror(errno));
    }
    return fd;
}

static bool receive_own(int fd, Log *arrived)
{
    uint8_t frame[ETH_HLEN], control[128];
    struct iovec iov = { frame, sizeof(frame) };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1,
        .msg_control = control, .msg_controllen = sizeof(control),
    };

    if (recvmsg(fd, &msg, MSG_DONTWAIT) < (ssize_t)sizeof(frame)) {
        return false;
    }
    log_add(arrived, (Record) {
        .number = frame[12] << 8 | frame[13],
        .arrived_ns = kernel_stamp(&msg),
    });
    return true;
}

static void __attribute__((noreturn)) own_main(unsigned port,
                                               const char *interface)
{
    struct timespec nap = { 0, PEER_NAP_NS };
    Sender sender = { 0 };
    Log arrived = { 0 };
    int listener = listen_tcp(port);
    int fd = open_own(interface);

    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        nanosleep(&nap, NULL);
        while (receive_own(fd, &arrived)) {
            continue;
        }
        peer_accept(listener, &sender, &arrived);
    }
}

/* ---- client ---- */

static void order_stop(int sig)
{
    (void)sig;
    stopping = 1;
}

static void order_peer(const char *host, unsigned port, const char *format, ...)
{
    int fd = connect_tcp(host, port);
    char text[128], answer[3];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    write_all(fd, text, strlen(text));
    read_all(fd, answer, sizeof(answer));
    close(fd);
}

static void await_stragglers(Flows *flows, Log *arrived)
{
    uint64_t end = now_ns(CLOCK_MONOTONIC) + STRAGGLER_MS * 1000000ULL;

    while (now_ns(CLOCK_MONOTONIC) < end &&
           poll(flows->pfds, flows->count, QUIET_MS) > 0) {
        receive_ready(flows, arrived);
    }
}

static void await_first(Flows *flows, Log *arrived)
{
    uint64_t end = now_ns(CLOCK_MONOTONIC) + WARM_UP_S * NS_PER_S;
    unsigned want = WARM_UP_PER_FLOW * flows->count;

    if (want < WARM_UP_PACKETS) {
        want = WARM_UP_PACKETS;
    }
    while (arrived->count < want) {
        if (now_ns(CLOCK_MONOTONIC) > end) {
            die("only %zu packets came from the peer within %d s",
                arrived->count, WARM_UP_S);
        }
        if (poll(flows->pfds, flows->count, QUIET_MS) > 0) {
            receive_ready(flows, arrived);
        }
    }
}

static void client_loop(Flows *flows, Sender *sender, Log *arrived)
{
    while (!stopping) {
        uint64_t wait = sender_work(sender, flows);
        struct timespec limit = { wait / NS_PER_S, wait % NS_PER_S };

        if (ppoll(flows->pfds, flows->count, &limit, NULL) > 0) {
            receive_ready(flows, arrived);
        }
    }
}

static void client_fetch(const char *host, unsigned port, const char *dir)
{
    Log sent, arrived;
    int fd = connect_tcp(host, port);

    write_all(fd, "dump\n", 5);
    receive_log(fd, &sent);
    receive_log(fd, &arrived);
    close(fd);
    log_write_csv(&sent, dir, "from-guest.sent");
    log_write_csv(&arrived, dir, "to-guest.arrived");
    printf("traffic: to-guest arrived %zu, from-guest sent %zu\n",
           arrived.count, sent.count);
}

static void sender_aim(Sender *s, const char *host, unsigned port)
{
    struct sigaction stop = { .sa_handler = order_stop };

    s->to = parse_address(host, port);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
}

static void sender_run(Sender *s, Flows *flows, Log *arrived)
{
    s->start_ns = now_ns(CLOCK_MONOTONIC);
    puts("traffic: running");
    fflush(stdout);
    client_loop(flows, s, arrived);
}

static int run_main(const char *host, unsigned port, unsigned rate,
                    unsigned back, unsigned size, unsigned count,
                    const char *dir)
{
    Sender sender = { .on = true, .rate = rate, .size = size };
    Log arrived = { 0 };
    Flows flows;

    open_flows(&flows, port, count, AF_INET);
    sender_aim(&sender, host, port);
    if (back) {
        order_peer(host, port, "start %u %u %u\n", port, back, size);
        await_first(&flows, &arrived);
    }
    sender_run(&sender, &flows, &arrived);

    order_peer(host, port, "stop\n");
    await_stragglers(&flows, &arrived);
    log_write_csv(&sender.sent, dir, "to-guest.sent");
    log_write_csv(&arrived, dir, "from-guest.arrived");
    printf("traffic: to-guest sent %zu, from-guest arrived %zu\n",
           sender.sent.count, arrived.count);
    client_fetch(host, port, dir);
    return 0;
}

static int send_main(const char *host, unsigned port, unsigned rate,
                     unsigned size, const char *dir)
{
    Sender sender = { .on = true, .rate = rate, .size = size };
    Log arrived = { 0 };
    Flows flows;
    int on = 1;

    sender_aim(&sender, host, port);
    open_flows(&flows, port, 1, sender.to.any.sa_family);
    setsockopt(flows.pfds[0].fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on));
    sender_run(&sender, &flows, &arrived);
    log_write_csv(&sender.sent, dir, "to-guest.sent");
    printf("traffic: to-guest sent %zu\n", sender.sent.count);
    return 0;
}

static int bulk_main(const char *host, unsigned port, unsigned bytes)
{
    static char buffer[65536];
    char order[64];
    unsigned got = 0;
    ssize_t n;
    int fd = connect_tcp(host, port);

    write_all(fd, "sink\n", 5);
    send_bytes(fd, bytes);
    shutdown(fd, SHUT_WR);
    /* The peer closes after the last byte: until then it is not over. */
    discard_all(fd);
    close(fd);

    fd = connect_tcp(host, port);
    snprintf(order, sizeof(order), "source %u\n", bytes);
    write_all(fd, order, strlen(order));
    while ((n = recv(fd, buffer, sizeof(buffer), 0)) > 0) {
        got += n;
    }
    close(fd);
    printf("traffic: bulk sent %u, received %u\n", bytes, got);
    return got == bytes ? 0 : 1;
}

/* Prints the answer to an order. */
static int ask_main(const char *host, unsigned port, const char *order)
{
    char text[4096];
    ssize_t n;
    int fd = connect_tcp(host, port);

    write_all(fd, order, strlen(order));
    while ((n = recv(fd, text, sizeof(text), 0)) > 0) {
        fwrite(text, 1, n, stdout);
    }
    close(fd);
    return n ? 1 : 0;
}

static unsigned port_number(const char *text)
{
    return parse_number("PORT", text, 1, 65535);
}

static unsigned flow_number(const char *text)
{
    return parse_number("FLOWS", text, 1, MAX_FLOWS);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    make_pattern();
    if ((argc == 4 || argc == 6) && !strcmp(argv[1], "peer")) {
        peer_main(port_number(argv[2]), flow_number(argv[3]),
                  argc == 6 ? argv[4] : NULL, argc == 6 ? argv[5] : NULL);
    }
    if (argc == 9 && !strcmp(argv[1], "run")) {
        unsigned rate = parse_number("RATE", argv[4], 1, MAX_RATE);
        unsigned back = parse_number("BACK", argv[5], 0, MAX_RATE);
        unsigned size = parse_number("SIZE", argv[6], sizeof(Stamp),
                                     MAX_PAYLOAD);

        return run_main(argv[2], port_number(argv[3]), rate, back, size,
                        flow_number(argv[7]), argv[8]);
    }
    if (argc == 5 && !strcmp(argv[1], "fetch")) {
        client_fetch(argv[2], port_number(argv[3]), argv[4]);
        return 0;
    }
    if (argc == 7 && !strcmp(argv[1], "send")) {
        return send_main(argv[2], port_number(argv[3]),
                         parse_number("RATE", argv[4], 1, MAX_RATE),
                         parse_number("SIZE", argv[5], sizeof(Stamp),
                                      MAX_PAYLOAD), argv[6]);
    }
    if (argc == 4 && !strcmp(argv[1], "own")) {
        own_main(port_number(argv[2]), argv[3]);
    }
    if (argc == 5 && !strcmp(argv[1], "bulk")) {
        return bulk_main(argv[2], port_number(argv[3]),
                         parse_number("BYTES", argv[4], 1, 1u << 30));
    }
    if (argc == 4 && !strcmp(argv[1], "queues")) {
        return ask_main(argv[2], port_number(argv[3]), "queues\n");
    }
    if (argc == 4 && !strcmp(argv[1], "counters")) {
        return ask_main(argv[2], port_number(argv[3]), "counters\n");
    }
    if (argc == 4 && !strcmp(argv[1], "set-queues")) {
        queues_set(argv[2], parse_number("N", argv[3], 1, MAX_QUEUES));
        return 0;
    }
    fputs("usage: traffic peer PORT FLOWS [GROUP INTERFACE]\n"
          "       traffic run HOST PORT RATE BACK SIZE FLOWS DIR\n"
          "       traffic fetch HOST PORT DIR\n"
          "       traffic send HOST PORT RATE SIZE DIR\n"
          "       traffic own PORT INTERFACE\n"
          "       traffic bulk HOST PORT BYTES\n"
          "       traffic queues HOST PORT\n"
          "       traffic counters HOST PORT\n"
          "       traffic set-queues INTERFACE N\n", stderr);
    return 2;
}
