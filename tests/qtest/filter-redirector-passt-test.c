/*
 * QTest of filter-redirector's netdev endpoints: each input joined to each
 * output, on the way to passt and back
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <net/if.h>
#include <sys/wait.h>
#include <linux/if_ether.h>
#include "qemu/bswap.h"
#include "filter-redirector-helpers.h"

/*
 * Netdev n is of type stream; its network is passt, or a router that the test
 * plays.  Netdev x is a TAP.  Whoever asks for the router's address gets an
 * answer, in places that the redirectors choose.
 */

static const uint8_t router_ip[] = { 192, 0, 2, 254 };
static const uint8_t guest_mac[] = { 0x02, 0, 0, 0, 0, 9 };

#define ARP_LEN 42
#define ARP_REQUEST 1
#define ARP_REPLY 2

static void arp_fill(uint8_t *packet, unsigned op)
{
    static const uint8_t eth_ip[] = { 0, 1, 8, 0, 6, 4 };
    static const uint8_t guest_ip[] = { 192, 0, 2, 1 };
    uint8_t *arp = packet + ETH_HLEN;
    const bool request = op == ARP_REQUEST;

    memset(packet, 0, ETH_ZLEN);
    memset(packet, 0xff, ETH_ALEN);
    memcpy(packet + ETH_ALEN, guest_mac, ETH_ALEN);
    stw_be_p(packet + 12, ETH_P_ARP);
    memcpy(arp, eth_ip, sizeof(eth_ip));
    stw_be_p(arp + 6, op);
    memcpy(arp + 8, guest_mac, ETH_ALEN);
    memcpy(arp + 14, request ? guest_ip : router_ip, 4);
    memcpy(arp + 24, request ? router_ip : guest_ip, 4);
}

static bool is_arp(const uint8_t *packet, size_t size, unsigned op)
{
    const uint8_t *arp = packet + ETH_HLEN;

    return size >= ARP_LEN && lduw_be_p(packet + 12) == ETH_P_ARP &&
           lduw_be_p(arp + 6) == op &&
           !memcmp(arp + (op == ARP_REQUEST ? 24 : 14), router_ip, 4);
}

/*
 * The router
 */

typedef struct Router {
    GPid passt;             /* 0: the test itself */
    int fd;
    int template;           /* a TAP with the address that passt looks for */
} Router;

/* passt isolates itself in a user namespace; many containers forbid that. */
static bool can_isolate(void)
{
    char *argv[] = {
        (char *)"unshare", (char *)"--user", (char *)"true", NULL
    };
    int status;

    return g_spawn_sync(NULL, argv, NULL,
                        G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL,
                        NULL, NULL, NULL, &status, NULL) && status == 0;
}

/* Return: false if the case has been skipped */
static bool passt_start(Router *router)
{
    g_autofree char *passt = g_find_program_in_path("passt");
    g_autofree char *fd_arg = NULL;
    char name[IFNAMSIZ] = "uplink";
    int fd;

    if (!passt) {
        g_test_skip("no passt (Debian package passt)");
        return false;
    }
    if (!can_isolate()) {
        g_test_skip("passt needs a user namespace, which is forbidden here");
        return false;
    }
    router->template = tap_open(name, false);
    g_assert_cmpint(fcntl(router->template, F_SETFD, FD_CLOEXEC), ==, 0);
    if_set_route(name, "192.0.2.1", "255.255.255.0", "192.0.2.254");

    fd = dup(router->fd);   /* not to be closed on exec */
    fd_arg = g_strdup_printf("%d", fd);
    {
        char *argv[] = {
            passt, (char *)"--foreground", (char *)"--quiet",
            (char *)"--fd", fd_arg, (char *)"--runas", (char *)"0", NULL
        };

        g_assert_true(g_spawn_async(NULL, argv, NULL,
                                    G_SPAWN_DO_NOT_REAP_CHILD |
                                    G_SPAWN_LEAVE_DESCRIPTORS_OPEN, NULL,
                                    NULL, &router->passt, NULL));
    }
    close(fd);
    return true;
}

static void passt_stop(Router *router)
{
    if (router->passt) {
        kill(router->passt, SIGTERM);
        g_assert_cmpint(waitpid(router->passt, NULL, 0), ==, router->passt);
        close(router->template);
    }
}

/* The network answers one request. */
static void router_answer(const Router *router)
{
    uint8_t packet[PACKET_MAX];
    size_t size;

    if (router->passt) {
        return;
    }
    do {
        size = recv_frame(router->fd, packet, NO_VNET);
    } while (!is_arp(packet, size, ARP_REQUEST));
    arp_fill(packet, ARP_REPLY);
    send_frame_raw(router->fd, packet, ETH_ZLEN, NO_VNET);
}

