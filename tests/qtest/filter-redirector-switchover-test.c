/*
 * QTest of filter-redirector: the source of a migration, whatever stopped its
 * machine and however the migration ends
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <linux/if_ether.h>
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qobject/qlist.h"
#include "filter-redirector-nic.h"

/*
 * A machine with a virtio-net device on TAP x, whose driver is the test, and
 * a redirector f0.  All packets are numbered, and at each point it is known
 * who has to have got which: the guest, the chardev, or nobody yet.
 */

#define SIZE 200            /* bytes of each packet */
#define STEP 10             /* packets sent in each step */
#define VNET_LEN 12         /* the NIC's vnet header on the chardev */

#define NIC_PROPS "disable-legacy=on"

#define HAND_OVER "id=f0,netdev=x,queue=tx,outdev=co,vnet_hdr_support=on," \
                  "enable_when_stopped=on,enable_when_running=off"

typedef struct Machine {
    Pc pc;
    Rig *r;
    Port *x;
    int co;
    int stream;             /* the migration's other end; -1: none */
    Drain *drain;           /* reads it */
    bool asleep;            /* the guest is in S3, its NIC is not */
    bool was_reset;         /* ... with a packet in the NIC's queue, perhaps */
    uint32_t sent;          /* packets sent into the TAP */
    uint32_t seen;          /* of them, somebody got */
} Machine;

static Machine *machine_new(const char *args, unsigned tap_bits)
{
    Machine *m = g_new0(Machine, 1);

    m->stream = -1;
    m->r = rig_new();
    m->x = rig_tap(m->r, "x", tap_bits);
    m->co = rig_chardev(m->r, "co");
    g_string_append_printf(m->r->args, "-m 64 %s ", args);
    return m;
}

static Machine *machine_start(const char *args, const char *props)
{
    Machine *m = machine_new(args, 0);

    pc_add_nic(&m->pc, m->r, "x", NIC_PROPS);
    pc_start(&m->pc);
    pc_nic_drive(&m->pc, 0, 0, 1);
    rig_add(m->r, props);
    return m;
}

static void stream_close(Machine *m)
{
    if (m->drain) {
        drain_stop(m->drain);
        m->drain = NULL;
    }
    if (m->stream >= 0) {
        close(m->stream);
        m->stream = -1;
    }
}

static void machine_free(Machine *m)
{
    stream_close(m);
    pc_end(&m->pc);
    g_free(m);
}

/*
 * Packets
 */

static void send_step(Machine *m)
{
    send_packets(m->x->outside, SIZE, m->sent, STEP);
    m->sent += STEP;
}

/* What the guest finds in its memory when it wakes up. */
static void guest_takes(Machine *m)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    size_t got;

    while ((got = pc_nic_poll(&m->pc, 0, 0, packet))) {
        g_assert_cmpuint(packet_seq(packet), ==, m->seen);
        packet_check(packet, got);
        m->seen++;
    }
}

static void expect_nothing_more(Machine *m)
{
    rig_sync(m->r);
    expect_silence(m->co);
    if (m->asleep) {
        guest_takes(m);
    } else {
        pc_nic_expect_silence(&m->pc, 0);
    }
}

/*
 * Before a driver works QEMU takes one packet out of the TAP, and drops it when
 * the driver says that it does: with and without a redirector.
 */
static void guest_gets_first(Machine *m)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);

    while (!pc_nic_poll(&m->pc, 0, 0, packet)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    m->seen += packet_seq(packet) == m->seen + 1;
    g_assert_cmpuint(packet_seq(packet), ==, m->seen);
    m->seen++;
}

/* All that nobody has seen yet is the guest's, and nobody else's. */
static void guest_gets_all(Machine *m)
{
    if (m->was_reset && m->seen < m->sent) {
        guest_gets_first(m);
    }
    m->was_reset = false;
    pc_nic_expect(&m->pc, 0, SIZE, m->seen, m->sent - m->seen);
    m->seen = m->sent;
    expect_nothing_more(m);
}

static void outdev_expect(Machine *m, uint32_t first, uint32_t n)
{
    g_autofree uint8_t *data = g_malloc(PACKET_MAX);
    uint32_t i;

    for (i = 0; i < n; i++) {
        g_assert_cmpuint(recv_frame(m->co, data, VNET_LEN), ==,
                         VNET_LEN + SIZE);
        g_assert_cmpuint(packet_seq(data + VNET_LEN), ==, first + i);
        packet_check(data + VNET_LEN, SIZE);
    }
}

static void outdev_gets_all(Machine *m)
{
    outdev_expect(m, m->seen, m->sent - m->seen);
    m->seen = m->sent;
    expect_nothing_more(m);
}

static void guest_lost_nothing(Machine *m)
{
    assert_stat(m->r, "f0", "output.stats.packets", 0);
    assert_stat(m->r, "f0", "output.stats.lost", 0);
}

/*
 * Migration, into a stream that the test reads or doesn't
 */

static char *migration_status(Machine *m)
{
    QDict *reply = qtest_qmp_assert_success_ref(
        m->r->qts, "{'execute': 'query-migrate'}");
    char *status = g_strdup(qdict_get_try_str(reply, "status") ?: "none");

    qobject_unref(reply);
    return status;
}

static void wait_migration(Machine *m, const char *status)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    char *now = migration_status(m);

    while (strcmp(now, status) && g_get_monotonic_time() < end) {
        g_usleep(1000);
        g_free(now);
        now = migration_status(m);
    }
    g_assert_cmpstr(now, ==, status);
    g_free(now);
}

