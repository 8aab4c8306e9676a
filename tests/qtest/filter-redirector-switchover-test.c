/*
 * QTest of filter-redirector: the source of a migration, whatever stopped its
 * machine and however the migration ends
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include <sys/socket.h>
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qobject/qlist.h"
#include "filter-redirector-machine.h"

/*
 * What stops a machine, and what lets it go on
 */

typedef struct Halt {
    const char *name;
    const char *device;     /* that it needs; NULL: none */
    const char *args;
    Machine *(*start)(void);    /* NULL: with args, and it runs, as a rule */
    void (*halt)(Machine *m);   /* NULL: it has halted by itself */
    void (*resume)(Machine *m);
    const char *state;      /* run state in between */
    const char *phase;      /* "stopped" if NULL */
    bool resets;            /* who resumes it resets the NIC */
    bool from_start;        /* the machine has never run */
} Halt;

static void halt_stop(Machine *m)
{
    rig_stop(m->r);
}

static void resume_cont(Machine *m)
{
    rig_cont(m->r);
}

#define BLK_SLOT 8
#define BLK_HEADER_LEN 16
#define BLK_SECTOR 512

/* Write a sector of the disk, whose image fails the first write. */
static void halt_io_error(Machine *m)
{
    QTestState *qts = m->r->qts;
    QPCIAddress addr = { .devfn = QPCI_DEVFN(BLK_SLOT, 0) };
    QVirtioPCIDevice *blk = virtio_pci_new(m->pc.bus, &addr);
    uint64_t req = guest_alloc(&m->pc.alloc, BLK_HEADER_LEN + BLK_SECTOR + 1);
    uint32_t head;
    QVirtQueue *vq;

    qvirtio_pci_device_enable(blk);
    qvirtio_start_device(&blk->vdev);
    qvirtio_set_features(&blk->vdev, 1ull << VIRTIO_F_VERSION_1);
    vq = qvirtqueue_setup(&blk->vdev, &m->pc.alloc, 0);
    qvirtio_set_driver_ok(&blk->vdev);
    qtest_memset(qts, req, 0, BLK_HEADER_LEN + BLK_SECTOR + 1);
    qtest_writeb(qts, req, 1);  /* VIRTIO_BLK_T_OUT */
    head = qvirtqueue_add(qts, vq, req, BLK_HEADER_LEN, false, true);
    qvirtqueue_add(qts, vq, req + BLK_HEADER_LEN, BLK_SECTOR, false, true);
    qvirtqueue_add(qts, vq, req + BLK_HEADER_LEN + BLK_SECTOR, 1, true, false);
    qvirtqueue_kick(qts, &blk->vdev, vq, head);
    rig_wait_runstate(m->r, "io-error");
    qvirtqueue_cleanup(blk->vdev.bus, vq, &m->pc.alloc);
    qos_object_destroy(&blk->obj);
}

#define IO_ERROR_ARGS \
    "-drive if=none,id=disk,format=raw,file.driver=blkdebug," \
    "file.image.driver=null-co,file.image.read-zeroes=on," \
    "file.inject-error.0.event=write_aio,file.inject-error.0.once=on," \
    "werror=stop -device virtio-blk-pci,drive=disk,addr=08.0," \
    "disable-legacy=on"

static void halt_watchdog(Machine *m)
{
    qtest_outb(m->r->qts, 0x443, 13);   /* armed: 4 seconds */
    qtest_clock_step(m->r->qts, 5 * NANOSECONDS_PER_SECOND);
}

static void halt_panic(Machine *m)
{
    qtest_outb(m->r->qts, 0x505, 1);
}

static void halt_suspend(Machine *m)
{
    pc_sleep(&m->pc, 1);
}

/*
 * The machine runs at once, and its NIC takes packets as its driver has told
 * it; its devices are reset a little later.
 */
static void resume_wakeup(Machine *m)
{
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'system_wakeup'}");
    qtest_qmp_eventwait(m->r->qts, "WAKEUP");
}

static void halt_shutdown(Machine *m)
{
    pc_sleep(&m->pc, 0);
}

static void resume_reset(Machine *m)
{
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'system_reset'}");
    rig_wait_runstate(m->r, "prelaunch");
    rig_cont(m->r);
}

