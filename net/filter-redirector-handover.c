/*
 * filter-redirector: the hand-over's protocol, on both sides
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "filter-redirector-handover.h"

#define ETH_HEADER 14
#define TYPE_EXPERIMENT 0x88b5      /* IEEE 802: for local experiments */
#define TYPE_RARP 0x8035
#define RARP_REQUEST_REVERSE 3
#define RARP_LEN 28

/* Marks */

/* A locally administered unicast address that nobody has. */
static const uint8_t mark_address[6] = { 0x0a, 'h', 'o', 'v', 'e', 'r' };
static const uint8_t mark_magic[8] = { 'h', 'a', 'n', 'd', 'o', 'v', 'e', 'r' };

typedef struct QEMU_PACKED MarkFrame {
    uint8_t to[6];
    uint8_t from[6];
    uint16_t type;              /* big-endian, as are all that follow */
    uint8_t magic[8];
    uint16_t mark;
    uint64_t packets;
    uint8_t zero[28];
} MarkFrame;

QEMU_BUILD_BUG_ON(sizeof(MarkFrame) != HANDOVER_MARK_LEN);

void handover_mark_fill(uint8_t *frame, HandoverMark mark, uint64_t packets)
{
    MarkFrame m = {
        .type = cpu_to_be16(TYPE_EXPERIMENT),
        .mark = cpu_to_be16(mark),
        .packets = cpu_to_be64(packets),
    };

    memcpy(m.to, mark_address, sizeof(m.to));
    memcpy(m.from, mark_address, sizeof(m.from));
    memcpy(m.magic, mark_magic, sizeof(m.magic));
    memcpy(frame, &m, sizeof(m));
}

HandoverMark handover_mark_read(const uint8_t *frame, size_t len,
                                uint64_t *packets)
{
    MarkFrame m;
    uint16_t mark;

    if (len != sizeof(m)) {
        return HANDOVER_NONE;
    }
    memcpy(&m, frame, sizeof(m));
    mark = be16_to_cpu(m.mark);
    if (memcmp(m.to, mark_address, sizeof(m.to)) ||
        memcmp(m.magic, mark_magic, sizeof(m.magic)) ||
        be16_to_cpu(m.type) != TYPE_EXPERIMENT ||
        mark >= HANDOVER_MARK__MAX) {
        return HANDOVER_NONE;
    }
    *packets = be64_to_cpu(m.packets);
    return mark;
}

bool handover_flooded(const uint8_t *frame, size_t len)
{
    return len >= ETH_HEADER && (frame[0] & 1);
}

size_t handover_say(uint8_t *said, HandoverMark mark, uint64_t packets,
                    bool vnet_hdr)
{
    size_t prefix = vnet_hdr ? 8 : 4;

    stl_be_p(said, HANDOVER_MARK_LEN);
    if (vnet_hdr) {
        stl_be_p(said + 4, 0);
    }
    handover_mark_fill(said + prefix, mark, packets);
    return prefix + HANDOVER_MARK_LEN;
}

void handover_ear_reset(HandoverEar *e, bool vnet_hdr)
{
    *e = (HandoverEar) { .prefix = vnet_hdr ? 8 : 4 };
}

HandoverMark handover_hear(HandoverEar *e, const uint8_t **buf, size_t *len)
{
    const size_t whole = e->prefix + HANDOVER_MARK_LEN;
    HandoverMark mark = HANDOVER_NONE;
    uint64_t packets;
    size_t n;

    while (*len && !e->deaf && mark == HANDOVER_NONE) {
        n = MIN(*len, whole - e->have);
        memcpy(e->buf + e->have, *buf, n);
        e->have += n;
        *buf += n;
        *len -= n;
        if (e->have == whole) {
            mark = handover_mark_read(e->buf + e->prefix, HANDOVER_MARK_LEN,
                                      &packets);
            /* Whoever that is, it speaks of something else. */
            e->deaf = mark == HANDOVER_NONE;
            e->have = 0;
        }
    }
    return mark;
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
    return handover_flooded(frame, len) ? HANDOVER_FLOODED : HANDOVER_UNICAST;
}

void handover_source_begin(HandoverSource *s, int64_t now)
{
    if (!s->begun) {
        s->begun = true;
        s->begun_at = now;
        s->packet_at = now;
    }
}

void handover_source_reset(HandoverSource *s)
{
    *s = (HandoverSource) {};
}

