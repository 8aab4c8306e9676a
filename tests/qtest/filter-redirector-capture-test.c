/*
 * QTest of filter-redirector: captures while the machine stands still
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "filter-redirector-machine.h"

/*
 * Captures of the same TAP: the guest gets the originals, and what becomes of
 * the copies that were taken while it stood still is decided with it
 */

typedef struct CaptureCase {
    const char *name;
    const char *props;
    bool stopped;           /* enable_when_stopped */
    bool running;           /* enable_when_running */
} CaptureCase;

#define CAPTURE "id=f0,netdev=x,queue=tx,in_netdev=x,outdev=co," \
                "vnet_hdr_support=on,"

static const CaptureCase captures[] = {
    { "default", CAPTURE "enable_when_stopped=off", false, true },
    { "both", CAPTURE "enable_when_stopped=on,enable_when_running=on",
      true, true },
    { "stopped-only", CAPTURE "enable_when_stopped=on,enable_when_running=off",
      true, false },
};

/* @copies: whether the chardev gets a copy of all that comes */
static void capture_running(Machine *m, bool copies)
{
    const uint32_t first = m->sent;

    rig_wait_phase(m->r, "f0", "running");
    send_step(m);
    pc_nic_expect(&m->pc, 0, SIZE, first, STEP);
    if (copies) {
        outdev_expect(m, first, STEP);
    }
    m->seen = m->sent;
    expect_nothing_more(m);
}

static Machine *capture_start(const CaptureCase *c)
{
    Machine *m = machine_start("", c->props);

    capture_running(m, c->running);
    return m;
}

/* The guest goes on here: it has got the originals, or gets them now. */
static void capture_goes_on(Machine *m, const CaptureCase *c,
                            uint64_t *discarded)
{
    const uint32_t first = m->seen, n = m->sent - m->seen;

    rig_cont(m->r);
    pc_nic_expect(&m->pc, 0, SIZE, first, n);
    if (c->stopped && c->running) {
        outdev_expect(m, first, n);
    } else if (c->stopped) {
        *discarded += n;
    }
    m->seen = m->sent;
    rig_wait_stat(m->r, "f0", "input.stats.discarded", *discarded);
    expect_nothing_more(m);
    /* It throws away what comes to light up to 32 ms later, too. */
    g_usleep(50 * 1000);
    capture_running(m, c->running);
}

static void test_capture_stop(const void *data)
{
    const CaptureCase *c = data;
    Machine *m = capture_start(c);
    uint64_t discarded = 0;
    unsigned i;

    for (i = 0; i < 3; i++) {
        rig_stop(m->r);
        rig_wait_phase(m->r, "f0", "stopped");
        send_step(m);
        expect_nothing_more(m);
        capture_goes_on(m, c, &discarded);
    }
    machine_free(m);
}

static void test_capture_cancelled(const void *data)
{
    const CaptureCase *c = data;
    Machine *m = capture_start(c);
    uint64_t discarded = 0;

    rig_stop(m->r);
    migrate_begin(m, PLACE_SWITCHOVER);
    migrate_arrive(m, PLACE_SWITCHOVER);
    send_step(m);
    expect_nothing_more(m);
    migrate_cancel(m);
    rig_wait_runstate(m->r, "paused");
    send_step(m);
    expect_nothing_more(m);
    capture_goes_on(m, c, &discarded);
    machine_free(m);
}

static void test_capture_completed(const void *data)
{
    const CaptureCase *c = data;
    Machine *m = capture_start(c);

    rig_stop(m->r);
    migrate_begin(m, PLACE_ACTIVE);
    send_step(m);
    expect_nothing_more(m);
    migrate_complete(m, PLACE_ACTIVE);
    rig_wait_phase(m->r, "f0", "migrated");
    send_step(m);
    if (c->stopped) {
        outdev_gets_all(m);
    }
    expect_nothing_more(m);
    assert_stat(m->r, "f0", "input.stats.discarded", 0);
    assert_stat(m->r, "f0", "input.stats.lost", 0);
    machine_free(m);
}

