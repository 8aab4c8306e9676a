/*
 * QTest of filter-redirector: migrations to another QEMU, on this host or
 * another one
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qemu/bswap.h"
#include "net/eth.h"
#include <poll.h>
#include <sys/socket.h>
#include "filter-redirector-machine.h"

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

    pc_start(&d->pc);
    destination_listen(d);
    if (!data) {
        rig_stop(m->r);
        /* It takes longer than the destination's last moments. */
        qtest_qmp_assert_success(m->r->qts, "{'execute': "
                                 "'migrate-set-parameters', 'arguments': "
                                 "{'max-bandwidth': 1000000}}");
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

/*
 * The guest's driver is there now, and gives no buffer back.
 * @packet: VNET_LEN + SIZE bytes
 *
 * Return: length
 */
static uint32_t destination_take_any(Destination *d, uint8_t *packet)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    uint32_t head, len;

    while (!qvirtqueue_get_buf(d->r->qts, &d->rx, &head, &len)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    g_assert_cmpuint(len, <=, VNET_LEN + SIZE);
    qtest_memread(d->r->qts, d->buffers + head * NIC_BUFFER_LEN, packet, len);
    return len;
}

static void destination_take(Destination *d, uint8_t *packet)
{
    g_assert_cmpuint(destination_take_any(d, packet), ==, VNET_LEN + SIZE);
}

