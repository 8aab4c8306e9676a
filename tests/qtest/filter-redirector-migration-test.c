/*
 * QTest of filter-redirector: what it does at the events of a migration
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "filter-redirector-helpers.h"

enum {
    MIB = 1024 * 1024,
    RAM_MIB = 32,
    SIZE = 100,
    COUNT = 50,
};

/* Bytes a second: so slow that the memory takes longer than all waits. */
#define SLOWLY (RAM_MIB * MIB / (4 * WAIT_SECONDS))

/* The source: f0 hands over what arrives at x. */
typedef struct Source {
    Rig *r;
    Port *x;
    int co;
    char *dir;
    char *uri;
} Source;

static void set_capability(Rig *r, const char *name)
{
    qtest_qmp_assert_success(r->qts, "{'execute': 'migrate-set-capabilities', "
                             "'arguments': {'capabilities': [{'capability': "
                             "%s, 'state': true}]}}", name);
}

static void set_parameter(Rig *r, const char *name, uint64_t value)
{
    qtest_qmp_assert_success(r->qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {%s: %" PRIu64 "}}", name, value);
}

static char *migration_status(Rig *r)
{
    QDict *reply = qtest_qmp_assert_success_ref(
        r->qts, "{'execute': 'query-migrate'}");
    char *status = g_strdup(qdict_get_try_str(reply, "status"));

    qobject_unref(reply);
    return status;
}

static void wait_migration(Rig *r, const char *wanted)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    g_autofree char *status = migration_status(r);

    while (g_strcmp0(status, wanted) && g_get_monotonic_time() < end) {
        g_usleep(1000);
        g_free(status);
        status = migration_status(r);
    }
    g_assert_cmpstr(status, ==, wanted);
}

/* One with a processor, through which the test writes to memory. */
static void add_machine(Rig *r)
{
    r->machine = "-M pc";
    g_string_append_printf(r->args, "-m %dM ", RAM_MIB);
}

static Source source_new(const char *props)
{
    Source s = { .r = rig_new() };

    s.x = rig_tap(s.r, "x", TAP_GUEST);
    s.co = rig_chardev(s.r, "co");
    add_machine(s.r);
    rig_start(s.r);
    rig_add(s.r, props);
    s.dir = g_dir_make_tmp("qtest-redirector-XXXXXX", NULL);
    s.uri = g_strdup_printf("unix:%s/migration", s.dir);
    return s;
}

static void source_free(Source *s)
{
    g_autofree char *socket = g_strdup_printf("%s/migration", s->dir);

    rig_free(s->r);
    unlink(socket);
    rmdir(s->dir);
    g_free(s->dir);
    g_free(s->uri);
}

static Rig *destination_new(const Source *s, const char *capability)
{
    Rig *r = rig_new();

    add_machine(r);
    g_string_append(r->args, "-incoming defer ");
    rig_start(r);
    set_capability(r, capability);
    qtest_qmp_assert_success(r->qts, "{'execute': 'migrate-incoming', "
                             "'arguments': {'uri': %s, 'exit-on-error': "
                             "false}}", s->uri);
    return r;
}

static void migrate(const Source *s)
{
    qtest_qmp_assert_success(s->r->qts, "{'execute': 'migrate', "
                             "'arguments': {'uri': %s}}", s->uri);
}

#define HAND_OVER "id=f0,netdev=x,queue=tx,outdev=co,enable_when_stopped=on"
#define CAPTURE "id=f0,netdev=x,queue=tx,in_netdev=x,outdev=co," \
                "enable_when_stopped=on"

/*
 * In postcopy the guest runs on the destination long before the migration is
 * complete: its packets are handed over from then on.
 */