/*
 * The rows of the table
 */

typedef enum Place {
    NOWHERE,
    GUEST_N,
    GUEST_X,
    CHARDEV,
} Place;

typedef struct Row {
    const char *input;      /* types, as query-filter-redirectors has them */
    const char *output;
    const char *props;
    Place request;
    Place copy;             /* where the request gets to, and no further */
    Place reply;
    bool into_x;            /* what comes from ci is for x's guest */
} Row;

static const Row rows[] = {
    { "none", "packet-socket", "netdev=x,out_netdev=x",
      .request = GUEST_N, .reply = GUEST_N },
    { "chardev", "chain", "netdev=n,queue=rx,indev=ci",
      .request = CHARDEV, .reply = GUEST_N },
    { "chardev", "chardev", "netdev=n,queue=tx,indev=ci,outdev=co",
      .request = GUEST_N, .reply = CHARDEV },
    { "chardev", "packet-socket", "netdev=n,queue=tx,indev=ci,out_netdev=x",
      .request = GUEST_N, .reply = GUEST_X, .into_x = true },
    { "chain", "chardev", "netdev=n,queue=tx,outdev=co",
      .request = GUEST_N, .reply = CHARDEV },
    { "chain", "packet-socket", "netdev=n,queue=tx,out_netdev=x",
      .request = GUEST_N, .reply = GUEST_X },
    { "packet-socket", "chain", "netdev=n,queue=rx,in_netdev=x",
      .request = GUEST_X, .reply = GUEST_N },
    { "packet-socket", "chardev", "netdev=n,queue=rx,in_netdev=x,outdev=co",
      .request = GUEST_X, .copy = CHARDEV },
};

typedef struct Net {
    Bench b;
    Router router;
} Net;

static void net_new(Net *net)
{
    Rig *r = rig_new();

    *net = (Net) { .b.r = r };
    net->b.n = rig_stream(r, "n");
    net->b.x = rig_tap(r, "x", TAP_GUEST);
    net->b.ci = rig_chardev(r, "ci");
    net->b.co = rig_chardev(r, "co");
    net->router.fd = net->b.n->outside;
}

/* Until it is connected a stream netdev drops what it gets. */
static void wait_connected(Rig *r)
{
    bool connected = false;

    while (!connected) {
        g_autofree char *info = qtest_hmp(r->qts, "info network");

        connected = !strstr(info, "initializing") &&
                    !strstr(info, "connecting");
    }
}

/* Return: false if the case has been skipped */
static bool net_start(Net *net, bool passt)
{
    rig_start(net->b.r);
    if (passt && !passt_start(&net->router)) {
        rig_free(net->b.r);
        return false;
    }
    wait_connected(net->b.r);
    return true;
}

static void net_end(Net *net)
{
    passt_stop(&net->router);
    rig_free(net->b.r);
}

static void send_at(const Net *net, Place place, const uint8_t *packet,
                    size_t size)
{
    switch (place) {
    case GUEST_N:
        send_raw(net->b.n->inside, packet, size);
        break;
    case GUEST_X:
        send_raw(net->b.x->inside, packet, size);
        break;
    case CHARDEV:
        send_frame_raw(net->b.ci, packet, size, NO_VNET);
        break;
    default:
        g_assert_not_reached();
    }
}

static size_t recv_at(const Net *net, Place place, uint8_t *packet)
{
    switch (place) {
    case GUEST_N:
        return recv_raw(net->b.n->inside, packet);
    case GUEST_X:
        return recv_raw(net->b.x->inside, packet);
    case CHARDEV:
        return recv_frame(net->b.co, packet, NO_VNET);
    default:
        g_assert_not_reached();
    }
}

static void expect_arp_at(const Net *net, Place place, unsigned op)
{
    uint8_t packet[PACKET_MAX];
    size_t size = recv_at(net, place, packet);

    g_assert_true(is_arp(packet, size, op));
}

static void check_end(QDict *info, const char *end, const char *type,
                      const char *chardev)
{
    QDict *dict = qdict_get_qdict(info, end);
    const bool packet = !strcmp(type, "packet-socket");
    struct stat st;

    g_assert_cmpstr(qdict_get_str(dict, "type"), ==, type);
    g_assert_cmpstr(qdict_get_try_str(dict, "name"), ==,
                    packet ? "x" : strcmp(type, "chardev") ? NULL : chardev);
    g_assert_cmpstr(qdict_get_try_str(dict, "ifname"), ==,
                    packet ? "tap-x" : NULL);
    g_assert_cmpint(qdict_haskey(dict, "netns"), ==, packet);
    if (packet) {
        g_assert_cmpint(stat("/proc/self/ns/net", &st), ==, 0);
        g_assert_cmpuint(qdict_get_int(dict, "netns"), ==, st.st_ino);
        g_assert_cmpuint(qdict_get_int(dict, "ifindex"), ==,
                         if_nametoindex("tap-x"));
    }
}

