/*
 * filter-redirector: what a hand-over does with which packet
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "filter-redirector-handover.h"

#define ETH_HEADER 14
#define TYPE_RARP 0x8035
#define RARP_REQUEST_REVERSE 3
#define RARP_LEN 28

/* Marks */

#define MARK_TYPE 0x88b5        /* local experiments */

static const uint8_t mark_head[] = {
    0x0a, 'h', 'a', 'n', 'd', 2,            /* to */
    0x0a, 'h', 'a', 'n', 'd', 1,            /* from */
    MARK_TYPE >> 8, MARK_TYPE & 0xff,
    'r', 'e', 'd', 'i', 'r', 'e', 'c', 't',
};

void handover_mark_fill(uint8_t *frame, HandoverMark mark)
{
    memset(frame, 0, HANDOVER_MARK_LEN);
    memcpy(frame, mark_head, sizeof(mark_head));
    frame[sizeof(mark_head)] = mark;
}

HandoverMark handover_mark(const uint8_t *frame, size_t len)
{
    return len == HANDOVER_MARK_LEN &&
           !memcmp(frame, mark_head, sizeof(mark_head))
           ? frame[sizeof(mark_head)] : HANDOVER_NO_MARK;
}

bool handover_flooded(const uint8_t *frame, size_t len)
{
    return len >= ETH_HEADER && (frame[0] & 1);
}

/* What RFC 4541 has switches flood in any case is no group here. */
bool handover_group(const uint8_t *frame, size_t len)
{
    static const uint8_t ip4[] = { 0x01, 0x00, 0x5e };
    static const uint8_t ip4_all[] = { 0x01, 0x00, 0x5e, 0x00, 0x00 };
    static const uint8_t ip6[] = { 0x33, 0x33 };
    static const uint8_t ip6_all[] = { 0x33, 0x33, 0x00, 0x00, 0x00, 0x01 };

    return len >= ETH_HEADER &&
           ((!memcmp(frame, ip4, sizeof(ip4)) &&
             memcmp(frame, ip4_all, sizeof(ip4_all))) ||
            (!memcmp(frame, ip6, sizeof(ip6)) &&
             memcmp(frame, ip6_all, sizeof(ip6_all))));
}

/* Source */

static bool is_one_of(const uint8_t *address, const uint8_t (*own)[6],
                      unsigned n)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        if (!memcmp(address, own[i], 6)) {
            return true;
        }
    }
    return false;
}

/* QEMU's announcement: who has the address that I have?  Answered by none. */
static bool is_announcement(const uint8_t *frame, size_t len)
{
    const uint8_t *rarp = frame + ETH_HEADER;
    const uint8_t *from = frame + 6;

    return len >= ETH_HEADER + RARP_LEN && lduw_be_p(frame + 12) == TYPE_RARP &&
           lduw_be_p(rarp + 6) == RARP_REQUEST_REVERSE &&
           !memcmp(rarp + 8, from, 6) && !memcmp(rarp + 18, from, 6);
}

HandoverKind handover_kind(const uint8_t *frame, size_t len,
                           const uint8_t (*own)[6], unsigned n)
{
    if (len >= ETH_HEADER && is_one_of(frame + 6, own, n)) {
        return is_announcement(frame, len) ? HANDOVER_BARRIER : HANDOVER_OWN;
    }
    if (handover_mark(frame, len) != HANDOVER_NO_MARK) {
        return HANDOVER_OWN;
    }
    return handover_group(frame, len) ? HANDOVER_GROUP :
           handover_flooded(frame, len) ? HANDOVER_FLOODED : HANDOVER_UNICAST;
}

/* Anybody can send an announcement: one who knows marks tells, too. */
static bool barrier_holds(const HandoverSource *s)
{
    return s->barrier && (!s->marks || s->runs);
}

/* Until shortly after the barrier: from then on the destination has it. */
static bool takes_copy(const HandoverSource *s, int64_t now)
{
    return !s->ended && (!barrier_holds(s) ||
                         now - s->barrier_at < HANDOVER_FLOODED_MS);
}

