/*
 * Takes packets and counts them: from unix sockets, standard input, or a TAP
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "bench.h"
#include <arpa/inet.h>
#include <getopt.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/ioctl.h>

#define SOURCES_MAX 64
#define READ_BYTES (256 * 1024)
#define SEQ_MAX (1u << 26)

static const char usage[] =
"usage: count [OPTION...]\n"
"  -u PATH   a stream of packets from this unix socket (many are possible)\n"
"  -l PATH   the same; the other side connects\n"
"  -p        a pcap file from standard input\n"
"  -t FD     a TAP, inherited\n"
"  -v        the stream tells the length of vnet headers\n"
"  -q        look at the packets' numbers\n"
"  -r RATE   read so many bytes a second only\n"
"  -w FILE   write them there, too: a stream that tells vnet headers\n"
"  -c FILE   counters\n";

typedef enum Format { STREAM, STREAM_VNET, PCAP, TAP } Format;

typedef struct Source {
    int fd;
    uint8_t *buf;
    size_t have;
    bool begun;                 /* a pcap file's header is over */
} Source;

static Counters *count;
static Format format = STREAM;
static bool numbered;
static uint64_t rate;
static uint64_t bytes_read;
static uint8_t *seen;           /* one bit a number */
static uint64_t highest;        /* number, plus 1 */
static FILE *record;
static int tap_hdr_len;         /* of vnet headers; QEMU sets what its NIC has */

/* @packet: behind its vnet header of @hdr_len bytes, which @len includes */
static void record_packet(const uint8_t *packet, size_t hdr_len, size_t len)
{
    uint32_t lens[2] = { htonl(len), htonl(hdr_len) };

    if (record && (fwrite(lens, sizeof(lens), 1, record) != 1 ||
                   fwrite(packet - hdr_len, len, 1, record) != 1)) {
        fail("writing packets");
    }
}

static void check_number(const uint8_t *packet, size_t len)
{
    uint64_t seq;

    if (len < SEQ_OFFSET + sizeof(seq) || packet[12] != ETH_P_BENCH >> 8) {
        return;
    }
    memcpy(&seq, packet + SEQ_OFFSET, sizeof(seq));
    if (seq >= SEQ_MAX) {
        errno = 0;
        fail("packet number %llu", (unsigned long long)seq);
    }
    if (seen[seq / 8] & 1 << seq % 8) {
        count->repeated++;
        return;
    }
    seen[seq / 8] |= 1 << seq % 8;
    if (seq >= highest) {
        count->missing += seq - highest;
        highest = seq + 1;
    } else {
        count->missing--;
    }
}

/* What precedes a packet and its vnet header */
static size_t fixed_prefix(void)
{
    return format == STREAM ? 4 : format == STREAM_VNET ? 8 : 16;
}

/* Return: length of the frame at @p, 0 if it is not whole */
static size_t parse(const uint8_t *p, size_t have, size_t *prefix)
{
    uint32_t len, hdr_len = 0;

    *prefix = fixed_prefix();
    if (have < *prefix) {
        return 0;
    }
    memcpy(&len, p + (format == PCAP ? 8 : 0), 4);
    if (format != PCAP) {
        len = ntohl(len);
    }
    if (format == STREAM_VNET) {
        memcpy(&hdr_len, p + 4, 4);
        hdr_len = ntohl(hdr_len);
    }
    errno = 0;
    if (len > PACKET_MAX || hdr_len > len) {
        fail("these are no packets: length %u", len);
    }
    len += *prefix;
    *prefix += hdr_len;
    return len <= have ? len : 0;
}

static void take_stream(Source *s, size_t got)
{
    size_t pos = 0, frame, prefix, packets = 0, bytes = 0;

    s->have += got;
    if (format == PCAP && !s->begun) {
        if (s->have < 24) {
            return;
        }
        s->begun = true;
        pos = 24;
    }
    while ((frame = parse(s->buf + pos, s->have - pos, &prefix))) {
        if (numbered) {
            check_number(s->buf + pos + prefix, frame - prefix);
        }
        record_packet(s->buf + pos + prefix, prefix - fixed_prefix(),
                      frame - fixed_prefix());
        bytes += frame - prefix;
        packets++;
        pos += frame;
    }
    memmove(s->buf, s->buf + pos, s->have - pos);
    s->have -= pos;
    count->bytes += bytes;
    count->packets += packets;
}

