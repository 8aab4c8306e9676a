/*
 * filter-redirector: what reaches both hosts of a hand-over, and what doesn't
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "net/checksum.h"
#include "../../net/filter-redirector-twins.h"

#define LEN 60

static const uint8_t guest[6] = { 0x52, 0x54, 0, 0, 0, 2 };
static const uint8_t group[6] = { 0x01, 0x00, 0x5e, 1, 2, 3 };
static const uint8_t other_group[6] = { 0x33, 0x33, 0, 0, 0, 0xfb };
static const uint8_t all[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

typedef struct Frame {
    PacketFrame f;
    uint8_t data[LEN];
} Frame;

static PacketFrame *fill(Frame *frame, const uint8_t *to, uint32_t number)
{
    memset(frame, 0, sizeof(*frame));
    memcpy(frame->data, to, 6);
    stl_be_p(frame->data + 20, number);
    frame->f.len = LEN;
    frame->f.iov[0] = (struct iovec) { frame->data, LEN };
    frame->f.iovcnt = 1;
    return &frame->f;
}

/* One cancels one. */
static void test_flooded(void)
{
    RedirectorTwins t = {};
    Frame a, b, same;

    redirector_twins_begin(&t, true);
    fill(&a, all, 1);
    fill(&b, all, 2);
    fill(&same, all, 1);
    g_assert_false(redirector_twins_has_direct(&t, &a.f));
    redirector_twins_source(&t, &a.f);
    redirector_twins_source(&t, &a.f);
    g_assert_true(redirector_twins_has_direct(&t, &same.f));
    g_assert_false(redirector_twins_has_direct(&t, &b.f));
    same.f.len--;
    g_assert_false(redirector_twins_has_direct(&t, &same.f));
    redirector_twins_take_direct(&t, &a.f);
    g_assert_true(redirector_twins_has_direct(&t, &a.f));
    redirector_twins_take_direct(&t, &a.f);
    g_assert_false(redirector_twins_has_direct(&t, &a.f));
    /* What is for all comes directly only once order has ended. */
    redirector_twins_direct(&t, &b.f);
    g_assert_false(redirector_twins_take_source(&t, &b.f));
    redirector_twins_source(&t, &a.f);
    redirector_twins_end(&t);
    g_assert_false(redirector_twins_has_direct(&t, &a.f));
}

/* What is for the guest alone, where some of it came to the waiting host. */
static void test_alone(void)
{
    RedirectorTwins t = {};
    Frame a;

    redirector_twins_begin(&t, true);
    fill(&a, guest, 1);
    redirector_twins_source(&t, &a.f);
    g_assert_false(redirector_twins_has_direct(&t, &a.f));
    redirector_twins_stale(&t, fill(&a, all, 0), guest);
    g_assert_false(t.all);
    redirector_twins_stale(&t, fill(&a, guest, 0), guest);
    g_assert_true(t.all);
    redirector_twins_source(&t, fill(&a, guest, 1));
    g_assert_true(redirector_twins_has_direct(&t, &a.f));
    redirector_twins_take_direct(&t, &a.f);
    g_assert_false(redirector_twins_has_direct(&t, &a.f));
    redirector_twins_end(&t);
    g_assert_true(t.all);
}

static void test_bounded(void)
{
    RedirectorTwins t = { .all = true };
    uint32_t i;
    Frame a;

    redirector_twins_begin(&t, true);
    for (i = 0; i < 2 * REDIRECTOR_TWINS_BYTES / LEN; i++) {
        redirector_twins_source(&t, fill(&a, all, i));
    }
    g_assert_false(redirector_twins_has_direct(&t, &a.f));
    /* That is no matter of the others. */
    redirector_twins_source(&t, fill(&a, guest, 0));
    g_assert_true(redirector_twins_has_direct(&t, &a.f));
    for (i = 0; i < 2 * REDIRECTOR_TWINS_BYTES / LEN; i++) {
        redirector_twins_direct(&t, fill(&a, group, i));
    }
    g_assert_false(redirector_twins_take_source(&t, &a.f));
    g_assert_true(redirector_twins_take_source(&t, fill(&a, group, 0)));
    /* Now there is room again. */
    redirector_twins_direct(&t, fill(&a, group, i));
    g_assert_true(redirector_twins_take_source(&t, &a.f));
    redirector_twins_end(&t);
}