bool handover_source_takes(HandoverSource *s, HandoverKind kind, int64_t now)
{
    switch (kind) {
    case HANDOVER_BARRIER:
        s->barrier = true;
        return false;
    case HANDOVER_OWN:
        s->own++;
        return false;
    case HANDOVER_FLOODED:
        if (s->ended) {
            s->flooded++;
            return false;
        }
        break;
    default:
        s->packet_at = now;
        break;
    }
    s->packets++;
    s->late += s->ended;
    return true;
}

HandoverMark handover_source_hears(HandoverSource *s, HandoverMark mark,
                                   int64_t now)
{
    switch (mark) {
    case HANDOVER_HELLO:
        s->speaks = true;
        return HANDOVER_HELLO;
    case HANDOVER_STARTED:
        if (!s->started) {
            s->started = true;
            s->started_at = now;
        }
        break;
    case HANDOVER_ACK:
        s->acked = s->ended;
        break;
    default:
        break;
    }
    return HANDOVER_NONE;
}

static bool order_ends(const HandoverSource *s, int64_t now)
{
    int64_t since = MAX(s->started_at, s->begun_at);

    if (!s->started ||
        (!s->barrier && now - since < HANDOVER_BARRIER_MS)) {
        return false;
    }
    return now - s->packet_at >= HANDOVER_DRY_MS ||
           now - since >= HANDOVER_DRY_MAX_MS;
}

HandoverMark handover_source_says(HandoverSource *s, int64_t now)
{
    if (!s->speaks || !s->begun || s->ended) {
        return HANDOVER_NONE;
    }
    if (order_ends(s, now)) {
        s->ended = true;
        return HANDOVER_END;
    }
    if (!s->alive_at || now - s->alive_at >= HANDOVER_ALIVE_MS) {
        s->alive_at = now;
        return HANDOVER_ALIVE;
    }
    return HANDOVER_NONE;
}

bool handover_source_through(const HandoverSource *s, int64_t now)
{
    return now - s->packet_at >= HANDOVER_LATE_MS &&
           (!s->speaks || (s->ended && s->acked));
}

/* Destination */

bool handover_hold_ends(const HandoverHold *h, int64_t now,
                        HandoverHoldEnd *how)
{
    int64_t silent = now - MAX(h->heard_at, h->begun_at);

    if (h->ended && !h->again) {
        *how = HOLD_END(MARK);
    } else if (!h->connected) {
        *how = HOLD_END(DISCONNECTED);
    } else if (h->again ? silent >= HANDOVER_AGAIN_MS :
               h->speaks && !h->heard ? silent >= HANDOVER_BEGIN_MS :
               silent >= HANDOVER_SILENT_MS) {
        *how = HOLD_END(SILENT);
    } else if (!h->speaks && h->direct && silent >= HANDOVER_DIRECT_MS) {
        *how = HOLD_END(DIRECT);
    } else if (now - h->begun_at >= HANDOVER_HOLD_MS) {
        *how = HOLD_END(LIMIT);
    } else {
        return false;
    }
    return true;
}

void handover_once_init(HandoverOnce *o)
{
    o->frames = g_hash_table_new_full(g_bytes_hash, g_bytes_equal,
                                      (GDestroyNotify)g_bytes_unref, NULL);
    o->bytes = 0;
}

void handover_once_destroy(HandoverOnce *o)
{
    g_clear_pointer(&o->frames, g_hash_table_unref);
    o->bytes = 0;
}

static unsigned times(const HandoverOnce *o, GBytes *frame)
{
    return GPOINTER_TO_UINT(g_hash_table_lookup(o->frames, frame));
}

void handover_once_add(HandoverOnce *o, const uint8_t *frame, size_t len)
{
    GBytes *key;

    /* Better one that comes twice than memory without end. */
    if (len > HANDOVER_FLOODED_BYTES - o->bytes) {
        return;
    }
    key = g_bytes_new(frame, len);
    o->bytes += len;
    g_hash_table_replace(o->frames, key,
                         GUINT_TO_POINTER(times(o, key) + 1));
}

bool handover_once_has(const HandoverOnce *o, const uint8_t *frame, size_t len)
{
    g_autoptr(GBytes) key = g_bytes_new_static(frame, len);

    return o->frames && times(o, key);
}

void handover_once_take(HandoverOnce *o, const uint8_t *frame, size_t len)
{
    g_autoptr(GBytes) key = g_bytes_new(frame, len);
    unsigned n = times(o, key);

    o->bytes -= len;
    if (n > 1) {
        g_hash_table_replace(o->frames, g_bytes_ref(key),
                             GUINT_TO_POINTER(n - 1));
    } else {
        g_hash_table_remove(o->frames, key);
    }
}
