/*
 * filter-redirector: the filter chain of the netdev it sits on
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qapi/qapi-types-migration.h"
#include "migration/options.h"
#include "net/vhost_net.h"
#include "filter-redirector-chain.h"
#include "net/packet-stream.h"

/* Source */

/*
 * What the chain brings can't be refused, and only a TAP can be told to bring
 * no more.  So there is a queue for what the sink does not take at once.  From
 * a TAP it gets no more than what was on its way; packets of the guest, and
 * those of other netdevs, are lost once it is full.
 */
#define QUEUE_SIZE (4 * MiB)

/*
 * What arrives for a guest that has left waits here until the peer takes it: a
 * destination takes little before its guest runs, and a TAP's own queue holds
 * 1,000 packets.
 */
#define HAND_OVER_SIZE (32 * MiB)

typedef struct ChainSource {
    RedirectorSource parent;
    RedirectorSink *sink;
    /* Frames tell their header's length: the guest's driver may change it. */
    PacketStream queue;
    NetFilterIntake intake;     /* what the netdev has been told last */
} ChainSource;

#define CHAIN_SOURCE(s) container_of(s, ChainSource, parent)

static bool source_room(ChainSource *s)
{
    if (s->parent.role == SWITCHOVER_HAND_OVER && !s->parent.live) {
        return !s->queue.buf || packet_stream_room(&s->queue) >= QUEUE_SIZE;
    }
    return !s->queue.packets && s->sink->ops->room(s->sink);
}

static NetFilterIntake wanted_intake(ChainSource *s)
{
    RedirectorSource *p = &s->parent;
    bool takes = p->on && p->gate == SWITCHOVER_OPEN &&
                 s->sink->ops->connected(s->sink);

    if (p->owner->nf->direction == NET_FILTER_DIRECTION_RX) {
        return NET_FILTER_INTAKE_DEFAULT;
    }
    if (p->live) {
        return takes && !source_room(s) ? NET_FILTER_INTAKE_HOLD
                                        : NET_FILTER_INTAKE_DEFAULT;
    }
    /* Without a peer, or switched off: the guest that has left can wait. */
    return p->gate == SWITCHOVER_SHUT ? NET_FILTER_INTAKE_DEFAULT :
           takes && source_room(s) ? NET_FILTER_INTAKE_TAKE :
           NET_FILTER_INTAKE_HOLD;
}

NetFilterIntake redirector_chain_intake(RedirectorSource *parent)
{
    ChainSource *s = CHAIN_SOURCE(parent);

    /*
     * Kept as the netdev's word, too: it may have stopped reading because of
     * an answer that has become out of date before anybody looked.
     */
    s->intake = wanted_intake(s);
    return s->intake;
}

/* What waits for a sink that is gone waits in vain. */
static void lose_queue(ChainSource *s)
{
    RedirectorSink *sink = s->sink;

    if (s->queue.packets && !sink->ops->connected(sink) &&
        sink->ops->state(sink) == END_STATE(GONE)) {
        sink->stats.lost += s->queue.packets;
        packet_stream_drop_all(&s->queue);
    }
}

static void source_update(RedirectorSource *parent)
{
    ChainSource *s = CHAIN_SOURCE(parent);
    NetFilterIntake intake;

    lose_queue(s);
    intake = wanted_intake(s);
    if (intake == s->intake) {
        return;
    }
    s->intake = intake;
    if (intake == NET_FILTER_INTAKE_TAKE) {
        qemu_netfilter_take_queued(parent->owner->nf);
    }
    qemu_netfilter_intake_changed(parent->owner->nf);
}

static void source_queue(ChainSource *s, PacketFrame *f)
{
    if (!s->queue.buf) {
        packet_stream_init(&s->queue,
                           s->parent.role == SWITCHOVER_HAND_OVER
                           ? HAND_OVER_SIZE : QUEUE_SIZE, true);
    }
    if (!packet_stream_put(&s->queue, f->hdr, f->hdr_len, f->iov,
                           f->iovcnt)) {
        redirector_sink_lose(s->sink, f->len);
    }
}