static void migrate_to_file(Machine *m, const char *file)
{
    g_autofree char *uri = g_strdup_printf("exec:cat > %s", file);

    qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate', "
                             "'arguments': {'uri': %s}}", uri);
    wait_migration(m, "completed");
}

/*
 * Makes of a paused machine's saved state one that an internal error stopped:
 * its run state is in there, as a length and a string.
 */
static void change_saved_runstate(const char *file, const char *from,
                                  const char *to)
{
    g_autofree char *want = g_strdup_printf("----%s", from);
    const size_t len = strlen(want) + 1;
    g_autofree char *state = NULL;
    bool found = false;
    gsize size;
    char *p;

    g_assert_true(g_file_get_contents(file, &state, &size, NULL));
    stl_be_p(want, strlen(from) + 1);
    for (p = state; p && !found; ) {
        p = memmem(p + 1, state + size - p - 1, want, len);
        found = p && memmem(p - 100, 100, "globalstate", 11);
    }
    g_assert_true(found);
    stl_be_p(p, strlen(to) + 1);
    strcpy(p + 4, to);
    g_assert_true(g_file_set_contents(file, state, size, NULL));
}

/*
 * Only an accelerator reports an internal error, and the test's has none.  But
 * the machine may also come from a host where it had one.  Its guest's driver
 * does the same on both, so that its rings are where the NIC believes them.
 */
static Machine *start_internal_error(void)
{
    g_autofree char *dir = g_dir_make_tmp("qtest-redirector-XXXXXX", NULL);
    g_autofree char *file = g_strdup_printf("%s/state", dir);
    g_autofree char *uri = g_strdup_printf("exec:cat %s", file);
    Machine *m = machine_start("", "id=f1,netdev=x,outdev=co,status=off");

    rig_stop(m->r);
    migrate_to_file(m, file);
    machine_free(m);
    change_saved_runstate(file, "paused", "internal-error");

    m = machine_start("-incoming defer", HAND_OVER);
    rig_wait_phase(m->r, "f0", "incoming");
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate-incoming', "
                             "'arguments': {'uri': %s}}", uri);
    rig_wait_runstate(m->r, "internal-error");
    unlink(file);
    rmdir(dir);
    return m;
}

static const Halt halts[] = {
    { "switchover", .resume = NULL, .state = "running" },
    { "stop", .halt = halt_stop, .resume = resume_cont, .state = "paused" },
    { "io-error", .device = "virtio-blk-pci", .args = IO_ERROR_ARGS,
      .halt = halt_io_error, .resume = resume_cont, .state = "io-error" },
    { "watchdog", .device = "ib700",
      .args = "-device ib700 -action watchdog=pause",
      .halt = halt_watchdog, .resume = resume_cont, .state = "watchdog" },
    { "panic", .device = "pvpanic",
      .args = "-device pvpanic -action panic=pause", .halt = halt_panic,
      .resume = resume_cont, .state = "guest-panicked" },
    { "shutdown", .args = "-action shutdown=pause", .halt = halt_shutdown,
      .resume = resume_reset, .state = "shutdown", .resets = true },
    { "suspend", .halt = halt_suspend, .resume = resume_wakeup,
      .state = "suspended", .phase = "running", .resets = true },
    { "prelaunch", .args = "-S", .resume = resume_cont, .state = "prelaunch",
      .from_start = true },
    { "internal-error", .start = start_internal_error, .resume = resume_reset,
      .state = "internal-error", .resets = true, .from_start = true },
};

/*
 * The cases: a machine halts, before its migration begins or after that; in
 * the end the guest goes on here, or there.
 */

typedef struct Path {
    const char *name;
    bool halt_first;
    Place place;            /* where the migration is when it ends */
} Path;

static const Path paths[] = {
    { "before", true, PLACE_ACTIVE },
    { "before-late", true, PLACE_SWITCHOVER },
    { "during", false, PLACE_ACTIVE },
    { "during-late", false, PLACE_SWITCHOVER },
};

typedef struct SwitchCase {
    const Halt *halt;
    const Path *path;
    void (*end)(Machine *m, const struct SwitchCase *c);
} SwitchCase;

static const char *halted_phase(const SwitchCase *c)
{
    return c->path->place == PLACE_SWITCHOVER ? "stopped"
                                              : c->halt->phase ?: "stopped";
}

