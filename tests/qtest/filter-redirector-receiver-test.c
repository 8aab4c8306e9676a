/*
 * QTest of filter-redirector into the filter chain of a NIC: one that takes
 * nothing, one whose driver comes up, e1000, and vhost
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "filter-redirector-nic.h"

/*
 * Into the chain of a NIC that takes nothing
 */

#define SIZE 1000
#define NIC_SIZE 100
#define NIC_COUNT 12000     /* more than the NIC's queue is to hold */

/* A virtio-net device on TAP x, with a peer that sends to it. */
typedef struct Nic {
    Pc pc;
    Rig *r;
    Port *x;
    int ci;
    int co;
} Nic;

static void nic_start(Nic *nic, const char *props)
{
    *nic = (Nic) { .r = rig_new() };
    nic->x = rig_tap(nic->r, "x", 0);
    nic->ci = rig_chardev(nic->r, "ci");
    nic->co = rig_chardev(nic->r, "co");
    pc_add_nic(&nic->pc, nic->r, "x", props);
    pc_start(&nic->pc);
}

/* Frames for this NIC: with its vnet header, empty. */
static void *nic_send_run(void *opaque)
{
    const int fd = GPOINTER_TO_INT(opaque);
    unsigned i;

    for (i = 0; i < NIC_COUNT; i++) {
        send_frame(fd, NIC_SIZE, i, 12);
    }
    return NULL;
}

/*
 * The NIC's queue is filled up to a bound, then the sender is held; nothing is
 * lost once the guest takes packets.
 * @data: whether the machine is stopped; else the guest gives no buffers
 */
static void test_nic_full(const void *data)
{
    GThread *sender;
    size_t memory;
    Nic nic;

    nic_start(&nic, "disable-legacy=on");
    rig_add(nic.r, "id=f0,netdev=x,queue=tx,indev=ci,vnet_hdr_support=on");
    if (data) {
        pc_nic_drive(&nic.pc, 0, 0, 1);
        rig_stop(nic.r);
    } else {
        pc_nic_set_up(&nic.pc, 0, 0, 1);
    }
    memory = rig_memory(nic.r);
    sender = g_thread_new("sender", nic_send_run, GINT_TO_POINTER(nic.ci));
    rig_wait_state(nic.r, "f0", "output", "stalled");
    expect_answers(nic.r);
    g_assert_cmpuint(rig_memory(nic.r), <, memory + MEMORY_MAX);
    g_assert_cmpuint(rig_stat(nic.r, "f0", "input.stats.packets"), <=, 8192);
    if (data) {
        rig_cont(nic.r);
    } else {
        pc_nic_give_buffers(&nic.pc, 0);
    }
    pc_nic_expect(&nic.pc, 0, NIC_SIZE, 0, NIC_COUNT);
    g_thread_join(sender);
    rig_sync(nic.r);
    pc_nic_expect_silence(&nic.pc, 0);
    rig_wait_stat(nic.r, "f0", "output.stats.packets", NIC_COUNT);
    assert_stat(nic.r, "f0", "input.stats.packets", NIC_COUNT);
    assert_stat(nic.r, "f0", "output.stats.lost", 0);
    rig_wait_state(nic.r, "f0", "output", "active");
    pc_end(&nic.pc);
}

/* ... and the object, or the NIC's netdev, can go meanwhile. */
static void test_nic_full_del(const void *data)
{
    Flood *flood;
    Nic nic;

    nic_start(&nic, "disable-legacy=on");
    rig_add(nic.r, "id=f0,netdev=x,queue=tx,indev=ci");
    pc_nic_set_up(&nic.pc, 0, 0, 1);
    flood = flood_start(nic.ci, 1000, NO_LIMIT, true);
    rig_wait_state(nic.r, "f0", "output", "stalled");
    if (data) {
        qtest_qmp_assert_success(nic.r->qts, "{'execute': 'netdev_del', "
                                 "'arguments': {'id': 'x'}}");
    } else {
        rig_del(nic.r, "f0");
    }
    expect_answers(nic.r);
    g_assert_cmpuint(flood_stop(flood), >, 0);
    pc_end(&nic.pc);
}

