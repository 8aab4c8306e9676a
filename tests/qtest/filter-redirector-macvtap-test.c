/*
 * QTest of filter-redirector's netdev endpoints: a macvtap
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/if_ether.h>
#include "filter-redirector-helpers.h"

#define TAP_HDR_LEN 10

/*
 * Netdev x is a macvtap above TAP y, whose other side, the network, is the
 * test.  On a macvtap the packets for the guest come in, and the guest's go
 * out; the filter's directions are those of any other netdev.
 */
typedef struct Macvtap {
    Rig *r;
    Port *n;
    Port *y;
    int guest;
    int co;
    int fd;
} Macvtap;

/* Return: false if the case has been skipped */
static bool macvtap_start(Macvtap *m)
{
    Rig *r = rig_new();

    *m = (Macvtap) { .r = r };
    m->y = rig_tap(r, "y", TAP_HELD | TAP_STUCK);
    m->n = rig_wire(r, "n");
    m->co = rig_chardev(r, "co");
    m->fd = macvtap_open("macvtap0", m->y->ifname);
    if (m->fd < 0) {
        rig_free(r);
        return false;
    }
    if_set_up("macvtap0", true);
    m->guest = rig_tap_fd(r, "x", m->fd);
    rig_start(r);
    /* QEMU takes one packet from y for a guest that takes none. */
    send_packet(m->y->outside, 100, 0);
    rig_wait_tx_packets(r, m->y, 1);
    return true;
}

static void macvtap_end(Macvtap *m)
{
    rig_free(m->r);
    close(m->fd);
}

/* The same for all stations, because the macvtap has an address of its own. */
static void fill(uint8_t *packet, size_t size, uint32_t seq)
{
    packet_fill(packet, size, seq);
    memset(packet, 0xff, ETH_ALEN);
}

static void to_guest(Macvtap *m, size_t size, uint32_t seq)
{
    uint8_t packet[TAP_HDR_LEN + 2000] = { }, got[PACKET_MAX];

    fill(packet + TAP_HDR_LEN, size, seq);
    g_assert_cmpint(write(m->y->tap, packet, TAP_HDR_LEN + size), ==,
                    TAP_HDR_LEN + size);
    g_assert_cmpmem(got, recv_raw(m->guest, got), packet + TAP_HDR_LEN, size);
}

static void from_guest(Macvtap *m, size_t size, uint32_t seq)
{
    uint8_t packet[2000], got[PACKET_MAX];

    fill(packet, size, seq);
    send_raw(m->guest, packet, size);
    g_assert_cmpuint(read_raw(m->y->tap, got), ==, TAP_HDR_LEN + size);
    g_assert_cmpmem(got + TAP_HDR_LEN, size, packet, size);
}

static void expect_capture(Macvtap *m, size_t size, uint32_t seq)
{
    uint8_t packet[2000], got[PACKET_MAX];

    fill(packet, size, seq);
    g_assert_cmpmem(got, recv_frame(m->co, got, NO_VNET), packet, size);
}

static void test_capture(const void *data)
{
    const char *queue = data;
    g_autofree char *props =
        g_strdup_printf("id=f0,netdev=n,queue=%s,in_netdev=x,outdev=co",
                        queue);
    const bool tx = strcmp(queue, "rx") != 0;
    const bool rx = strcmp(queue, "tx") != 0;
    unsigned i;
    Macvtap m;

    if (!macvtap_start(&m)) {
        return;
    }
    rig_add(m.r, props);
    for (i = 0; i < 10; i++) {
        to_guest(&m, 100 + i, 2 * i);
        if (tx) {
            expect_capture(&m, 100 + i, 2 * i);
        }
        from_guest(&m, 1514 - i, 2 * i + 1);
        if (rx) {
            expect_capture(&m, 1514 - i, 2 * i + 1);
        }
    }
    rig_sync(m.r);
    expect_silence(m.co);
    assert_stat(m.r, "f0", "input.stats.packets", tx && rx ? 20 : 10);
    macvtap_end(&m);
}

/* Into a chain the directions matter, too: towards the guest, or from it. */
static void test_chain(const void *unused)
{
    uint8_t packet[100], got[PACKET_MAX];
    Macvtap m;

    if (!macvtap_start(&m)) {
        return;
    }
    rig_add(m.r, "id=f0,netdev=n,queue=all,in_netdev=x");
    to_guest(&m, sizeof(packet), 1);
    fill(packet, sizeof(packet), 1);
    g_assert_cmpmem(got, recv_raw(m.n->inside, got), packet, sizeof(packet));
    from_guest(&m, sizeof(packet), 2);
    fill(packet, sizeof(packet), 2);
    g_assert_cmpmem(got, recv_raw(m.n->outside, got), packet, sizeof(packet));
    rig_sync(m.r);
    expect_silence(m.n->inside);
    expect_silence(m.n->outside);
    macvtap_end(&m);
}

static void test_inject(const void *unused)
{
    QDict *error;
    Macvtap m;

    if (!macvtap_start(&m)) {
        return;
    }
    error = rig_add_error(m.r, "id=f0,netdev=n,out_netdev=x");
    g_assert_cmpstr(qdict_get_str(error, "desc"), ==,
                    "filter-redirector 'f0': out_netdev 'x': interface "
                    "'macvtap0' is a macvtap: injected packets would go to "
                    "the network, not to the guest");
    qobject_unref(error);
    to_guest(&m, 100, 1);
    macvtap_end(&m);
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    case_add("/filter-redirector/macvtap/capture/tx", test_capture, "tx");
    case_add("/filter-redirector/macvtap/capture/rx", test_capture, "rx");
    case_add("/filter-redirector/macvtap/capture/all", test_capture, "all");
    case_add("/filter-redirector/macvtap/chain", test_chain, NULL);
    case_add("/filter-redirector/macvtap/inject", test_inject, NULL);
    return g_test_run();
}