static void test_groups(void)
{
    RedirectorTwins t = {};
    Frame a;

    redirector_twins_begin(&t, true);
    /* This one is flooded. */
    redirector_twins_stale(&t, fill(&a, group, 0), guest);
    redirector_twins_source(&t, fill(&a, group, 1));
    redirector_twins_source(&t, fill(&a, all, 1));
    redirector_twins_source(&t, fill(&a, guest, 1));
    g_assert_cmpuint(t.missing, ==, 0);
    redirector_twins_source(&t, fill(&a, other_group, 1));
    redirector_twins_source(&t, fill(&a, other_group, 2));
    g_assert_cmpuint(t.missing, ==, 1);
    /* Of this one, the network begins to send here. */
    redirector_twins_direct(&t, fill(&a, other_group, 3));
    redirector_twins_direct(&t, fill(&a, other_group, 4));
    g_assert_cmpuint(t.missing, ==, 0);
    /* The source still gets it. */
    g_assert_true(redirector_twins_take_source(&t, fill(&a, other_group, 3)));
    g_assert_false(redirector_twins_take_source(&t, &a.f));
    redirector_twins_source(&t, fill(&a, other_group, 5));
    g_assert_cmpuint(t.missing, ==, 0);
    g_assert_true(redirector_twins_has_direct(&t, &a.f));
    redirector_twins_end(&t);
    /* Without a hold, nothing is remembered. */
    redirector_twins_source(&t, fill(&a, group, 1));
    redirector_twins_direct(&t, &a.f);
    g_assert_cmpuint(t.missing, ==, 0);
    g_assert_false(redirector_twins_take_source(&t, &a.f));
}

/* Nobody has told what came here before: then nothing is said of groups. */
static void test_groups_untold(void)
{
    RedirectorTwins t = {};
    Frame a;

    redirector_twins_begin(&t, false);
    redirector_twins_source(&t, fill(&a, group, 1));
    g_assert_cmpuint(t.missing, ==, 0);
    g_assert_true(redirector_twins_has_direct(&t, &a.f));
    redirector_twins_begin(&t, true);
    redirector_twins_source(&t, &a.f);
    g_assert_cmpuint(t.missing, ==, 1);
    redirector_twins_end(&t);
}

/* A frame handed over and cancelled is one that the network brings here. */
static void test_groups_cancelled(void)
{
    RedirectorTwins t = {};
    Frame a;

    redirector_twins_begin(&t, true);
    redirector_twins_source(&t, fill(&a, group, 1));
    g_assert_cmpuint(t.missing, ==, 1);
    redirector_twins_take_direct(&t, &a.f);
    g_assert_cmpuint(t.missing, ==, 0);
    redirector_twins_end(&t);
}

static void test_groups_bounded(void)
{
    RedirectorTwins t = {};
    uint8_t to[6];
    unsigned i;
    Frame a;

    redirector_twins_begin(&t, true);
    memcpy(to, other_group, sizeof(to));
    for (i = 0; i < 5000; i++) {
        stw_be_p(to + 4, i);
        redirector_twins_source(&t, fill(&a, to, 0));
    }
    g_assert_cmpuint(t.missing, <=, 1024);
    redirector_twins_end(&t);
}

/* Members believe queries with right checksums only. */
static void test_queries(void)
{
    static const uint8_t next_is_icmp[4] = { 0, 0, 0, 58 };
    PacketFrame f;
    uint8_t *p;
    uint32_t sum;

    redirector_twins_query(0, &f);
    p = f.iov[0].iov_base;
    g_assert_cmpuint(f.len, ==, 60);
    g_assert_cmpint(lduw_be_p(p + 12), ==, 0x0800);
    g_assert_cmpint(lduw_be_p(p + 16), ==, 24 + 12);
    g_assert_cmphex(net_raw_checksum(p + 14, 24), ==, 0);
    g_assert_cmphex(net_raw_checksum(p + 14 + 24, 12), ==, 0);

    redirector_twins_query(1, &f);
    p = f.iov[0].iov_base;
    g_assert_cmpuint(f.len, ==, 14 + 40 + 8 + 28);
    g_assert_cmpint(lduw_be_p(p + 12), ==, 0x86dd);
    g_assert_cmpint(lduw_be_p(p + 18), ==, 8 + 28);
    sum = net_checksum_add(32, p + 14 + 8) + 28 +
          net_checksum_add(4, (uint8_t *)next_is_icmp) +
          net_checksum_add(28, p + 14 + 40 + 8);
    g_assert_cmphex(net_checksum_finish(sum), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/twins/flooded", test_flooded);
    g_test_add_func("/twins/alone", test_alone);
    g_test_add_func("/twins/bounded", test_bounded);
    g_test_add_func("/twins/groups", test_groups);
    g_test_add_func("/twins/groups/untold", test_groups_untold);
    g_test_add_func("/twins/groups/cancelled", test_groups_cancelled);
    g_test_add_func("/twins/groups/bounded", test_groups_bounded);
    g_test_add_func("/twins/queries", test_queries);
    return g_test_run();
}
