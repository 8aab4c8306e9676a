/*
 * filter-redirector: ends, where packets come from and where they go to
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_END_H
#define NET_FILTER_REDIRECTOR_END_H

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
 *   filter-redirector-chardev.c  \
 *   filter-redirector-chain.c     } sources and sinks, one kind each
 *   filter-redirector-packet.c   /
 *   filter-redirector-switchover.c  what happens when
 *   filter-redirector-handover.c    what a hand-over does with which packet
 *
 * An end calls upwards through the functions of its RedirectorOwner only.
 */

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

/* chardev */

/**
 * redirector_find_chardev() - Find a chardev that a property names
 * @property: the property's name
 * @id: the chardev's
 * @errp: set if there is none, or one that does not carry a stream
 */
Chardev *redirector_find_chardev(const char *property, const char *id,
                                 Error **errp);

/**
 * redirector_chardev_source() - Take packets that a peer sends
 * @owner: owner
 * @chr: chardev, in use by nobody else
 * @vnet_hdr: its packets come with the length of their vnet header
 * @errp: set on failure
 *
 * Return: the source, or NULL
 */
RedirectorSource *redirector_chardev_source(RedirectorOwner *owner,
                                            Chardev *chr, bool vnet_hdr,
                                            Error **errp);

/**
 * redirector_chardev_sink() - Send packets to a peer
 * @lossless: a peer that closes its direction has left: it gets no packets
 *            that it may not take any more
 *
 * Otherwise as redirector_chardev_source().
 */
RedirectorSink *redirector_chardev_sink(RedirectorOwner *owner, Chardev *chr,
                                        bool vnet_hdr, bool lossless,
                                        Error **errp);

/**
 * redirector_chardev_queued() - How many packets of the peer wait
 * @s: source
 */
unsigned redirector_chardev_queued(RedirectorSource *s);

/**
 * redirector_chardev_say() - Say something to the peer that sends packets
 * @s: source
 * @mark: what
 *
 * It is not said if the chardev is no socket, or takes no more: who speaks
 * through it must not rely on being heard.
 */
void redirector_chardev_say(RedirectorSource *s, HandoverMark mark);

/**
 * redirector_chardev_forget() - A packet that comes in counts for nothing
 * @s: source
 * @f: packet
 */
void redirector_chardev_forget(RedirectorSource *s, const PacketFrame *f);

/**
 * redirector_chardev_mark() - Send a mark behind the packets
 * @s: sink
 * @mark: which one
 *
 * Return: false if there is no room
 */
bool redirector_chardev_mark(RedirectorSink *s, HandoverMark mark);

/**
 * redirector_chardev_sent() - Has all been sent, or is nobody there?
 * @s: sink
 */
bool redirector_chardev_sent(RedirectorSink *s);

/* filter chain of the netdev that the filter sits on */

/**
 * redirector_chain_source() - Take packets that the chain brings
 * @owner: owner
 * @sink: where they go, to which the TAP's intake is fitted
 * @hand_over: also what arrives at the TAP for a guest that has left
 */
RedirectorSource *redirector_chain_source(RedirectorOwner *owner,
                                          RedirectorSink *sink,
                                          bool hand_over);

/**
 * redirector_chain_receive() - The chain brings a packet
 * @s: source
 * @sender: net client that sends it
 * @flags: QEMU_NET_PACKET_FLAG_*
 * @iov: packet, behind a vnet header of the netdev's length, unless it's bare
 * @iovcnt: number of pieces
 *
 * Return: 0 if it is to go on through the chain, else its size
 */
ssize_t redirector_chain_receive(RedirectorSource *s, NetClientState *sender,
                                 unsigned flags, const struct iovec *iov,
                                 int iovcnt);

/**
 * redirector_chain_queued() - How many packets of the chain wait for the sink
 * @s: source
 */
unsigned redirector_chain_queued(RedirectorSource *s);

/**
 * redirector_chain_intake() - What the netdev has to do with packets for its
 *                             guest
 * @s: source
 */
NetFilterIntake redirector_chain_intake(RedirectorSource *s);

/**
 * redirector_chain_sink() - Put packets into the chain
 * @owner: owner
 * @copies: they are copies of the netdev's own: for other filters only
 * @two_way: each packet tells its direction; else the filter does
 */
RedirectorSink *redirector_chain_sink(RedirectorOwner *owner, bool copies,
                                      bool two_way);

/**
 * redirector_chain_is_done() - Has the NIC taken all?  Only then can vhost, or
 *                              another queue, go on.
 * @s: sink
 * @since: the caller's: 0, then since when it has
 */
bool redirector_chain_is_done(RedirectorSink *s, int64_t *since);

/*
 * What comes to the netdev of a guest that has just moved here is held back
 * until a peer has sent what came before: the peer's packets go into the chain
 * through the hold's sink, and then the others from its source.
 */
typedef struct RedirectorHold RedirectorHold;

typedef struct RedirectorHoldStats {
    uint64_t packets;       /* of the peer, given to the guest */
    uint64_t late;          /* of them, behind some that came directly */
    uint64_t direct;        /* held back, then given to the guest */
    uint64_t cancelled;     /* held back: the peer had sent the same */
    uint64_t stale;         /* thrown away: came before the guest ran */
    uint64_t lost;          /* held back: the guest did not take them */
} RedirectorHoldStats;