static Machine *start_for(const Halt *h)
{
    Machine *m = h->start ? h->start()
                          : machine_start(h->args ?: "", HAND_OVER);

    if (!h->from_start) {
        rig_wait_phase(m->r, "f0", "running");
        send_step(m);
        guest_gets_all(m);
    }
    return m;
}

static void do_halt(Machine *m, const Halt *h)
{
    if (h->halt) {
        h->halt(m);
        rig_wait_runstate(m->r, h->state);
    }
    if (h->halt || h->from_start) {
        rig_wait_phase(m->r, "f0", h->phase ?: "stopped");
    }
    m->asleep = h->phase;
}

static void redrive(Machine *m)
{
    guest_takes(m);
    pc_nic_redrive(&m->pc, 0, 0, 1);
    m->was_reset = true;
}

static void wake_up(Machine *m)
{
    if (m->asleep) {
        guest_takes(m);
        m->asleep = false;
    }
}

/* The guest goes on after a migration that came to nothing. */
static void do_resume(Machine *m, const Halt *h)
{
    rig_wait_runstate(m->r, h->state);
    wake_up(m);
    if (h->resume) {
        h->resume(m);
        rig_wait_runstate(m->r, "running");
    }
    if (h->resets) {
        redrive(m);
    }
    rig_wait_phase(m->r, "f0", "running");
}

static void end_cancelled(Machine *m, const SwitchCase *c)
{
    migrate_cancel(m);
    do_resume(m, c->halt);
    check_guest_goes_on(m);
}

static void end_failed(Machine *m, const SwitchCase *c)
{
    migrate_break(m, c->path->place);
    do_resume(m, c->halt);
    check_guest_goes_on(m);
}

/* Packets come between the migration's end and what the guest does next. */
static void end_cancelled_wait(Machine *m, const SwitchCase *c)
{
    migrate_cancel(m);
    if (c->halt->resume) {
        rig_wait_runstate(m->r, c->halt->state);
        rig_wait_phase(m->r, "f0", c->halt->phase ?: "stopped");
        send_step(m);
        expect_nothing_more(m);
    }
    do_resume(m, c->halt);
    check_guest_goes_on(m);
}

static void end_completed(Machine *m, const SwitchCase *c)
{
    migrate_complete(m, c->path->place);
    check_handed_over(m);
}

/* The first attempt comes to nothing. */
static void end_retried(Machine *m, const SwitchCase *c)
{
    migrate_cancel(m);
    if (!c->halt->resume) {
        rig_wait_runstate(m->r, "running");
        guest_gets_all(m);
        guest_lost_nothing(m);
    }
    migrate_begin(m, c->path->place);
    migrate_arrive(m, c->path->place);
    send_step(m);
    expect_nothing_more(m);
    migrate_complete(m, c->path->place);
    check_handed_over(m);
}

static void cont_after_completed(Machine *m)
{
    rig_cont(m->r);
    rig_wait_runstate(m->r, "running");
    rig_wait_phase(m->r, "f0", "running");
}

/* What has been handed over comes back, in front of the rest. */
static void end_cont(Machine *m, const SwitchCase *c)
{
    const uint32_t first = m->seen;
    uint64_t handed_over;

    migrate_complete(m, c->path->place);
    check_handed_over(m);
    handed_over = rig_stat(m->r, "f0", "output.stats.packets");
    cont_after_completed(m);
    m->seen = first;
    send_step(m);
    guest_gets_all(m);
    assert_stat(m->r, "f0", "output.stats.packets", handed_over);
    assert_stat(m->r, "f0", "output.stats.lost", 0);
}

/* Then what has been handed over is gone; all the rest is the guest's. */
static void end_announced_cont(Machine *m, const SwitchCase *c)
{
    uint64_t handed_over;

    migrate_complete(m, c->path->place);
    check_handed_over(m);
    send_announcement(m);
    wait_announced(m);
    handed_over = rig_stat(m->r, "f0", "output.stats.packets");
    cont_after_completed(m);
    send_step(m);
    guest_gets_all(m);
    assert_stat(m->r, "f0", "output.stats.packets", handed_over);
}