static void set_capability(Machine *m, const char *name, bool on)
{
    qtest_qmp_assert_success(m->r->qts,
                             "{'execute': 'migrate-set-capabilities', "
                             "'arguments': {'capabilities': ["
                             "{'capability': %s, 'state': %i}]}}",
                             name, on);
}

/* Where a migration waits for the test. */
typedef enum Place {
    PLACE_ACTIVE,           /* nobody reads the stream */
    PLACE_SWITCHOVER,       /* all but the last is sent, the machine stopped */
    PLACE_NONE,             /* it doesn't wait */
} Place;

/* More than the stream holds while nobody reads it. */
static void fill_memory(Machine *m)
{
    qtest_memset(m->r->qts, 32 * 1024 * 1024, 0x5a, 8 * 1024 * 1024);
}

static void migrate_begin(Machine *m, Place place)
{
    int fd[2];

    fill_memory(m);
    stream_close(m);
    set_capability(m, "pause-before-switchover", place == PLACE_SWITCHOVER);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), ==,
                    0);
    m->stream = fd[0];
    qtest_qmp_fds_assert_success(m->r->qts, &fd[1], 1, "{'execute': 'getfd', "
                                 "'arguments': {'fdname': 'mig'}}");
    close(fd[1]);
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate', "
                             "'arguments': {'uri': 'fd:mig'}}");
    wait_migration(m, "active");
}

static void migrate_let_go(Machine *m)
{
    if (!m->drain) {
        m->drain = drain_start(m->stream);
    }
}

static void migrate_arrive(Machine *m, Place place)
{
    if (place == PLACE_SWITCHOVER) {
        migrate_let_go(m);
        wait_migration(m, "pre-switchover");
    }
}

static void migrate_continue(Machine *m, Place place)
{
    if (place == PLACE_SWITCHOVER) {
        qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate-continue', "
                                 "'arguments': {'state': 'pre-switchover'}}");
    }
}

static void migrate_cancel(Machine *m)
{
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate_cancel'}");
    wait_migration(m, "cancelled");
    stream_close(m);
}

/* The other side is gone. */
static void migrate_break(Machine *m, Place place)
{
    stream_close(m);
    migrate_continue(m, place);
    wait_migration(m, "failed");
}

static void migrate_complete(Machine *m, Place place)
{
    migrate_let_go(m);
    migrate_continue(m, place);
    wait_migration(m, "completed");
    rig_wait_runstate(m->r, "postmigrate");
    stream_close(m);
}

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
    bool resets;            /* the guest's driver has to begin anew */
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

/* As a guest does, by the sleep type in the power management's register. */
static void acpi_sleep(Machine *m, unsigned type)
{
    const uint16_t base = 0x600;
    QPCIDevice *pm = qpci_device_find(m->pc.bus, QPCI_DEVFN(1, 3));

    g_assert_nonnull(pm);
    qpci_config_writel(pm, 0x40, base | 1);
    qpci_config_writeb(pm, 0x80, 1);
    qtest_outw(m->r->qts, base + 4, 1 << 13 | type << 10);
    g_free(pm);
}

static void halt_suspend(Machine *m)
{
    acpi_sleep(m, 1);
}

static void resume_wakeup(Machine *m)
{
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'system_wakeup'}");
}

static void halt_shutdown(Machine *m)
{
    acpi_sleep(m, 0);
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
 * the machine may also come from a host where it had one.
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

static void check_guest_goes_on(Machine *m)
{
    guest_gets_all(m);
    send_step(m);
    guest_gets_all(m);
    guest_lost_nothing(m);
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

static void check_handed_over(Machine *m)
{
    rig_wait_phase(m->r, "f0", "migrated");
    outdev_gets_all(m);
    send_step(m);
    outdev_gets_all(m);
    assert_stat(m->r, "f0", "output.stats.lost", 0);
    assert_stat(m->r, "f0", "output.stats.errors", 0);
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

static void cont_after_completed(Machine *m, const SwitchCase *c)
{
    rig_cont(m->r);
    if (c->halt->phase) {
        /* A suspended machine was migrated: it still is. */
        rig_wait_runstate(m->r, c->halt->state);
        wake_up(m);
        c->halt->resume(m);
    }
    if (c->halt->resets) {
        redrive(m);
    }
    rig_wait_runstate(m->r, "running");
    rig_wait_phase(m->r, "f0", "running");
}

/* What has been handed over can't come back; all the rest is the guest's. */
static void end_cont(Machine *m, const SwitchCase *c)
{
    uint64_t handed_over;

    migrate_complete(m, c->path->place);
    check_handed_over(m);
    handed_over = rig_stat(m->r, "f0", "output.stats.packets");
    cont_after_completed(m, c);
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
    cont_after_completed(m, c);
    check_guest_goes_on(m);
}

static const struct {
    const char *name;
    void (*end)(Machine *m, const SwitchCase *c);
} ends[] = {
    { "cancelled", end_cancelled },
    { "cancelled-wait", end_cancelled_wait },
    { "failed", end_failed },
    { "completed", end_completed },
    { "retried", end_retried },
    { "cont", end_cont },
    { "kept", end_kept },
    { "kept-cont", end_kept_cont },
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
    /* A machine that never ran has halted first; one that nothing halts is */
    /* halted by its migration, late. */
    return h->from_start ? p->halt_first :
           h->halt ? true :
           !p->halt_first && p->place == PLACE_SWITCHOVER;
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
                if (halt_fits(&halts[h], &paths[p])) {
                    case_add(path, test_switch, c);
                }
            }
        }
    }
}

/*
 * QEMU itself stops the machine for a while, and lets it go on
 */

