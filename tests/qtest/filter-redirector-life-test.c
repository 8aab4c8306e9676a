/*
 * QTest of filter-redirector's netdev endpoints: creation, removal, query
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <net/if.h>
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "filter-redirector-helpers.h"

/*
 * Nothing leaks
 */

static void test_leak_add_del(const void *unused)
{
    static const char *const props[] = {
        "id=f0,netdev=n,in_netdev=x,outdev=c0,ring_size=524288",
        "id=f0,netdev=n,indev=c0,out_netdev=x",
        "id=f0,netdev=x,out_netdev=x",
        "id=f0,netdev=x,outdev=c0,enable_when_stopped=on",
    };
    Rig *r = rig_new();
    unsigned fds, i;

    rig_tap(r, "x", 0);
    rig_wire(r, "n");
    g_string_append(r->args, "-chardev null,id=c0 ");
    rig_start(r);
    rig_sync(r);
    fds = rig_count_fds(r);
    for (i = 0; i < 1000; i++) {
        rig_add(r, props[i % ARRAY_SIZE(props)]);
        rig_del(r, "f0");
    }
    rig_sync(r);
    g_assert_cmpuint(rig_count_fds(r), ==, fds);
    rig_free(r);
}

/*
 * Things go away while packets flow
 */

typedef struct Traffic {
    Rig *r;
    Port *n;
    Port *x;
    int ci;
    int co;
    Flood *to_x;
    Flood *to_n;
    Flood *to_ci;
    Drain *from_co;
    Drain *from_x;
} Traffic;

/*
 * f0 captures from x, f1 injects into x, with floods on all ways in and
 * readers on the ways out.
 */
static Traffic traffic_start(unsigned tap_bits)
{
    Traffic t = { .r = rig_new() };

    t.n = rig_wire(t.r, "n");
    t.x = rig_tap(t.r, "x", TAP_GUEST | tap_bits);
    t.ci = rig_chardev(t.r, "ci");
    t.co = rig_chardev(t.r, "co");
    rig_start(t.r);
    rig_add(t.r, "id=f0,netdev=n,queue=all,in_netdev=x,outdev=co");
    rig_add(t.r, "id=f1,netdev=n,queue=all,indev=ci,out_netdev=x");
    t.from_co = drain_start(t.co);
    t.from_x = drain_start(t.x->inside);
    t.to_x = flood_start(t.x->outside, 1000, NO_LIMIT, false);
    t.to_n = flood_start(t.n->outside, 1000, NO_LIMIT, false);
    t.to_ci = flood_start(t.ci, 1000, NO_LIMIT, true);
    rig_wait_stat_min(t.r, "f0", "output.stats.packets", 1000);
    rig_wait_stat_min(t.r, "f1", "output.stats.packets", 1000);
    return t;
}

static void traffic_end(Traffic *t)
{
    if (t->r->qts) {
        rig_sync(t->r);
    }
    flood_stop(t->to_x);
    flood_stop(t->to_n);
    flood_stop(t->to_ci);
    drain_stop(t->from_co);
    drain_stop(t->from_x);
    rig_free(t->r);
}

static void netdev_del(Rig *r, const char *id)
{
    qtest_qmp_assert_success(r->qts, "{'execute': 'netdev_del', "
                             "'arguments': {'id': %s}}", id);
}

/* @data: whether the interface outlives the netdev */
static void test_netdev_del_endpoint(const void *data)
{
    Traffic t = traffic_start(data ? TAP_HELD : 0);

    netdev_del(t.r, "x");
    rig_wait_state(t.r, "f0", "input", "gone");
    rig_wait_state(t.r, "f1", "output", "gone");
    rig_sync(t.r);
    rig_del(t.r, "f0");
    rig_del(t.r, "f1");
    traffic_end(&t);
}

static void test_netdev_del_own(const void *unused)
{
    Traffic t = traffic_start(0);

    netdev_del(t.r, "n");
    rig_sync(t.r);
    g_assert_null(rig_info(t.r, "f0"));
    g_assert_null(rig_info(t.r, "f1"));
    rig_add(t.r, "id=f0,netdev=x,queue=all,in_netdev=x,outdev=co");
    rig_del(t.r, "f0");
    traffic_end(&t);
}