/* The manager has not said yet that the guest is not to go on here. */
static void end_kept(Machine *m, const SwitchCase *c)
{
    rig_set(m->r, "f0", "status", "off");
    migrate_complete(m, c->path->place);
    rig_wait_phase(m->r, "f0", "migrated");
    send_step(m);
    expect_nothing_more(m);
    rig_set(m->r, "f0", "status", "on");
    check_handed_over(m);
}

static void end_kept_cont(Machine *m, const SwitchCase *c)
{
    rig_set(m->r, "f0", "status", "off");
    migrate_complete(m, c->path->place);
    rig_wait_phase(m->r, "f0", "migrated");
    send_step(m);
    expect_nothing_more(m);
    cont_after_completed(m);
    check_guest_goes_on(m);
}

static const struct {
    const char *name;
    void (*end)(Machine *m, const SwitchCase *c);
    bool conts;             /* the machine that has left is run */
} ends[] = {
    { "cancelled", end_cancelled },
    { "cancelled-wait", end_cancelled_wait },
    { "failed", end_failed },
    { "completed", end_completed },
    { "retried", end_retried },
    { "cont", end_cont, true },
    { "announced-cont", end_announced_cont, true },
    { "kept", end_kept },
    { "kept-cont", end_kept_cont, true },
};

static void test_switch(const void *data)
{
    const SwitchCase *c = data;
    Machine *m = start_for(c->halt);

    if (c->path->halt_first) {
        do_halt(m, c->halt);
        send_step(m);
        expect_nothing_more(m);
    }
    migrate_begin(m, c->path->place);
    if (!c->path->halt_first) {
        do_halt(m, c->halt);
    }
    migrate_arrive(m, c->path->place);
    rig_wait_phase(m->r, "f0", halted_phase(c));
    send_step(m);
    expect_nothing_more(m);
    guest_lost_nothing(m);
    c->end(m, c);
    machine_free(m);
}

/* Without a migration: it halts and goes on. */
static void test_halt(const void *data)
{
    const Halt *h = data;
    Machine *m = start_for(h);

    do_halt(m, h);
    send_step(m);
    expect_nothing_more(m);
    do_resume(m, h);
    check_guest_goes_on(m);
    machine_free(m);
}

static bool halt_fits(const Halt *h, const Path *p)
{
    if (h->from_start) {
        return p->halt_first;
    }
    /* A machine that nothing halts is halted by its migration, late. */
    return h->halt || (!p->halt_first && p->place == PLACE_SWITCHOVER);
}

/* QEMU aborts when a suspended machine that has left is continued. */
static bool end_fits(const Halt *h, bool conts)
{
    return !conts || !h->phase;
}

static void add_switch_cases(void)
{
    static SwitchCase cases[ARRAY_SIZE(halts)][ARRAY_SIZE(paths)]
                           [ARRAY_SIZE(ends)];
    unsigned h, p, e;

    for (h = 0; h < ARRAY_SIZE(halts); h++) {
        if (halts[h].device && !qtest_has_device(halts[h].device)) {
            continue;
        }
        if (halts[h].resume) {
            g_autofree char *path =
                g_strdup_printf("/filter-redirector/switchover/%s/resumed",
                                halts[h].name);

            case_add(path, test_halt, &halts[h]);
        }
        for (p = 0; p < ARRAY_SIZE(paths); p++) {
            for (e = 0; e < ARRAY_SIZE(ends); e++) {
                SwitchCase *c = &cases[h][p][e];
                g_autofree char *path =
                    g_strdup_printf("/filter-redirector/switchover/%s/%s/%s",
                                    halts[h].name, paths[p].name,
                                    ends[e].name);

                *c = (SwitchCase) { &halts[h], &paths[p], ends[e].end };
                if (halt_fits(&halts[h], &paths[p]) &&
                    end_fits(&halts[h], ends[e].conts)) {
                    case_add(path, test_switch, c);
                }
            }
        }
    }
}

/*
 * QEMU itself stops the machine for a while, and lets it go on
 */

static void qmp_while_sending(Machine *m, const char *command)
{
    QDict *reply;

    qtest_qmp_send_raw(m->r->qts, "%s", command);
    send_paced(m);
    reply = qtest_qmp_receive(m->r->qts);
    g_assert_true(qdict_haskey(reply, "return"));
    qobject_unref(reply);
}