/* Only what came during the second attempt is delivered. */
static void test_capture_retried(const void *data)
{
    const CaptureCase *c = data;
    Machine *m = capture_start(c);
    uint64_t discarded = 0;

    migrate_begin(m, PLACE_SWITCHOVER);
    migrate_arrive(m, PLACE_SWITCHOVER);
    send_step(m);
    expect_nothing_more(m);
    migrate_cancel(m);
    rig_wait_runstate(m->r, "running");
    capture_goes_on(m, c, &discarded);

    migrate_begin(m, PLACE_SWITCHOVER);
    migrate_arrive(m, PLACE_SWITCHOVER);
    send_step(m);
    expect_nothing_more(m);
    migrate_complete(m, PLACE_SWITCHOVER);
    if (c->stopped) {
        outdev_gets_all(m);
    }
    expect_nothing_more(m);
    assert_stat(m->r, "f0", "input.stats.discarded", discarded);
    machine_free(m);
}

/* The guest goes on in another QEMU here, with the originals. */
static void test_capture_local(const void *data)
{
    const CaptureCase *c = data;
    Machine *m = capture_start(c);

    set_mode(m->r, "cpr-reboot");
    rig_stop(m->r);
    migrate_begin(m, PLACE_ACTIVE);
    send_step(m);
    expect_nothing_more(m);
    migrate_complete(m, PLACE_ACTIVE);
    rig_wait_phase(m->r, "f0", "local");
    rig_wait_stat(m->r, "f0", "input.stats.discarded", c->stopped ? STEP : 0);
    expect_nothing_more(m);
    machine_free(m);
}

static const struct {
    const char *name;
    void (*test)(const void *data);
} capture_tests[] = {
    { "stop", test_capture_stop },
    { "cancelled", test_capture_cancelled },
    { "completed", test_capture_completed },
    { "retried", test_capture_retried },
    { "local", test_capture_local },
};

static void add_capture_cases(void)
{
    unsigned c, t;

    for (c = 0; c < ARRAY_SIZE(captures); c++) {
        for (t = 0; t < ARRAY_SIZE(capture_tests); t++) {
            g_autofree char *path =
                g_strdup_printf("/filter-redirector/capture/%s/%s",
                                captures[c].name, capture_tests[t].name);

            case_add(path, capture_tests[t].test, &captures[c]);
        }
    }
}

/*
 * A step of the clock changes nothing.  The clock is the whole host's: the
 * case needs somebody who says that this does no harm.
 */
#define CLOCK_ENV "FILTER_REDIRECTOR_TEST_SET_CLOCK"

static void step_clock(int seconds)
{
    struct timespec now;

    g_assert_cmpint(clock_gettime(CLOCK_REALTIME, &now), ==, 0);
    now.tv_sec += seconds;
    g_assert_cmpint(clock_settime(CLOCK_REALTIME, &now), ==, 0);
}

static void test_capture_clock(const void *data)
{
    const int seconds = data ? 3600 : -3600;
    const CaptureCase *c = &captures[2];
    uint64_t discarded = 0;
    Machine *m;

    if (!getenv(CLOCK_ENV)) {
        g_test_skip("sets the host's clock: not without " CLOCK_ENV);
        return;
    }
    m = capture_start(c);
    migrate_begin(m, PLACE_SWITCHOVER);
    migrate_arrive(m, PLACE_SWITCHOVER);
    send_step(m);
    step_clock(seconds);
    send_step(m);
    migrate_cancel(m);
    rig_wait_runstate(m->r, "running");
    capture_goes_on(m, c, &discarded);

    migrate_begin(m, PLACE_SWITCHOVER);
    migrate_arrive(m, PLACE_SWITCHOVER);
    send_step(m);
    step_clock(-seconds);
    send_step(m);
    migrate_complete(m, PLACE_SWITCHOVER);
    outdev_gets_all(m);
    assert_stat(m->r, "f0", "input.stats.discarded", discarded);
    machine_free(m);
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    if (qtest_has_device("virtio-net-pci")) {
        add_capture_cases();
        case_add("/filter-redirector/capture/clock/forth", test_capture_clock,
                 "forth");
        case_add("/filter-redirector/capture/clock/back", test_capture_clock,
                 NULL);
    }
    return g_test_run();
}
