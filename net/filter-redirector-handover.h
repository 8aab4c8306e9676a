/*
 * filter-redirector: the hand-over's protocol, on both sides
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_HANDOVER_H
#define NET_FILTER_REDIRECTOR_HANDOVER_H

#include "qapi/qapi-types-filter-redirector.h"

/*
 * A migration's source hands what still arrives for the guest over to the
 * destination, whose guest has to get that first, and only then what the
 * network sends there directly.  So the destination has to know where the
 * source's packets end, and the source where the network stops to send to it.
 *
 *   source                                destination
 *                          <-- HELLO      connected; understands marks
 *   HELLO -->
 *   migrated: packets, ALIVE -->
 *                          <-- STARTED    its guest runs, and is announced
 *   (sees the announcement, then nothing for the guest for a while)
 *   END -->
 *                          <-- ACK        all that came before is through
 *   (packets that come late all the same) -->
 *
 * The announcement is a barrier: it goes the way that the guest's packets took
 * until then, so none of them comes behind it.  Networks that don't bring it
 * to the source get a little time instead.
 *
 * A mark is an Ethernet frame.  The source sends it as it sends packets, and
 * only to who said HELLO; the destination sends it bare, behind its length,
 * and older sources don't look at what they are sent.  So either side may be
 * one that knows nothing of this.
 *
 * Everything here is pure: no I/O, and the time is the caller's, milliseconds.
 */

#define HANDOVER_MARK_LEN 60    /* bytes */

typedef enum HandoverMark {
    HANDOVER_NONE,              /* it is no mark */
    HANDOVER_HELLO,
    HANDOVER_ALIVE,
    HANDOVER_END,
    HANDOVER_STARTED,
    HANDOVER_ACK,
    HANDOVER_MARK__MAX
} HandoverMark;

/**
 * handover_mark_fill() - Make a mark
 * @frame: result, HANDOVER_MARK_LEN bytes
 * @mark: which
 * @packets: how many packets the sender has sent, or got
 */
void handover_mark_fill(uint8_t *frame, HandoverMark mark, uint64_t packets);

/**
 * handover_mark_read() - Tell what mark a frame is
 * @frame: Ethernet frame
 * @len: bytes
 * @packets: result, if it is one
 */
HandoverMark handover_mark_read(const uint8_t *frame, size_t len,
                                uint64_t *packets);

/**
 * handover_flooded() - Does a frame go to all or many?
 * @frame: Ethernet frame
 * @len: bytes
 */
bool handover_flooded(const uint8_t *frame, size_t len);

/* Marks that come one behind the other, each behind its length. */

/* One of them: the two length fields of packet streams, and the mark. */
#define HANDOVER_SAID_MAX (8 + HANDOVER_MARK_LEN)

typedef struct HandoverEar {
    uint8_t buf[HANDOVER_SAID_MAX];
    size_t have;                /* bytes */
    size_t prefix;              /* bytes of the length fields */
    bool deaf;                  /* what comes are no marks */
} HandoverEar;

/**
 * handover_say() - Put a mark behind its length
 * @said: result, HANDOVER_SAID_MAX bytes
 * @vnet_hdr: the connection's frames have the length of a vnet header
 *
 * Return: bytes
 */
size_t handover_say(uint8_t *said, HandoverMark mark, uint64_t packets,
                    bool vnet_hdr);

/**
 * handover_ear_reset() - Begin to listen to another peer
 * @e: ear
 * @vnet_hdr: the connection's frames have the length of a vnet header
 */
void handover_ear_reset(HandoverEar *e, bool vnet_hdr);

/**
 * handover_hear() - Listen to bytes that a peer says
 * @e: ear
 * @buf: bytes; advanced
 * @len: how many; what is left
 *
 * Return: the next mark, or HANDOVER_NONE if there is none in what is left
 */
HandoverMark handover_hear(HandoverEar *e, const uint8_t **buf, size_t *len);

/* Source */

#define HANDOVER_ALIVE_MS 20    /* how often it tells that it is alive */
#define HANDOVER_DRY_MS 5       /* nothing for the guest: the order's end */
#define HANDOVER_DRY_MAX_MS 200 /* the same if it goes on and on */
#define HANDOVER_BARRIER_MS 50  /* a barrier that has not come by now won't */
#define HANDOVER_LATE_MS 20     /* nothing any more: the source may end */
#define HANDOVER_LINGER_MS 2000 /* it ends after that always */

typedef enum HandoverKind {
    HANDOVER_UNICAST,
    HANDOVER_FLOODED,
    HANDOVER_OWN,               /* of the guest itself, perhaps reflected */
    HANDOVER_BARRIER,           /* the guest's announcement by QEMU */
} HandoverKind;

