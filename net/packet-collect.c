/*
 * Collect what arrives at a TAP while the main loop stands still
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/ioctl.h>
#include "qemu/event_notifier.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "net/eth.h"
#include "net/packet-collect.h"
#include "net/tap.h"
#include "tap-linux.h"
#include "tap_int.h"

/* Of one queue, in a row. */
#define BATCH 64

/* As much as a TAP's queue holds by default. */
#define LAST_BATCHES 16

typedef struct CollectQueue {
    int fd;
    size_t host_hdr_len;        /* of what is read */
    size_t hdr_len;             /* of what is kept */
    bool swapped;               /* headers aren't in host byte order */
    bool pad;                   /* to the length that Ethernet wants */
} CollectQueue;

struct PacketCollect {
    QemuThread thread;
    EventNotifier wake;
    bool ends;
    QemuMutex lock;             /* of what is collected */
    PacketStream *into;
    CollectQueue queues[MAX_QUEUE_NUM];
    unsigned n;
    uint8_t buf[NET_BUFSIZE];
};

static bool has_room(PacketCollect *c)
{
    QEMU_LOCK_GUARD(&c->lock);
    return packet_stream_room(c->into) >= PACKET_STREAM_FRAME_MAX;
}

static void keep(PacketCollect *c, const CollectQueue *q, size_t size)
{
    uint8_t min[ETH_ZLEN];
    size_t min_len = sizeof(min);
    struct iovec iov = {
        c->buf + q->host_hdr_len, size - q->host_hdr_len,
    };

    if (q->pad && eth_pad_short_frame(min, &min_len, iov.iov_base,
                                      iov.iov_len)) {
        iov = (struct iovec) { min, min_len };
    }
    if (q->swapped) {
        vnet_hdr_swap(c->buf, q->hdr_len);
    }
    QEMU_LOCK_GUARD(&c->lock);
    packet_stream_put(c->into, c->buf, q->hdr_len, &iov, 1);
}

static void read_queue(PacketCollect *c, const CollectQueue *q)
{
    ssize_t size;
    unsigned i;

    for (i = 0; i < BATCH && has_room(c); i++) {
        size = RETRY_ON_EINTR(read(q->fd, c->buf, sizeof(c->buf)));
        if (size <= 0) {
            return;
        }
        if (size > q->host_hdr_len) {
            keep(c, q, size);
        }
    }
}

/*
 * Without the big lock: nothing but its own fields.  No ioctl() of a TAP, which
 * waits for whatever changes any interface of the host.
 */
static void *collect(void *opaque)
{
    PacketCollect *c = opaque;
    struct pollfd fds[MAX_QUEUE_NUM + 1];
    unsigned i;

    for (;;) {
        fds[0] = (struct pollfd) {
            event_notifier_get_fd(&c->wake), POLLIN,
        };
        for (i = 0; i < c->n; i++) {
            /* What finds no room waits in the TAP's queue. */
            fds[i + 1] = (struct pollfd) {
                has_room(c) ? c->queues[i].fd : -1, POLLIN,
            };
        }
        poll(fds, c->n + 1, -1);
        event_notifier_test_and_clear(&c->wake);
        if (qatomic_read(&c->ends)) {
            return NULL;
        }
        for (i = 0; i < c->n; i++) {
            if (fds[i + 1].revents & POLLIN) {
                read_queue(c, &c->queues[i]);
            } else if (fds[i + 1].revents) {
                c->queues[i].fd = -1;   /* gone */
            }
        }
    }
}

static void add_queue(PacketCollect *c, NetClientState *nc)
{
    CollectQueue *q = &c->queues[c->n];
    int len = sizeof(struct virtio_net_hdr);

    *q = (CollectQueue) {
        .fd = tap_get_fd(nc),
        .hdr_len = nc->vnet_hdr_len,
        .swapped = nc->vnet_hdr_swapped,
        .pad = net_peer_needs_padding(nc),
    };
    if (tap_probe_vnet_hdr(q->fd, NULL) > 0) {
        ioctl(q->fd, TUNGETVNETHDRSZ, &len);
        q->host_hdr_len = len;
    }
    c->n += q->hdr_len <= q->host_hdr_len;
}

/* No thread yet */
static PacketCollect *collect_new(NetClientState *nc, PacketStream *into)
{
    NetClientState *ncs[MAX_QUEUE_NUM];
    PacketCollect *c;
    int i, queues;

    if (nc->info->type != NET_CLIENT_DRIVER_TAP) {
        return NULL;
    }
    c = g_new0(PacketCollect, 1);
    c->into = into;
    if (event_notifier_init(&c->wake, false) < 0) {
        g_free(c);
        return NULL;
    }
    qemu_mutex_init(&c->lock);
    queues = qemu_find_net_clients_except(nc->name, ncs, NET_CLIENT_DRIVER_NIC,
                                          MAX_QUEUE_NUM);
    for (i = 0; i < queues; i++) {
        add_queue(c, ncs[i]);
    }
    return c;
}

PacketCollect *packet_collect_start(NetClientState *nc, PacketStream *into)
{
    PacketCollect *c = collect_new(nc, into);

    if (c) {
        qemu_thread_create(&c->thread, "packet-collect", collect, c,
                           QEMU_THREAD_JOINABLE);
    }
    return c;
}

unsigned packet_collect_queued(PacketCollect *c)
{
    QEMU_LOCK_GUARD(&c->lock);
    return c->into->packets;
}

bool packet_collect_put(PacketCollect *c, const PacketFrame *f)
{
    QEMU_LOCK_GUARD(&c->lock);
    return packet_stream_put(c->into, f->hdr, f->hdr_len, f->iov, f->iovcnt);
}

void packet_collect_swap(PacketCollect *c, PacketStream *empty)
{
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        PacketStream collected = *c->into;

        *c->into = *empty;
        *empty = collected;
    }
    /* It may wait for room. */
    event_notifier_set(&c->wake);
}

bool packet_collect_any(PacketCollect *c, PacketCollectTest *test,
                        void *opaque)
{
    PacketFrame frames[PACKET_COLLECT_ANY];
    unsigned i, n;

    QEMU_LOCK_GUARD(&c->lock);
    n = packet_stream_peek(c->into, 0, frames, ARRAY_SIZE(frames));
    for (i = 0; i < n; i++) {
        if (test(&frames[i], opaque)) {
            return true;
        }
    }
    return false;
}

static void end_thread(PacketCollect *c)
{
    qatomic_set(&c->ends, true);
    event_notifier_set(&c->wake);
    qemu_thread_join(&c->thread);
}

static void collect_free(PacketCollect *c)
{
    qemu_mutex_destroy(&c->lock);
    event_notifier_cleanup(&c->wake);
    g_free(c);
}

static void read_rest(PacketCollect *c)
{
    unsigned i, j;

    for (i = 0; i < c->n; i++) {
        for (j = 0; j < LAST_BATCHES; j++) {
            read_queue(c, &c->queues[i]);
        }
    }
}

void packet_collect_finish(PacketCollect *c)
{
    end_thread(c);
    read_rest(c);
    collect_free(c);
}

void packet_collect_now(NetClientState *nc, PacketStream *into)
{
    PacketCollect *c = collect_new(nc, into);

    if (c) {
        read_rest(c);
        collect_free(c);
    }
}

void packet_collect_stop(PacketCollect *c)
{
    if (c) {
        end_thread(c);
        collect_free(c);
    }
}