/* Packets that come at any time while QEMU does something. */
static void send_paced(Machine *m)
{
    unsigned i;

    for (i = 0; i < 2 * STEP; i++) {
        send_packets(m->x->outside, SIZE, m->sent++, 1);
        g_usleep(500);
    }
}

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

static void expect_going_on(Machine *m)
{
    rig_wait_runstate(m->r, "running");
    rig_wait_phase(m->r, "f0", "running");
    check_guest_goes_on(m);
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
    QDict *reply = qtest_qmp(m->r->qts,
                             "{'execute': 'migrate-set-capabilities', "
                             "'arguments': {'capabilities': ["
                             "{'capability': 'background-snapshot', "
                             "'state': true}]}}");
    const bool ok = qdict_haskey(reply, "return");

    if (!ok) {
        g_test_skip(qdict_get_str(qdict_get_qdict(reply, "error"), "desc"));
    } else {
        qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate', "
                                 "'arguments': {"
                                 "'uri': 'exec:cat > /dev/null'}}");
        send_paced(m);
        wait_migration(m, "completed");
        set_capability(m, "background-snapshot", false);
    }
    qobject_unref(reply);
    return ok;
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
        migrate_begin(m, PLACE_NONE);
        migrate_complete(m, PLACE_NONE);
        check_handed_over(m);
        rig_cont(m->r);
        rig_wait_phase(m->r, "f0", "running");
        send_step(m);
        guest_gets_all(m);
    }
    machine_free(m);
}

/* The object is made when the machine has already got somewhere. */
static void test_made_late(const void *unused)
{
    Machine *m = machine_start("", "id=f1,netdev=x,outdev=co,status=off");

    rig_del(m->r, "f1");
    migrate_begin(m, PLACE_SWITCHOVER);
    migrate_arrive(m, PLACE_SWITCHOVER);
    rig_add(m->r, HAND_OVER);
    rig_wait_phase(m->r, "f0", "stopped");
    send_step(m);
    expect_nothing_more(m);
    migrate_complete(m, PLACE_SWITCHOVER);
    check_handed_over(m);
    rig_del(m->r, "f0");

    rig_add(m->r, HAND_OVER);
    check_handed_over(m);
    rig_cont(m->r);
    rig_wait_phase(m->r, "f0", "running");
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

/*
 * Local migration: the guest goes on in another QEMU on the same TAP
 */

static void set_mode(Rig *r, const char *mode)
{
    qtest_qmp_assert_success(r->qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'mode': %s}}", mode);
}

static void test_cpr_reboot(const void *data)
{
    const SwitchCase *c = data;
    Machine *m = start_for(c->halt);

    set_mode(m->r, "cpr-reboot");
    if (c->path->halt_first) {
        do_halt(m, c->halt);
    }
    migrate_begin(m, PLACE_NONE);
    migrate_complete(m, PLACE_NONE);
    rig_wait_phase(m->r, "f0", "local");
    send_step(m);
    expect_nothing_more(m);
    rig_cont(m->r);
    expect_going_on(m);

    /* The next migration is another one. */
    set_mode(m->r, "normal");
    migrate_begin(m, PLACE_NONE);
    migrate_complete(m, PLACE_NONE);
    check_handed_over(m);
    machine_free(m);
}

/*
 * Migration to another QEMU
 */

typedef struct Destination {
    Pc pc;
    Rig *r;
    Port *y;
    char *dir;
    char *uri;
    QVirtQueue rx;          /* the driver's view when the machine left */
    uint64_t buffers;
} Destination;

static Destination *destination_new(void)
{
    Destination *d = g_new0(Destination, 1);

    d->dir = g_dir_make_tmp("qtest-redirector-XXXXXX", NULL);
    d->uri = g_strdup_printf("unix:%s/migration", d->dir);
    d->r = rig_new();
    d->y = rig_tap(d->r, "y", 0);
    g_string_append(d->r->args, "-m 64 -incoming defer ");
    pc_add_nic(&d->pc, d->r, "y", NIC_PROPS);
    return d;
}

static void destination_start(Destination *d)
{
    pc_start(&d->pc);
    qtest_qmp_assert_success(d->r->qts, "{'execute': "
                             "'migrate-set-capabilities', 'arguments': "
                             "{'capabilities': [{'capability': 'events', "
                             "'state': true}]}}");
}

static void destination_listen(Destination *d)
{
    qtest_qmp_assert_success(d->r->qts, "{'execute': 'migrate-incoming', "
                             "'arguments': {'uri': %s}}", d->uri);
}

static void destination_free(Destination *d)
{
    g_autofree char *path = g_strdup_printf("%s/migration", d->dir);

    pc_end(&d->pc);
    unlink(path);
    rmdir(d->dir);
    g_free(d->dir);
    g_free(d->uri);
    g_free(d);
}

static void migrate_to(Machine *m, const Destination *d, Place place)
{
    fill_memory(m);
    set_capability(m, "pause-before-switchover", place == PLACE_SWITCHOVER);
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate', "
                             "'arguments': {'uri': %s}}", d->uri);
}