/* The same netdev in all roles. */
static void test_netdev_del_all(const void *unused)
{
    Traffic t = traffic_start(0);

    rig_del(t.r, "f0");
    rig_del(t.r, "f1");
    rig_add(t.r, "id=f0,netdev=x,queue=all,in_netdev=x,outdev=co");
    rig_add(t.r, "id=f1,netdev=x,queue=all,indev=ci,out_netdev=x");
    netdev_del(t.r, "x");
    g_assert_null(rig_info(t.r, "f0"));
    g_assert_null(rig_info(t.r, "f1"));
    traffic_end(&t);
}

static void test_object_del(const void *unused)
{
    Traffic t = traffic_start(0);
    unsigned i;

    for (i = 0; i < 50; i++) {
        rig_del(t.r, "f0");
        rig_del(t.r, "f1");
        rig_add(t.r, "id=f0,netdev=n,queue=all,in_netdev=x,outdev=co");
        rig_add(t.r, "id=f1,netdev=n,queue=all,indev=ci,out_netdev=x");
    }
    traffic_end(&t);
}

static void test_chardev_remove(const void *unused)
{
    static const char *const ids[] = { "ci", "co" };
    Traffic t = traffic_start(0);
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(ids); i++) {
        QDict *error = qtest_qmp_assert_failure_ref(
            t.r->qts, "{'execute': 'chardev-remove', 'arguments': "
            "{'id': %s}}", ids[i]);

        qobject_unref(error);
    }
    rig_del(t.r, "f0");
    rig_del(t.r, "f1");
    for (i = 0; i < ARRAY_SIZE(ids); i++) {
        qtest_qmp_assert_success(t.r->qts, "{'execute': 'chardev-remove', "
                                 "'arguments': {'id': %s}}", ids[i]);
    }
    traffic_end(&t);
}

/* QEMU ends with status 0: qtest_quit() looks at it. */
static void test_quit(const void *data)
{
    Traffic t = traffic_start(0);

    if (data) {
        rig_stop(t.r);
    }
    qtest_quit(t.r->qts);
    t.r->qts = NULL;
    traffic_end(&t);
}

/*
 * The interface changes below
 */