ssize_t redirector_chain_receive(RedirectorSource *parent,
                                 NetClientState *sender, unsigned flags,
                                 const struct iovec *iov, int iovcnt)
{
    ChainSource *s = CHAIN_SOURCE(parent);
    RedirectorOwner *owner = parent->owner;
    NetClientState *nc = owner->nf->netdev;
    size_t size = iov_size(iov, iovcnt);
    size_t hdr_len = flags & QEMU_NET_PACKET_FLAG_RAW ? 0 : nc->vnet_hdr_len;
    g_autofree uint8_t *copy = NULL;
    PacketFrame f;

    if (!size || parent->gate != SWITCHOVER_OPEN ||
        (!parent->live && !s->sink->ops->connected(s->sink))) {
        return 0;
    }
    parent->stats.packets++;
    parent->stats.bytes += size - MIN(size, hdr_len);
    if (!s->sink->ops->connected(s->sink)) {
        redirector_sink_lose(s->sink, size);
        return size;
    }
    if (!redirector_frame_read(nc, flags, iov, iovcnt, &f, &copy)) {
        redirector_sink_refuse(s->sink, -EMSGSIZE, size);
        return size;
    }
    f.dir = sender == nc->peer ? NET_FILTER_DIRECTION_RX
                               : NET_FILTER_DIRECTION_TX;

    if (s->queue.packets || !owner->offer(owner, parent, &f)) {
        source_queue(s, &f);
    }
    /* A batch of packets becomes one write. */
    owner->run_later(owner);
    return size;
}

static unsigned source_read(RedirectorSource *parent, PacketFrame *frames,
                            unsigned max)
{
    unsigned i, n = packet_stream_peek(&CHAIN_SOURCE(parent)->queue, 0,
                                       frames, max);

    for (i = 0; i < n; i++) {
        frames[i].dir = parent->owner->nf->direction;
    }
    return n;
}

static void source_release(RedirectorSource *parent,
                           const PacketFrame *frames, unsigned n)
{
    packet_stream_drop(&CHAIN_SOURCE(parent)->queue, n);
}

static EndState source_state(RedirectorSource *parent)
{
    return END_STATE(ACTIVE);
}

unsigned redirector_chain_queued(RedirectorSource *parent)
{
    return CHAIN_SOURCE(parent)->queue.packets;
}

static void source_free(RedirectorSource *parent)
{
    packet_stream_destroy(&CHAIN_SOURCE(parent)->queue);
    g_free(CHAIN_SOURCE(parent));
}

static const RedirectorSourceOps chain_source_ops = {
    .type = FILTER_REDIRECTOR_ENDPOINT_TYPE_CHAIN,
    .read = source_read,
    .release = source_release,
    .update = source_update,
    .state = source_state,
    .free = source_free,
};

RedirectorSource *redirector_chain_source(RedirectorOwner *owner,
                                          RedirectorSink *sink,
                                          bool hand_over)
{
    ChainSource *s = g_new0(ChainSource, 1);

    s->parent.ops = &chain_source_ops;
    s->parent.owner = owner;
    s->parent.role = hand_over ? SWITCHOVER_HAND_OVER : SWITCHOVER_DIVERT;
    s->sink = sink;
    return &s->parent;
}

/* Sink */

/* When to look again, microseconds: nobody tells when a NIC takes packets. */
#define RETRY_FULL_US 1000
#define RETRY_VHOST_US (100 * 1000)

/*
 * What a NIC that takes nothing gets all the same: it waits in the NIC's
 * queue, which is as long as that, and drops without a word what is more.
 */
#define AHEAD_PACKETS 8192
#define AHEAD_BYTES (4 * MiB)