static char *job_status(Machine *m)
{
    QDict *reply = qtest_qmp(m->r->qts, "{'execute': 'query-jobs'}");
    const QListEntry *e = qlist_first(qdict_get_qlist(reply, "return"));
    QDict *job = qobject_to(QDict, qlist_entry_obj(e));
    char *status = g_strdup(qdict_get_str(job, "status"));

    g_assert_cmpstr(qdict_get_try_str(job, "error"), ==, NULL);
    qobject_unref(reply);
    return status;
}

/* The only job there is. */
static void job_finish(Machine *m)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    char *now = job_status(m);

    while (strcmp(now, "concluded") && g_get_monotonic_time() < end) {
        g_usleep(1000);
        g_free(now);
        now = job_status(m);
    }
    g_assert_cmpstr(now, ==, "concluded");
    g_free(now);
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'job-dismiss', "
                             "'arguments': {'id': 'job'}}");
}

/* Adds a disk for snapshots, which no device has. */
static void disk_add(Machine *m, const char *path)
{
    QTestState *qts = m->r->qts;

    qtest_qmp_assert_success(qts, "{'execute': 'blockdev-create', "
                             "'arguments': {'job-id': 'job', 'options': {"
                             "'driver': 'file', 'filename': %s, "
                             "'size': 0}}}", path);
    job_finish(m);
    qtest_qmp_assert_success(qts, "{'execute': 'blockdev-add', "
                             "'arguments': {'driver': 'file', "
                             "'node-name': 'file', 'filename': %s}}", path);
    qtest_qmp_assert_success(qts, "{'execute': 'blockdev-create', "
                             "'arguments': {'job-id': 'job', 'options': {"
                             "'driver': 'qcow2', 'file': 'file', "
                             "'size': 1048576}}}");
    job_finish(m);
    qtest_qmp_assert_success(qts, "{'execute': 'blockdev-add', "
                             "'arguments': {'driver': 'qcow2', "
                             "'node-name': 'disk', 'file': 'file'}}");
}

static void do_savevm(Machine *m)
{
    qmp_while_sending(m, "{\"execute\": \"human-monitor-command\", "
                      "\"arguments\": {\"command-line\": \"savevm s0\"}}");
}

static void do_snapshot_save(Machine *m)
{
    qmp_while_sending(m, "{\"execute\": \"snapshot-save\", \"arguments\": {"
                      "\"job-id\": \"job\", \"tag\": \"s1\", "
                      "\"vmstate\": \"disk\", \"devices\": [\"disk\"]}}");
    job_finish(m);
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'snapshot-delete', "
                             "'arguments': {'job-id': 'job', 'tag': 's1', "
                             "'devices': ['disk']}}");
    job_finish(m);
}

/*
 * The machine stands still while its memory is written.
 * @data: by which command; NULL: savevm
 */
static void test_snapshot(const void *data)
{
    void (*save)(Machine *m) = data ? do_snapshot_save : do_savevm;
    g_autofree char *dir = g_dir_make_tmp("qtest-redirector-XXXXXX", NULL);
    g_autofree char *path = g_strdup_printf("%s/disk", dir);
    Machine *m = machine_start("", HAND_OVER);
    unsigned i;

    disk_add(m, path);
    fill_memory(m);
    for (i = 0; i < 5; i++) {
        save(m);
        expect_going_on(m);
    }
    /* A machine that stood still already goes on doing so. */
    rig_stop(m->r);
    save(m);
    rig_wait_runstate(m->r, "paused");
    rig_wait_phase(m->r, "f0", "stopped");
    expect_nothing_more(m);
    rig_cont(m->r);
    expect_going_on(m);
    machine_free(m);
    unlink(path);
    rmdir(dir);
}

static void dump_begin(Machine *m)
{
    int fd[2];

    fill_memory(m);
    stream_close(m);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), ==,
                    0);
    m->stream = fd[0];
    qtest_qmp_fds_assert_success(m->r->qts, &fd[1], 1, "{'execute': 'getfd', "
                                 "'arguments': {'fdname': 'dump'}}");
    close(fd[1]);
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'dump-guest-memory', "
                             "'arguments': {'paging': false, 'detach': true, "
                             "'protocol': 'fd:dump'}}");
}

