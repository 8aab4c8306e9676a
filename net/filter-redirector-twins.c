/*
 * filter-redirector: what reaches both hosts of a hand-over, and what doesn't
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "filter-redirector-handover.h"
#include "filter-redirector-twins.h"

/* Groups beyond that are not told from what is flooded. */
#define GROUPS_MAX 1024

void redirector_twins_begin(RedirectorTwins *t, bool groups)
{
    if (!t->handed) {
        t->handed = g_hash_table_new_full(g_bytes_hash, g_bytes_equal,
                                          (GDestroyNotify)g_bytes_unref, NULL);
        t->direct = g_hash_table_new_full(g_bytes_hash, g_bytes_equal,
                                          (GDestroyNotify)g_bytes_unref, NULL);
    }
    if (groups && !t->groups) {
        t->groups = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                          NULL);
    }
}

void redirector_twins_end(RedirectorTwins *t)
{
    g_clear_pointer(&t->handed, g_hash_table_unref);
    g_clear_pointer(&t->direct, g_hash_table_unref);
    g_clear_pointer(&t->groups, g_hash_table_unref);
    memset(t->bytes, 0, sizeof(t->bytes));
    t->missing = 0;
}

/* Frames */

static const uint8_t *frame_data(const PacketFrame *f)
{
    return f->iov[0].iov_base;
}

static bool is_group(const PacketFrame *f)
{
    return handover_group(frame_data(f), f->len);
}

/* Others need not be looked for, which takes time for each byte. */
static bool may_come_twice(const RedirectorTwins *t, const PacketFrame *f)
{
    return t->all || handover_flooded(frame_data(f), f->len);
}

/* Bytes kept of frames of its kind: for the guest alone, flooded, direct. */
static size_t *bytes_of(RedirectorTwins *t, GHashTable *set,
                        const PacketFrame *f)
{
    return &t->bytes[set == t->direct ? 2 :
                     handover_flooded(frame_data(f), f->len)];
}

static unsigned times(GHashTable *set, GBytes *frame)
{
    return GPOINTER_TO_UINT(g_hash_table_lookup(set, frame));
}

static void add(RedirectorTwins *t, GHashTable *set, const PacketFrame *f)
{
    size_t *bytes = bytes_of(t, set, f);
    GBytes *key;

    /* Better one that comes twice than memory without end. */
    if (!set || f->len > REDIRECTOR_TWINS_BYTES - *bytes) {
        return;
    }
    key = g_bytes_new(frame_data(f), f->len);
    *bytes += f->len;
    g_hash_table_replace(set, key, GUINT_TO_POINTER(times(set, key) + 1));
}

static bool has(GHashTable *set, const PacketFrame *f)
{
    g_autoptr(GBytes) key = g_bytes_new_static(frame_data(f), f->len);

    return set && times(set, key);
}

static void take(RedirectorTwins *t, GHashTable *set, const PacketFrame *f)
{
    g_autoptr(GBytes) key = g_bytes_new(frame_data(f), f->len);
    unsigned n = times(set, key);

    *bytes_of(t, set, f) -= f->len;
    if (n > 1) {
        g_hash_table_replace(set, g_bytes_ref(key), GUINT_TO_POINTER(n - 1));
    } else {
        g_hash_table_remove(set, key);
    }
}

/* Groups */

static void learn(RedirectorTwins *t, const PacketFrame *f, bool here)
{
    gpointer was_here;
    int64_t group = 0;

    if (!t->groups || !is_group(f)) {
        return;
    }
    memcpy(&group, frame_data(f), 6);
    if (g_hash_table_lookup_extended(t->groups, &group, NULL, &was_here)) {
        if (!here || was_here) {
            return;
        }
        t->missing--;
    } else if (g_hash_table_size(t->groups) == GROUPS_MAX) {
        return;
    }
    t->missing += !here;
    g_hash_table_replace(t->groups, g_memdup2(&group, sizeof(group)),
                         GINT_TO_POINTER(here));
}

/* What is told of them */

void redirector_twins_stale(RedirectorTwins *t, const PacketFrame *f,
                            const uint8_t *guest)
{
    t->all |= f->len >= 6 && !memcmp(frame_data(f), guest, 6);
    learn(t, f, true);
}

bool redirector_twins_take_source(RedirectorTwins *t, const PacketFrame *f)
{
    if (!is_group(f) || !has(t->direct, f)) {
        return false;
    }
    take(t, t->direct, f);
    return true;
}

void redirector_twins_source(RedirectorTwins *t, const PacketFrame *f)
{
    if (may_come_twice(t, f)) {
        add(t, t->handed, f);
    }
    learn(t, f, false);
}

bool redirector_twins_has_direct(const RedirectorTwins *t,
                                 const PacketFrame *f)
{
    return may_come_twice(t, f) && has(t->handed, f);
}

void redirector_twins_take_direct(RedirectorTwins *t, const PacketFrame *f)
{
    take(t, t->handed, f);
    learn(t, f, true);
}

void redirector_twins_direct(RedirectorTwins *t, const PacketFrame *f)
{
    if (is_group(f)) {
        add(t, t->direct, f);
    }
    learn(t, f, true);
}

/* Queries */

static const uint8_t igmp_query[60] = {
    /* Ethernet: to all, from nobody */
    0x01, 0x00, 0x5e, 0x00, 0x00, 0x01, 0x0a, 'h', 'a', 'n', 'd', 1,
    0x08, 0x00,
    /* IPv4: TTL 1, from 0.0.0.0 to 224.0.0.1, with a router alert */
    0x46, 0xc0, 0x00, 0x24, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x44, 0x13,
    0, 0, 0, 0, 224, 0, 0, 1, 0x94, 0x04, 0x00, 0x00,
    /* Within 100 ms; any group; robustness 2, every 125 s, any source */
    0x11, 0x01, 0xec, 0x81, 0, 0, 0, 0, 0x02, 125, 0x00, 0x00,
};

static const uint8_t mld_query[] = {
    /* Ethernet: to all, from nobody */
    0x33, 0x33, 0x00, 0x00, 0x00, 0x01, 0x0a, 'h', 'a', 'n', 'd', 1,
    0x86, 0xdd,
    /* IPv6: from a high link-local address to ff02::1; hop limit 1 */
    0x60, 0x00, 0x00, 0x00, 0x00, 0x24, 0x00, 0x01,
    0xfe, 0x80, 0, 0, 0, 0, 0, 0,
    0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    /* A router alert */
    0x3a, 0x00, 0x05, 0x02, 0x00, 0x00, 0x01, 0x00,
    /* Within 1 ms; any group; robustness 2, every 125 s, any source */
    0x82, 0x00, 0x7e, 0xa6, 0x00, 0x01, 0x00, 0x00,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 125, 0x00, 0x00,
};

void redirector_twins_query(unsigned i, PacketFrame *f)
{
    *f = (PacketFrame) {
        .len = i ? sizeof(mld_query) : sizeof(igmp_query),
        .dir = NET_FILTER_DIRECTION_TX,
        .iovcnt = 1,
    };
    f->iov[0] = (struct iovec) {
        (void *)(i ? mld_query : igmp_query), f->len,
    };
}