/*
 * Packets wait for the peer while the guest's driver comes up and makes the
 * vnet header longer: each is sent with the header that it has.
 */
static void test_header_changes(const void *unused)
{
    const unsigned count = 8000;
    g_autofree uint8_t *data = g_malloc(PACKET_MAX);
    unsigned i, lengths[2] = { };
    Nic nic;

    nic_start(&nic, "disable-legacy=off,disable-modern=off");
    if_set_txqueuelen(nic.x->ifname, count);
    rig_add(nic.r, "id=f0,netdev=x,queue=tx,outdev=co,vnet_hdr_support=on");
    send_packets(nic.x->outside, SIZE, 0, count / 2);
    expect_answers(nic.r);
    pc_nic_drive(&nic.pc, 0, 0, 1);
    send_packets(nic.x->outside, SIZE, count / 2, count / 2);
    for (i = 0; i < count; i++) {
        uint32_t prefix[2], vnet;
        size_t size;

        recv_bytes(nic.co, prefix, sizeof(prefix));
        size = be32_to_cpu(prefix[0]);
        vnet = be32_to_cpu(prefix[1]);
        g_assert_true(vnet == 10 || vnet == 12);
        g_assert_cmpuint(size, ==, vnet + SIZE);
        recv_bytes(nic.co, data, size);
        g_assert_cmpuint(packet_seq(data + vnet), ==, i);
        packet_check(data + vnet, SIZE);
        lengths[vnet == 12]++;
    }
    g_assert_cmpuint(lengths[0], >, 0);
    g_assert_cmpuint(lengths[1], >, 0);
    pc_end(&nic.pc);
}

/* A NIC's packets with their vnet headers, to a peer and from it. */
static void test_nic_vnet(const void *unused)
{
    g_autofree uint8_t *data = g_malloc(PACKET_MAX);
    unsigned i;
    Nic nic;

    nic_start(&nic, "disable-legacy=on");
    pc_nic_drive(&nic.pc, 0, 0, 1);
    rig_add(nic.r, "id=f0,netdev=x,queue=tx,indev=ci,outdev=co,"
            "vnet_hdr_support=on");
    for (i = 0; i < 20; i++) {
        send_packet(nic.x->outside, SIZE, i);
        g_assert_cmpuint(recv_frame(nic.co, data, 12), ==, 12 + SIZE);
        packet_check(data + 12, SIZE);
        send_frame_raw(nic.ci, data, 12 + SIZE, 12);
        pc_nic_expect(&nic.pc, 0, SIZE, i, 1);
    }
    pc_end(&nic.pc);
}

/*
 * e1000: a NIC that vhost can't serve, also where its netdev says vhost=on
 */

#define E1000_SLOT 5
#define E1000_DESCS 64
#define E1000_BUF_LEN 2048

typedef struct E1000 {
    Pc pc;
    Rig *r;
    Port *x;
    int co;
    QPCIDevice *dev;
    QPCIBar bar;
    uint64_t ring;
    uint64_t buffers;
    unsigned next;
} E1000;

/* Return: false if it can't be done, and the case has been skipped */
static bool e1000_start(E1000 *e, bool vhost)
{
    if (vhost && access("/dev/vhost-net", R_OK | W_OK)) {
        g_test_skip("no /dev/vhost-net");
        return false;
    }
    *e = (E1000) { .r = rig_new() };
    e->pc.r = e->r;
    e->r->machine = "-M pc";
    if (vhost) {
        g_string_append(e->r->args, "-netdev tap,id=x,ifname=tap-x,script=no,"
                        "downscript=no,vhost=on ");
    } else {
        e->x = rig_tap(e->r, "x", 0);
    }
    e->co = rig_chardev(e->r, "co");
    g_string_append(e->r->args, "-m 64 -device e1000,netdev=x,addr=05.0,"
                    "romfile= ");
    pc_start(&e->pc);
    if (vhost) {
        e->x = &e->r->ports[e->r->nports++];
        *e->x = (Port) { .id = "x", .ifname = "tap-x", .inside = -1,
                         .tap = -1 };
        if_set_up(e->x->ifname, true);
        e->x->outside = rig_keep_fd(e->r, if_open(e->x->ifname));
    }
    e->dev = qpci_device_find(e->pc.bus, QPCI_DEVFN(E1000_SLOT, 0));
    g_assert_nonnull(e->dev);
    e->ring = guest_alloc(&e->pc.alloc, E1000_DESCS * 16);
    e->buffers = guest_alloc(&e->pc.alloc, E1000_DESCS * E1000_BUF_LEN);
    return true;
}