bool handover_source_takes(HandoverSource *s, HandoverKind kind, int64_t now)
{
    switch (kind) {
    case HANDOVER_BARRIER:
        if (!barrier_holds(s)) {
            s->barrier = true;
            s->barrier_at = now;
        }
        return false;
    case HANDOVER_OWN:
        return false;
    case HANDOVER_FLOODED:
        return takes_copy(s, now);
    case HANDOVER_GROUP:
        return takes_copy(s, now) ||
               (s->groups && !s->taken &&
                now - s->runs_at < HANDOVER_GROUPS_MS);
    default:
        if (s->copies) {
            return takes_copy(s, now);
        }
        s->heard_at = now;
        s->looks = 0;
        return true;
    }
}

void handover_source_said(HandoverSource *s, HandoverMark mark, int64_t now)
{
    switch (mark) {
    case HANDOVER_NO_MARK:
        s->barrier = barrier_holds(s);
        s->marks = s->runs = s->doubt = s->copies = false;
        s->groups = s->over = false;
        break;
    case HANDOVER_RUNS:
        s->barrier = s->barrier && (s->runs || now - s->barrier_at <=
                                               HANDOVER_TOLD_MS);
        s->runs = true;
        s->runs_at = now;
        break;
    case HANDOVER_TAKEN:
        s->taken = true;
        break;
    case HANDOVER_DOUBT:
        s->doubt = true;
        break;
    case HANDOVER_COPIES:
        s->copies = true;
        break;
    case HANDOVER_GROUPS:
        s->groups = true;
        break;
    default:
        break;
    }
}

bool handover_lends(const HandoverSource *s, int64_t now)
{
    return !barrier_holds(s) && !s->runs && now - s->since < HANDOVER_LEND_MS;
}

static int64_t end_silence(const HandoverSource *s)
{
    return !s->barrier ? HANDOVER_NO_BARRIER_MS :
           s->doubt && !s->copies ? HANDOVER_DOUBT_MS : HANDOVER_DRY_MS;
}

bool handover_source_ends(const HandoverSource *s, int64_t now)
{
    int64_t silent = now - MAX(s->heard_at, s->barrier ? s->barrier_at
                                                       : s->runs_at);

    return s->marks && s->runs && !s->ended &&
           s->looks >= HANDOVER_LOOKS && silent >= end_silence(s);
}

bool handover_source_over(const HandoverSource *s)
{
    return s->groups && s->taken && !s->over;
}

static bool is_silent(const HandoverSource *s, int64_t now)
{
    return now - MAX(s->heard_at, s->since) >= HANDOVER_QUIET_MS;
}

bool handover_source_done(const HandoverSource *s, bool sent, int64_t now)
{
    return sent && is_silent(s, now) && (s->marks ? s->taken : s->barrier);
}

bool handover_source_lingers(const HandoverSource *s, bool sent, int64_t now)
{
    /* A guest that doesn't run anywhere can make that last for ever. */
    bool ends = s->marks ? s->runs : true;

    return now - s->quit_at < HANDOVER_LINGER_MS &&
           (!sent || (ends && (!is_silent(s, now) ||
                               (s->marks && !s->taken))));
}

/* Destination */

bool handover_hold_ends(const HandoverHold *h, int64_t now,
                        HandoverHoldEnd *how)
{
    int64_t silent = h->waiting ? 0 : now - MAX(h->heard_at, h->begun_at);
    bool by_time = h->again || !h->marks;

    if (!h->connected) {
        *how = HOLD_END(DISCONNECTED);
    } else if (h->ended && !h->again && !h->waiting) {
        *how = HOLD_END(TOLD);
    } else if (by_time &&
               silent >= (h->again ? HANDOVER_AGAIN_MS : HANDOVER_SILENT_MS)) {
        *how = HOLD_END(SILENT);
    } else if (by_time && h->direct && silent >= HANDOVER_DIRECT_MS) {
        *how = HOLD_END(DIRECT);
    } else if (now - h->begun_at >= HANDOVER_HOLD_MS) {
        *how = HOLD_END(LIMIT);
    } else {
        return false;
    }
    return true;
}
