/*
 * filter-redirector: what a hand-over does with which packet
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "../../net/filter-redirector-handover.h"

#define LEN 60

static const uint8_t guest[1][6] = { { 0x52, 0x54, 0, 0, 0, 2 } };
static const uint8_t client[6] = { 0x52, 0x54, 0, 0, 0, 0xf0 };

static void fill(uint8_t *frame, bool flooded, const uint8_t *from)
{
    memset(frame, 0, LEN);
    memset(frame, flooded ? 0xff : 0x52, 6);
    memcpy(frame + 6, from, 6);
    frame[12] = 0x08;
}

static void fill_announcement(uint8_t *frame)
{
    fill(frame, true, guest[0]);
    frame[12] = 0x80;
    frame[13] = 0x35;
    frame[21] = 3;
    memcpy(frame + 22, guest[0], 6);
    memcpy(frame + 32, guest[0], 6);
}

static void test_kind(void)
{
    uint8_t frame[LEN];

    fill(frame, false, client);
    g_assert_cmpint(handover_kind(frame, LEN, guest, 1), ==, HANDOVER_UNICAST);
    g_assert_cmpint(handover_kind(frame, 5, guest, 1), ==, HANDOVER_UNICAST);
    fill(frame, true, client);
    g_assert_cmpint(handover_kind(frame, LEN, guest, 1), ==,
                    HANDOVER_FLOODED);
    fill(frame, true, guest[0]);
    g_assert_cmpint(handover_kind(frame, LEN, guest, 1), ==, HANDOVER_OWN);
    g_assert_cmpint(handover_kind(frame, LEN, guest, 0), ==,
                    HANDOVER_FLOODED);
    fill_announcement(frame);
    g_assert_cmpint(handover_kind(frame, LEN, guest, 1), ==,
                    HANDOVER_BARRIER);
    g_assert_cmpint(handover_kind(frame, 41, guest, 1), ==, HANDOVER_OWN);
    /* About another address, or a reply. */
    frame[33]++;
    g_assert_cmpint(handover_kind(frame, LEN, guest, 1), ==, HANDOVER_OWN);
    fill_announcement(frame);
    frame[21] = 4;
    g_assert_cmpint(handover_kind(frame, LEN, guest, 1), ==, HANDOVER_OWN);
}

static void test_mark(void)
{
    static const HandoverMark marks[] = {
        HANDOVER_HELLO, HANDOVER_RUNS, HANDOVER_END, HANDOVER_TAKEN,
        HANDOVER_DOUBT, HANDOVER_COPIES, HANDOVER_GROUPS,
    };
    uint8_t frame[LEN];
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(marks); i++) {
        handover_mark_fill(frame, marks[i]);
        g_assert_cmpint(handover_mark(frame, LEN), ==, marks[i]);
        g_assert_cmpint(handover_mark(frame, LEN - 1), ==, HANDOVER_NO_MARK);
        /* One that the network sends is none. */
        g_assert_cmpint(handover_kind(frame, LEN, guest, 1), ==,
                        HANDOVER_OWN);
        /* No guest has the address: it is one guest's alone, and local. */
        g_assert_cmpint(frame[0] & 3, ==, 2);
    }
    frame[0] ^= 0x10;
    g_assert_cmpint(handover_mark(frame, LEN), ==, HANDOVER_NO_MARK);
    fill(frame, false, client);
    g_assert_cmpint(handover_mark(frame, LEN), ==, HANDOVER_NO_MARK);
}