/*
 * Until somebody reads the dump the machine stands still.  QEMU refuses a
 * migration meanwhile, and a dump during a migration.
 */
static void test_dump(const void *unused)
{
    Machine *m = machine_start("", HAND_OVER);
    unsigned i;

    for (i = 0; i < 2; i++) {
        dump_begin(m);
        rig_wait_runstate(m->r, "save-vm");
        rig_wait_phase(m->r, "f0", "stopped");
        send_step(m);
        expect_nothing_more(m);
        migrate_let_go(m);
        expect_going_on(m);
        stream_close(m);
    }
    migrate_begin(m, PLACE_NONE);
    send_step(m);
    guest_gets_all(m);
    migrate_complete(m, PLACE_NONE);
    check_handed_over(m);
    machine_free(m);
}

/* Return: false if it can't be done, and the case has been skipped */
static bool background_snapshot(Machine *m)
{
    if (!enable_capability(m->r, "background-snapshot")) {
        return false;
    }
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate', 'arguments': "
                             "{'uri': 'exec:cat > /dev/null'}}");
    send_paced(m);
    wait_migration(m, "completed");
    set_capability(m, "background-snapshot", false);
    return true;
}

/*
 * A migration that completes, and the guest goes on here.  A later one takes
 * it away.
 */
static void test_background_snapshot(const void *unused)
{
    Machine *m = machine_start("", HAND_OVER);

    send_step(m);
    guest_gets_all(m);
    if (background_snapshot(m)) {
        expect_going_on(m);
        rig_stop(m->r);
        rig_wait_phase(m->r, "f0", "stopped");
        send_step(m);
        expect_nothing_more(m);
        rig_cont(m->r);
        expect_going_on(m);

        rig_stop(m->r);
        background_snapshot(m);
        rig_wait_runstate(m->r, "paused");
        rig_wait_phase(m->r, "f0", "stopped");
        send_step(m);
        expect_nothing_more(m);
        rig_cont(m->r);
        expect_going_on(m);

        migrate_begin(m, PLACE_NONE);
        migrate_complete(m, PLACE_NONE);
        check_handed_over(m);
    }
    machine_free(m);
}

/*
 * Other ends of migrations
 */

/* @data: whether the machine runs meanwhile */
static void test_bad_uri(const void *data)
{
    Machine *m = machine_start("", HAND_OVER);

    if (!data) {
        rig_stop(m->r);
    }
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate', 'arguments': "
                             "{'uri': 'unix:/nonexistent/socket'}}");
    wait_migration(m, "failed");
    send_step(m);
    if (!data) {
        rig_wait_phase(m->r, "f0", "stopped");
        expect_nothing_more(m);
        rig_cont(m->r);
    }
    expect_going_on(m);
    machine_free(m);
}

/*
 * The guest has given no buffers: a packet waits in the NIC's queue when the
 * machine stops, in front of those in the TAP.  It is the guest's, here or
 * there.
 * @data: whether the guest goes on here
 */
static void test_full_nic(const void *data)
{
    Machine *m = machine_new("", 0);

    pc_add_nic(&m->pc, m->r, "x", NIC_PROPS);
    pc_start(&m->pc);
    pc_nic_set_up(&m->pc, 0, 0, 1);
    rig_add(m->r, HAND_OVER);
    send_step(m);
    rig_wait_tx_packets(m->r, m->x, 1);
    rig_stop(m->r);
    send_step(m);
    expect_nothing_more(m);
    migrate_begin(m, PLACE_SWITCHOVER);
    migrate_arrive(m, PLACE_SWITCHOVER);
    send_step(m);
    expect_nothing_more(m);
    if (data) {
        migrate_cancel(m);
        rig_wait_runstate(m->r, "paused");
        rig_cont(m->r);
        pc_nic_give_buffers(&m->pc, 0);
        check_guest_goes_on(m);
    } else {
        migrate_complete(m, PLACE_SWITCHOVER);
        check_handed_over(m);
    }
    machine_free(m);
}

/*
 * A guest that is run here again takes nothing: what was handed over is lost to
 * it, which is told where one looks
 */