/**
 * redirector_hold_new() - Make a hold, off
 * @owner: owner
 * @input: chardev that the peer's packets come from, or NULL
 * @chain: where they go to; a sink of redirector_chain_sink()
 */
RedirectorHold *redirector_hold_new(RedirectorOwner *owner,
                                    RedirectorSource *input,
                                    RedirectorSink *chain);
void redirector_hold_free(RedirectorHold *h);

/* Its parts; they are the hold's. */
RedirectorSource *redirector_hold_source(RedirectorHold *h);
RedirectorSink *redirector_hold_sink(RedirectorHold *h);

/**
 * redirector_hold_arm() - The machine waits for its state
 * redirector_hold_start() - Its guest is about to run, for the first time, and
 *                           nothing of it has left yet
 * redirector_hold_give_up() - It is gone
 * redirector_hold_peer() - The peer comes or goes
 */
void redirector_hold_arm(RedirectorHold *h);
void redirector_hold_start(RedirectorHold *h);
void redirector_hold_give_up(RedirectorHold *h);
void redirector_hold_peer(RedirectorHold *h, bool open);

/**
 * redirector_hold_receive() - A packet comes directly
 *
 * As redirector_chain_receive().
 */
ssize_t redirector_hold_receive(RedirectorHold *h, NetClientState *sender,
                                unsigned flags, const struct iovec *iov,
                                int iovcnt);

/* What the netdev has to do with packets for its guest, and its NIC's vhost. */
NetFilterIntake redirector_hold_intake(RedirectorHold *h);
bool redirector_hold_holds_vhost(RedirectorHold *h);

/*
 * What the source of a hand-over sends from its chain to its output is lent: it
 * is kept as well until the guest can't go on here any more.  If that is run
 * here again, it gets all of it first, in order.
 */
typedef struct RedirectorLend RedirectorLend;

/**
 * redirector_lend_new() - Make a loan, off
 * @owner: owner
 * @chain: where packets come from; a source of redirector_chain_source()
 * @output: where they go to
 * @guest: where they are given back; a sink of redirector_chain_sink()
 */
RedirectorLend *redirector_lend_new(RedirectorOwner *owner,
                                    RedirectorSource *chain,
                                    RedirectorSink *output,
                                    RedirectorSink *guest);
void redirector_lend_free(RedirectorLend *l);

/* Its parts; they are the loan's. */
RedirectorSource *redirector_lend_source(RedirectorLend *l);
RedirectorSink *redirector_lend_sink(RedirectorLend *l);

/**
 * redirector_lend_collect() - The guest is stopped and about to leave
 *
 * What comes from now on is collected in memory, by a thread, for a TAP's
 * queue is short and the main loop may stand still.  It is the guest's until
 * that has left.
 *
 * redirector_lend_wait() - It does not leave, but is still stopped
 */
void redirector_lend_collect(RedirectorLend *l);
void redirector_lend_wait(RedirectorLend *l);

/**
 * redirector_lend_receive() - The chain brings a packet that QEMU had read
 *
 * Return: false if it is not to be collected
 */
bool redirector_lend_receive(RedirectorLend *l, const struct iovec *iov,
                             int iovcnt);

/**
 * redirector_lend_queued() - How many packets have been collected and wait
 */
unsigned redirector_lend_queued(const RedirectorLend *l);

/**
 * redirector_lend_begin() - The guest has left
 * @lends: it may be run here again: only what it gets then may be taken
 *
 * redirector_lend_return() - It is about to run here
 * redirector_lend_give_up() - It is gone
 */
void redirector_lend_begin(RedirectorLend *l, bool lends);
void redirector_lend_return(RedirectorLend *l);
void redirector_lend_give_up(RedirectorLend *l);

/* redirector_lend_said() - The destination says something */
void redirector_lend_said(RedirectorLend *l, HandoverMark mark);

/**
 * redirector_lend_quit() - QEMU is told to quit
 * redirector_lend_lingers() - Has it to wait for what is handed over?
 */
void redirector_lend_quit(RedirectorLend *l);
bool redirector_lend_lingers(const RedirectorLend *l);

/* Is it being given back?  The netdev and its vhost have to wait then. */
bool redirector_lend_returns(const RedirectorLend *l);

/* packet socket */

typedef struct RedirectorPacketOptions {
    const char *netdev;     /* id of a TAP netdev */
    const char *fd;         /* a packet socket that the user passes, or NULL */
    uint64_t ring_size;     /* capture: bytes */
    uint32_t snaplen;       /* capture: bytes of a packet, or 0 for all */
    const char *filter;     /* capture: see packet_filter_parse(); or NULL */
} RedirectorPacketOptions;

/**
 * redirector_packet_source() - Capture what passes a TAP's interface
 * @owner: owner
 * @opt: options
 * @errp: set on failure
 *
 * Return: the source, or NULL
 */
RedirectorSource *redirector_packet_source(RedirectorOwner *owner,
                                           const RedirectorPacketOptions *opt,
                                           Error **errp);

/**
 * redirector_packet_sink() - Inject into a TAP, towards its guest
 *
 * As redirector_packet_source().
 */
RedirectorSink *redirector_packet_sink(RedirectorOwner *owner,
                                       const RedirectorPacketOptions *opt,
                                       Error **errp);

#endif /* NET_FILTER_REDIRECTOR_END_H */