static void test_down_up(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    int ci = rig_chardev(r, "ci");
    int co = rig_chardev(r, "co");
    unsigned i;

    rig_wire(r, "n");
    rig_start(r);
    rig_add(r, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co");
    rig_add(r, "id=f1,netdev=n,indev=ci,out_netdev=x");
    for (i = 0; i < 3; i++) {
        if_set_up(x->ifname, false);
        rig_wait_state(r, "f0", "input", "down");
        send_frames(ci, 100, 10 * i, 5);
        rig_wait_state(r, "f1", "output", "down");
        if_set_up(x->ifname, true);
        clear_error(x->outside);
        expect_packets(x->inside, 100, 10 * i, 5);
        rig_wait_state(r, "f0", "input", "active");
        rig_wait_state(r, "f1", "output", "active");
        send_packets(x->outside, 100, 10 * i + 5, 5);
        expect_packets(x->inside, 100, 10 * i + 5, 5);
        expect_frames(co, 100, 10 * i + 5, 5);
    }
    assert_stat(r, "f1", "output.stats.packets", 15);
    assert_stat(r, "f1", "output.stats.errors", 0);
    rig_free(r);
}

/* An object made while the interface is down works once it is up. */
static void test_down_first(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    int ci = rig_chardev(r, "ci");
    int co = rig_chardev(r, "co");

    rig_wire(r, "n");
    if_set_up(x->ifname, false);
    g_string_append(r->args, "-object filter-redirector,id=f0,netdev=n,"
                    "queue=tx,in_netdev=x,outdev=co "
                    "-object filter-redirector,id=f1,netdev=n,indev=ci,"
                    "out_netdev=x ");
    rig_start(r);
    rig_wait_state(r, "f0", "input", "down");
    rig_wait_state(r, "f1", "output", "down");
    if_set_up(x->ifname, true);
    clear_error(x->outside);
    rig_wait_state(r, "f0", "input", "active");
    rig_wait_state(r, "f1", "output", "active");
    send_packet(x->outside, 100, 0);
    expect_frame(co, 100, 0, NO_VNET);
    send_frame(ci, 100, 1, NO_VNET);
    expect_packets(x->inside, 100, 0, 2);
    rig_free(r);
}

static void test_interface_removed(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    int ci = rig_chardev(r, "ci");

    rig_chardev(r, "co");
    rig_wire(r, "n");
    rig_start(r);
    rig_add(r, "id=f0,netdev=n,in_netdev=x,outdev=co");
    rig_add(r, "id=f1,netdev=n,indev=ci,out_netdev=x");
    if_delete(x->ifname);
    rig_wait_state(r, "f0", "input", "gone");
    send_frames(ci, 100, 0, 5);
    rig_wait_state(r, "f1", "output", "gone");
    g_assert_cmpint(rig_sync(r), <, G_USEC_PER_SEC);
    rig_del(r, "f0");
    rig_del(r, "f1");
    rig_free(r);
}

/*
 * Peers that come, go, and send nonsense
 */

typedef struct Damage {
    const char *name;
    uint32_t words[2];
    bool vnet;
} Damage;

static const Damage damages[] = {
    { "zero", { 0, 0 } },
    { "huge", { UINT32_MAX, 0 } },
    { "long", { 69633, 0 } },
    { "vnet-zero", { 0, 0 }, .vnet = true },
    { "vnet-long", { 100, 101 }, .vnet = true },
    { "vnet-header-only", { 10, 12 }, .vnet = true },
    { "vnet-unknown", { 100, 13 }, .vnet = true },
    { "vnet-huge", { 100, UINT32_MAX }, .vnet = true },
};

/* Counted, the connection closed, and the next one is as good as new. */
static void test_damage(const void *data)
{
    const Damage *d = data;
    const int vnet = d->vnet ? 0 : NO_VNET;
    const uint32_t words[2] = {
        cpu_to_be32(d->words[0]), cpu_to_be32(d->words[1]),
    };
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    g_autofree char *path = rig_server(r, "ci");
    unsigned i;
    int fd;

    rig_wire(r, "n");
    rig_start(r);
    rig_add(r, d->vnet ? "id=f0,netdev=n,indev=ci,out_netdev=x,"
                         "vnet_hdr_support=on"
                       : "id=f0,netdev=n,indev=ci,out_netdev=x");
    rig_wait_state(r, "f0", "input", "disconnected");
    for (i = 0; i < 3; i++) {
        fd = rig_connect(r, path);
        send_frame(fd, 100, i, vnet);
        send_bytes(fd, words, d->vnet ? 8 : 4);
        expect_packet(x->inside, 100, i);
        expect_eof(fd);
        rig_wait_stat(r, "f0", "input.stats.errors", i + 1);
        rig_close(r, fd);
    }
    assert_stat(r, "f0", "input.stats.packets", 3);
    assert_stat(r, "f0", "output.stats.packets", 3);
    rig_free(r);
}

static void add_damage_cases(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(damages); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/damage/%s", damages[i].name);

        case_add(path, test_damage, &damages[i]);
    }
}

/* Packets that the kernel refuses are counted, and the next one passes. */
static void test_refused(const void *unused)
{
    static const size_t sizes[] = { 1515 + 4, 9000, 65535, 69632 };
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    int ci = rig_chardev(r, "ci");
    unsigned i;

    rig_wire(r, "n");
    rig_start(r);
    rig_add(r, "id=f0,netdev=n,indev=ci,out_netdev=x");
    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        send_frame(ci, sizes[i], 1000 + i, NO_VNET);
        send_frame(ci, 100, i, NO_VNET);
        expect_packet(x->inside, 100, i);
    }
    send_frame_raw(ci, "short", 5, NO_VNET);
    send_frame(ci, 100, i, NO_VNET);
    expect_packet(x->inside, 100, i);
    assert_stat(r, "f0", "input.stats.packets", 2 * (i + 1));
    assert_stat(r, "f0", "output.stats.packets", i + 1);
    assert_stat(r, "f0", "output.stats.errors", i + 1);
    rig_free(r);
}