static void test_source(void)
{
    HandoverSource s = {};

    g_assert_true(handover_source_takes(&s, HANDOVER_UNICAST, 10));
    g_assert_true(handover_source_takes(&s, HANDOVER_FLOODED, 10));
    g_assert_false(handover_source_takes(&s, HANDOVER_OWN, 10));
    g_assert_true(handover_source_takes(&s, HANDOVER_FLOODED, 1000));
    g_assert_false(handover_source_takes(&s, HANDOVER_BARRIER, 1000));
    /* The announcement is repeated. */
    g_assert_false(handover_source_takes(&s, HANDOVER_BARRIER, 1005));
    g_assert_true(handover_source_takes(&s, HANDOVER_FLOODED, 1009));
    g_assert_false(handover_source_takes(&s, HANDOVER_FLOODED, 1010));
    g_assert_true(handover_source_takes(&s, HANDOVER_UNICAST, 5000));
}

/* Once the order has ended, what is flooded is not handed over. */
static void test_source_ended(void)
{
    HandoverSource s = { .ended = true };

    g_assert_false(handover_source_takes(&s, HANDOVER_FLOODED, 10));
    g_assert_true(handover_source_takes(&s, HANDOVER_UNICAST, 10));
}

/* What comes to both is treated as what is flooded. */
static void test_source_copies(void)
{
    HandoverSource s = { .marks = true, .runs = true };

    handover_source_said(&s, HANDOVER_DOUBT, 900);
    g_assert_true(handover_source_takes(&s, HANDOVER_UNICAST, 900));
    g_assert_cmpint(s.heard_at, ==, 900);
    handover_source_said(&s, HANDOVER_COPIES, 900);
    g_assert_true(handover_source_takes(&s, HANDOVER_UNICAST, 901));
    g_assert_cmpint(s.heard_at, ==, 900);
    handover_source_takes(&s, HANDOVER_BARRIER, 1000);
    g_assert_true(handover_source_takes(&s, HANDOVER_UNICAST, 1009));
    g_assert_false(handover_source_takes(&s, HANDOVER_UNICAST, 1010));
    s.ended = true;
    g_assert_false(handover_source_takes(&s, HANDOVER_UNICAST, 1009));
    /* Another destination has not said so. */
    handover_source_said(&s, HANDOVER_NO_MARK, 2000);
    g_assert_true(handover_source_takes(&s, HANDOVER_UNICAST, 2000));
}

/* Groups' frames, if the destination doesn't get them, until it has all. */
static void test_source_groups(void)
{
    HandoverSource s = { .marks = true, .runs = true, .runs_at = 1000 };

    handover_source_takes(&s, HANDOVER_BARRIER, 1000);
    g_assert_true(handover_source_takes(&s, HANDOVER_GROUP, 1009));
    g_assert_false(handover_source_takes(&s, HANDOVER_GROUP, 1010));
    handover_source_said(&s, HANDOVER_GROUPS, 1010);
    g_assert_true(handover_source_takes(&s, HANDOVER_GROUP, 1010));
    g_assert_false(handover_source_takes(&s, HANDOVER_FLOODED, 1010));
    s.ended = true;
    g_assert_true(handover_source_takes(&s, HANDOVER_GROUP, 2999));
    g_assert_false(handover_source_takes(&s, HANDOVER_GROUP, 3000));
    g_assert_false(handover_source_over(&s));
    handover_source_said(&s, HANDOVER_TAKEN, 1500);
    g_assert_false(handover_source_takes(&s, HANDOVER_GROUP, 1500));
    g_assert_true(handover_source_over(&s));
    s.over = true;
    g_assert_false(handover_source_over(&s));
    s.taken = false;
    /* They are no sign that order goes on. */
    g_assert_cmpint(s.heard_at, ==, 0);
    handover_source_said(&s, HANDOVER_NO_MARK, 1500);
    g_assert_false(handover_source_takes(&s, HANDOVER_GROUP, 1500));
}

typedef struct GroupCase {
    uint8_t to[6];
    bool group;
} GroupCase;

