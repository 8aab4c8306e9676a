/*
 * Helpers of the filter-redirector qtests: a machine that is migrated
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/socket.h>
#include "filter-redirector-machine.h"

Machine *machine_new(const char *args, unsigned tap_bits)
{
    Machine *m = g_new0(Machine, 1);

    m->stream = -1;
    m->r = rig_new();
    m->x = rig_tap(m->r, "x", tap_bits);
    m->co = rig_chardev(m->r, "co");
    g_string_append_printf(m->r->args, "-m 64 %s ", args);
    return m;
}

Machine *machine_start(const char *args, const char *props)
{
    Machine *m = machine_new(args, 0);

    pc_add_nic(&m->pc, m->r, "x", NIC_PROPS);
    pc_start(&m->pc);
    pc_nic_drive(&m->pc, 0, 0, 1);
    rig_add(m->r, props);
    return m;
}

void stream_close(Machine *m)
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

void machine_free(Machine *m)
{
    stream_close(m);
    pc_end(&m->pc);
    g_free(m);
}

/*
 * Packets
 */

void send_step(Machine *m)
{
    send_packets(m->x->outside, SIZE, m->sent, STEP);
    m->sent += STEP;
}

/* Packets that come at any time while QEMU does something. */
void send_paced(Machine *m)
{
    unsigned i;

    for (i = 0; i < 2 * STEP; i++) {
        send_packets(m->x->outside, SIZE, m->sent++, 1);
        g_usleep(500);
    }
}

/* What the guest finds in its memory when it wakes up. */
void guest_takes(Machine *m)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    size_t got;

    while ((got = pc_nic_poll(&m->pc, 0, 0, packet))) {
        g_assert_cmpuint(packet_seq(packet), ==, m->seen);
        packet_check(packet, got);
        m->seen++;
    }
}

void expect_nothing_more(Machine *m)
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
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);

    pc_nic_take(&m->pc, 0, packet);
    m->seen += packet_seq(packet) == m->seen + 1;
    g_assert_cmpuint(packet_seq(packet), ==, m->seen);
    m->seen++;
}

/* All that nobody has seen yet is the guest's, and nobody else's. */
void guest_gets_all(Machine *m)
{
    if (m->was_reset && m->seen < m->sent) {
        guest_gets_first(m);
    }
    m->was_reset = false;
    pc_nic_expect(&m->pc, 0, SIZE, m->seen, m->sent - m->seen);
    m->seen = m->sent;
    expect_nothing_more(m);
}

void outdev_expect(Machine *m, uint32_t first, uint32_t n)
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

void outdev_gets_all(Machine *m)
{
    outdev_expect(m, m->seen, m->sent - m->seen);
    m->seen = m->sent;
    expect_nothing_more(m);
}

void guest_lost_nothing(Machine *m)
{
    assert_stat(m->r, "f0", "output.stats.packets", 0);
    assert_stat(m->r, "f0", "output.stats.lost", 0);
}

void check_guest_goes_on(Machine *m)
{
    guest_gets_all(m);
    send_step(m);
    guest_gets_all(m);
    guest_lost_nothing(m);
}

void expect_going_on(Machine *m)
{
    rig_wait_runstate(m->r, "running");
    rig_wait_phase(m->r, "f0", "running");
    check_guest_goes_on(m);
}

void check_handed_over(Machine *m)
{
    rig_wait_phase(m->r, "f0", "migrated");
    outdev_gets_all(m);
    send_step(m);
    outdev_gets_all(m);
    assert_stat(m->r, "f0", "output.stats.lost", 0);
    assert_stat(m->r, "f0", "output.stats.errors", 0);
}

void send_announcement(Machine *m)
{
    static const uint8_t mac[6] = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 };
    uint8_t packet[60] = { [12] = 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3 };

    memset(packet, 0xff, 6);
    memcpy(packet + 6, mac, 6);
    memcpy(packet + 22, mac, 6);
    memcpy(packet + 32, mac, 6);
    send_raw(m->x->outside, packet, sizeof(packet));
}

void wait_announced(Machine *m)
{
    rig_wait_stat(m->r, "f0", "input.stats.discarded", 1);
}

/*
 * Migration, into a stream that the test reads or doesn't
 */

char *migration_status(Machine *m)
{
    QDict *reply = qtest_qmp_assert_success_ref(
        m->r->qts, "{'execute': 'query-migrate'}");
    char *status = g_strdup(qdict_get_try_str(reply, "status") ?: "none");

    qobject_unref(reply);
    return status;
}

void wait_migration(Machine *m, const char *status)
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

void set_capability(Machine *m, const char *name, bool on)
{
    qtest_qmp_assert_success(m->r->qts,
                             "{'execute': 'migrate-set-capabilities', "
                             "'arguments': {'capabilities': ["
                             "{'capability': %s, 'state': %i}]}}",
                             name, on);
}

/* More than the stream holds while nobody reads it. */
void fill_memory(Machine *m)
{
    qtest_memset(m->r->qts, 32 * 1024 * 1024, 0x5a, 8 * 1024 * 1024);
}

void migrate_begin(Machine *m, Place place)
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

void migrate_let_go(Machine *m)
{
    if (!m->drain) {
        m->drain = drain_start(m->stream);
    }
}

void migrate_arrive(Machine *m, Place place)
{
    if (place == PLACE_SWITCHOVER) {
        migrate_let_go(m);
        wait_migration(m, "pre-switchover");
    }
}

void migrate_continue(Machine *m, Place place)
{
    if (place == PLACE_SWITCHOVER) {
        qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate-continue', "
                                 "'arguments': {'state': 'pre-switchover'}}");
    }
}

void migrate_cancel(Machine *m)
{
    qtest_qmp_assert_success(m->r->qts, "{'execute': 'migrate_cancel'}");
    wait_migration(m, "cancelled");
    stream_close(m);
}

/* The other side is gone. */
void migrate_break(Machine *m, Place place)
{
    stream_close(m);
    migrate_continue(m, place);
    wait_migration(m, "failed");
}

void migrate_complete(Machine *m, Place place)
{
    migrate_let_go(m);
    migrate_continue(m, place);
    wait_migration(m, "completed");
    rig_wait_runstate(m->r, "postmigrate");
    stream_close(m);
}

void set_mode(Rig *r, const char *mode)
{
    qtest_qmp_assert_success(r->qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'mode': %s}}", mode);
}

bool try_capability(Rig *r, const char *name, char **why)
{
    QDict *reply = qtest_qmp(r->qts, "{'execute': 'migrate-set-capabilities', "
                             "'arguments': {'capabilities': ["
                             "{'capability': %s, 'state': true}]}}", name);
    const bool ok = qdict_haskey(reply, "return");

    if (!ok && why) {
        *why = g_strdup(qdict_get_str(qdict_get_qdict(reply, "error"),
                                      "desc"));
    }
    qobject_unref(reply);
    return ok;
}

bool enable_capability(Rig *r, const char *name)
{
    g_autofree char *why = NULL;
    const bool ok = try_capability(r, name, &why);

    if (!ok) {
        g_test_skip(why);
    }
    return ok;
}
