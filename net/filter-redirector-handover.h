/*
 * filter-redirector: what a hand-over does with which packet
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
 * network sends there directly.
 *
 * QEMU's announcement of the guest at its new place reaches the source, too,
 * behind what the network had sent to it before: it is a barrier.  What is
 * flooded goes to both hosts, so from then on the destination has it.
 *
 * Source and destination speak by marks, frames that nobody else takes for his
 * (HandoverMark).  A destination without marks knows by the time when the
 * source's packets have ended.
 *
 * Some networks send to both hosts what is for the guest alone, too: hubs, and
 * those that are told to during a migration.  Then it is treated as what is
 * flooded is.
 *
 * Everything here is pure: no I/O, and the time is the caller's, milliseconds.
 */

/**
 * handover_flooded() - Does a frame go to all or many?
 * @frame: Ethernet frame
 * @len: bytes
 */
bool handover_flooded(const uint8_t *frame, size_t len);

/**
 * handover_group() - Does it go to the members of a group?
 *
 * That is, do some switches send it to these alone?
 */
bool handover_group(const uint8_t *frame, size_t len);

/*
 * Marks: Ethernet frames of a type for local experiments, to an address of a
 * local range.  A guest ignores them, should one get there.  The destination
 * speaks first, so that who does not know marks gets none.
 */
typedef enum HandoverMark {
    HANDOVER_NO_MARK,
    HANDOVER_HELLO,             /* both: I know marks */
    HANDOVER_RUNS,              /* destination: the guest runs here */
    HANDOVER_END,               /* source: what comes from now on is late; */
                                /* again: no more of groups */
    HANDOVER_TAKEN,             /* destination: the guest has what came */
    HANDOVER_DOUBT,             /* destination: perhaps I get all you get */
    HANDOVER_COPIES,            /* destination: I do */
    HANDOVER_GROUPS,            /* destination: go on with groups' frames */
} HandoverMark;

#define HANDOVER_MARK_LEN 60

/**
 * handover_mark_fill() - Make a mark
 * @frame: result, HANDOVER_MARK_LEN bytes
 * @mark: which one
 */
void handover_mark_fill(uint8_t *frame, HandoverMark mark);

/**
 * handover_mark() - Tell which mark a frame is
 * @frame: Ethernet frame
 * @len: bytes
 */
HandoverMark handover_mark(const uint8_t *frame, size_t len);

/* Source */

/*
 * After the barrier, flooded packets are handed over for so long; those of
 * groups, if the destination wants them, until it has all, for no longer than
 * that after its guest has begun to run.
 */
#define HANDOVER_FLOODED_MS 10
#define HANDOVER_GROUPS_MS 2000

typedef enum HandoverKind {
    HANDOVER_UNICAST,
    HANDOVER_FLOODED,
    HANDOVER_GROUP,             /* flooded, or for those who want it */
    HANDOVER_OWN,               /* of the guest itself, reflected; or a mark */
    HANDOVER_BARRIER,           /* the guest's announcement by QEMU */
} HandoverKind;

/*
 * What is handed over is lent until then: the guest may be run at the source
 * again (its manager does that if the destination's doesn't start).  Where the
 * announcement never comes, for no longer than this.
 */
#define HANDOVER_LEND_MS (10 * 1000)

typedef struct HandoverSource {
    int64_t since;              /* the guest has left */
    bool barrier;               /* was seen */
    bool marks;                 /* the destination knows them */
    bool runs;                  /* ... and has said so */
    bool ended;                 /* the mark has been sent */
    bool taken;                 /* the destination has answered it */
    bool doubt;                 /* ... may get what is for the guest alone */
    bool copies;                /* ... does */
    bool groups;                /* ... doesn't get what is for some group */
    bool over;                  /* the mark has been sent again */
    int64_t barrier_at;
    int64_t runs_at;
    int64_t heard_at;           /* the last packet for the guest alone */
    unsigned looks;             /* at an empty queue since then */
    int64_t quit_at;            /* QEMU was told to quit, or 0 */
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

/*
 * A destination that knows marks says that its guest runs when it announces it.
 * An announcement that is older than this is somebody else's, or an old one
 * that the network has reflected: no barrier.
 */
#define HANDOVER_TOLD_MS 100

/**
 * handover_source_said() - The destination has said something
 * @s: source
 * @mark: what; HANDOVER_NO_MARK: it has gone
 * @now: ms
 */
void handover_source_said(HandoverSource *s, HandoverMark mark, int64_t now);

/**
 * handover_source_takes() - Is a packet to be handed over?
 * @s: source
 * @kind: what it is
 * @now: ms
 */
bool handover_source_takes(HandoverSource *s, HandoverKind kind, int64_t now);

/**
 * handover_lends() - May the guest still go on at the source?
 * @s: source
 * @now: ms
 */
bool handover_lends(const HandoverSource *s, int64_t now);

/*
 * The order ends once nothing has come for a while: shortly after the barrier,
 * which was behind all that was sent here; longer where there is none, after
 * the destination's guest has begun to run.  In that time QEMU must have looked
 * some times: who did not look has not seen that there is nothing.  It takes
 * packets to find out whether the destination gets them as well.
 */
#define HANDOVER_DRY_MS 5
#define HANDOVER_DOUBT_MS 100
#define HANDOVER_NO_BARRIER_MS 300
#define HANDOVER_LOOKS 3

/**
 * handover_source_ends() - Is it time for HANDOVER_END?
 * handover_source_over() - Is it time for it again?
 * @s: source
 * @now: ms
 */
bool handover_source_ends(const HandoverSource *s, int64_t now);
bool handover_source_over(const HandoverSource *s);

/* Nothing comes any more if nothing has come for so long. */
#define HANDOVER_QUIET_MS 100

/**
 * handover_source_done() - Is nothing lost any more if QEMU ends?
 * @s: source
 * @sent: all that was to be handed over has been sent
 * @now: ms
 */
bool handover_source_done(const HandoverSource *s, bool sent, int64_t now);

/* A source that is told to quit does so at last. */
#define HANDOVER_LINGER_MS 2000

/**
 * handover_source_lingers() - Has QEMU to wait before it quits?
 * @s: source, quit_at is set
 * @sent: all that was to be handed over has been sent
 * @now: ms
 */
bool handover_source_lingers(const HandoverSource *s, bool sent, int64_t now);

/* Destination */

#define HANDOVER_HOLD_MS 2000       /* a hold lasts no longer */
#define HANDOVER_SILENT_MS 100      /* since the source's last packet */
#define HANDOVER_DIRECT_MS 20       /* the same, and direct packets come */
#define HANDOVER_AGAIN_MS 5         /* the same for a packet that was late */

typedef FilterRedirectorHoldEnd HandoverHoldEnd;

#define HOLD_END(end) FILTER_REDIRECTOR_HOLD_END_##end

/* What is known when a hold has begun. */
typedef struct HandoverHold {
    bool connected;             /* there is a source */
    bool marks;                 /* it knows marks */
    bool ended;                 /* and has sent the one that it has sent all */
    bool again;                 /* a hold for a late packet */
    bool direct;                /* the network sends here */
    bool waiting;               /* some of the source, for the guest to take */
    int64_t begun_at;
    int64_t heard_at;           /* its last packet for the guest alone; or 0 */
} HandoverHold;

/**
 * handover_hold_ends() - Does a hold end now?
 * @h: hold
 * @now: ms
 * @how: result, if it does
 */
bool handover_hold_ends(const HandoverHold *h, int64_t now,
                        HandoverHoldEnd *how);

#endif /* NET_FILTER_REDIRECTOR_HANDOVER_H */
