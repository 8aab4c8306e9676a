/*
 * Lab program, role "watch": where packets have been
 *
 *   lab-net watch DIR NAME=KIND... until SIGTERM; each is one of
 *
 *   NAME=tap:IFACE              packets that the host gives to a TAP
 *   NAME=stream:LISTEN:CONNECT  packets that pass from one Unix socket to
 *                               another, each behind two lengths as a
 *                               redirector's stream has them; with :drop=N or
 *                               :swap=N behind that, one packet of every N is
 *                               lost, or changes places with the next
 *
 * Writes numbers and times of the numbered packets into DIR/NAME.packets: if
 * one does not arrive, that says where it was last seen. What comes at LISTEN
 * goes to CONNECT, and the other way, as if there were no one between.
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "packet.h"
#include "roles.h"
#include "spoil.h"

#define PLACES_MAX      8
#define RING_BLOCK      (1 << 18)
#define RING_BLOCKS     64
#define RING_FRAME      256
#define BLOCK_MS        10
#define PIECE           65536

typedef struct Place {
    char name[64];
    Log log;
    int fd;                     /* packet socket; or listener, then S's end */
    /* tap */
    uint8_t *ring;
    unsigned block;
    /* stream */
    char *connect_to;
    bool connected;
    int out;                    /* D's end */
    uint8_t head[8 + PACKET_PEEK + VNET_MAX];   /* of the packet that passes */
    size_t head_size;
    size_t left;                /* of the packet, to come */
    Spoiler spoiler;
} Place;

static volatile sig_atomic_t stopping;

static void order_stop(int sig)
{
    (void)sig;
    stopping = 1;
}

/*
 * TAPs
 */

/* Only what the host sends into the TAP, and the beginning of that. */
static void limit_socket(int fd)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, PACKET_PEEK),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = { 4, code };

    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program,
                   sizeof(program)) < 0) {
        die("packet filter: %s", strerror(errno));
    }
}

static void open_tap(Place *place, const char *interface)
{
    struct tpacket_req3 request = {
        .tp_block_size = RING_BLOCK, .tp_block_nr = RING_BLOCKS,
        .tp_frame_size = RING_FRAME,
        .tp_frame_nr = RING_BLOCK / RING_FRAME * RING_BLOCKS,
        .tp_retire_blk_tov = BLOCK_MS,
    };
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = if_nametoindex(interface),
    };
    int version = TPACKET_V3;

    place->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    limit_socket(place->fd);
    if (!address.sll_ifindex ||
        setsockopt(place->fd, SOL_PACKET, PACKET_VERSION, &version,
                   sizeof(version)) < 0 ||
        setsockopt(place->fd, SOL_PACKET, PACKET_RX_RING, &request,
                   sizeof(request)) < 0 ||
        bind(place->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        die("packet socket on %s: %s", interface, strerror(errno));
    }
    place->ring = mmap(NULL, (size_t)RING_BLOCK * RING_BLOCKS,
                       PROT_READ | PROT_WRITE, MAP_SHARED, place->fd, 0);
    if (place->ring == MAP_FAILED) {
        die("ring of %s: %s", interface, strerror(errno));
    }
}

static void note_frame(Place *place, const struct tpacket3_hdr *frame)
{
    Record found = { 0 };

    if (packet_peek((const uint8_t *)frame + frame->tp_mac, frame->tp_snaplen,
                    &found)) {
        found.seen_ns = frame->tp_sec * NS_PER_S + frame->tp_nsec;
        *log_add(&place->log) = found;
    }
}

static void read_tap(Place *place)
{
    for (;;) {
        struct tpacket_block_desc *block =
            (void *)(place->ring + (size_t)place->block * RING_BLOCK);
        struct tpacket_hdr_v1 *head = &block->hdr.bh1;
        const uint8_t *at = (uint8_t *)block + head->offset_to_first_pkt;

        if (!(__atomic_load_n(&head->block_status, __ATOMIC_ACQUIRE) &
              TP_STATUS_USER)) {
            return;
        }
        for (unsigned i = 0; i < head->num_pkts; i++) {
            const struct tpacket3_hdr *frame = (const void *)at;

            note_frame(place, frame);
            at += frame->tp_next_offset;
        }
        __atomic_store_n(&head->block_status, TP_STATUS_KERNEL,
                         __ATOMIC_RELEASE);
        place->block = (place->block + 1) % RING_BLOCKS;
    }
}

static unsigned dropped_by_watch(const Place *place)
{
    struct tpacket_stats_v3 stats = { 0 };
    socklen_t size = sizeof(stats);

    getsockopt(place->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size);
    return stats.tp_drops;
}

/*
 * Streams
 */

static void open_stream(Place *place, char *paths)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char *colon = strchr(paths, ':'), *spoil;

    if (!colon) {
        die("'%s' is not LISTEN:CONNECT", paths);
    }
    *colon = 0;
    place->connect_to = colon + 1;
    spoil = strchr(colon + 1, ':');
    if (spoil) {
        *spoil = 0;
        spoil_parse(&place->spoiler, spoil + 1);
    }
    strncpy(address.sun_path, paths, sizeof(address.sun_path) - 1);
    place->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(place->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(place->fd, 1) < 0) {
        die("%s: %s", paths, strerror(errno));
    }
    chmod(paths, 0666);
}