/*
 * The guest gets all through the NIC's first queue.  What comes in other queues
 * then must not overtake what it has got in the first one and not looked at
 * yet.
 */
#define SETTLE_MS 100

typedef struct ChainSink {
    RedirectorSink parent;
    bool several;               /* queues of the netdev */
    bool copies;
    bool two_way;               /* each packet tells its direction */
    NetFilterDirection dir;     /* otherwise */
    unsigned ahead;             /* packets since the NIC last took some */
    size_t ahead_bytes;
    QEMUTimer *retry;
} ChainSink;

#define CHAIN_SINK(s) container_of(s, ChainSink, parent)

static NetClientState *sink_netdev(RedirectorSink *parent)
{
    return parent->owner->nf->netdev;
}

static bool nic_takes(NetClientState *nc, NetFilterDirection dir)
{
    return (dir == NET_FILTER_DIRECTION_RX || qemu_can_send_packet(nc)) &&
           (dir == NET_FILTER_DIRECTION_TX || qemu_can_send_packet(nc->peer));
}

/*
 * A NIC's queue is purged when vhost starts.  And before the guest's state is
 * there nobody knows how long its vnet headers are (COLO has always done
 * without knowing, and must not be held up).
 */
static bool held(RedirectorSink *parent)
{
    NetClientState *nc = sink_netdev(parent);

    if (parent->gate == SWITCHOVER_SHUT && !migrate_colo()) {
        return true;
    }
    return get_vhost_net(nc) && (parent->gate != SWITCHOVER_OPEN ||
                                 qemu_netfilter_vhost_running(nc));
}

static bool sink_connected(RedirectorSink *parent)
{
    return true;
}

static bool sink_room(RedirectorSink *parent)
{
    ChainSink *s = CHAIN_SINK(parent);
    NetClientState *nc = sink_netdev(parent);

    if (!nc) {
        return false;
    }
    if (s->copies || !nc->peer) {
        return true;
    }
    if (held(parent)) {
        return false;
    }
    if (nic_takes(nc, s->dir)) {
        s->ahead = 0;
        s->ahead_bytes = 0;
        return true;
    }
    /* A driver that starts the NIC finds an empty queue. */
    return parent->role != SWITCHOVER_RETURN && !get_vhost_net(nc) &&
           s->ahead < AHEAD_PACKETS && s->ahead_bytes < AHEAD_BYTES;
}

static void sink_take(RedirectorSink *parent, PacketFrame *f)
{
    ChainSink *s = CHAIN_SINK(parent);
    NetClientState *nc = sink_netdev(parent);
    uint8_t hdr[VNET_HDR_LEN_MAX];
    size_t hdr_len;
    struct iovec iov[1 + VNET_VLAN_IOV_MAX], *p;
    NetFilterCopy copy = { .time_ns = f->time_ns, .cut = f->cut };
    int n;

    /* A filter behind may have run the main loop, and that removed it. */
    if (!nc) {
        return;
    }
    hdr_len = redirector_hdr_write(nc, f, hdr);
    iov[0] = (struct iovec) { hdr, hdr_len };
    memcpy(&iov[1], f->iov, f->iovcnt * sizeof(f->iov[0]));
    p = hdr_len ? iov : iov + 1;
    n = f->iovcnt + !!hdr_len;
    s->ahead++;
    s->ahead_bytes += f->len;
    /* Where there is no NIC the filters are all who get it. */
    if (s->copies || !nc->peer) {
        qemu_netfilter_pass_copy(parent->owner->nf, f->dir, &copy, p, n);
    } else {
        qemu_netfilter_pass_to_next(f->dir == NET_FILTER_DIRECTION_TX
                                    ? nc : nc->peer,
                                    QEMU_NET_PACKET_FLAG_NONE, p, n,
                                    parent->owner->nf);
    }
    redirector_sink_count(parent, f->len);
}