static const GroupCase group_cases[] = {
    { { 0x52, 0x54, 0x00, 0x00, 0x00, 0x02 }, false },
    { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, false },
    { { 0x01, 0x00, 0x5e, 0x01, 0x02, 0x03 }, true },
    { { 0x01, 0x00, 0x5e, 0x00, 0x01, 0x01 }, true },
    /* Switches flood 224.0.0.0/24, ff02::1, and what is not IP. */
    { { 0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb }, false },
    { { 0x33, 0x33, 0x00, 0x00, 0x00, 0x01 }, false },
    { { 0x33, 0x33, 0x00, 0x00, 0x00, 0xfb }, true },
    { { 0x33, 0x33, 0xff, 0x00, 0x00, 0x01 }, true },
    { { 0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e }, false },
};

static void test_group(void)
{
    uint8_t frame[LEN];
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(group_cases); i++) {
        const GroupCase *c = &group_cases[i];

        fill(frame, false, client);
        memcpy(frame, c->to, 6);
        g_assert_cmpint(handover_group(frame, LEN), ==, c->group);
        g_assert_false(handover_group(frame, 13));
        g_assert_cmpint(handover_kind(frame, LEN, guest, 1), ==,
                        c->group ? HANDOVER_GROUP :
                        c->to[0] & 1 ? HANDOVER_FLOODED : HANDOVER_UNICAST);
    }
}

#define BARRIER_AND_WORD .marks = true, .barrier = true, .barrier_at = 1000, \
                         .runs = true, .runs_at = 1000

typedef struct EndsCase {
    HandoverSource source;
    int64_t now;
    bool ends;
} EndsCase;

static const EndsCase ends_cases[] = {
    /* Neither barrier nor a word that the guest runs; or no such word. */
    { { .marks = true, .looks = 9 }, 5000, false },
    { { .marks = true, .barrier = true, .barrier_at = 1000, .looks = 9 },
      5000, false },
    { { BARRIER_AND_WORD, .looks = 3 }, 1004, false },
    { { BARRIER_AND_WORD, .looks = 3 }, 1005, true },
    /* The same to one that does not know marks; or nobody has looked. */
    { { .barrier = true, .barrier_at = 1000, .looks = 3 }, 1005, false },
    { { BARRIER_AND_WORD, .looks = 2 }, 1005, false },
    { { BARRIER_AND_WORD, .heard_at = 1003, .looks = 3 }, 1007, false },
    { { BARRIER_AND_WORD, .heard_at = 1003, .looks = 3 }, 1008, true },
    { { BARRIER_AND_WORD, .ended = true, .looks = 3 }, 1005, false },
    /* No barrier comes through. */
    { { .marks = true, .runs = true, .runs_at = 1000, .looks = 3 }, 1299,
      false },
    { { .marks = true, .runs = true, .runs_at = 1000, .looks = 3 }, 1300,
      true },
    { { .marks = true, .runs = true, .runs_at = 1000, .heard_at = 1090,
        .looks = 3 }, 1389, false },
    { { .marks = true, .runs = true, .runs_at = 1000, .barrier = true,
        .barrier_at = 1010, .looks = 3 }, 1015, true },
    /* Perhaps it gets all: it takes time until it knows. */
    { { BARRIER_AND_WORD, .doubt = true, .looks = 3 }, 1099, false },
    { { BARRIER_AND_WORD, .doubt = true, .looks = 3 }, 1100, true },
    { { BARRIER_AND_WORD, .doubt = true, .copies = true, .looks = 3 }, 1005,
      true },
};

static void test_ends(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(ends_cases); i++) {
        const EndsCase *c = &ends_cases[i];

        g_assert_cmpint(handover_source_ends(&c->source, c->now), ==,
                        c->ends);
    }
}

/* A packet is a sign that nobody has looked since. */
static void test_looks(void)
{
    HandoverSource s = { .looks = 5 };

    handover_source_takes(&s, HANDOVER_FLOODED, 10);
    handover_source_takes(&s, HANDOVER_OWN, 10);
    g_assert_cmpuint(s.looks, ==, 5);
    g_assert_cmpint(s.heard_at, ==, 0);
    handover_source_takes(&s, HANDOVER_UNICAST, 10);
    g_assert_cmpuint(s.looks, ==, 0);
    g_assert_cmpint(s.heard_at, ==, 10);
}