typedef struct RowCase {
    const Row *row;
    bool passt;
} RowCase;

static void test_row(const void *data)
{
    const RowCase *c = data;
    const Row *row = c->row;
    g_autofree char *props = g_strdup_printf("id=f0,%s", row->props);
    uint8_t packet[ETH_ZLEN];
    QDict *info;
    Net net;

    net_new(&net);
    if (!net_start(&net, c->passt)) {
        return;
    }
    rig_add(net.b.r, props);
    info = rig_info(net.b.r, "f0");
    check_end(info, "input", row->input, "ci");
    check_end(info, "output", row->output, "co");
    qobject_unref(info);

    arp_fill(packet, ARP_REQUEST);
    send_at(&net, row->request, packet, sizeof(packet));
    if (row->copy) {
        expect_arp_at(&net, row->copy, ARP_REQUEST);
    }
    if (row->reply) {
        router_answer(&net.router);
        expect_arp_at(&net, row->reply, ARP_REPLY);
    }
    if (row->into_x) {
        send_at(&net, CHARDEV, packet, sizeof(packet));
        expect_arp_at(&net, GUEST_X, ARP_REQUEST);
    }
    net_end(&net);
}

/* Both packet sockets: refused. */
static void test_packet_to_packet(const void *unused)
{
    QDict *error;
    Net net;

    net_new(&net);
    net_start(&net, false);
    error = rig_add_error(net.b.r, "id=f0,netdev=n,in_netdev=x,out_netdev=x");
    g_assert_cmpstr(qdict_get_str(error, "desc"), ==, "filter-redirector 'f0':"
                    " 'in_netdev' ('x') and 'out_netdev' ('x') cannot be used "
                    "together");
    qobject_unref(error);
    net_end(&net);
}

/*
 * x's guest on the router's network, by packet sockets and character devices:
 * four redirectors, two for each direction; the test connects their chardevs.
 */
static void test_all(const void *data)
{
    uint8_t packet[PACKET_MAX];
    int to[2], from[2], i;
    size_t size;
    Net net;
    Rig *r;

    net_new(&net);
    r = net.b.r;
    to[0] = rig_chardev(r, "to0");
    to[1] = rig_chardev(r, "to1");
    from[0] = rig_chardev(r, "from0");
    from[1] = rig_chardev(r, "from1");
    if (!net_start(&net, data)) {
        return;
    }
    rig_add(r, "id=f0,netdev=x,queue=rx,in_netdev=x,outdev=to0");
    rig_add(r, "id=f1,netdev=n,queue=rx,indev=to1");
    rig_add(r, "id=f2,netdev=n,queue=tx,outdev=from0");
    rig_add(r, "id=f3,netdev=x,queue=tx,indev=from1,out_netdev=x");
    for (i = 0; i < 10; i++) {
        arp_fill(packet, ARP_REQUEST);
        send_raw(net.b.x->inside, packet, ETH_ZLEN);
        size = recv_frame(to[0], packet, NO_VNET);
        send_frame_raw(to[1], packet, size, NO_VNET);
        router_answer(&net.router);
        size = recv_frame(from[0], packet, NO_VNET);
        send_frame_raw(from[1], packet, size, NO_VNET);
        size = recv_raw(net.b.x->inside, packet);
        g_assert_true(is_arp(packet, size, ARP_REPLY));
    }
    assert_stat(r, "f0", "input.stats.packets", 10);
    assert_stat(r, "f3", "output.stats.packets", 10);
    rig_sync(r);
    expect_silence(net.b.n->inside);
    expect_silence(net.b.x->inside);
    net_end(&net);
}

static void add_row_cases(void)
{
    static RowCase cases[2 * ARRAY_SIZE(rows)];
    unsigned i;

    for (i = 0; i < 2 * ARRAY_SIZE(rows); i++) {
        const Row *row = &rows[i / 2];
        RowCase *c = &cases[i];
        g_autofree char *path = NULL;

        *c = (RowCase) { row, i % 2 };
        path = g_strdup_printf("/filter-redirector/ends/%s-to-%s/%s",
                               row->input, row->output,
                               c->passt ? "passt" : "stream");
        case_add(path, test_row, c);
    }
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    add_row_cases();
    case_add("/filter-redirector/ends/packet-socket-to-packet-socket",
             test_packet_to_packet, NULL);
    case_add("/filter-redirector/ends/all/stream", test_all, NULL);
    case_add("/filter-redirector/ends/all/passt", test_all, "passt");
    return g_test_run();
}