/* @data: where the migration is when the destination ends; NULL: active */
static void test_destination_ends(const void *data)
{
    const Place place = data ? PLACE_SWITCHOVER : PLACE_ACTIVE;
    Machine *m = machine_start("", HAND_OVER);
    Destination *d = destination_new();

    destination_start(d);
    destination_listen(d);
    if (!data) {
        rig_stop(m->r);
        g_assert_cmpint(kill(qtest_pid(d->r->qts), SIGSTOP), ==, 0);
    }
    migrate_to(m, d, place);
    wait_migration(m, data ? "pre-switchover" : "active");
    rig_wait_phase(m->r, "f0", "stopped");
    send_step(m);
    expect_nothing_more(m);
    g_assert_cmpint(kill(qtest_pid(d->r->qts), SIGCONT), ==, 0);
    destination_free(d);
    migrate_continue(m, place);
    wait_migration(m, "failed");
    if (!data) {
        rig_wait_runstate(m->r, "paused");
        send_step(m);
        expect_nothing_more(m);
        rig_cont(m->r);
    }
    expect_going_on(m);
    machine_free(m);
}

/* The guest's driver is there now, and gives no buffer back. */
static void destination_expect(Destination *d, uint32_t first, uint32_t n)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    uint8_t packet[VNET_LEN + SIZE];
    uint32_t head, len, i = 0;

    while (i < n) {
        if (!qvirtqueue_get_buf(d->r->qts, &d->rx, &head, &len)) {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
            continue;
        }
        g_assert_cmpuint(len, ==, sizeof(packet));
        qtest_memread(d->r->qts, d->buffers + head * NIC_BUFFER_LEN, packet,
                      len);
        g_assert_cmpuint(packet_seq(packet + VNET_LEN), ==, first + i);
        packet_check(packet + VNET_LEN, SIZE);
        i++;
    }
}

/*
 * The whole way: what the source's TAP gets arrives at the guest, where it has
 * gone to, in order, with what the destination's TAP gets then behind it.
 */
static void test_destination_takes(const void *data)
{
    Destination *d = destination_new();
    g_autofree char *path = rig_server(d->r, "ci");
    Machine *m;
    Rig *r;

    destination_start(d);
    rig_add(d->r, "id=f1,netdev=y,queue=tx,indev=ci,vnet_hdr_support=on");
    destination_listen(d);

    m = machine_new("", 0);
    r = m->r;
    g_string_append_printf(r->args, "-chardev socket,id=there,path=%s ", path);
    pc_add_nic(&m->pc, r, "x", NIC_PROPS);
    pc_start(&m->pc);
    pc_nic_drive(&m->pc, 0, 0, 1);
    rig_add(r, "id=f0,netdev=x,queue=tx,outdev=there,vnet_hdr_support=on,"
            "enable_when_stopped=on,enable_when_running=off");
    send_step(m);
    guest_gets_all(m);
    d->rx = *m->pc.rx[0][0].vq;
    d->buffers = m->pc.rx[0][0].buffers;
    if (data) {
        rig_stop(r);
        send_step(m);
    }
    migrate_to(m, d, PLACE_SWITCHOVER);
    wait_migration(m, "pre-switchover");
    rig_wait_phase(r, "f0", "stopped");
    send_step(m);
    migrate_continue(m, PLACE_SWITCHOVER);
    wait_migration(m, "completed");
    rig_wait_phase(r, "f0", "migrated");
    send_step(m);
    rig_wait_stat(r, "f0", "output.stats.packets", m->sent - m->seen);
    if (data) {
        rig_wait_runstate(d->r, "paused");
        rig_cont(d->r);
    }
    rig_wait_runstate(d->r, "running");
    destination_expect(d, m->seen, m->sent - m->seen);
    send_packets(d->y->outside, SIZE, m->sent, STEP);
    destination_expect(d, m->sent, STEP);
    machine_free(m);
    destination_free(d);
}

/*
 * Postcopy: the source has sent all that the destination needs to start, but
 * whether it does is not known yet
 */

/* Between source and destination, so that the test can hold up the stream. */
typedef struct Relay {
    GThread *thread;
    int source;
    int destination;
    int gate;               /* to the destination: open or closed */
    int stop;
    GByteArray *held;
} Relay;

static void relay_out(Relay *r)
{
    if (g_atomic_int_get(&r->gate) && r->held->len) {
        send_bytes(r->destination, r->held->data, r->held->len);
        g_byte_array_set_size(r->held, 0);
    }
}

static void *relay_run(void *opaque)
{
    Relay *r = opaque;
    struct pollfd p[] = {
        { .fd = r->source, .events = POLLIN },
        { .fd = r->destination, .events = POLLIN },
    };
    uint8_t buf[4096];

    while (!g_atomic_int_get(&r->stop)) {
        ssize_t got;

        relay_out(r);
        if (poll(p, 2, 10) < 1) {
            continue;
        }
        if (p[0].revents) {
            got = recv(r->source, buf, sizeof(buf), 0);
            g_byte_array_append(r->held, buf, MAX(got, 0));
            p[0].fd = got > 0 ? r->source : -1;
        }
        if (p[1].revents) {
            got = recv(r->destination, buf, sizeof(buf), 0);
            p[1].fd = got > 0 ? r->destination : -1;
            if (got > 0) {
                send_bytes(r->source, buf, got);
            }
        }
    }
    return NULL;
}

static void relay_end(Relay *r)
{
    g_atomic_int_set(&r->stop, 1);
    g_thread_join(r->thread);
    close(r->source);
    close(r->destination);
    g_byte_array_unref(r->held);
    g_free(r);
}

static Relay *relay_start(Machine *m, Destination *d)
{
    g_autofree char *path = g_strdup_printf("%s/migration", d->dir);
    Relay *r = g_new0(Relay, 1);
    int fd[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), ==,
                    0);
    qtest_qmp_fds_assert_success(m->r->qts, &fd[1], 1, "{'execute': 'getfd', "
                                 "'arguments': {'fdname': 'mig'}}");
    close(fd[1]);
    r->source = fd[0];
    r->destination = dup(rig_connect(d->r, path));
    r->held = g_byte_array_new();
    r->gate = 1;
    r->thread = g_thread_new("relay", relay_run, r);
    return r;
}