static void test_lingers(void)
{
    HandoverSource s = { .since = 500, .quit_at = 1000 };

    g_assert_true(handover_source_lingers(&s, false, 1000));
    g_assert_true(handover_source_lingers(&s, false, 2999));
    g_assert_false(handover_source_lingers(&s, false, 3000));
    g_assert_false(handover_source_lingers(&s, true, 1000));
    s.heard_at = 950;
    g_assert_true(handover_source_lingers(&s, true, 1049));
    g_assert_false(handover_source_lingers(&s, true, 1050));
    s.marks = true;
    /* The destination's guest is paused: that can take for ever. */
    g_assert_false(handover_source_lingers(&s, true, 1000));
    g_assert_true(handover_source_lingers(&s, false, 1000));
    s.runs = true;
    g_assert_true(handover_source_lingers(&s, true, 2999));
    s.taken = true;
    g_assert_false(handover_source_lingers(&s, true, 1050));
}

static void test_lends(void)
{
    HandoverSource s = { .since = 1000 };

    g_assert_true(handover_lends(&s, 1000));
    g_assert_true(handover_lends(&s, 999 + HANDOVER_LEND_MS));
    g_assert_false(handover_lends(&s, 1000 + HANDOVER_LEND_MS));
    handover_source_takes(&s, HANDOVER_OWN, 1500);
    g_assert_true(handover_lends(&s, 1500));
    handover_source_takes(&s, HANDOVER_BARRIER, 1500);
    g_assert_false(handover_lends(&s, 1500));
}

/*
 * A network that reflects, or somebody who lies: an announcement before the
 * destination, which would tell, has said anything.
 */
static void test_forged(void)
{
    HandoverSource s = { .since = 1000, .marks = true };

    handover_source_takes(&s, HANDOVER_BARRIER, 1100);
    g_assert_true(handover_lends(&s, 1100));
    g_assert_true(handover_source_takes(&s, HANDOVER_FLOODED, 1150));
    handover_source_said(&s, HANDOVER_RUNS, 1201);
    g_assert_false(handover_lends(&s, 1201));
    g_assert_true(handover_source_takes(&s, HANDOVER_FLOODED, 1300));
    s.looks = HANDOVER_LOOKS;
    g_assert_false(handover_source_ends(&s, 1210));
    /* The real one. */
    handover_source_takes(&s, HANDOVER_BARRIER, 1301);
    g_assert_false(handover_source_takes(&s, HANDOVER_FLOODED, 1311));
    g_assert_true(handover_source_ends(&s, 1306));
    /* What the destination says twice changes nothing. */
    handover_source_said(&s, HANDOVER_RUNS, 2000);
    g_assert_false(handover_source_takes(&s, HANDOVER_FLOODED, 2000));
}

/* The destination's word and its announcement: either may come first. */
static void test_told(void)
{
    HandoverSource s = { .since = 1000, .marks = true };

    handover_source_takes(&s, HANDOVER_BARRIER, 1100);
    handover_source_said(&s, HANDOVER_RUNS, 1100 + HANDOVER_TOLD_MS);
    g_assert_false(handover_source_takes(&s, HANDOVER_FLOODED, 1200));
    /* It goes, and comes again. */
    handover_source_said(&s, HANDOVER_NO_MARK, 1300);
    g_assert_false(handover_lends(&s, 1300));

    s = (HandoverSource) { .since = 1000, .marks = true };
    handover_source_takes(&s, HANDOVER_BARRIER, 1100);
    handover_source_said(&s, HANDOVER_NO_MARK, 1110);
    /* It has said nothing: the guest may go on here. */
    g_assert_true(handover_lends(&s, 1110));
    /* One without marks has to be believed. */
    handover_source_takes(&s, HANDOVER_BARRIER, 1120);
    g_assert_false(handover_lends(&s, 1120));
}