/* What a driver does when it is loaded, and when the machine has woken up. */
static void e1000_drive(E1000 *e)
{
    unsigned i;

    qpci_device_enable(e->dev);
    e->bar = qpci_iomap(e->dev, 0, NULL);
    qtest_memset(e->r->qts, e->ring, 0, E1000_DESCS * 16);
    for (i = 0; i < E1000_DESCS; i++) {
        qtest_writeq(e->r->qts, e->ring + 16 * i,
                     e->buffers + i * E1000_BUF_LEN);
    }
    e->next = 0;
    qpci_io_writel(e->dev, e->bar, 0x0000, 1 << 6);     /* CTRL: link up */
    qpci_io_writel(e->dev, e->bar, 0x2800, e->ring);    /* RDBAL, ... */
    qpci_io_writel(e->dev, e->bar, 0x2804, 0);
    qpci_io_writel(e->dev, e->bar, 0x2808, E1000_DESCS * 16);
    qpci_io_writel(e->dev, e->bar, 0x2810, 0);          /* RDH */
    qpci_io_writel(e->dev, e->bar, 0x2818, E1000_DESCS - 1); /* RDT */
    /* RCTL: enabled, promiscuous, broadcast, without CRC */
    qpci_io_writel(e->dev, e->bar, 0x0100, 1 << 1 | 3 << 3 | 1 << 15 |
                                           1 << 26);
    /* It waits a second for more before it takes packets. */
    qtest_clock_step(e->r->qts, 2 * NANOSECONDS_PER_SECOND);
}

/* Return: size of the next packet, 0: there is none */
static size_t e1000_poll(E1000 *e, uint8_t *packet)
{
    const uint64_t desc = e->ring + 16 * e->next;
    size_t size;

    if (!(qtest_readb(e->r->qts, desc + 12) & 1)) { /* done */
        return 0;
    }
    size = qtest_readw(e->r->qts, desc + 8);
    g_assert_cmpuint(size, <=, E1000_BUF_LEN);
    qtest_memread(e->r->qts, e->buffers + e->next * E1000_BUF_LEN, packet,
                  size);
    qtest_writeb(e->r->qts, desc + 12, 0);
    qpci_io_writel(e->dev, e->bar, 0x2818, e->next);
    e->next = (e->next + 1) % E1000_DESCS;
    return size;
}

static void e1000_expect(E1000 *e, uint32_t first, unsigned n)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    unsigned i = 0;

    while (i < n) {
        size_t size = e1000_poll(e, packet);

        if (size) {
            g_assert_cmpuint(size, ==, 200);
            g_assert_cmpuint(packet_seq(packet), ==, first + i);
            packet_check(packet, size);
            i++;
        } else {
            /* What was expected did not come? */
            g_assert_cmpint(g_get_monotonic_time(), <, end);
        }
    }
}

static void e1000_end(E1000 *e)
{
    g_free(e->dev);
    pc_end(&e->pc);
}

/*
 * A guest that has slept hears again.
 * @data: whether the netdev says vhost=on
 */