/* Return: false if it can't be done, and the case has been skipped */
static bool enable_postcopy(Rig *r)
{
    QDict *reply = qtest_qmp(r->qts, "{'execute': 'migrate-set-capabilities', "
                             "'arguments': {'capabilities': ["
                             "{'capability': 'postcopy-ram', 'state': true}"
                             "]}}");
    const bool ok = qdict_haskey(reply, "return");

    if (!ok) {
        g_test_skip(qdict_get_str(qdict_get_qdict(reply, "error"), "desc"));
    }
    qobject_unref(reply);
    return ok;
}

/* Return: NULL if it can't be done, and the case has been skipped */
static Relay *postcopy_begin(Machine *m, Destination *d)
{
    Relay *relay;

    destination_start(d);
    if (!enable_postcopy(m->r) || !enable_postcopy(d->r)) {
        return NULL;
    }
    destination_listen(d);
    fill_memory(m);
    relay = relay_start(m, d);
    qtest_qmp_assert_success(m->r->qts, "{'execute': "
                             "'migrate-set-parameters', 'arguments': "
                             "{'max-bandwidth': 1000000}}");
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate', "
                             "'arguments': {'uri': 'fd:mig'}}");
    wait_migration(m, "active");
    g_atomic_int_set(&relay->gate, 0);
    qtest_qmp_assert_success(m->r->qts,
                             "{'execute': 'migrate-start-postcopy'}");
    rig_wait_runstate(m->r, "finish-migrate");
    return relay;
}

/*
 * Whether this QEMU knows that the destination has not begun yet: since 10.2.
 * Before that it says that postcopy is active.
 */
static bool postcopy_leaves(Machine *m)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    char *now = migration_status(m);
    bool leaves;

    while (!g_str_has_prefix(now, "postcopy-") &&
           g_get_monotonic_time() < end) {
        g_usleep(1000);
        g_free(now);
        now = migration_status(m);
    }
    leaves = !strcmp(now, "postcopy-device");
    if (!leaves) {
        g_assert_cmpstr(now, ==, "postcopy-active");
    }
    g_free(now);
    return leaves;
}

/* @data: whether the destination is lost; else it begins to run */
static void test_postcopy(const void *data)
{
    Machine *m = machine_start("", HAND_OVER);
    Destination *d = destination_new();
    Relay *relay;

    send_step(m);
    guest_gets_all(m);
    relay = postcopy_begin(m, d);
    if (!relay) {
        /* skipped */
    } else if (!postcopy_leaves(m)) {
        g_test_skip("this QEMU can't tell whether a destination has begun");
        relay_end(relay);
    } else {
        rig_wait_phase(m->r, "f0", "leaving");
        send_step(m);
        expect_nothing_more(m);
        if (data) {
            relay_end(relay);
            wait_migration(m, "failed");
            expect_going_on(m);
        } else {
            g_atomic_int_set(&relay->gate, 1);
            rig_wait_phase(m->r, "f0", "migrated");
            check_handed_over(m);
            wait_migration(m, "completed");
            check_handed_over(m);
            relay_end(relay);
        }
    }
    machine_free(m);
    destination_free(d);
}

/*
 * COLO: the guest runs here and there, and stands still for each checkpoint.
 * When the other host is lost the migration counts as completed, but the guest
 * is here.
 */

static bool colo_enable(Rig *r)
{
    QDict *reply = qtest_qmp(r->qts, "{'execute': 'migrate-set-capabilities', "
                             "'arguments': {'capabilities': ["
                             "{'capability': 'x-colo', 'state': true}]}}");
    const bool ok = qdict_haskey(reply, "return");

    if (!ok) {
        g_test_skip(qdict_get_str(qdict_get_qdict(reply, "error"), "desc"));
    }
    qobject_unref(reply);
    return ok;
}

static void colo_run(Machine *m, Destination *d)
{
    unsigned i;

    qtest_qmp_assert_success(m->r->qts, "{'execute': "
                             "'migrate-set-parameters', 'arguments': "
                             "{'x-checkpoint-delay': 20}}");
    destination_listen(d);
    migrate_to(m, d, PLACE_NONE);
    wait_migration(m, "colo");
    for (i = 0; i < 10; i++) {
        send_paced(m);
        pc_nic_expect(&m->pc, 0, SIZE, m->seen, m->sent - m->seen);
        m->seen = m->sent;
        expect_silence(m->co);
    }
    guest_lost_nothing(m);
    qtest_qmp_assert_success(m->r->qts,
                             "{'execute': 'x-colo-lost-heartbeat'}");
    send_paced(m);
    wait_migration(m, "completed");
    expect_going_on(m);
    rig_stop(m->r);
    rig_wait_phase(m->r, "f0", "stopped");
    send_step(m);
    expect_nothing_more(m);
    rig_cont(m->r);
    expect_going_on(m);
}

static void test_colo(const void *unused)
{
    Machine *m = machine_start("", HAND_OVER);
    Destination *d = destination_new();

    destination_start(d);
    send_step(m);
    guest_gets_all(m);
    if (colo_enable(m->r) && colo_enable(d->r)) {
        colo_run(m, d);
    }
    machine_free(m);
    destination_free(d);
}

/*
 * cpr-transfer: the destination starts by asking the source what it has open.
 * A machine without memory will do; its guest is behind a hub.
 */