static void sink_pass(RedirectorSink *parent, PacketFrame *f,
                      NetFilterDirection dir)
{
    NetClientState *nc = sink_netdev(parent);

    f->dir = dir;
    if (!nc || nc->vnet_hdr_len || !vnet_hdr_needed(f->hdr, f->hdr_len)) {
        sink_take(parent, f);
    } else if (redirector_finish(parent, f, SIZE_MAX, sink_take) < 0) {
        redirector_sink_refuse(parent, -EINVAL, f->len);
    }
}

void redirector_chain_pass(RedirectorSink *parent, PacketFrame *f)
{
    ChainSink *s = CHAIN_SINK(parent);
    NetFilterDirection dir = s->two_way ? f->dir : s->dir;

    if (!f->len) {
        redirector_sink_refuse(parent, -EINVAL, 0);
        return;
    }
    if (!s->two_way && !sink_netdev(parent)->peer) {
        redirector_sink_lose(parent, f->len);
        return;
    }
    if (dir != NET_FILTER_DIRECTION_RX) {
        sink_pass(parent, f, NET_FILTER_DIRECTION_TX);
    }
    if (dir != NET_FILTER_DIRECTION_TX) {
        sink_pass(parent, f, NET_FILTER_DIRECTION_RX);
    }
}

static void sink_wait(RedirectorSink *parent)
{
    bool vhost = held(parent);

    redirector_sink_stall(parent);
    /* Who starts the machine sees to it anyway. */
    if (parent->gate == SWITCHOVER_OPEN) {
        timer_mod(CHAIN_SINK(parent)->retry,
                  qemu_clock_get_us(QEMU_CLOCK_REALTIME) +
                  (vhost ? RETRY_VHOST_US : RETRY_FULL_US));
    }
}

static unsigned sink_put(RedirectorSink *parent, PacketFrame *frames,
                         unsigned n)
{
    unsigned i;

    for (i = 0; i < n && sink_room(parent); i++) {
        redirector_chain_pass(parent, &frames[i]);
    }
    if (i < n && sink_netdev(parent)) {
        sink_wait(parent);
    }
    return i;
}

bool redirector_chain_is_done(RedirectorSink *parent, int64_t *since)
{
    NetClientState *nc = sink_netdev(parent);
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (nc->peer && !(qemu_can_send_packet(nc) &&
                      qemu_net_queue_flush(nc->peer->incoming_queue))) {
        return false;
    }
    if (!*since) {
        *since = now;
    }
    return !CHAIN_SINK(parent)->several || now - *since >= SETTLE_MS;
}

static EndState sink_state(RedirectorSink *parent)
{
    return sink_room(parent) ? END_STATE(ACTIVE) :
           held(parent) ? END_STATE(HELD) :
           END_STATE(STALLED);
}

static void sink_retry(void *opaque)
{
    RedirectorSink *parent = opaque;

    parent->owner->run(parent->owner);
}

static void sink_free(RedirectorSink *parent)
{
    timer_free(CHAIN_SINK(parent)->retry);
    g_free(CHAIN_SINK(parent));
}

static const RedirectorSinkOps chain_sink_ops = {
    .type = FILTER_REDIRECTOR_ENDPOINT_TYPE_CHAIN,
    .connected = sink_connected,
    .room = sink_room,
    .put = sink_put,
    .state = sink_state,
    .free = sink_free,
};

RedirectorSink *redirector_chain_sink(RedirectorOwner *owner, bool copies,
                                      bool two_way, NetFilterDirection dir)
{
    ChainSink *s = g_new0(ChainSink, 1);

    s->parent.ops = &chain_sink_ops;
    s->parent.owner = owner;
    s->parent.role = SWITCHOVER_DELIVER;
    s->copies = copies;
    s->two_way = two_way;
    s->dir = dir;
    s->several = redirector_multiqueue(owner->nf);
    s->retry = timer_new_us(QEMU_CLOCK_REALTIME, sink_retry, s);
    return &s->parent;
}