typedef struct HoldCase {
    HandoverHold hold;
    int64_t now;
    int how;                /* -1: it goes on */
} HoldCase;

static const HoldCase cases[] = {
    { { .connected = false, .begun_at = 100 }, 100, HOLD_END(DISCONNECTED) },
    { { .connected = true, .begun_at = 100 }, 199, -1 },
    { { .connected = true, .begun_at = 100 }, 200, HOLD_END(SILENT) },
    /* What came before the guest ran is no sign that more will. */
    { { .connected = true, .begun_at = 100, .heard_at = 50 }, 200,
      HOLD_END(SILENT) },
    { { .connected = true, .begun_at = 100, .heard_at = 150 }, 249, -1 },
    { { .connected = true, .begun_at = 100, .heard_at = 150 }, 250,
      HOLD_END(SILENT) },
    { { .connected = true, .direct = true, .begun_at = 100 }, 119, -1 },
    { { .connected = true, .direct = true, .begun_at = 100 }, 120,
      HOLD_END(DIRECT) },
    { { .connected = true, .direct = true, .begun_at = 100, .heard_at = 110 },
      129, -1 },
    { { .connected = true, .again = true, .begun_at = 100 }, 104, -1 },
    { { .connected = true, .again = true, .begun_at = 100 }, 105,
      HOLD_END(SILENT) },
    /* A guest that takes nothing for now. */
    { { .connected = true, .waiting = true, .begun_at = 100 }, 300, -1 },
    { { .connected = true, .waiting = true, .direct = true, .begun_at = 100 },
      300, -1 },
    { { .connected = true, .waiting = true, .begun_at = 100 }, 2100,
      HOLD_END(LIMIT) },
    /* A source that tells. */
    { { .connected = true, .marks = true, .direct = true, .begun_at = 100 },
      2099, -1 },
    { { .connected = true, .marks = true, .ended = true, .begun_at = 100 },
      100, HOLD_END(TOLD) },
    { { .connected = true, .marks = true, .ended = true, .waiting = true,
        .begun_at = 100 }, 101, -1 },
    { { .connected = true, .marks = true, .begun_at = 100 }, 2100,
      HOLD_END(LIMIT) },
    { { .connected = true, .marks = true, .ended = true, .again = true,
        .begun_at = 100 }, 104, -1 },
    { { .connected = true, .marks = true, .ended = true, .again = true,
        .begun_at = 100 }, 105, HOLD_END(SILENT) },
    { { .connected = true, .begun_at = 100, .heard_at = 2098 }, 2099, -1 },
    { { .connected = true, .begun_at = 100, .heard_at = 2098 }, 2100,
      HOLD_END(LIMIT) },
};

static void test_hold(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        HandoverHoldEnd how;
        bool ends = handover_hold_ends(&cases[i].hold, cases[i].now, &how);

        g_assert_cmpint(ends ? (int)how : -1, ==, cases[i].how);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/handover/kind", test_kind);
    g_test_add_func("/handover/source", test_source);
    g_test_add_func("/handover/mark", test_mark);
    g_test_add_func("/handover/source/ended", test_source_ended);
    g_test_add_func("/handover/source/copies", test_source_copies);
    g_test_add_func("/handover/source/groups", test_source_groups);
    g_test_add_func("/handover/group", test_group);
    g_test_add_func("/handover/source/ends", test_ends);
    g_test_add_func("/handover/source/looks", test_looks);
    g_test_add_func("/handover/source/lingers", test_lingers);
    g_test_add_func("/handover/lends", test_lends);
    g_test_add_func("/handover/forged", test_forged);
    g_test_add_func("/handover/told", test_told);
    g_test_add_func("/handover/hold", test_hold);
    return g_test_run();
}