static void test_full_nic_again(const void *unused)
{
    Machine *m = machine_new("", 0);
    uint64_t handed_over;

    pc_add_nic(&m->pc, m->r, "x", NIC_PROPS);
    pc_start(&m->pc);
    pc_nic_set_up(&m->pc, 0, 0, 1);
    rig_add(m->r, HAND_OVER);
    migrate_begin(m, PLACE_NONE);
    migrate_complete(m, PLACE_NONE);
    check_handed_over(m);
    handed_over = rig_stat(m->r, "f0", "output.stats.packets");
    g_assert_cmpuint(handed_over, >, 0);
    assert_stat(m->r, "f0", "output.stats.lost", 0);
    rig_cont(m->r);
    /* One waits in the NIC's queue. */
    rig_wait_stat(m->r, "f0", "output.stats.lost", handed_over - 1);
    machine_free(m);
}

/*
 * More is handed over than is kept for a guest that may come back.  Nobody
 * would tell when it runs: all goes on at once, and nothing comes back.
 */
static void test_full_loan(const void *unused)
{
    const unsigned step = 100, size = 1514, n = 36 * MiB / size / step;
    Machine *m = machine_start("", HAND_OVER);
    g_autofree uint8_t *data = g_malloc(PACKET_MAX);
    unsigned i, j;

    migrate_begin(m, PLACE_NONE);
    migrate_complete(m, PLACE_NONE);
    rig_wait_phase(m->r, "f0", "migrated");
    for (i = 0; i < n; i++) {
        const int64_t start = g_get_monotonic_time();

        send_packets(m->x->outside, size, m->sent, step);
        for (j = 0; j < step; j++) {
            g_assert_cmpuint(recv_frame(m->co, data, VNET_LEN), ==,
                             VNET_LEN + size);
            g_assert_cmpuint(packet_seq(data + VNET_LEN), ==, m->sent++);
        }
        /* A loan lasts for ten seconds. */
        g_assert_cmpint(g_get_monotonic_time() - start, <,
                        5 * G_USEC_PER_SEC);
    }
    m->seen = m->sent;
    rig_cont(m->r);
    rig_wait_phase(m->r, "f0", "running");
    send_step(m);
    guest_gets_all(m);
    machine_free(m);
}

/* Many attempts, then one that goes to its end. */
static void test_many_attempts(const void *unused)
{
    Machine *m = machine_start("", HAND_OVER);
    unsigned i;

    for (i = 0; i < 10; i++) {
        const Place place = i & 1 ? PLACE_SWITCHOVER : PLACE_ACTIVE;

        if (i & 2) {
            rig_stop(m->r);
        }
        migrate_begin(m, place);
        migrate_arrive(m, place);
        send_step(m);
        if (i & 4) {
            migrate_break(m, place);
        } else {
            migrate_cancel(m);
        }
        if (i & 2) {
            rig_wait_runstate(m->r, "paused");
            expect_nothing_more(m);
            rig_cont(m->r);
        }
        expect_going_on(m);
    }
    migrate_begin(m, PLACE_NONE);
    migrate_complete(m, PLACE_NONE);
    check_handed_over(m);
    machine_free(m);
}

/* The guest is handed over, goes on here all the same, and so on. */
static void test_to_and_fro(const void *unused)
{
    Machine *m = machine_start("", HAND_OVER);
    unsigned i;

    for (i = 0; i < 3; i++) {
        const uint32_t first = m->seen;

        migrate_begin(m, PLACE_NONE);
        migrate_complete(m, PLACE_NONE);
        check_handed_over(m);
        rig_cont(m->r);
        rig_wait_phase(m->r, "f0", "running");
        m->seen = first;
        send_step(m);
        guest_gets_all(m);
    }
    machine_free(m);
}

/*
 * More comes at the switchover than the TAP's queue holds.
 * @data: the migration is cancelled
 */
static void test_long_switchover(const void *data)
{
    Machine *m = machine_start("", HAND_OVER);
    uint64_t read;
    unsigned i;

    if_set_txqueuelen(m->x->ifname, 2 * STEP);
    migrate_begin(m, PLACE_SWITCHOVER);
    migrate_arrive(m, PLACE_SWITCHOVER);
    rig_wait_phase(m->r, "f0", "stopped");
    read = if_tx_packets(m->x->ifname);
    for (i = 0; i < 20; i++) {
        send_step(m);
        read += STEP;
        rig_wait_tx_packets(m->r, m->x, read);
    }
    expect_nothing_more(m);
    if (data) {
        migrate_cancel(m);
        rig_wait_phase(m->r, "f0", "running");
        guest_gets_all(m);
    } else {
        migrate_complete(m, PLACE_SWITCHOVER);
        check_handed_over(m);
    }
    machine_free(m);
}

