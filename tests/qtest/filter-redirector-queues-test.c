/*
 * QTest of filter-redirector: hand-over of a TAP with several queues
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <netinet/in.h>
#include <linux/if_ether.h>
#include "qemu/bswap.h"
#include "filter-redirector-machine.h"

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
    Flows f = { }, before;

    flows_send(&f, m, 2);
    g_assert_cmphex(flows_guest_gets_all(&f, m), ==, (1 << queues) - 1);

    rig_stop(m->r);
    migrate_begin(m, PLACE_ACTIVE);
    flows_send(&f, m, 2);
    expect_nothing_more(m);
    migrate_cancel(m);
    rig_cont(m->r);
    /* What was collected comes through one queue. */
    flows_guest_gets_all(&f, m);
    flows_send(&f, m, 2);
    g_assert_cmphex(flows_guest_gets_all(&f, m), ==, (1 << queues) - 1);
    guest_lost_nothing(m);

    before = f;
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

    /* What was handed over comes back first. */
    rig_cont(m->r);
    rig_wait_phase(m->r, "f0", "running");
    memcpy(f.seen, before.seen, sizeof(f.seen));
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

#define PREFIX "/filter-redirector/queues/"

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    if (qtest_has_device("virtio-net-pci")) {
        case_add(PREFIX "2/all", test_mq, NULL);
        case_add(PREFIX "4/all", test_mq, "4");
        case_add(PREFIX "2/slow", test_mq_slow, NULL);
        case_add(PREFIX "4/slow", test_mq_slow, "4");
    }
    return g_test_run();
}
