/*
 * filter-redirector: ends, where packets come from and where they go to
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_END_H
#define NET_FILTER_REDIRECTOR_END_H

#include "qemu/timer.h"
#include "chardev/char.h"
#include "net/filter.h"
#include "net/packet-capture.h"
#include "net/packet-inject.h"
#include "filter-redirector-handover.h"
#include "filter-redirector-switchover.h"

/*
 * The rooms of the house, each of which knows those below it only:
 *
 *   filter-redirector-query.c       QMP and HMP
 *   filter-redirector.c             the object: properties, events, its flows
 *   filter-redirector-pump.c        moves packets from a source to a sink
 *   filter-redirector-lend.c        the hand-over's source
 *   filter-redirector-hold.c        the hand-over's destination: what is first
 *   filter-redirector-talk.c        how these two speak
 *   filter-redirector-direct.c      what comes directly, once
 *   filter-redirector-backlog.c     what waits for the guest
 *   filter-redirector-twins.c       what reaches both hosts
 *   filter-redirector-chardev*.c \
 *   filter-redirector-chain.c     } sources and sinks, one kind each
 *   filter-redirector-packet*.c  /
 *   filter-redirector-switchover.c  what happens when
 *   filter-redirector-handover.c    what a hand-over does with which packet
 *
 * Each has a header of its own, which is all that those above it see.  An end
 * calls upwards through the functions of its RedirectorOwner only.
 */

/* What is waited for in hand-overs is told in milliseconds of that clock. */
static inline int64_t redirector_now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

/* Packets handled at once. */
#define REDIRECTOR_BATCH PACKET_INJECT_BATCH

typedef FilterRedirectorEndpointState EndState;

#define END_STATE(state) FILTER_REDIRECTOR_ENDPOINT_STATE_##state

typedef struct RedirectorSource RedirectorSource;
typedef struct RedirectorSink RedirectorSink;

/* Who has an end. */
typedef struct RedirectorOwner {
    const char *id;         /* of the object, for messages */
    NetFilterState *nf;
    /* Move packets: there are some, or there is room.  May end the owner. */
    void (*run)(struct RedirectorOwner *owner);
    /* The same in a later turn of the main loop. */
    void (*run_later)(struct RedirectorOwner *owner);
    /* Give a packet to the source's sink; false if that has no room. */
    bool (*offer)(struct RedirectorOwner *owner, RedirectorSource *s,
                  PacketFrame *f);
    /* The peer at a chardev comes or goes. */
    void (*peer)(struct RedirectorOwner *owner, bool open);
    /* The peer of an output says something, or (no mark) is another one. */
    void (*said)(struct RedirectorOwner *owner, HandoverMark mark);
} RedirectorOwner;

/* What stands between two ends (holds and loans) has what all have, no more. */
typedef struct RedirectorSourceOps {
    /* Of all.  The next packets, which stay in the source; at most @max. */
    unsigned (*read)(RedirectorSource *s, PacketFrame *frames, unsigned max);
    /* Let go of the first @n of these; count them if that was not done. */
    void (*release)(RedirectorSource *s, const PacketFrame *frames,
                    unsigned n);
    FilterRedirectorEndpointType type;
    /* Apart from the gate and the sink: ACTIVE, DISCONNECTED, DOWN, GONE ... */
    EndState (*state)(RedirectorSource *s);
    /* Its part of a query: name, interface, losses, what is queued. */
    void (*describe)(RedirectorSource *s, FilterRedirectorEndpoint *end);
    void (*free)(RedirectorSource *s);
    /*
     * These may be missing.  Bring it in line with what has been set in
     * RedirectorSource; a netdev is about to go (in the midst of anything).
     */
    void (*update)(RedirectorSource *s);
    void (*netdev_removed)(RedirectorSource *s, NetClientState *nc);
} RedirectorSourceOps;

struct RedirectorSource {
    const RedirectorSourceOps *ops;
    RedirectorOwner *owner;
    SwitchoverRole role;
    SwitchoverGate gate;
    bool live;              /* the machine runs */
    bool on;                /* the filter's status */
    bool blocked;           /* the sink did not take all it was given */
    FilterRedirectorStats stats;
};