static void migrate_transfer(Rig *r, const char *dir)
{
    g_autofree char *main_path = g_strdup_printf("%s/main", dir);
    g_autofree char *cpr_path = g_strdup_printf("%s/cpr", dir);

    set_mode(r, "cpr-transfer");
    qtest_qmp_assert_success(r->qts,
        "{'execute': 'migrate', 'arguments': {'channels': ["
        "{'channel-type': 'main', 'addr': {'transport': 'socket', "
        "'type': 'unix', 'path': %s}}, "
        "{'channel-type': 'cpr', 'addr': {'transport': 'socket', "
        "'type': 'unix', 'path': %s}}]}}", main_path, cpr_path);
}

static void test_cpr_transfer(const void *unused)
{
    g_autofree char *dir = g_dir_make_tmp("qtest-redirector-XXXXXX", NULL);
    g_autofree char *main_path = g_strdup_printf("%s/main", dir);
    g_autofree char *cpr_path = g_strdup_printf("%s/cpr", dir);
    g_autofree char *args = NULL;
    int listener = qtest_socket_server(cpr_path);
    Machine m = { .r = rig_new() };
    QTestState *to;

    m.r->machine = "-M none,aux-ram-share=on";
    m.x = rig_tap(m.r, "x", TAP_GUEST);
    m.co = rig_chardev(m.r, "co");
    rig_start(m.r);
    rig_add(m.r, "id=f0,netdev=x,queue=tx,outdev=co,enable_when_stopped=on,"
            "enable_when_running=off");
    send_packets(m.x->outside, SIZE, 0, STEP);
    expect_packets(m.x->inside, SIZE, 0, STEP);

    args = g_strdup_printf("-M none,aux-ram-share=on -nodefaults "
                           "-incoming unix:%s -incoming cpr,"
                           "addr.transport=socket,addr.type=fd,addr.str=%d",
                           main_path, listener);
    to = qtest_init_ext(NULL, args, NULL, false);
    migrate_transfer(m.r, dir);
    qtest_connect(to);
    qtest_qmp_handshake(to, NULL);
    wait_migration(&m, "completed");
    rig_wait_phase(m.r, "f0", "local");
    send_packets(m.x->outside, SIZE, STEP, STEP);
    rig_sync(m.r);
    expect_silence(m.co);
    expect_silence(m.x->inside);
    qtest_quit(to);

    rig_cont(m.r);
    rig_wait_phase(m.r, "f0", "running");
    expect_packets(m.x->inside, SIZE, STEP, STEP);
    expect_silence(m.co);
    guest_lost_nothing(&m);
    close(listener);
    rig_free(m.r);
    unlink(main_path);
    unlink(cpr_path);
    rmdir(dir);
}

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
                g_strdup_printf("/filter-redirector/switchover/capture/%s/%s",
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

/*
 * Several queues
 */

#define FLOWS 32
#define UDP_START (ETH_HLEN + 20)
#define UDP_DATA (UDP_START + 8)

/* A UDP packet of one of many flows, with a number within its flow. */
static void flow_fill(uint8_t *packet, unsigned flow, uint32_t seq)
{
    packet_fill(packet, SIZE, 0);
    stw_be_p(packet + 12, ETH_P_IP);
    memset(packet + ETH_HLEN, 0, UDP_DATA - ETH_HLEN);
    packet[ETH_HLEN] = 0x45;
    stw_be_p(packet + ETH_HLEN + 2, SIZE - ETH_HLEN);
    packet[ETH_HLEN + 8] = 64;
    packet[ETH_HLEN + 9] = IPPROTO_UDP;
    stl_be_p(packet + ETH_HLEN + 12, 0xc0000201);
    stl_be_p(packet + ETH_HLEN + 16, 0xc0000202);
    stw_be_p(packet + UDP_START, 1000 + 7 * flow);
    stw_be_p(packet + UDP_START + 2, 2000 + flow);
    stw_be_p(packet + UDP_START + 4, SIZE - UDP_START);
    stl_be_p(packet + UDP_DATA, flow);
    stl_be_p(packet + UDP_DATA + 4, seq);
}

/* What has been sent and what has arrived, flow by flow. */
typedef struct Flows {
    uint32_t sent[FLOWS];
    uint32_t seen[FLOWS];
} Flows;

static void flows_send(Flows *f, Machine *m, unsigned rounds)
{
    uint8_t packet[SIZE];
    unsigned i;

    for (i = 0; i < rounds * FLOWS; i++) {
        flow_fill(packet, i % FLOWS, f->sent[i % FLOWS]++);
        send_raw(m->x->outside, packet, SIZE);
    }
}

static void flows_got(Flows *f, const uint8_t *packet, size_t size)
{
    uint32_t flow = ldl_be_p(packet + UDP_DATA);
    uint8_t want[SIZE];

    g_assert_cmpuint(flow, <, FLOWS);
    flow_fill(want, flow, f->seen[flow]++);
    g_assert_cmpmem(packet, size, want, SIZE);
}

static bool flows_missing(const Flows *f)
{
    return memcmp(f->sent, f->seen, sizeof(f->sent));
}

/* Return: a bit for each queue that got a packet */
static unsigned flows_guest_gets_all(Flows *f, Machine *m)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    unsigned i, used = 0;
    size_t got;

    while (flows_missing(f)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        for (i = 0; i < NIC_QUEUES_MAX; i++) {
            while ((got = pc_nic_poll(&m->pc, 0, i, packet))) {
                flows_got(f, packet, got);
                used |= 1 << i;
            }
        }
    }
    expect_nothing_more(m);
    return used;
}