static void test_postcopy(const void *props)
{
    Source s = source_new(props);
    Rig *to = destination_new(&s, "postcopy-ram");
    g_autofree char *status = NULL;

    qtest_memset(s.r->qts, MIB, 0x55, (RAM_MIB - 1) * MIB);
    set_capability(s.r, "postcopy-ram");
    set_parameter(s.r, "max-bandwidth", SLOWLY);
    set_parameter(s.r, "max-postcopy-bandwidth", SLOWLY);
    migrate(&s);
    wait_migration(s.r, "active");
    qtest_qmp_assert_success(s.r->qts,
                             "{'execute': 'migrate-start-postcopy'}");
    wait_migration(s.r, "postcopy-active");
    send_packets(s.x->outside, SIZE, 0, COUNT);
    expect_frames(s.co, SIZE, 0, COUNT);
    status = migration_status(s.r);
    g_assert_cmpstr(status, ==, "postcopy-active");

    set_parameter(s.r, "max-postcopy-bandwidth", 0);
    wait_migration(s.r, "completed");
    send_packets(s.x->outside, SIZE, COUNT, COUNT);
    expect_frames(s.co, SIZE, COUNT, COUNT);
    rig_sync(s.r);
    expect_silence(s.co);
    rig_free(to);
    source_free(&s);
}

/* Stops the source and leaves it where it may still fail. */
static Rig *migrate_until_switchover(const Source *s)
{
    Rig *to = destination_new(s, "pause-before-switchover");

    set_capability(s->r, "pause-before-switchover");
    migrate(s);
    wait_migration(s->r, "pre-switchover");
    return to;
}

/* The machine runs again: f0 works as it did before, on all packets. */
static void expect_to_go_on(const Source *s)
{
    expect_frames(s->co, SIZE, 0, COUNT);
    send_packets(s->x->outside, SIZE, COUNT, COUNT);
    expect_frames(s->co, SIZE, COUNT, COUNT);
    rig_sync(s->r);
    expect_silence(s->co);
    expect_silence(s->x->inside);
}

static void test_cancelled(const void *unused)
{
    Source s = source_new(HAND_OVER);
    Rig *to = migrate_until_switchover(&s);

    send_packets(s.x->outside, SIZE, 0, COUNT);
    rig_sync(s.r);
    expect_silence(s.co);
    qtest_qmp_assert_success(s.r->qts, "{'execute': 'migrate_cancel'}");
    wait_migration(s.r, "cancelled");
    expect_to_go_on(&s);
    rig_free(to);
    source_free(&s);
}

/* The destination goes away before it has all. */
static void test_failed(const void *unused)
{
    Source s = source_new(HAND_OVER);
    Rig *to = migrate_until_switchover(&s);

    send_packets(s.x->outside, SIZE, 0, COUNT);
    rig_sync(s.r);
    expect_silence(s.co);
    rig_free(to);
    qtest_qmp_assert_success(s.r->qts, "{'execute': 'migrate-continue', "
                             "'arguments': {'state': 'pre-switchover'}}");
    wait_migration(s.r, "failed");
    expect_to_go_on(&s);
    source_free(&s);
}

/* Where nothing fails, nothing is given away before the end. */
static void test_completed(const void *unused)
{
    Source s = source_new(HAND_OVER);
    Rig *to = migrate_until_switchover(&s);

    send_packets(s.x->outside, SIZE, 0, COUNT);
    rig_sync(s.r);
    expect_silence(s.co);
    qtest_qmp_assert_success(s.r->qts, "{'execute': 'migrate-continue', "
                             "'arguments': {'state': 'pre-switchover'}}");
    wait_migration(s.r, "completed");
    expect_frames(s.co, SIZE, 0, COUNT);
    rig_sync(s.r);
    expect_silence(s.x->inside);
    rig_free(to);
    source_free(&s);
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    case_add("/filter-redirector/migration/postcopy/hand-over", test_postcopy,
             HAND_OVER);
    case_add("/filter-redirector/migration/postcopy/capture", test_postcopy,
             CAPTURE);
    case_add("/filter-redirector/migration/cancelled", test_cancelled, NULL);
    case_add("/filter-redirector/migration/failed", test_failed, NULL);
    case_add("/filter-redirector/migration/completed", test_completed, NULL);

    return g_test_run();
}