/* The object is made when the machine has already got somewhere. */
static void test_made_late(const void *unused)
{
    Machine *m = machine_start("", "id=f1,netdev=x,outdev=co,status=off");
    uint32_t first;

    rig_del(m->r, "f1");
    migrate_begin(m, PLACE_SWITCHOVER);
    migrate_arrive(m, PLACE_SWITCHOVER);
    rig_add(m->r, HAND_OVER);   /* which can't know how far it has got */
    send_step(m);
    expect_nothing_more(m);
    migrate_complete(m, PLACE_SWITCHOVER);
    check_handed_over(m);
    rig_del(m->r, "f0");

    rig_add(m->r, HAND_OVER);
    first = m->seen;
    check_handed_over(m);
    rig_cont(m->r);
    rig_wait_phase(m->r, "f0", "running");
    m->seen = first;
    send_step(m);
    guest_gets_all(m);
    rig_del(m->r, "f0");

    rig_stop(m->r);
    rig_add(m->r, HAND_OVER);
    rig_wait_phase(m->r, "f0", "stopped");
    send_step(m);
    expect_nothing_more(m);
    rig_cont(m->r);
    expect_going_on(m);
    machine_free(m);
}

/* Nobody is there to take what is handed over: it stays in the TAP. */
static void test_no_peer(const void *data)
{
    Machine *m = machine_new("", 0);
    g_autofree char *path = rig_server(m->r, "srv");

    pc_add_nic(&m->pc, m->r, "x", NIC_PROPS);
    pc_start(&m->pc);
    pc_nic_drive(&m->pc, 0, 0, 1);
    rig_add(m->r, "id=f0,netdev=x,queue=tx,outdev=srv,vnet_hdr_support=on,"
            "enable_when_stopped=on,enable_when_running=off");
    migrate_begin(m, PLACE_NONE);
    migrate_complete(m, PLACE_NONE);
    rig_wait_phase(m->r, "f0", "migrated");
    send_step(m);
    expect_nothing_more(m);
    rig_wait_state(m->r, "f0", "output", "disconnected");
    if (data) {
        rig_cont(m->r);
        expect_going_on(m);
    } else {
        rig_close(m->r, m->co);
        m->co = rig_connect(m->r, path);
        check_handed_over(m);
    }
    machine_free(m);
}

#define PREFIX "/filter-redirector/switchover/"

static void add_other_cases(void)
{
    case_add(PREFIX "dump", test_dump, NULL);
    case_add(PREFIX "savevm", test_snapshot, NULL);
    case_add(PREFIX "snapshot-save", test_snapshot, "job");
    case_add(PREFIX "background-snapshot", test_background_snapshot, NULL);
    case_add(PREFIX "bad-uri/running", test_bad_uri, "running");
    case_add(PREFIX "bad-uri/stopped", test_bad_uri, NULL);
    case_add(PREFIX "full-nic/cont", test_full_nic, "cont");
    case_add(PREFIX "full-nic/completed", test_full_nic, NULL);
    case_add(PREFIX "full-nic/again", test_full_nic_again, NULL);
    case_add(PREFIX "full-loan", test_full_loan, NULL);
    case_add(PREFIX "many-attempts", test_many_attempts, NULL);
    case_add(PREFIX "to-and-fro", test_to_and_fro, NULL);
    case_add(PREFIX "long/completed", test_long_switchover, NULL);
    case_add(PREFIX "long/cancelled", test_long_switchover, "cancelled");
    case_add(PREFIX "made-late", test_made_late, NULL);
    case_add(PREFIX "no-peer/connected", test_no_peer, NULL);
    case_add(PREFIX "no-peer/cont", test_no_peer, "cont");
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    if (qtest_has_device("virtio-net-pci")) {
        add_switch_cases();
        add_other_cases();
    }
    return g_test_run();
}