static void flows_outdev_gets_all(Flows *f, Machine *m)
{
    g_autofree uint8_t *data = g_malloc(PACKET_MAX);

    while (flows_missing(f)) {
        size_t got = recv_frame(m->co, data, VNET_LEN);

        flows_got(f, data + VNET_LEN, got - VNET_LEN);
    }
    expect_nothing_more(m);
}

#define MQ_FEATURES (1ull << VIRTIO_NET_F_MQ | 1ull << VIRTIO_NET_F_CTRL_VQ)

static Machine *mq_start(unsigned queues)
{
    Machine *m = machine_new("", TAP_QUEUES(queues));
    g_autofree char *props = g_strdup_printf(NIC_PROPS ",mq=on,vectors=%u",
                                             2 * queues + 2);

    if_set_txqueuelen(m->x->ifname, 30000);
    pc_add_nic(&m->pc, m->r, "x", props);
    pc_start(&m->pc);
    pc_nic_drive(&m->pc, 0, MQ_FEATURES, queues);
    rig_add(m->r, HAND_OVER);
    return m;
}

static void test_mq(const void *data)
{
    const unsigned queues = data ? 4 : 2;
    Machine *m = mq_start(queues);
    Flows f = { };

    flows_send(&f, m, 2);
    g_assert_cmphex(flows_guest_gets_all(&f, m), ==, (1 << queues) - 1);

    rig_stop(m->r);
    migrate_begin(m, PLACE_ACTIVE);
    flows_send(&f, m, 2);
    expect_nothing_more(m);
    migrate_cancel(m);
    rig_cont(m->r);
    g_assert_cmphex(flows_guest_gets_all(&f, m), ==, (1 << queues) - 1);
    guest_lost_nothing(m);

    migrate_begin(m, PLACE_SWITCHOVER);
    migrate_arrive(m, PLACE_SWITCHOVER);
    flows_send(&f, m, 20);
    expect_nothing_more(m);
    migrate_complete(m, PLACE_SWITCHOVER);
    rig_wait_phase(m->r, "f0", "migrated");
    flows_send(&f, m, 20);
    flows_outdev_gets_all(&f, m);
    rig_wait_stat(m->r, "f0", "output.stats.packets", 40 * FLOWS);
    assert_stat(m->r, "f0", "output.stats.lost", 0);

    rig_cont(m->r);
    rig_wait_phase(m->r, "f0", "running");
    flows_send(&f, m, 2);
    g_assert_cmphex(flows_guest_gets_all(&f, m), ==, (1 << queues) - 1);
    machine_free(m);
}

#define SLOW_ROUNDS 800     /* more than the redirector and its socket hold */

/* While the peer does not read, packets wait in all queues. */
static void test_mq_slow(const void *data)
{
    const unsigned queues = data ? 4 : 2;
    Machine *m = mq_start(queues);
    Flows f = { };

    migrate_begin(m, PLACE_NONE);
    migrate_complete(m, PLACE_NONE);
    flows_send(&f, m, SLOW_ROUNDS);
    rig_wait_state(m->r, "f0", "output", "stalled");
    g_assert_cmpint(rig_sync(m->r), <, G_USEC_PER_SEC);
    flows_outdev_gets_all(&f, m);
    rig_wait_stat(m->r, "f0", "output.stats.packets", SLOW_ROUNDS * FLOWS);
    assert_stat(m->r, "f0", "output.stats.lost", 0);
    machine_free(m);
}

/*
 * What can't be handed over is refused, and why
 */

/* As much of a vhost-user back end as makes QEMU create the netdev. */
static void *vhost_user_run(void *opaque)
{
    const int fd = GPOINTER_TO_INT(opaque);
    uint32_t header[3];
    uint8_t payload[4096];

    while (recv(fd, header, sizeof(header), MSG_WAITALL) == sizeof(header) &&
           header[2] <= sizeof(payload) &&
           (!header[2] || recv(fd, payload, header[2], MSG_WAITALL) ==
                          header[2])) {
        const struct {
            uint32_t header[3];
            uint64_t features;
        } QEMU_PACKED reply = {
            { header[0], 1 | 4, 8 }, 1ull << VIRTIO_F_VERSION_1,
        };

        if (header[0] == 1 && /* GET_FEATURES */
            send(fd, &reply, sizeof(reply), MSG_NOSIGNAL) < 0) {
            break;
        }
    }
    return NULL;
}

static GThread *vhost_user_start(Rig *r, int *fd)
{
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    g_assert_cmpint(fcntl(pair[0], F_SETFD, FD_CLOEXEC), ==, 0);
    *fd = pair[0];
    g_string_append_printf(r->args, "-chardev socket,id=vu,fd=%d "
                           "-netdev vhost-user,id=net,chardev=vu ",
                           rig_give_fd(r, pair[1]));
    return g_thread_new("vhost-user", vhost_user_run, GINT_TO_POINTER(*fd));
}

typedef struct RefusedCase {
    const char *type;       /* of the netdev */
    const char *args;       /* NULL: needs more than arguments */
} RefusedCase;

static const RefusedCase refused[] = {
#ifdef CONFIG_SLIRP
    { "user", "-netdev user,id=net " },
#endif
    { "hubport", "-netdev hubport,id=net,hubid=9 " },
    { "socket", "-netdev socket,id=net,listen=:0 " },
    { "stream", "-netdev stream,id=net,server=on,addr.type=unix,"
      "addr.path=refused.sock,addr.abstract=on " },
    { "dgram", "-netdev dgram,id=net,local.type=inet,local.host=127.0.0.1,"
      "local.port=0,remote.type=inet,remote.host=127.0.0.1,remote.port=9 " },
    { "vhost-user" },
};