static void destination_expect(Destination *d, uint32_t first, uint32_t n)
{
    uint8_t packet[VNET_LEN + SIZE];
    uint32_t i;

    for (i = 0; i < n; i++) {
        destination_take(d, packet);
        g_assert_cmpuint(packet_seq(packet + VNET_LEN), ==, first + i);
        packet_check(packet + VNET_LEN, SIZE);
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

    pc_start(&d->pc);
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

/* A packet that goes to all; its number tells it from others. */
static void fill_flooded(uint8_t *packet, uint32_t seq)
{
    packet_fill(packet, SIZE, seq);
    memset(packet, 0xff, 6);
}

static void destination_expect_flooded(Destination *d, uint32_t seq)
{
    uint8_t packet[VNET_LEN + SIZE];

    destination_take(d, packet);
    g_assert_cmpuint(packet_seq(packet + VNET_LEN), ==, seq);
    g_assert_cmpuint(packet[VNET_LEN], ==, 0xff);
}

/*
 * The order of events is a manager's: the destination is told to run once the
 * source is through.  What its TAP got before is stale, what it gets then
 * comes behind the source's packets, and flooded packets come once.
 */
static void test_destination_holds(const void *data)
{
    Destination *d = destination_new();
    g_autofree char *path = rig_server(d->r, "ci");
    uint8_t packet[VNET_LEN + SIZE] = {};
    int source, i;
    Machine *m;

    pc_start(&d->pc);
    rig_add(d->r, "id=f1,netdev=y,queue=tx,indev=ci,vnet_hdr_support=on,"
            "enable_when_stopped=on");
    destination_listen(d);
    m = machine_new("", 0);
    pc_add_nic(&m->pc, m->r, "x", NIC_PROPS);
    pc_start(&m->pc);
    pc_nic_drive(&m->pc, 0, 0, 1);
    d->rx = *m->pc.rx[0][0].vq;
    d->buffers = m->pc.rx[0][0].buffers;
    source = rig_connect(d->r, path);
    rig_stop(m->r);
    migrate_to(m, d, PLACE_NONE);
    wait_migration(m, "completed");
    rig_wait_runstate(d->r, "paused");

    send_packets(d->y->outside, SIZE, 1000, STEP);
    fill_flooded(packet + VNET_LEN, 8);
    rig_cont(d->r);
    rig_wait_runstate(d->r, "running");
    /* Not for this guest alone: it would end the hold soon. */
    send_raw(d->y->outside, packet + VNET_LEN, SIZE);
    for (i = 0; i < STEP; i++) {
        send_frame(source, SIZE, i, VNET_LEN);
    }
    fill_flooded(packet + VNET_LEN, 7);
    send_frame_raw(source, packet, sizeof(packet), VNET_LEN);
    send_packets(d->y->outside, SIZE, STEP, STEP);
    /* The peer's, and one more that is the same. */
    send_raw(d->y->outside, packet + VNET_LEN, SIZE);
    send_raw(d->y->outside, packet + VNET_LEN, SIZE);
    destination_expect(d, 0, STEP);
    destination_expect_flooded(d, 7);
    destination_expect_flooded(d, 8);
    destination_expect(d, STEP, STEP);
    destination_expect_flooded(d, 7);
    send_packets(d->y->outside, SIZE, 2 * STEP, STEP);
    destination_expect(d, 2 * STEP, STEP);
    machine_free(m);
    destination_free(d);
}

/*
 * Source and destination of a hand-over, on the way that libvirt goes
 */

typedef struct Pair {
    Destination *d;
    Machine *m;
    int on;                     /* chardev "on" of the destination */
} Pair;

/*
 * Migrated: the source hands over, the destination has not been told to run.
 * @queue: which packets the redirectors are for
 */
static Pair pair_migrated_queue(const char *queue)
{
    Pair p = { .d = destination_new() };
    g_autofree char *path = rig_server(p.d->r, "ci");
    g_autofree char *to = g_strdup_printf(
        "id=f1,netdev=y,queue=%s,indev=ci,vnet_hdr_support=on,"
        "enable_when_stopped=on", queue);
    g_autofree char *from = g_strdup_printf(
        "id=f0,netdev=x,queue=%s,outdev=there,vnet_hdr_support=on,"
        "enable_when_stopped=on,enable_when_running=off", queue);
    Machine *m;

    p.on = rig_chardev(p.d->r, "on");
    pc_start(&p.d->pc);
    rig_add(p.d->r, to);
    destination_listen(p.d);
    m = p.m = machine_new("", 0);
    g_string_append_printf(m->r->args, "-chardev socket,id=there,path=%s ",
                           path);
    pc_add_nic(&m->pc, m->r, "x", NIC_PROPS);
    pc_start(&m->pc);
    pc_nic_drive(&m->pc, 0, 0, 1);
    p.d->rx = *m->pc.rx[0][0].vq;
    p.d->buffers = m->pc.rx[0][0].buffers;
    rig_add(m->r, from);
    rig_stop(m->r);
    migrate_to(m, p.d, PLACE_NONE);
    wait_migration(m, "completed");
    rig_wait_phase(m->r, "f0", "migrated");
    rig_wait_runstate(p.d->r, "paused");
    return p;
}

static Pair pair_migrated(void)
{
    return pair_migrated_queue("tx");
}

static void pair_end(Pair *p)
{
    machine_free(p->m);
    destination_free(p->d);
}

static void run_destination(Pair *p)
{
    rig_cont(p->d->r);
    rig_wait_runstate(p->d->r, "running");
}

/* What a QMP event says. */
static void expect_said(QDict *event, const char *id, const char *name,
                        uint64_t value)
{
    QDict *data = qdict_get_qdict(event, "data");

    g_assert_cmpstr(qdict_get_str(data, "id"), ==, id);
    g_assert_cmpint(qdict_get_int(data, name), ==, value);
}

static void expect_handed_over(Pair *p, unsigned packets)
{
    QDict *event = qtest_qmp_eventwait_ref(p->m->r->qts,
                                           "FILTER_REDIRECTOR_HANDED_OVER");

    expect_said(event, "f0", "packets", packets);
    expect_said(event, "f0", "discarded", 1);   /* the announcement */
    qobject_unref(event);
}

static void expect_taken_over(Pair *p, unsigned packets, unsigned direct)
{
    QDict *event = qtest_qmp_eventwait_ref(p->d->r->qts,
                                           "FILTER_REDIRECTOR_TAKEN_OVER");
    QDict *data = qdict_get_qdict(event, "data");

    g_assert_cmpstr(qdict_get_str(data, "how"), ==, "told");
    expect_said(event, "f1", "packets", packets);
    expect_said(event, "f1", "direct", direct);
    expect_said(event, "f1", "late", 0);
    expect_said(event, "f1", "cancelled", 0);
    expect_said(event, "f1", "stale", STEP);
    expect_said(event, "f1", "lost", 0);
    qobject_unref(event);
}

/*
 * Each side tells the other what it has to know, and the manager: marks are
 * for nobody else.
 */
static void test_destination_told(const void *data)
{
    Pair p = pair_migrated();
    Port *x = p.m->x, *y = p.d->y;
    unsigned i;

    send_packets(x->outside, SIZE, 0, STEP);
    send_packets(y->outside, SIZE, 1000, STEP);
    run_destination(&p);
    send_packets(y->outside, SIZE, 2 * STEP, STEP);
    /* Direct packets, and a slow source: without its word, that's the end. */
    for (i = 0; i < STEP; i++) {
        g_usleep(30 * 1000);
        send_packet(x->outside, SIZE, STEP + i);
    }
    send_announcement(p.m);
    wait_announced(p.m);
    destination_expect(p.d, 0, 3 * STEP);
    expect_taken_over(&p, 2 * STEP, STEP);
    expect_handed_over(&p, 2 * STEP);
    assert_stat(p.m->r, "f0", "output.stats.packets", 2 * STEP);
    assert_stat(p.d->r, "f1", "input.stats.packets", 2 * STEP);
    pair_end(&p);
}

/*
 * The network's bad days.  How a hold has ended: what QMP says.
 */

static QDict *taken_over(Pair *p, const char *how)
{
    QDict *event = qtest_qmp_eventwait_ref(p->d->r->qts,
                                           "FILTER_REDIRECTOR_TAKEN_OVER");

    g_assert_cmpstr(qdict_get_str(qdict_get_qdict(event, "data"), "how"), ==,
                    how);
    return event;
}

static void expect_end(Pair *p, const char *how, unsigned packets,
                       unsigned direct)
{
    QDict *event = taken_over(p, how);

    expect_said(event, "f1", "packets", packets);
    expect_said(event, "f1", "direct", direct);
    expect_said(event, "f1", "late", 0);
    expect_said(event, "f1", "lost", 0);
    qobject_unref(event);
}

/* The announcement comes to the source first, then what was sent before. */
static void test_overtaken(const void *data)
{
    Pair p = pair_migrated();
    const pid_t source = qtest_pid(p.m->r->qts);

    run_destination(&p);
    rig_sync(p.m->r);
    send_packets(p.d->y->outside, SIZE, 2 * STEP, STEP);
    g_assert_cmpint(kill(source, SIGSTOP), ==, 0);
    send_announcement(p.m);
    send_packets(p.m->x->outside, SIZE, 0, 2 * STEP);
    g_assert_cmpint(kill(source, SIGCONT), ==, 0);
    destination_expect(p.d, 0, 3 * STEP);
    expect_end(&p, "told", 2 * STEP, STEP);
    pair_end(&p);
}

/* No announcement ever gets to the source. */
static void test_no_announcement(const void *data)
{
    Pair p = pair_migrated();
    unsigned i;

    run_destination(&p);
    send_packets(p.d->y->outside, SIZE, 2 * STEP, STEP);
    for (i = 0; i < 2 * STEP; i++) {
        send_packet(p.m->x->outside, SIZE, i);
        g_usleep(20 * 1000);
    }
    destination_expect(p.d, 0, 3 * STEP);
    expect_end(&p, "told", 2 * STEP, STEP);
    pair_end(&p);
}

/*
 * An announcement that is not the destination's: the guest does not run there
 * yet.  @data: nor ever will
 */
static void test_forged(const void *data)
{
    Pair p = pair_migrated();
    uint8_t packet[SIZE];

    send_packets(p.m->x->outside, SIZE, 0, STEP);
    send_announcement(p.m);
    wait_announced(p.m);
    g_usleep(200 * 1000);
    if (data) {
        rig_cont(p.m->r);
        rig_wait_runstate(p.m->r, "running");
        pc_nic_expect(&p.m->pc, 0, SIZE, 0, STEP);
    } else {
        fill_flooded(packet, STEP);
        send_raw(p.m->x->outside, packet, SIZE);
        send_packets(p.m->x->outside, SIZE, STEP + 1, STEP);
        rig_wait_stat(p.m->r, "f0", "output.stats.packets", 2 * STEP + 1);
        run_destination(&p);
        send_packets(p.d->y->outside, SIZE, 2 * STEP + 1, STEP);
        destination_expect(p.d, 0, STEP);
        destination_expect_flooded(p.d, STEP);
        destination_expect(p.d, STEP + 1, 2 * STEP);
        expect_end(&p, "told", 2 * STEP + 1, STEP);
    }
    pair_end(&p);
}

/* Sent, or read from the TAP and to be sent. */
static void wait_taken(Machine *m, int64_t n)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;

    while (rig_stat(m->r, "f0", "output.stats.packets") +
           rig_stat(m->r, "f0", "output.stats.queued") != n) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

/*
 * It takes long until the destination is told to run, and it takes little until
 * then.  The source takes what comes from its TAP, whose queue is short.
 */
static void test_slow_manager(const void *data)
{
    enum { LEN = 1400, N = 3000 };
    Pair p = pair_migrated();
    unsigned i;

    if_set_txqueuelen(p.m->x->ifname, 2 * STEP);
    for (i = 0; i < N; i += STEP) {
        send_packets(p.m->x->outside, LEN, i, STEP);
        wait_taken(p.m, i + STEP);
    }
    pair_end(&p);
}

/* The source goes in the middle, without a word. */
static void test_source_gone(const void *data)
{
    Pair p = pair_migrated();

    run_destination(&p);
    send_packets(p.m->x->outside, SIZE, 0, STEP);
    send_packets(p.d->y->outside, SIZE, STEP, STEP);
    destination_expect(p.d, 0, STEP);
    rig_del(p.m->r, "f0");
    qtest_qmp_assert_success(p.m->r->qts, "{'execute': 'chardev-remove', "
                             "'arguments': {'id': 'there'}}");
    destination_expect(p.d, STEP, STEP);
    expect_end(&p, "disconnected", STEP, STEP);
    pair_end(&p);
}

/* The main loop waits for a connection: see free_main_loop(). */
static char *block_main_loop(Rig *r, const char *dir)
{
    char *path = g_strdup_printf("%s/block", dir);

    qtest_qmp_send(r->qts, "{'execute': 'chardev-add', 'arguments': {"
                   "'id': 'block', 'backend': {'type': 'socket', 'data': {"
                   "'addr': {'type': 'unix', 'data': {'path': %s}}, "
                   "'server': true, 'wait': true}}}}", path);
    while (!g_file_test(path, G_FILE_TEST_EXISTS)) {
        g_usleep(1000);
    }
    return path;
}

static void free_main_loop(Rig *r, char *path)
{
    QDict *reply;

    rig_connect(r, path);
    reply = qtest_qmp_receive(r->qts);
    g_assert_true(qdict_haskey(reply, "return"));
    qobject_unref(reply);
    unlink(path);
    g_free(path);
}

/* Sends packets, and waits until a thread has read them from the TAP. */
static void send_and_wait(const Port *port, uint32_t first, unsigned n)
{
    const uint64_t read = if_tx_packets(port->ifname) + n;
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;

    send_packets(port->outside, SIZE, first, n);
    while (if_tx_packets(port->ifname) < read) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

/*
 * The source's main loop stands still once its migration has completed; its
 * TAP's queue is short.
 */
static void test_source_busy(const void *data)
{
    enum { N = 5 * STEP };
    Pair p = pair_migrated();
    char *path;
    unsigned i;

    if_set_txqueuelen(p.m->x->ifname, STEP);
    path = block_main_loop(p.m->r, p.d->dir);
    for (i = 0; i < N; i += STEP / 2) {
        send_and_wait(p.m->x, i, STEP / 2);
    }
    free_main_loop(p.m->r, path);
    run_destination(&p);
    send_packets(p.d->y->outside, SIZE, N, STEP);
    send_announcement(p.m);
    destination_expect(p.d, 0, N + STEP);
    expect_end(&p, "told", N, STEP);
    pair_end(&p);
}

/* The destination's main loop stands still; its TAP's queue is not full. */
static void test_busy(const void *data)
{
    Pair p = pair_migrated();
    const pid_t source = qtest_pid(p.m->r->qts);
    char *path;
    unsigned i;

    if_set_txqueuelen(p.d->y->ifname, STEP);
    send_packets(p.m->x->outside, SIZE, 0, STEP);
    run_destination(&p);
    destination_expect(p.d, 0, STEP);
    g_assert_cmpint(kill(source, SIGSTOP), ==, 0);
    path = block_main_loop(p.d->r, p.d->dir);
    for (i = 0; i < 3 * STEP; i += STEP / 2) {
        send_and_wait(p.d->y, STEP + i, STEP / 2);
    }
    free_main_loop(p.d->r, path);
    g_assert_cmpint(kill(source, SIGCONT), ==, 0);
    destination_expect(p.d, STEP, 3 * STEP);
    expect_end(&p, "told", STEP, 3 * STEP);
    pair_end(&p);
}

/* The guest is stopped during the hold, and goes on. */
static void test_stopped_again(const void *data)
{
    Pair p = pair_migrated();

    send_packets(p.m->x->outside, SIZE, 0, STEP);
    run_destination(&p);
    destination_expect(p.d, 0, STEP);
    rig_stop(p.d->r);
    send_packets(p.m->x->outside, SIZE, STEP, STEP);
    rig_wait_stat(p.m->r, "f0", "output.stats.packets", 2 * STEP);
    rig_cont(p.d->r);
    send_packets(p.d->y->outside, SIZE, 2 * STEP, STEP);
    destination_expect(p.d, STEP, 2 * STEP);
    expect_end(&p, "told", 2 * STEP, STEP);
    pair_end(&p);
}

/* The next packet for a driver that sees them all. */
static uint32_t next_seq(Pc *pc)
{
    uint8_t packet[PACKET_MAX];

    pc_nic_take(pc, 0, packet);
    return packet_seq(packet);
}

/*
 * The guest is reset during the hold, and has no driver for a while.  Whatever
 * it has missed, its next driver gets what comes then, and the hold ends.
 */
static void test_reset_again(const void *data)
{
    Pair p = pair_migrated();
    uint32_t seq, last = 0;

    send_packets(p.m->x->outside, SIZE, 0, STEP);
    run_destination(&p);
    destination_expect(p.d, 0, STEP);
    qtest_qmp_assert_success(p.d->r->qts, "{'execute': 'system_reset'}");
    qtest_qmp_eventwait(p.d->r->qts, "RESET");
    send_packets(p.m->x->outside, SIZE, STEP, STEP);
    rig_wait_stat(p.m->r, "f0", "output.stats.packets", 2 * STEP);
    send_packets(p.d->y->outside, SIZE, 2 * STEP, STEP);
    pc_nic_redrive(&p.d->pc, 0, 0, 1);
    send_packets(p.d->y->outside, SIZE, 3 * STEP, STEP);
    while ((seq = next_seq(&p.d->pc)) < 3 * STEP) {
        g_assert_cmpuint(seq, >, last);
        last = seq;
    }
    g_assert_cmpuint(seq, ==, 3 * STEP);
    pc_nic_expect(&p.d->pc, 0, SIZE, 3 * STEP + 1, STEP - 1);
    qobject_unref(taken_over(&p, "told"));
    pair_end(&p);
}

/* Nothing but announcements has gone to the network. */
static void expect_own_only(Port *port)
{
    uint8_t packet[PACKET_MAX], ours[SIZE];

    packet_fill(ours, SIZE, 0);
    while (recv(port->outside, packet, sizeof(packet), MSG_DONTWAIT) > 0) {
        g_assert_cmphex(lduw_be_p(packet + 12), !=, lduw_be_p(ours + 12));
    }
}

/*
 * Redirectors for both directions: what is handed over, held back, or given
 * back is for the guest, and nothing of it goes to the network.
 * @data: the source's guest goes on
 */
static void test_both_ways(const void *data)
{
    Pair p = pair_migrated_queue("all");

    send_packets(p.m->x->outside, SIZE, 0, STEP);
    if (data) {
        rig_wait_stat(p.m->r, "f0", "output.stats.packets", STEP);
        rig_cont(p.m->r);
        pc_nic_expect(&p.m->pc, 0, SIZE, 0, STEP);
        rig_sync(p.m->r);
        expect_own_only(p.m->x);
    } else {
        run_destination(&p);
        send_packets(p.d->y->outside, SIZE, STEP, STEP);
        destination_expect(p.d, 0, 2 * STEP);
        rig_sync(p.d->r);
        expect_own_only(p.d->y);
    }
    pair_end(&p);
}

/*
 * The guest moves on before the hold has ended: what the source has handed over
 * and what came directly goes along, in order.
 */
static void test_migrated_on(const void *data)
{
    Pair p = pair_migrated();
    const pid_t source = qtest_pid(p.m->r->qts);
    QDict *event;
    unsigned i;

    send_packets(p.m->x->outside, SIZE, 0, STEP);
    run_destination(&p);
    destination_expect(p.d, 0, STEP);
    g_assert_cmpint(kill(source, SIGSTOP), ==, 0);
    send_packets(p.d->y->outside, SIZE, STEP, STEP);
    rig_add(p.d->r, "id=f2,netdev=y,queue=tx,outdev=on,vnet_hdr_support=on,"
            "enable_when_stopped=on,enable_when_running=off");
    rig_stop(p.d->r);
    send_packets(p.d->y->outside, SIZE, 2 * STEP, STEP);
    qtest_qmp_assert_success(p.d->r->qts, "{'execute': 'migrate', "
                             "'arguments': {'uri': 'exec:cat >/dev/null'}}");
    rig_wait_phase(p.d->r, "f2", "migrated");
    for (i = STEP; i < 3 * STEP; i++) {
        expect_frame(p.on, SIZE, i, VNET_LEN);
    }
    /* Some may have waited in the TAP: they were not held back yet. */
    event = taken_over(&p, "migrated");
    expect_said(event, "f1", "packets", STEP);
    expect_said(event, "f1", "lost", 0);
    qobject_unref(event);
    g_assert_cmpint(kill(source, SIGCONT), ==, 0);
    pair_end(&p);
}

static void fill_tagged(uint8_t *packet, uint16_t type, uint32_t seq)
{
    packet_fill(packet, SIZE, seq);
    stw_be_p(packet + 12, type);
}

/* Tags stay where they are, of packets handed over and of those that wait. */
static void test_vlan(const void *data)
{
    static const uint16_t types[] = { ETH_P_VLAN, ETH_P_DVLAN };
    Pair p = pair_migrated();
    uint8_t packet[SIZE], taken[VNET_LEN + SIZE];
    unsigned i;

    run_destination(&p);
    for (i = 0; i < 4; i++) {
        fill_tagged(packet, types[i % 2], i);
        send_raw(i < 2 ? p.m->x->outside : p.d->y->outside, packet, SIZE);
    }
    for (i = 0; i < 4; i++) {
        fill_tagged(packet, types[i % 2], i);
        destination_take(p.d, taken);
        g_assert_cmpmem(taken + VNET_LEN, SIZE, packet, SIZE);
    }
    expect_end(&p, "told", 2, 2);
    pair_end(&p);
}

static void fill_for_guest(uint8_t *packet, uint32_t seq)
{
    static const uint8_t mac[6] = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 };

    packet_fill(packet, SIZE, seq);
    memcpy(packet, mac, sizeof(mac));
}

static void send_to_both(Pair *p, uint32_t first, uint32_t n, unsigned gap_us)
{
    uint8_t packet[SIZE];
    uint32_t i;

    for (i = 0; i < n; i++) {
        fill_for_guest(packet, first + i);
        send_raw(p->m->x->outside, packet, SIZE);
        send_raw(p->d->y->outside, packet, SIZE);
        g_usleep(gap_us);
    }
}

static void expect_for_guest(Destination *d, uint32_t first, uint32_t n)
{
    uint8_t packet[SIZE], taken[VNET_LEN + SIZE];
    uint32_t i;

    for (i = 0; i < n; i++) {
        fill_for_guest(packet, first + i);
        destination_take(d, taken);
        g_assert_cmpmem(taken + VNET_LEN, SIZE, packet, SIZE);
    }
}

/*
 * The network never learns: what is for the guest alone goes to both hosts, all
 * the time.  The source stops handing it over, though it goes on to come.
 */
static void test_copies(const void *data)
{
    Pair p = pair_migrated();
    QDict *event;

    send_to_both(&p, 0, STEP, 0);
    run_destination(&p);
    send_to_both(&p, STEP, STEP, 0);
    send_announcement(p.m);
    send_to_both(&p, 2 * STEP, 3 * STEP, 4000);
    event = taken_over(&p, "told");
    expect_said(event, "f1", "late", 0);
    expect_said(event, "f1", "stale", STEP);
    expect_said(event, "f1", "lost", 0);
    qobject_unref(event);
    send_to_both(&p, 5 * STEP, STEP, 0);
    expect_for_guest(p.d, 0, 6 * STEP);
    pair_end(&p);
}

static void send_group(int port, uint32_t seq)
{
    static const uint8_t mac[6] = { 0x01, 0x00, 0x5e, 0x01, 0x02, 0x03 };
    uint8_t packet[SIZE];

    packet_fill(packet, SIZE, seq);
    memcpy(packet, mac, sizeof(mac));
    send_raw(port, packet, SIZE);
}

/* One every few milliseconds; @other: -1 if there is none. */
static void send_groups(int port, int other, uint32_t first, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        send_group(port, first + i);
        if (other >= 0) {
            send_group(other, first + i);
        }
        g_usleep(4000);
    }
}

/*
 * Each of the group's once; in between, the guest is asked what it is a member
 * of, by IGMP and MLD.
 *
 * Return: how often
 */
static unsigned expect_groups(Destination *d, uint32_t first, uint32_t n)
{
    uint8_t packet[VNET_LEN + SIZE];
    unsigned queries = 0;
    bool seen[8 * STEP] = {};
    uint32_t i = 0, seq;

    while (i < n) {
        if (destination_take_any(d, packet) != sizeof(packet)) {
            g_assert_cmpmem(packet + VNET_LEN + 6, 5, "\nhand", 5);
            queries++;
            continue;
        }
        seq = packet_seq(packet + VNET_LEN) - first;
        g_assert_cmpuint(seq, <, n);
        g_assert_false(seen[seq]);
        seen[seq] = true;
        i++;
    }
    return queries;
}

/*
 * The network sends what is for a group to the source alone; at last, the
 * guest's report has it send to the destination, too.
 */
static void test_groups(const void *data)
{
    Pair p = pair_migrated();
    int source = p.m->x->outside, destination = p.d->y->outside;
    unsigned queries;
    QDict *event;

    send_groups(source, -1, 0, 4);
    run_destination(&p);
    send_announcement(p.m);
    /* Order ends meanwhile. */
    send_groups(source, -1, 4, STEP);
    queries = expect_groups(p.d, 0, STEP + 4);
    send_groups(destination, source, STEP + 4, 1);
    event = taken_over(&p, "told");
    expect_said(event, "f1", "cancelled", 1);
    expect_said(event, "f1", "late", 0);
    expect_said(event, "f1", "lost", 0);
    qobject_unref(event);
    /* The source still gets it. */
    send_groups(destination, source, STEP + 5, 3);
    queries += expect_groups(p.d, STEP + 4, 4);
    g_assert_cmpuint(queries, ==, 2);
    pair_end(&p);
}

/* It never does.  That ends, and nothing else waits for it. */
static void test_groups_silent(const void *data)
{
    Pair p = pair_migrated();
    int source = p.m->x->outside;
    int64_t since;
    QDict *event;

    send_groups(source, -1, 0, 2);
    run_destination(&p);
    since = g_get_monotonic_time();
    send_announcement(p.m);
    send_groups(source, -1, 2, STEP);
    g_assert_cmpuint(expect_groups(p.d, 0, STEP + 2), ==, 2);
    send_packets(p.d->y->outside, SIZE, 0, STEP);
    destination_expect(p.d, 0, STEP);
    g_assert_null(qtest_qmp_event_ref(p.d->r->qts,
                                      "FILTER_REDIRECTOR_TAKEN_OVER"));
    event = taken_over(&p, "told");
    /* It is given a second. */
    g_assert_cmpint(g_get_monotonic_time() - since, <, 8 * G_USEC_PER_SEC);
    expect_said(event, "f1", "late", 0);
    expect_said(event, "f1", "lost", 0);
    qobject_unref(event);
    pair_end(&p);
}

/* All that is for groups is flooded: nobody is asked. */
static void test_groups_flooded(const void *data)
{
    Pair p = pair_migrated();
    int source = p.m->x->outside, destination = p.d->y->outside;
    QDict *event;

    send_groups(destination, source, 0, STEP);
    run_destination(&p);
    send_groups(destination, source, STEP, STEP);
    send_announcement(p.m);
    send_groups(destination, source, 2 * STEP, STEP);
    event = taken_over(&p, "told");
    expect_said(event, "f1", "stale", STEP);
    expect_said(event, "f1", "late", 0);
    expect_said(event, "f1", "lost", 0);
    qobject_unref(event);
    send_groups(destination, source, 3 * STEP, STEP);
    g_assert_cmpuint(expect_groups(p.d, 0, 4 * STEP), ==, 0);
    pair_end(&p);
}

/* No traffic at all; then a single packet, there and late at the source. */
static void test_idle(const void *data)
{
    Pair p = pair_migrated();

    run_destination(&p);
    expect_end(&p, "told", 0, 0);
    send_packet(p.d->y->outside, SIZE, 0);
    destination_expect(p.d, 0, 1);
    send_packet(p.m->x->outside, SIZE, 1);
    destination_expect(p.d, 1, 1);
    pair_end(&p);
}

/* The source is told to quit, by a signal or by QMP. */
static void tell_to_quit(Machine *m, const char *by)
{
    if (by) {
        qtest_qmp_send(m->r->qts, "{'execute': 'quit'}");
    } else {
        kill(qtest_pid(m->r->qts), SIGTERM);
    }
}

static void wait_quit(Machine *m)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;

    while (qtest_probe_child(m->r->qts)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

/*
 * It finishes first: the destination has told that its guest runs, but not
 * that it has got all.  @data: by QMP
 */
static void test_source_lingers(const void *data)
{
    Pair p = pair_migrated();
    Port *x = p.m->x;

    run_destination(&p);
    send_packets(x->outside, SIZE, 0, STEP);
    destination_expect(p.d, 0, STEP);
    tell_to_quit(p.m, data);
    g_usleep(50 * 1000);
    g_assert_true(qtest_probe_child(p.m->r->qts));
    send_packets(x->outside, SIZE, STEP, STEP);
    destination_expect(p.d, STEP, STEP);
    send_packets(x->outside, SIZE, 2 * STEP, STEP);
    destination_expect(p.d, 2 * STEP, STEP);
    wait_quit(p.m);
    pair_end(&p);
}

/* The destination doesn't answer: it quits at last, or when told once more. */
static void test_source_lingers_no_more(const void *data)
{
    Pair p = pair_migrated();
    int64_t begin;

    run_destination(&p);
    rig_sync(p.m->r);
    g_assert_cmpint(kill(qtest_pid(p.d->r->qts), SIGSTOP), ==, 0);
    begin = g_get_monotonic_time();
    tell_to_quit(p.m, NULL);
    g_usleep(50 * 1000);
    g_assert_true(qtest_probe_child(p.m->r->qts));
    if (data) {
        tell_to_quit(p.m, NULL);
    }
    wait_quit(p.m);
    if (!data) {
        g_assert_cmpint(g_get_monotonic_time() - begin, >=, G_USEC_PER_SEC);
    }
    g_assert_cmpint(kill(qtest_pid(p.d->r->qts), SIGCONT), ==, 0);
    pair_end(&p);
}

/*
 * Postcopy: the source has sent all that the destination needs to start, but
 * whether it does is not known yet
 */

/*
 * What is read from the source while the destination gets nothing: all that it
 * has to start, but not all of the memory.  A source that has sent all waits
 * for its destination, for ever if the connection breaks then.
 */
#define HELD_MAX (2 * MiB)

/* Between source and destination, so that the test can hold up the stream. */
typedef struct Relay {
    GThread *thread;
    int source;
    int destination;
    int gate;               /* to the destination: open or closed */
    int passed;             /* something has got there */
    int stop;
    GByteArray *held;
} Relay;

static void relay_out(Relay *r)
{
    if (g_atomic_int_get(&r->gate) && r->held->len) {
        send_bytes(r->destination, r->held->data, r->held->len);
        g_byte_array_set_size(r->held, 0);
        g_atomic_int_set(&r->passed, 1);
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
        p[0].events = r->held->len < HELD_MAX ? POLLIN : 0;
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

/* Return: NULL if it can't be done, and the case has been skipped */
static Relay *postcopy_begin(Machine *m, Destination *d)
{
    Relay *relay;

    pc_start(&d->pc);
    if (!enable_capability(m->r, "postcopy-ram") ||
        !enable_capability(d->r, "postcopy-ram")) {
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
    /* For the beginning of a stream QEMU waits in its main loop. */
    while (!g_atomic_int_get(&relay->passed)) {
        rig_sync(m->r);
    }
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

/* Since 11.0 it wants a return path; before, it makes its own. */
static bool enable_colo(Rig *r)
{
    return try_capability(r, "x-colo", NULL) ||
           (enable_capability(r, "return-path") &&
            enable_capability(r, "x-colo"));
}

static void test_colo(const void *unused)
{
    Machine *m = machine_start("", HAND_OVER);
    Destination *d = destination_new();

    pc_start(&d->pc);
    send_step(m);
    guest_gets_all(m);
    if (enable_colo(m->r) && enable_colo(d->r)) {
        colo_run(m, d);
    }
    machine_free(m);
    destination_free(d);
}

/*
 * Local migration: the guest goes on in another QEMU on the same TAP
 */

/* @data: whether the machine has been stopped before */
static void test_cpr_reboot(const void *data)
{
    Machine *m = machine_start("", HAND_OVER);

    send_step(m);
    guest_gets_all(m);
    set_mode(m->r, "cpr-reboot");
    if (data) {
        rig_stop(m->r);
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
 * cpr-transfer: the destination starts by asking the source what it has open.
 * A machine without memory will do; its guest is behind a hub.
 */

/* Fails until the destination listens. */
static void migrate_transfer(Rig *r, const char *dir)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    g_autofree char *main_path = g_strdup_printf("%s/main", dir);
    g_autofree char *cpr_path = g_strdup_printf("%s/cpr", dir);
    bool started;

    set_mode(r, "cpr-transfer");
    do {
        QDict *reply;

        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(10 * 1000);
        reply = qtest_qmp(r->qts,
            "{'execute': 'migrate', 'arguments': {'channels': ["
            "{'channel-type': 'main', 'addr': {'transport': 'socket', "
            "'type': 'unix', 'path': %s}}, "
            "{'channel-type': 'cpr', 'addr': {'transport': 'socket', "
            "'type': 'unix', 'path': %s}}]}}", main_path, cpr_path);
        started = qdict_haskey(reply, "return");
        qobject_unref(reply);
    } while (!started);
}

static void test_cpr_transfer(const void *unused)
{
    g_autofree char *dir = g_dir_make_tmp("qtest-redirector-XXXXXX", NULL);
    g_autofree char *main_path = g_strdup_printf("%s/main", dir);
    g_autofree char *cpr_path = g_strdup_printf("%s/cpr", dir);
    g_autofree char *args = NULL;
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
                           "addr.transport=socket,addr.type=unix,addr.path=%s",
                           main_path, cpr_path);
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
    rig_free(m.r);
    unlink(main_path);
    unlink(cpr_path);
    rmdir(dir);
}

#define PREFIX "/filter-redirector/destination/"

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    if (qtest_has_device("virtio-net-pci")) {
        case_add(PREFIX "destination-ends/active", test_destination_ends,
                 NULL);
        case_add(PREFIX "destination-ends/late", test_destination_ends,
                 "late");
        case_add(PREFIX "destination-takes/running", test_destination_takes,
                 NULL);
        case_add(PREFIX "destination-takes/stopped", test_destination_takes,
                 "stopped");
        case_add(PREFIX "destination-holds", test_destination_holds, NULL);
        case_add(PREFIX "destination-told", test_destination_told, NULL);
        case_add(PREFIX "overtaken", test_overtaken, NULL);
        case_add(PREFIX "no-announcement", test_no_announcement, NULL);
        case_add(PREFIX "forged/early", test_forged, NULL);
        case_add(PREFIX "forged/cont", test_forged, "cont");
        case_add(PREFIX "slow-manager", test_slow_manager, NULL);
        case_add(PREFIX "source-gone", test_source_gone, NULL);
        case_add(PREFIX "busy", test_busy, NULL);
        case_add(PREFIX "source-busy", test_source_busy, NULL);
        case_add(PREFIX "stopped-again", test_stopped_again, NULL);
        case_add(PREFIX "reset-again", test_reset_again, NULL);
        case_add(PREFIX "both-ways/destination", test_both_ways, NULL);
        case_add(PREFIX "both-ways/source", test_both_ways, "cont");
        case_add(PREFIX "migrated-on", test_migrated_on, NULL);
        case_add(PREFIX "vlan", test_vlan, NULL);
        case_add(PREFIX "copies", test_copies, NULL);
        case_add(PREFIX "groups", test_groups, NULL);
        case_add(PREFIX "groups/silent", test_groups_silent, NULL);
        case_add(PREFIX "groups/flooded", test_groups_flooded, NULL);
        case_add(PREFIX "idle", test_idle, NULL);
        case_add(PREFIX "source-lingers/signal", test_source_lingers, NULL);
        case_add(PREFIX "source-lingers/qmp", test_source_lingers, "qmp");
        case_add(PREFIX "source-lingers/limit", test_source_lingers_no_more,
                 NULL);
        case_add(PREFIX "source-lingers/twice", test_source_lingers_no_more,
                 "twice");
        case_add(PREFIX "postcopy/completed", test_postcopy, NULL);
        case_add(PREFIX "postcopy/lost", test_postcopy, "lost");
        case_add(PREFIX "colo", test_colo, NULL);
        case_add(PREFIX "cpr-reboot/running", test_cpr_reboot, NULL);
        case_add(PREFIX "cpr-reboot/stopped", test_cpr_reboot, "stopped");
    }
    case_add(PREFIX "cpr-transfer", test_cpr_transfer, NULL);
    return g_test_run();
}