/* A sender that leaves within a frame: the next one's begin at the start. */
static void test_sender_leaves(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    g_autofree char *path = rig_server(r, "ci");
    const uint32_t len = cpu_to_be32(100);
    unsigned i;

    rig_wire(r, "n");
    rig_start(r);
    rig_add(r, "id=f0,netdev=n,indev=ci,out_netdev=x");
    for (i = 0; i < 5; i++) {
        int fd = rig_connect(r, path);

        send_frame(fd, 100, i, NO_VNET);
        send_bytes(fd, &len, sizeof(len));
        send_bytes(fd, "begin", i);
        expect_packet(x->inside, 100, i);
        rig_close(r, fd);
        rig_wait_state(r, "f0", "input", "disconnected");
    }
    assert_stat(r, "f0", "input.stats.packets", 5);
    rig_free(r);
}

/* A receiver that leaves within a frame: the next one gets whole frames. */
static void test_receiver_leaves(const void *unused)
{
    const unsigned count = 300, size = 9014;
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", 0);
    g_autofree char *path = rig_server(r, "co");
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    int64_t last = -1;
    Flood *flood;
    int fd;

    rig_wire(r, "n");
    if_set_mtu(x->ifname, 9000);
    rig_start(r);
    rig_add(r, "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co");
    rig_wait_state(r, "f0", "output", "disconnected");
    fd = rig_connect(r, path);
    rig_wait_state(r, "f0", "output", "active");
    flood = flood_start(x->outside, size, count, false);
    expect_frames(fd, size, 0, 3);
    recv_bytes(fd, packet, 1000);
    rig_wait_state(r, "f0", "output", "stalled");
    rig_close(r, fd);
    rig_wait_state(r, "f0", "output", "disconnected");

    fd = rig_connect(r, path);
    while (last < count - 1) {
        g_assert_cmpuint(recv_frame(fd, packet, NO_VNET), ==, size);
        packet_check(packet, size);
        g_assert_cmpint(packet_seq(packet), >, last);
        last = packet_seq(packet);
    }
    g_assert_cmpuint(flood_finish(flood), ==, count);
    assert_stat(r, "f0", "input.stats.packets", count);
    assert_stat(r, "f0", "input.stats.lost", 0);
    rig_wait_stat(r, "f0", "output.stats.queued", 0);
    rig_free(r);
}

/*
 * What users see
 */

static void check_end(QDict *info, const char *end, const char *type,
                      const char *name, const Port *tap)
{
    QDict *dict = qdict_get_qdict(info, end);
    struct stat st;

    g_assert_cmpstr(qdict_get_str(dict, "type"), ==, type);
    g_assert_cmpstr(qdict_get_str(dict, "state"), ==, "active");
    g_assert_cmpstr(qdict_get_try_str(dict, "name"), ==, name);
    g_assert_true(qdict_haskey(dict, "stats"));
    g_assert_cmpstr(qdict_get_try_str(dict, "ifname"), ==,
                    tap ? tap->ifname : NULL);
    if (tap) {
        g_assert_cmpint(stat("/proc/self/ns/net", &st), ==, 0);
        g_assert_cmpuint(qdict_get_int(dict, "netns"), ==, st.st_ino);
        g_assert_cmpuint(qdict_get_int(dict, "ifindex"), ==,
                         if_nametoindex(tap->ifname));
    }
}

