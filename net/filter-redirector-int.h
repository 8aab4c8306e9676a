/*
 * filter-redirector with netdev endpoints: what its parts share
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_INT_H
#define NET_FILTER_REDIRECTOR_INT_H

#include "qapi/qapi-types-filter-redirector.h"
#include "qemu/main-loop.h"
#include "qemu/notify.h"
#include "qemu/timer.h"
#include "chardev/char-fe.h"
#include "migration/misc.h"
#include "net/filter-redirector.h"
#include "net/packet-socket.h"
#include "net/packet-stream.h"
#include "system/runstate.h"

/*
 * filter-redirector.c        properties, events; moves packets from the input
 *                            to the output
 * filter-redirector-open.c   what the properties name
 * filter-redirector-in.c     where packets come from
 * filter-redirector-out.c    where packets go to
 * filter-redirector-query.c  QMP and HMP
 *
 * There are two sources of packets: the input, from which redirector_move()
 * takes as much as the output has room for, and the netdev's filter chain,
 * which brings packets when it likes, but can be held (NetFilterIntake) if its
 * netdev is a TAP.
 */

/* Bytes of each queue: takes some of the longest packets, or many short. */
#define REDIRECTOR_QUEUE_SIZE (512 * KiB)

/* Packets handled at once. */
#define REDIRECTOR_BATCH PACKET_INJECT_BATCH

/* When to try again where nobody tells that there is room. */
#define REDIRECTOR_RETRY_FULL_US 1000
#define REDIRECTOR_RETRY_DOWN_US (100 * 1000)
#define REDIRECTOR_RETRY_POSTCOPY_US (10 * 1000)

/*
 * A TAP's queue of default length is empty again after as little as that; a
 * TAP that nobody reads is asked less and less often.
 */
#define REDIRECTOR_RETRY_MIN_US 125

typedef FilterRedirectorEndpointType EndType;
typedef FilterRedirectorEndpointState EndState;
typedef FilterRedirectorStats EndStats;

#define END_NONE    FILTER_REDIRECTOR_ENDPOINT_TYPE_NONE
#define END_CHARDEV FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV
#define END_CHAIN   FILTER_REDIRECTOR_ENDPOINT_TYPE_CHAIN
#define END_PACKET  FILTER_REDIRECTOR_ENDPOINT_TYPE_PACKET_SOCKET

/* A packet endpoint's netdev and interface. */
typedef struct PacketEnd {
    NetClientState *nc;         /* NULL: none, or removed */
    PacketInterface iface;
} PacketEnd;

struct Redirector {
    /* properties */
    char *in_netdev;
    char *out_netdev;
    char *in_netdev_fd;
    char *out_netdev_fd;
    bool enable_when_stopped;
    bool ring_size_given;
    uint64_t ring_size;

    NetFilterState *nf;         /* NULL until set-up */
    char *id;                   /* the object's */
    EndType in_type;
    EndType out_type;
    EndType sink;               /* where the input's packets go */
    bool chain_in;              /* the chain's packets go to the output */
    char *in_name;
    char *out_name;
    EndStats in_stats;
    EndStats out_stats;
    uint64_t chain_packets;
    bool in_stalled;            /* the sink did not take all of it */
    bool out_stalled;           /* the receiver did not take all */

    /* input: packet socket */
    PacketEnd in;
    PacketCapture *capture;
    bool capturing;             /* the kernel puts packets into the ring */
    bool capture_failed;        /* switching that failed, and was reported */
    bool capture_polled;
    int64_t skip_from;          /* packets of this time are not delivered; */
    int64_t skip_to;            /* host clock, ns; INT64_MAX: undecided */

    /* input: chardev */
    CharFrontend chr_in;
    PacketStream rx;
    bool rx_damaged;            /* waits for the connection to be closed */
    bool rx_refused;            /* the chardev was told not to read */

    /* output: packet socket */
    PacketEnd out;
    PacketInject *inject;
    PacketStream cut;           /* segments of a super-packet */
    PacketStream pending;       /* packets of the chain */
    int retry_us;               /* how long to wait if the TAP is full */

    /* output: chardev */
    CharFrontend chr_out;
    PacketStream tx;
    uint64_t tx_payload;        /* bytes of the packets in it, bare */
    size_t tx_sent;             /* bytes of the first frame already written */
    guint tx_watch;

    bool sent_all;              /* the migration's source is done */
    bool handed_over;           /* it is past the point of return */
    bool moving;                /* redirector_move() is at work */
    NetFilterIntake intake;     /* what the netdev has been told last */
    bool waiting;               /* for the retry timer */
    QEMUTimer *retry;
    QEMUBH *bh;
    uint8_t *scratch;           /* PACKET_LEN_MAX bytes */
    VMChangeStateEntry *vm_change;
    NotifierWithReturn migration;
    Notifier netdev_removed;
};

/* filter-redirector-open.c */

/**
 * redirector_open() - Open the ends
 * @r: redirector
 * @indev: chardev to take packets from, or NULL
 * @outdev: chardev to give packets to, or NULL
 * @vnet_hdr: their streams have a field for the vnet header's length
 * @errp: set on failure
 *
 * Return: true if all that the properties name is open; else what is open is
 *         closed with the redirector
 */
bool redirector_open(Redirector *r, const char *indev, const char *outdev,
                     bool vnet_hdr, Error **errp);