typedef struct RedirectorSinkOps {
    /* Of all.  Can it take a packet now? */
    bool (*room)(RedirectorSink *s);
    /*
     * Take packets, in order.  Return: how many, from the first one on, have
     * been passed on, queued, or counted as lost or refused.
     */
    unsigned (*put)(RedirectorSink *s, PacketFrame *frames, unsigned n);
    EndState (*state)(RedirectorSink *s);
    FilterRedirectorEndpointType type;
    /* Is there a receiver? */
    bool (*connected)(RedirectorSink *s);
    void (*free)(RedirectorSink *s);
    /*
     * These may be missing.  Get rid of what is queued, as far as there is
     * room and @budget lasts; as for sources.
     */
    void (*flush)(RedirectorSink *s, unsigned budget);
    void (*describe)(RedirectorSink *s, FilterRedirectorEndpoint *end);
    void (*netdev_removed)(RedirectorSink *s, NetClientState *nc);
} RedirectorSinkOps;

struct RedirectorSink {
    const RedirectorSinkOps *ops;
    RedirectorOwner *owner;
    SwitchoverRole role;
    SwitchoverGate gate;
    bool live;              /* the machine runs */
    bool stalled;           /* the receiver did not take all */
    FilterRedirectorStats stats;
};

/**
 * redirector_source_update() - Bring a source in line with its fields
 * @s: source
 */
void redirector_source_update(RedirectorSource *s);

/**
 * redirector_source_count() - Count packets that came in
 * @s: source
 * @frames: packets
 * @n: how many
 */
void redirector_source_count(RedirectorSource *s, const PacketFrame *frames,
                             unsigned n);

/* For sinks */

/**
 * redirector_sink_count() - Count a packet that went out
 * @s: sink
 * @bytes: its length without vnet header
 */
void redirector_sink_count(RedirectorSink *s, size_t bytes);

/**
 * redirector_sink_stall() - The receiver takes no more for now
 * @s: sink
 */
void redirector_sink_stall(RedirectorSink *s);

/**
 * redirector_sink_refuse() - Count a packet that can't be passed on
 * @s: sink
 * @err: why, -errno
 * @len: its length, bytes
 */
void redirector_sink_refuse(RedirectorSink *s, int err, size_t len);

/**
 * redirector_sink_lose() - Count a packet there is no room for, or nobody
 * @s: sink
 * @len: its length, bytes
 */
void redirector_sink_lose(RedirectorSink *s, size_t len);

/* How a packet of the netdev @nc looks: vnet headers there and here */

/**
 * redirector_hdr_read() - Take over a vnet header of a netdev's packet
 * @nc: netdev
 * @f: packet; its header is made one of the host's byte order, as all code
 *     that looks into headers wants it
 */
void redirector_hdr_read(NetClientState *nc, PacketFrame *f);

/**
 * redirector_hdr_write() - Make a packet's vnet header one of a netdev
 * @nc: netdev
 * @f: packet
 * @hdr: result: the header, VNET_HDR_LEN_MAX bytes
 *
 * Return: its length
 */
size_t redirector_hdr_write(NetClientState *nc, const PacketFrame *f,
                            uint8_t *hdr);

/**
 * redirector_multiqueue() - Has the netdev of a filter several queues?
 * @nf: filter
 */
bool redirector_multiqueue(NetFilterState *nf);

/**
 * redirector_pass_now() - Pass on what a sink takes, without the main loop
 * @source: source, its gate is open
 * @sink: sink
 */
void redirector_pass_now(RedirectorSource *source, RedirectorSink *sink);

/**
 * redirector_frame_read() - Take a packet that a filter gets
 * @nc: netdev
 * @flags: QEMU_NET_PACKET_FLAG_*
 * @iov: packet, behind a vnet header of the netdev's length, unless it's bare
 * @iovcnt: number of pieces
 * @f: result, in one piece; valid as long as @iov and @copy are
 * @copy: result: what the caller has to free
 *
 * Return: false if it is too long, or nothing but a header
 */
bool redirector_frame_read(NetClientState *nc, unsigned flags,
                           const struct iovec *iov, int iovcnt,
                           PacketFrame *f, uint8_t **copy);

/* What takes a packet that redirector_finish() has made. */
typedef void RedirectorTake(RedirectorSink *s, PacketFrame *f);

/**
 * redirector_finish() - Make packets that need no vnet header out of one
 * @s: sink
 * @f: packet
 * @room: bytes; each packet needs its length and eight more
 * @take: gets what comes out: the packet with its checksum filled in, or the
 *        segments of a super-packet
 *
 * Return: 1 if done; 0 if @room is not enough; -EINVAL if the header is wrong
 */
int redirector_finish(RedirectorSink *s, const PacketFrame *f, size_t room,
                      RedirectorTake *take);

#endif /* NET_FILTER_REDIRECTOR_END_H */