static void take(Source *s)
{
    ssize_t ret = read(s->fd, s->buf + s->have,
                       format == TAP ? PACKET_MAX : READ_BYTES);

    if (ret < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (ret <= 0) {
        s->fd = -1;
        return;
    }
    count->calls++;
    bytes_read += ret;
    if (format == TAP) {
        if (numbered) {
            check_number(s->buf + tap_hdr_len, ret - tap_hdr_len);
        }
        record_packet(s->buf + tap_hdr_len, tap_hdr_len, ret);
        count->bytes += ret - tap_hdr_len;
        count->packets++;
    } else {
        take_stream(s, ret);
    }
}

/* A slow reader: no faster than @rate since the beginning. */
static void slow_down(void)
{
    double due = (double)bytes_read / rate * NS_PER_S;
    double late = now_ns() - count->first_ns;

    if (due > late) {
        usleep((due - late) / 1000);
    }
}

static FILE *create(const char *path)
{
    FILE *file = fopen(path, "w");

    if (!file) {
        fail("%s", path);
    }
    return file;
}

/* Many reads for one poll, where packets come one by one. */
static void drain_tap(Source *s)
{
    uint64_t before;

    do {
        before = count->packets;
        take(s);
    } while (count->packets != before);
}

static void run(Source *sources, unsigned n)
{
    struct pollfd fds[SOURCES_MAX];
    unsigned i, open = n;

    while (open) {
        for (i = 0; i < n; i++) {
            fds[i] = (struct pollfd) { sources[i].fd, POLLIN, 0 };
        }
        if (poll(fds, n, -1) < 0 && errno != EINTR) {
            fail("poll");
        }
        for (i = open = 0; i < n; i++) {
            if (fds[i].revents && !count->first_ns) {
                count->first_ns = now_ns();
            }
            if (fds[i].revents && format == TAP) {
                drain_tap(&sources[i]);
            } else if (fds[i].revents) {
                take(&sources[i]);
            }
            open += sources[i].fd >= 0;
        }
        if (rate) {
            slow_down();
        }
        count->last_ns = now_ns();
        if (record) {
            fflush(record);
        }
    }
}

int main(int argc, char **argv)
{
    static Source sources[SOURCES_MAX];
    unsigned n = 0;
    int opt, fd = -1;

    program_init();
    while ((opt = getopt(argc, argv, "u:l:pt:vqr:w:c:")) != -1) {
        switch (opt) {
        case 'u': fd = socket_connect(optarg); break;
        case 'l': fd = socket_accept(optarg); break;
        case 'p': fd = STDIN_FILENO; format = PCAP; break;
        case 't': fd = number(optarg); format = TAP; break;
        case 'v': format = STREAM_VNET; break;
        case 'q': numbered = true; break;
        case 'r': rate = number(optarg); break;
        case 'w': record = create(optarg); break;
        case 'c': count = counters_open(optarg); break;
        default: fputs(usage, stderr); return 2;
        }
        if (fd >= 0) {
            if (n == SOURCES_MAX) {
                fail("more than %d sources", SOURCES_MAX);
            }
            sources[n++] = (Source) { fd, malloc(READ_BYTES + PACKET_MAX), 0,
                                      false };
            fd = -1;
        }
    }
    if (!n || optind < argc) {
        fputs(usage, stderr);
        return 2;
    }
    if (format == TAP &&
        (fcntl(sources[0].fd, F_SETFL, O_NONBLOCK) ||
         ioctl(sources[0].fd, TUNGETVNETHDRSZ, &tap_hdr_len))) {
        fail("TAP");
    }
    seen = numbered ? calloc(SEQ_MAX / 8, 1) : NULL;
    if (!count) {
        count = counters_open(NULL);
    }
    run(sources, n);
    count->done = 1;
    return 0;
}