static void test_e1000_suspend(const void *data)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    unsigned i;
    E1000 e;

    if (!e1000_start(&e, data)) {
        return;
    }
    e1000_drive(&e);
    for (i = 0; i < 3; i++) {
        send_packets(e.x->outside, 200, 100 * i, 10);
        e1000_expect(&e, 100 * i, 10);
        pc_sleep(&e.pc, SLEEP_S3);
        rig_wait_runstate(e.r, "suspended");
        send_packets(e.x->outside, 200, 100 * i + 10, 10);
        rig_sync(e.r);
        qtest_qmp_assert_success(e.r->qts, "{'execute': 'system_wakeup'}");
        rig_wait_runstate(e.r, "running");
        e1000_drive(&e);
        send_packets(e.x->outside, 200, 100 * i + 20, 10);
        /* What QEMU read before the driver was there again is lost. */
        while (!e1000_poll(&e, packet) ||
               packet_seq(packet) < 100 * i + 20) {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
        }
        g_assert_cmpuint(packet_seq(packet), ==, 100 * i + 20);
        e1000_expect(&e, 100 * i + 21, 9);
    }
    e1000_end(&e);
}

/* A running guest's packets are its own, whoever serves its NIC. */
static void test_e1000_hand_over(const void *data)
{
    E1000 e;

    if (!e1000_start(&e, data)) {
        return;
    }
    e1000_drive(&e);
    rig_add(e.r, "id=f0,netdev=x,queue=tx,outdev=co,enable_when_stopped=on,"
            "enable_when_running=off");
    send_packets(e.x->outside, 200, 0, 20);
    e1000_expect(&e, 0, 20);
    rig_stop(e.r);
    send_packets(e.x->outside, 200, 20, 20);
    rig_sync(e.r);
    expect_silence(e.co);
    rig_cont(e.r);
    e1000_expect(&e, 20, 20);
    expect_silence(e.co);
    assert_stat(e.r, "f0", "output.stats.packets", 0);
    e1000_end(&e);
}

/*
 * Into the chain of a netdev whose vhost runs: what it would swallow is not
 * taken, and not counted, until vhost doesn't run.
 */
static void test_vhost_indev(const void *unused)
{
    Rig *r;
    Pc pc = { };
    int ci;

    if (access("/dev/vhost-net", R_OK | W_OK)) {
        g_test_skip("no /dev/vhost-net");
        return;
    }
    r = rig_new();
    ci = rig_chardev(r, "ci");
    g_string_append(r->args, "-m 64 -netdev tap,id=x,ifname=tap-x,script=no,"
                    "downscript=no,vhost=on ");
    pc_add_nic(&pc, r, "x", "disable-legacy=on");
    pc_start(&pc);
    pc_nic_drive(&pc, 0, 0, 1);
    rig_add(r, "id=f0,netdev=x,queue=tx,indev=ci,vnet_hdr_support=on");
    send_frame(ci, 200, 0, 12);
    rig_wait_state(r, "f0", "output", "held");
    rig_sync(r);
    assert_stat(r, "f0", "input.stats.packets", 0);
    assert_stat(r, "f0", "output.stats.packets", 0);
    pc_nic_expect_silence(&pc, 0);
    pc_end(&pc);
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    if (qtest_has_device("virtio-net-pci")) {
        case_add("/filter-redirector/receiver/nic/no-buffers", test_nic_full,
                 NULL);
        case_add("/filter-redirector/receiver/nic/stopped", test_nic_full,
                 "stopped");
        case_add("/filter-redirector/receiver/nic/del", test_nic_full_del,
                 NULL);
        case_add("/filter-redirector/receiver/nic/netdev_del",
                 test_nic_full_del, "netdev");
        case_add("/filter-redirector/receiver/nic/vnet", test_nic_vnet, NULL);
        case_add("/filter-redirector/receiver/nic/header-changes",
                 test_header_changes, NULL);
        case_add("/filter-redirector/receiver/vhost/indev", test_vhost_indev,
                 NULL);
    }
    if (qtest_has_device("e1000")) {
        case_add("/filter-redirector/receiver/e1000/suspend",
                 test_e1000_suspend, NULL);
        case_add("/filter-redirector/receiver/e1000/suspend-vhost",
                 test_e1000_suspend, "vhost");
        case_add("/filter-redirector/receiver/e1000/hand-over",
                 test_e1000_hand_over, NULL);
        case_add("/filter-redirector/receiver/e1000/hand-over-vhost",
                 test_e1000_hand_over, "vhost");
    }
    return g_test_run();
}
