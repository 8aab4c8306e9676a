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

bool handover_flooded(const uint8_t *frame, size_t len)
{
    return len >= ETH_HEADER && (frame[0] & 1);
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

bool handover_source_takes(HandoverSource *s, HandoverKind kind, int64_t now)
{
    switch (kind) {
    case HANDOVER_BARRIER:
        if (!s->barrier) {
            s->barrier = true;
            s->barrier_at = now;
        }
        return false;
    case HANDOVER_OWN:
        return false;
    case HANDOVER_FLOODED:
        return !s->barrier || now - s->barrier_at < HANDOVER_FLOODED_MS;
    default:
        return true;
    }
}

bool handover_lends(const HandoverSource *s, int64_t now)
{
    return !s->barrier && now - s->since < HANDOVER_LEND_MS;
}

/* Destination */

bool handover_hold_ends(const HandoverHold *h, int64_t now,
                        HandoverHoldEnd *how)
{
    int64_t silent = h->waiting ? 0 : now - MAX(h->heard_at, h->begun_at);

    if (!h->connected) {
        *how = HOLD_END(DISCONNECTED);
    } else if (silent >= (h->again ? HANDOVER_AGAIN_MS : HANDOVER_SILENT_MS)) {
        *how = HOLD_END(SILENT);
    } else if (h->direct && silent >= HANDOVER_DIRECT_MS) {
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