/* The message names the object, the netdev and its type. */
static void expect_refused(Rig *r, const char *props, const char *type)
{
    g_autofree char *name = g_strdup_printf("'%s'", type);
    QDict *error = rig_add_error(r, props);
    const char *desc = qdict_get_str(error, "desc");

    g_test_message("%s", desc);
    g_assert_true(g_str_has_prefix(desc, "filter-redirector 'f0': "));
    g_assert_nonnull(strstr(desc, "'net'"));
    g_assert_nonnull(strstr(desc, name));
    qobject_unref(error);
}

static void test_refused(const void *data)
{
    const RefusedCase *c = data;
    Rig *r = rig_new();
    GThread *back_end = NULL;
    int fd;

    rig_tap(r, "x", 0);
    rig_chardev(r, "co");
    if (c->args) {
        g_string_append(r->args, c->args);
    } else {
#ifndef CONFIG_VHOST_NET_USER
        g_test_skip("QEMU is built without vhost-user");
        rig_free(r);
        return;
#endif
        back_end = vhost_user_start(r, &fd);
    }
    rig_start(r);
    expect_refused(r, "id=f0,netdev=net,queue=tx,outdev=co,"
                   "enable_when_stopped=on,enable_when_running=off", c->type);
    expect_refused(r, "id=f0,netdev=net,queue=tx,outdev=co,"
                   "enable_when_stopped=on", c->type);
    rig_add(r, "id=f0,netdev=x,queue=tx,outdev=co,enable_when_stopped=on,"
            "enable_when_running=off");
    rig_free(r);
    if (back_end) {
        g_thread_join(back_end);
        close(fd);
    }
}

static void test_no_state(const void *data)
{
    Bench b = bench_new();
    QDict *error;
    const char *desc;

    rig_start(b.r);
    error = rig_add_error(b.r, data);
    desc = qdict_get_str(error, "desc");
    g_test_message("%s", desc);
    g_assert_true(g_str_has_prefix(desc, "filter-redirector 'f0': "));
    g_assert_nonnull(strstr(desc, "enable_when_stopped"));
    g_assert_nonnull(strstr(desc, "enable_when_running"));
    qobject_unref(error);
    rig_free(b.r);
}

static void add_refused_cases(void)
{
    static const char *const no_state[][2] = {
        { "hand-over", "id=f0,netdev=x,outdev=co,enable_when_stopped=off,"
          "enable_when_running=off" },
        { "capture", "id=f0,netdev=n,in_netdev=x,outdev=co,"
          "enable_when_running=off" },
        { "inject", "id=f0,netdev=n,indev=ci,out_netdev=x,"
          "enable_when_running=off" },
        { "classic", "id=f0,netdev=n,indev=ci,enable_when_running=off" },
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(refused); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/switchover/refused/%s",
                            refused[i].type);

        case_add(path, test_refused, &refused[i]);
    }
    for (i = 0; i < ARRAY_SIZE(no_state); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/switchover/no-state/%s",
                            no_state[i][0]);

        case_add(path, test_no_state, no_state[i][1]);
    }
}

#define PREFIX "/filter-redirector/switchover/"

static void add_other_cases(void)
{
    static const SwitchCase running = { &halts[0], &paths[2] };
    static const SwitchCase stopped = { &halts[1], &paths[0] };

    case_add(PREFIX "dump", test_dump, NULL);
    case_add(PREFIX "savevm", test_snapshot, NULL);
    case_add(PREFIX "snapshot-save", test_snapshot, "job");
    case_add(PREFIX "background-snapshot", test_background_snapshot, NULL);
    case_add(PREFIX "bad-uri/running", test_bad_uri, "running");
    case_add(PREFIX "bad-uri/stopped", test_bad_uri, NULL);
    case_add(PREFIX "many-attempts", test_many_attempts, NULL);
    case_add(PREFIX "to-and-fro", test_to_and_fro, NULL);
    case_add(PREFIX "made-late", test_made_late, NULL);
    case_add(PREFIX "no-peer/connected", test_no_peer, NULL);
    case_add(PREFIX "no-peer/cont", test_no_peer, "cont");
    case_add(PREFIX "destination-ends/active", test_destination_ends, NULL);
    case_add(PREFIX "destination-ends/late", test_destination_ends, "late");
    case_add(PREFIX "destination-takes/running", test_destination_takes, NULL);
    case_add(PREFIX "destination-takes/stopped", test_destination_takes,
             "stopped");
    case_add(PREFIX "postcopy/completed", test_postcopy, NULL);
    case_add(PREFIX "postcopy/lost", test_postcopy, "lost");
    case_add(PREFIX "colo", test_colo, NULL);
    case_add(PREFIX "cpr-reboot/running", test_cpr_reboot, &running);
    case_add(PREFIX "cpr-reboot/stopped", test_cpr_reboot, &stopped);
    case_add(PREFIX "cpr-transfer", test_cpr_transfer, NULL);
    case_add(PREFIX "capture/clock/forth", test_capture_clock, "forth");
    case_add(PREFIX "capture/clock/back", test_capture_clock, NULL);
    case_add(PREFIX "multi-queue/2", test_mq, NULL);
    case_add(PREFIX "multi-queue/4", test_mq, "4");
    case_add(PREFIX "multi-queue/2-slow", test_mq_slow, NULL);
    case_add(PREFIX "multi-queue/4-slow", test_mq_slow, "4");
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    if (qtest_has_device("virtio-net-pci")) {
        add_switch_cases();
        add_other_cases();
        add_capture_cases();
    }
    if (qtest_has_machine("none")) {
        add_refused_cases();
    }
    return g_test_run();
}