static void test_info(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                          "enable_when_stopped=on");
    g_autofree char *hmp = NULL;
    QDict *info;

    rig_add(b.r, "id=f1,netdev=n,queue=rx,out_netdev=x");
    info = rig_info(b.r, "f0");
    g_assert_cmpstr(qdict_get_str(info, "netdev"), ==, "n");
    g_assert_cmpstr(qdict_get_str(info, "queue"), ==, "tx");
    g_assert_true(qdict_get_bool(info, "enable-when-stopped"));
    check_end(info, "input", "packet-socket", "x", b.x);
    check_end(info, "output", "chardev", "co", NULL);
    qobject_unref(info);

    info = rig_info(b.r, "f1");
    g_assert_cmpstr(qdict_get_str(info, "queue"), ==, "rx");
    g_assert_false(qdict_get_bool(info, "enable-when-stopped"));
    check_end(info, "input", "chain", NULL, NULL);
    check_end(info, "output", "packet-socket", "x", b.x);
    qobject_unref(info);

    hmp = qtest_hmp(b.r->qts, "info filter-redirectors");
    g_assert_nonnull(strstr(hmp, "f0"));
    g_assert_nonnull(strstr(hmp, "f1"));
    g_assert_nonnull(strstr(hmp, b.x->ifname));
    rig_free(b.r);
}

/* Renaming an interface does no harm. */
static void test_info_rename(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co");
    QDict *info;

    if_rename(b.x->ifname, "tap-renamed");
    pstrcpy(b.x->ifname, sizeof(b.x->ifname), "tap-renamed");
    clear_error(b.x->outside);
    rig_wait_state(b.r, "f0", "input", "active");
    info = rig_info(b.r, "f0");
    check_end(info, "input", "packet-socket", "x", b.x);
    qobject_unref(info);
    send_packet(b.x->outside, 100, 0);
    expect_frame(b.co, 100, 0, NO_VNET);
    rig_free(b.r);
}

/* Redirectors between chardevs and the chain show the same. */
static void test_info_classic(const void *unused)
{
    Bench b = bench_start("id=f0,netdev=n,queue=tx,indev=ci,outdev=co");
    QDict *info = rig_info(b.r, "f0");
    QDict *end = qdict_get_qdict(info, "input");

    g_assert_cmpstr(qdict_get_str(end, "type"), ==, "chardev");
    g_assert_cmpstr(qdict_get_str(end, "name"), ==, "ci");
    g_assert_true(qdict_haskey(end, "stats"));
    end = qdict_get_qdict(info, "output");
    g_assert_cmpstr(qdict_get_str(end, "type"), ==, "chardev");
    g_assert_cmpstr(qdict_get_str(end, "name"), ==, "co");
    g_assert_true(qdict_haskey(end, "stats"));
    qobject_unref(info);
    rig_free(b.r);
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    add_damage_cases();
    case_add("/filter-redirector/leak/add-del", test_leak_add_del, NULL);
    case_add("/filter-redirector/netdev_del/endpoint",
             test_netdev_del_endpoint, NULL);
    case_add("/filter-redirector/netdev_del/endpoint-held",
             test_netdev_del_endpoint, "held");
    case_add("/filter-redirector/netdev_del/own", test_netdev_del_own, NULL);
    case_add("/filter-redirector/netdev_del/all", test_netdev_del_all, NULL);
    case_add("/filter-redirector/object-del", test_object_del, NULL);
    case_add("/filter-redirector/chardev-remove", test_chardev_remove, NULL);
    case_add("/filter-redirector/quit/running", test_quit, NULL);
    case_add("/filter-redirector/quit/stopped", test_quit, "stopped");
    case_add("/filter-redirector/down-up", test_down_up, NULL);
    case_add("/filter-redirector/down-first", test_down_first, NULL);
    case_add("/filter-redirector/interface-removed", test_interface_removed,
             NULL);
    case_add("/filter-redirector/refused", test_refused, NULL);
    case_add("/filter-redirector/peer/sender-leaves", test_sender_leaves,
             NULL);
    case_add("/filter-redirector/peer/receiver-leaves", test_receiver_leaves,
             NULL);
    case_add("/filter-redirector/info/netdev", test_info, NULL);
    case_add("/filter-redirector/info/rename", test_info_rename, NULL);
    case_add("/filter-redirector/info/classic", test_info_classic, NULL);

    return g_test_run();
}