static void stream_accept(Place *place)
{
    int fd = accept4(place->fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0) {
        die("%s: %s", place->name, strerror(errno));
    }
    close(place->fd);
    place->fd = fd;
    place->out = connect_unix(place->connect_to);
    place->connected = true;
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

static void note_head(Place *place)
{
    const size_t vnet = get32(place->head + 4);
    Record found = { 0 };

    if (place->head_size > 8 + vnet &&
        packet_peek(place->head + 8 + vnet, place->head_size - 8 - vnet,
                    &found)) {
        found.seen_ns = now_ns(CLOCK_REALTIME);
        *log_add(&place->log) = found;
    }
}

/* Follows the packets in a piece of the stream. */
static void note_stream(Place *place, const uint8_t *data, size_t size)
{
    while (size) {
        size_t want = place->head_size < 8 ? 8 - place->head_size : place->left;
        size_t n = want < size ? want : size;
        size_t keep = sizeof(place->head) - place->head_size;

        keep = n < keep ? n : keep;
        memcpy(place->head + place->head_size, data, keep);
        place->head_size += keep;
        if (place->left) {
            place->left -= n;
        } else if (place->head_size == 8) {
            place->left = get32(place->head);
        }
        if (!place->left && place->head_size >= 8) {
            note_head(place);
            place->head_size = 0;
        }
        data += n;
        size -= n;
    }
}

static void stream_end(Place *place)
{
    close(place->fd);
    close(place->out);
    place->fd = place->out = -1;
    place->connected = false;
}

/* Passes on what has come from one side; ends both when one has ended. */
static void stream_pass(Place *place, int from, int to, bool noted)
{
    static uint8_t data[PIECE];
    ssize_t n = recv(from, data, sizeof(data), MSG_DONTWAIT);
    bool good = n > 0;

    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (good && noted) {
        note_stream(place, data, n);
    }
    if (good && noted && place->spoiler.every) {
        good = spoil_pass(&place->spoiler, data, n, to);
    } else if (good) {
        good = send_all(to, data, n);
    }
    if (!good) {
        stream_end(place);
    }
}

/*
 * All of them
 */

static void open_place(Place *place, char *text)
{
    char *kind = strchr(text, '=');

    if (!kind) {
        die("'%s' is not NAME=KIND", text);
    }
    snprintf(place->name, sizeof(place->name), "%.*s", (int)(kind - text),
             text);
    kind++;
    if (!strncmp(kind, "tap:", 4)) {
        open_tap(place, kind + 4);
    } else if (!strncmp(kind, "stream:", 7)) {
        open_stream(place, kind + 7);
    } else {
        die("'%s' is neither tap: nor stream:", text);
    }
}

static void look(Place *place, const struct pollfd *pfds)
{
    if (place->ring) {
        read_tap(place);
    } else if (place->connected) {
        if (pfds[0].revents) {
            stream_pass(place, place->fd, place->out, true);
        }
        if (place->connected && pfds[1].revents) {
            stream_pass(place, place->out, place->fd, false);
        }
    } else if (place->fd >= 0 && pfds[0].revents) {
        stream_accept(place);
    }
}

static void save(Place *place, const char *dir)
{
    if (place->ring) {
        unsigned dropped;

        nap_ns(2 * BLOCK_MS * NS_PER_MS);
        read_tap(place);
        dropped = dropped_by_watch(place);
        if (dropped) {
            printf("%s: the watch itself missed %u\n", place->name, dropped);
        }
    }
    log_save(&place->log, dir, place->name);
}

int watch_main(int argc, char **argv)
{
    static Place places[PLACES_MAX];
    struct pollfd pfds[2 * PLACES_MAX];
    struct sigaction stop = { .sa_handler = order_stop };
    int count = argc - 1;

    if (count > PLACES_MAX) {
        die("too many places");
    }
    sigaction(SIGTERM, &stop, NULL);
    for (int i = 0; i < count; i++) {
        open_place(&places[i], argv[1 + i]);
    }
    puts("watching");
    fflush(stdout);
    while (!stopping) {
        for (int i = 0; i < count; i++) {
            /* Rings are looked at when something else, or time, wakes us. */
            pfds[2 * i] = (struct pollfd) {
                places[i].ring ? -1 : places[i].fd, POLLIN, 0 };
            pfds[2 * i + 1] = (struct pollfd) {
                places[i].connected ? places[i].out : -1, POLLIN, 0 };
        }
        poll(pfds, 2 * count, 20);
        for (int i = 0; i < count; i++) {
            look(&places[i], &pfds[2 * i]);
        }
    }
    for (int i = 0; i < count; i++) {
        save(&places[i], argv[0]);
    }
    return 0;
}