/* filter-redirector.c */

/**
 * redirector_hdr_len() - Length of vnet headers in the filter chain, bytes
 * @r: redirector
 *
 * May change whenever the guest's driver chooses its features.
 */
static inline size_t redirector_hdr_len(Redirector *r)
{
    return r->nf->netdev->vnet_hdr_len;
}

/**
 * redirector_vm_runs() - Do the machine's devices work?
 */
bool redirector_vm_runs(void);

/**
 * redirector_undecided() - Can the migration in progress still fail?
 * @r: redirector
 *
 * Until that is decided the source may have to go on, with all packets that
 * arrived meanwhile.
 */
bool redirector_undecided(Redirector *r);

/**
 * redirector_hands_over() - Is this who takes a stopped machine's packets?
 * @r: redirector
 */
bool redirector_hands_over(Redirector *r);

/**
 * redirector_hands_over_now() - Is the machine stopped so that it takes them?
 * @r: redirector
 */
bool redirector_hands_over_now(Redirector *r);

/**
 * redirector_input_is_copy() - Are the input's packets the netdev's own?
 * @r: redirector
 *
 * Such copies go through the chain for the filters' sake only: the guest, or
 * the network, gets the originals.
 */
bool redirector_input_is_copy(Redirector *r);

/**
 * redirector_retry_in() - Try again after a while
 * @r: redirector
 * @us: microseconds
 */
void redirector_retry_in(Redirector *r, int us);

/**
 * redirector_move() - Move packets on, as many as there is room for
 * @r: redirector
 *
 * At most a bounded number; if there are more, it is called again.
 */
void redirector_move(Redirector *r);

/* filter-redirector-in.c */

/**
 * redirector_in_read() - Look at the input's next packets
 * @r: redirector
 * @frames: result; valid until redirector_in_release()
 * @max: room in @frames
 *
 * Return: number of frames
 */
unsigned redirector_in_read(Redirector *r, PacketFrame *frames, unsigned max);

/**
 * redirector_in_release() - Count the input's next packets and let them go
 * @r: redirector
 * @frames: as redirector_in_read() left them
 * @n: how many
 */
void redirector_in_release(Redirector *r, const PacketFrame *frames,
                           unsigned n);

/**
 * redirector_in_update() - Bring the input in line with everything's state
 * @r: redirector
 *
 * Starts or pauses capturing, polling, and reading from the chardev.
 */
void redirector_in_update(Redirector *r);

/**
 * redirector_in_start() - Begin with the input, once set up
 * @r: redirector
 */
void redirector_in_start(Redirector *r);

/**
 * redirector_in_close() - End the input
 * @r: redirector
 */
void redirector_in_close(Redirector *r);

/**
 * redirector_in_undecided() - A migration has come to where it can still fail
 * @r: redirector
 *
 * What is captured from now on is kept back.
 */
void redirector_in_undecided(Redirector *r);

/**
 * redirector_in_decided() - Settle what is done with what was kept back
 * @r: redirector
 * @deliver: true to deliver it, false to throw it away
 */
void redirector_in_decided(Redirector *r, bool deliver);

/**
 * redirector_wanted_intake() - What the netdev should do with packets for its
 *                              guest
 * @r: redirector
 */
NetFilterIntake redirector_wanted_intake(Redirector *r);

/**
 * redirector_intake() - Tell the netdev what to do with packets for its guest
 * @nf: filter; see NetFilterClass
 */
NetFilterIntake redirector_intake(NetFilterState *nf);

/* filter-redirector-out.c */

/**
 * redirector_has_room() - Can an output take packets now?
 * @r: redirector
 * @type: which output: r->out_type or r->sink
 */
bool redirector_has_room(Redirector *r, EndType type);

/**
 * redirector_waits_for_vm() - Does an output wait for the machine to run?
 * @r: redirector
 * @type: as for redirector_has_room()
 */
bool redirector_waits_for_vm(Redirector *r, EndType type);

/**
 * redirector_put() - Pass packets on, in order, as far as there is room
 * @r: redirector
 * @type: as for redirector_has_room()
 * @frames: packets
 * @n: how many, at most REDIRECTOR_BATCH
 *
 * Return: how many, from the first one on, have been taken: passed on, queued,
 *         or counted as lost or refused
 */
unsigned redirector_put(Redirector *r, EndType type, PacketFrame *frames,
                        unsigned n);

/**
 * redirector_queue() - Keep a packet of the chain until there is room
 * @r: redirector
 * @f: packet; counted as lost if there is no room to keep it either
 */
void redirector_queue(Redirector *r, PacketFrame *f);

/**
 * redirector_refuse() - Count a packet that cannot be passed on
 * @r: redirector
 * @err: why, -errno
 * @len: its length, bytes
 */
void redirector_refuse(Redirector *r, int err, size_t len);

/**
 * redirector_out_flush() - Get rid of what is queued, as far as there is room
 * @r: redirector
 */
void redirector_out_flush(Redirector *r);

/**
 * redirector_out_start() - Begin with the output, once set up
 * @r: redirector
 */
void redirector_out_start(Redirector *r);

/**
 * redirector_out_close() - End the output; what is queued is lost
 * @r: redirector
 */
void redirector_out_close(Redirector *r);

#endif /* NET_FILTER_REDIRECTOR_INT_H */