typedef struct HandoverSource {
    bool speaks;                /* the destination understands marks */
    bool begun;                 /* the guest is gone */
    bool started;               /* the destination's guest runs */
    bool barrier;               /* was seen */
    bool ended;                 /* END was sent */
    bool acked;                 /* ... and ACK came */
    int64_t begun_at;
    int64_t started_at;
    int64_t packet_at;          /* the last one for the guest alone */
    int64_t alive_at;           /* when it was told last */
    uint64_t packets;           /* handed over */
    uint64_t late;              /* of them, behind END */
    uint64_t own;               /* dropped: own frames */
    uint64_t flooded;           /* dropped: the destination has it */
} HandoverSource;

/**
 * handover_kind() - Tell what a frame is to the source
 * @frame: Ethernet frame
 * @len: bytes
 * @own: the guest's addresses, six bytes each
 * @n: how many
 */
HandoverKind handover_kind(const uint8_t *frame, size_t len,
                           const uint8_t (*own)[6], unsigned n);

/* The guest is gone. */
void handover_source_begin(HandoverSource *s, int64_t now);

/* Another peer, or the guest is back. */
void handover_source_reset(HandoverSource *s);

/**
 * handover_source_takes() - Is a packet to be handed over?
 * @s: source; counts it
 * @kind: what it is
 * @now: ms
 */
bool handover_source_takes(HandoverSource *s, HandoverKind kind, int64_t now);

/**
 * handover_source_hears() - The destination says something
 * @s: source
 * @mark: what
 * @now: ms
 *
 * Return: what to answer, HANDOVER_NONE: nothing
 */
HandoverMark handover_source_hears(HandoverSource *s, HandoverMark mark,
                                   int64_t now);

/**
 * handover_source_says() - What is to be sent now, behind all packets
 * @s: source
 * @now: ms
 *
 * To be called every few ms once the guest is gone.
 */
HandoverMark handover_source_says(HandoverSource *s, int64_t now);

/**
 * handover_source_through() - May the source end now?
 * @s: source
 * @now: ms
 */
bool handover_source_through(const HandoverSource *s, int64_t now);

/* Destination */

#define HANDOVER_HOLD_MS 2000       /* a hold lasts no longer */
#define HANDOVER_BEGIN_MS 1000      /* a source that speaks, until it begins */
#define HANDOVER_SILENT_MS 100      /* since the last sign of life */
#define HANDOVER_DIRECT_MS 20       /* the same, and direct packets come */
#define HANDOVER_AGAIN_MS 5         /* the same for a packet that was late */

typedef FilterRedirectorHoldEnd HandoverHoldEnd;

#define HOLD_END(end) FILTER_REDIRECTOR_HOLD_END_##end

/* What is known when a hold has begun. */
typedef struct HandoverHold {
    bool connected;             /* there is a source */
    bool speaks;                /* it understands marks */
    bool heard;                 /* something has come since it is migrated */
    bool ended;                 /* END has come */
    bool again;                 /* a hold for a late packet */
    bool direct;                /* the network sends here */
    int64_t begun_at;
    int64_t heard_at;           /* 0: never */
} HandoverHold;

/**
 * handover_hold_ends() - Does a hold end now?
 * @h: hold
 * @now: ms
 * @how: result, if it does
 */
bool handover_hold_ends(const HandoverHold *h, int64_t now,
                        HandoverHoldEnd *how);

/*
 * Flooded frames reach both hosts.  A set of those that were handed over, in
 * bounded memory, tells which the destination has got already.
 */
#define HANDOVER_FLOODED_BYTES (4 * 1024 * 1024)

typedef struct HandoverOnce {
    GHashTable *frames;         /* GBytes -> how often */
    size_t bytes;
} HandoverOnce;

void handover_once_init(HandoverOnce *o);
void handover_once_destroy(HandoverOnce *o);

/**
 * handover_once_add() - Remember a frame that was handed over
 */
void handover_once_add(HandoverOnce *o, const uint8_t *frame, size_t len);

/**
 * handover_once_has() - Does one that came directly equal one of them?
 */
bool handover_once_has(const HandoverOnce *o, const uint8_t *frame,
                       size_t len);

/**
 * handover_once_take() - One has cancelled one
 * @frame: a frame that handover_once_has()
 */
void handover_once_take(HandoverOnce *o, const uint8_t *frame, size_t len);

#endif /* NET_FILTER_REDIRECTOR_HANDOVER_H */
