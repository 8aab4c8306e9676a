/*
 * QTest of filter-redirector's netdev endpoints: access to the interface
 *
 * TAPs in another network namespace, packet sockets that the test opens and
 * passes, and a QEMU that may do nothing by itself.
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <net/if.h>
#include <sys/socket.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include "filter-redirector-helpers.h"

/* The last byte of tap-x's MAC address. */
#define TAP_MAC 1

#define ID "filter-redirector 'f0': "

/* How QEMU gets a packet socket that the test has opened. */
typedef enum Give {
    GIVE_NONE,              /* not at all: it opens one */
    GIVE_NUMBER,            /* inherited */
    GIVE_GETFD,
    GIVE_ADDFD,
} Give;

typedef struct AccessCase {
    const char *name;
    bool foreign;           /* the TAP is in another network namespace */
    bool decoy;             /* QEMU's own has an interface of the same name */
    Give give;
    bool confined;          /* no capabilities, and the sandbox */
    const char *refused;    /* why, behind "in_netdev 'x': "; NULL: it works */
} AccessCase;

#define NO_ENTRY "interface 'tap-x' is not in QEMU's network namespace, and " \
    "QEMU may not ask for the one it is in; pass an open packet socket " \
    "(in_netdev_fd, out_netdev_fd)"

static const AccessCase cases[] = {
    { "own/number", .give = GIVE_NUMBER },
    { "own/getfd", .give = GIVE_GETFD },
    { "own/add-fd", .give = GIVE_ADDFD },
    { "own/confined/number", .give = GIVE_NUMBER, .confined = true },
    { "own/confined/getfd", .give = GIVE_GETFD, .confined = true },
    { "own/confined/add-fd", .give = GIVE_ADDFD, .confined = true },
    { "own/confined/none", .confined = true,
      .refused = "a packet socket needs the capability CAP_NET_RAW, or an "
      "open one (in_netdev_fd, out_netdev_fd): Operation not permitted" },
    { "foreign", .foreign = true },
    { "foreign/decoy", .foreign = true, .decoy = true },
    { "foreign/number", .foreign = true, .give = GIVE_NUMBER },
    { "foreign/decoy/getfd", .foreign = true, .decoy = true,
      .give = GIVE_GETFD },
    { "foreign/confined/getfd", .foreign = true, .give = GIVE_GETFD,
      .confined = true },
    { "foreign/decoy/confined/getfd", .foreign = true, .decoy = true,
      .give = GIVE_GETFD, .confined = true },
};

/* The rig of a case. */
typedef struct Access {
    const AccessCase *c;
    Rig *r;
    Port *x;
    int ci;
    int co;
    int sock[2];            /* to be passed: for the capture, the injection */
    uint64_t netns;         /* of the TAP */
    char name[2][32];       /* what the properties are set to */
} Access;

static int socket_on(const char *ifname, int type, uint16_t protocol)
{
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(protocol),
        .sll_ifindex = ifname ? if_nametoindex(ifname) : 0,
    };
    int fd = socket(AF_PACKET, type, htons(protocol));

    g_assert_cmpint(fd, >=, 0);
    if (ifname) {
        g_assert_cmpint(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), ==,
                        0);
    }
    return fd;
}

/*
 * An interface of the same name as the TAP, where QEMU is, never to be reached.
 * Return: a packet socket on it
 */
static int open_decoy(Rig *r, uint8_t mac)
{
    char name[IFNAMSIZ] = "tap-x";

    rig_keep_fd(r, tap_open(name, false));
    if_set_mac(name, mac);
    if_set_up(name, true);
    return rig_keep_fd(r, if_open(name));
}

/* The TAP, and the sockets to be passed, where they shall be. */
static void open_tap(const void *data)
{
    Access *a = (Access *)data;
    unsigned i;

    if (a->c->foreign) {
        enter_new_netns();
    }
    a->netns = netns_inode();
    a->x = rig_tap(a->r, "x", TAP_GUEST);
    if_set_mac(a->x->ifname, TAP_MAC);
    for (i = 0; i < 2; i++) {
        a->sock[i] = socket_on(a->x->ifname, SOCK_RAW, 0);
    }
}

static void give(Access *a, unsigned i)
{
    switch (a->c->give) {
    case GIVE_GETFD:
        snprintf(a->name[i], sizeof(a->name[i]), "sock%u", i);
        qtest_qmp_fds_assert_success(a->r->qts, &a->sock[i], 1,
                                     "{'execute': 'getfd', 'arguments': "
                                     "{'fdname': %s}}", a->name[i]);
        break;
    case GIVE_ADDFD:
        snprintf(a->name[i], sizeof(a->name[i]), "/dev/fdset/%u", i);
        qtest_qmp_fds_assert_success(a->r->qts, &a->sock[i], 1,
                                     "{'execute': 'add-fd', 'arguments': "
                                     "{'fdset-id': %u}}", i);
        break;
    default:
        snprintf(a->name[i], sizeof(a->name[i]), "%d", a->sock[i]);
        break;
    }
}

static char *props(Access *a, unsigned i)
{
    static const char *const in_out[] = {
        "id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co",
        "id=f1,netdev=n,indev=ci,out_netdev=x",
    };

    return a->c->give == GIVE_NONE
           ? g_strdup(in_out[i])
           : g_strdup_printf("%s,%s_fd=%s", in_out[i],
                             i ? "out_netdev" : "in_netdev", a->name[i]);
}

static void check_namespace(Access *a, const char *id, const char *end)
{
    QDict *info = rig_info(a->r, id);
    QDict *e = qdict_get_qdict(info, end);

    g_assert_cmpstr(qdict_get_str(e, "ifname"), ==, a->x->ifname);
    /* Without capabilities the kernel tells of the own one only. */
    if (!a->c->confined || !a->c->foreign) {
        g_assert_cmpuint(qdict_get_int(e, "netns"), ==, a->netns);
    } else {
        g_assert_false(qdict_haskey(e, "netns"));
    }
    qobject_unref(info);
}

static void check_works(Access *a, int decoy)
{
    g_autofree char *capture = props(a, 0);
    g_autofree char *inject = props(a, 1);

    rig_add(a->r, capture);
    rig_add(a->r, inject);
    check_namespace(a, "f0", "input");
    check_namespace(a, "f1", "output");
    if (decoy >= 0) {
        send_packets(decoy, 60, 1000, 5);
    }
    send_packets(a->x->outside, 60, 0, 5);
    expect_packets(a->x->inside, 60, 0, 5);
    expect_frames(a->co, 60, 0, 5);
    send_frames(a->ci, 60, 10, 5);
    expect_packets(a->x->inside, 60, 10, 5);
    expect_silence(a->co);
    if (decoy >= 0) {
        expect_silence(decoy);
    }
    rig_del(a->r, "f0");
    rig_del(a->r, "f1");
}

static void check_refused(Access *a, const char *id, const char *property,
                          const char *p)
{
    g_autofree char *want =
        g_strdup_printf("filter-redirector '%s': %s 'x': %s", id, property,
                        a->c->refused);
    QDict *error = rig_add_error(a->r, p);

    g_assert_cmpstr(qdict_get_str(error, "desc"), ==, want);
    qobject_unref(error);
}

static void run_access(const void *data)
{
    Access a = { .c = data, .r = rig_new() };
    unsigned fds, i;
    int decoy;

    run_isolated(open_tap, &a);
    decoy = a.c->decoy ? open_decoy(a.r, TAP_MAC) : -1;
    rig_wire(a.r, "n");
    a.ci = rig_chardev(a.r, "ci");
    a.co = rig_chardev(a.r, "co");
    for (i = 0; i < 2; i++) {
        if (a.c->give == GIVE_NUMBER) {
            rig_give_fd(a.r, a.sock[i]);
        }
    }
    if (a.c->confined) {
        g_string_append(a.r->args, "-sandbox on,elevateprivileges=deny,"
                        "spawn=deny,resourcecontrol=deny ");
        drop_caps(CAP_ALL);
    }
    rig_start(a.r);
    rig_sync(a.r);
    fds = rig_count_fds(a.r);
    for (i = 0; i < 2; i++) {
        give(&a, i);
    }
    if (a.c->refused) {
        check_refused(&a, "f0", "in_netdev", "id=f0,netdev=n,in_netdev=x");
        check_refused(&a, "f1", "out_netdev", "id=f1,netdev=n,out_netdev=x");
    } else {
        check_works(&a, decoy);
    }
    rig_sync(a.r);
    /* A set's own descriptors stay with the set. */
    g_assert_cmpuint(rig_count_fds(a.r), ==, fds +
                     (a.c->give == GIVE_ADDFD ? 2 :
                      a.c->give == GIVE_NUMBER ? -2 : 0));
    rig_free(a.r);
    for (i = 0; a.c->give != GIVE_NUMBER && i < 2; i++) {
        close(a.sock[i]);
    }
}

static void test_access(const void *data)
{
    run_isolated(run_access, data);
}

/*
 * The TAP is elsewhere, and QEMU may open packet sockets, but not go there:
 * because it lacks a capability, or because the sandbox would end it.
 */
static void no_entry(const void *data)
{
    const bool sandbox = data;
    Access a = { .c = &(AccessCase) { .foreign = true }, .r = rig_new() };
    g_autofree char *want = NULL;
    QDict *error;

    run_isolated(open_tap, &a);
    rig_wire(a.r, "n");
    if (sandbox) {
        g_string_append(a.r->args, "-sandbox on,spawn=deny ");
    } else {
        drop_caps(CAP_BIT(CAP_SYS_ADMIN));
    }
    want = g_strdup_printf(ID "in_netdev 'x': interface 'tap-x' is in another "
                           "network namespace (inode %" PRIu64 "), which QEMU "
                           "may not enter; pass an open packet socket "
                           "(in_netdev_fd, out_netdev_fd): Operation not "
                           "permitted", a.netns);
    rig_start(a.r);
    error = rig_add_error(a.r, "id=f0,netdev=n,in_netdev=x");
    g_assert_cmpstr(qdict_get_str(error, "desc"), ==, want);
    qobject_unref(error);
    rig_sync(a.r);
    rig_free(a.r);
    close(a.sock[0]);
    close(a.sock[1]);
}

static void test_no_entry(const void *data)
{
    run_isolated(no_entry, data);
}

/* Nor may it even ask where the TAP is.  @data: there is a decoy */
static void no_question(const void *data)
{
    Access a = { .c = &(AccessCase) { .foreign = true }, .r = rig_new() };
    QDict *error;

    run_isolated(open_tap, &a);
    if (data) {
        open_decoy(a.r, TAP_MAC + 1);
    }
    rig_wire(a.r, "n");
    drop_caps(CAP_ALL & ~CAP_BIT(CAP_NET_RAW));
    rig_start(a.r);
    error = rig_add_error(a.r, "id=f0,netdev=n,in_netdev=x");
    g_assert_cmpstr(qdict_get_str(error, "desc"), ==,
                    ID "in_netdev 'x': " NO_ENTRY);
    qobject_unref(error);
    rig_free(a.r);
    close(a.sock[0]);
    close(a.sock[1]);
}

static void test_no_question(const void *data)
{
    run_isolated(no_question, data);
}

/*
 * What is not a packet socket for this TAP is refused, and stays open
 */

typedef int OpenWrong(void);

static int open_file(void)
{
    return open("/dev/null", O_RDWR);
}

static int open_udp(void)
{
    return socket(AF_INET, SOCK_DGRAM, 0);
}

static int open_cooked(void)
{
    return socket_on("tap-x", SOCK_DGRAM, 0);
}

static int open_unbound(void)
{
    return socket_on(NULL, SOCK_RAW, 0);
}

static int open_other(void)
{
    return socket_on("tap-y", SOCK_RAW, 0);
}

static int elsewhere, elsewhere_tap;

static void open_in_new_netns(const void *unused)
{
    char name[IFNAMSIZ] = "tap-x";

    enter_new_netns();
    elsewhere_tap = tap_open(name, false);
    if_set_mac(name, TAP_MAC);
    elsewhere = socket_on(name, SOCK_RAW, 0);
}

static int open_elsewhere(void)
{
    run_isolated(open_in_new_netns, NULL);
    return elsewhere;
}

static int open_ring(void)
{
    struct tpacket_req req = { 4096, 1, 2048, 2 };
    int fd = socket_on("tap-x", SOCK_RAW, 0);

    g_assert_cmpint(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &req,
                               sizeof(req)), ==, 0);
    return fd;
}

static int open_locked(void)
{
    struct sock_filter all[] = { BPF_STMT(BPF_RET | BPF_K, UINT32_MAX) };
    struct sock_fprog prog = { ARRAY_SIZE(all), all };
    const int on = 1;
    int fd = socket_on("tap-x", SOCK_RAW, 0);

    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog,
                               sizeof(prog)), ==, 0);
    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &on,
                               sizeof(on)), ==, 0);
    return fd;
}

typedef struct WrongCase {
    const char *name;
    OpenWrong *open;
    const char *message;    /* a pattern */
} WrongCase;

static const WrongCase wrong[] = {
    { "file", open_file, "*_netdev_fd '*': file descriptor * is not a packet "
      "socket: Socket operation on non-socket" },
    { "udp", open_udp, "*_netdev_fd '*': file descriptor * is a socket of "
      "address family 2, not a packet socket (AF_PACKET, 17)" },
    { "cooked", open_cooked, "*_netdev_fd '*': file descriptor * is a packet "
      "socket of type 2, not SOCK_RAW (3)" },
    { "unbound", open_unbound, "*_netdev_fd '*': the packet socket * is not "
      "bound to an interface: bind it to 'tap-x'" },
    { "other", open_other, "*_netdev_fd '*': the packet socket * is bound to "
      "interface 'tap-y' (index *, network namespace *), not to the TAP's "
      "'tap-x' (*" },
    { "elsewhere", open_elsewhere, "*_netdev_fd '*': the packet socket * is "
      "bound to interface 'tap-x' (index *, network namespace *), not to the "
      "TAP's 'tap-x' (network namespace *" },
    { "ring", open_ring, "*_netdev 'x': cannot get vnet headers of the packet "
      "socket: it has a ring already: Device or resource busy" },
    { "locked", open_locked, "*_netdev 'x': cannot set the packet socket's "
      "filter: it is locked: Operation not permitted" },
};

static void expect_wrong(Rig *r, const char *netdev, const char *property,
                         const char *fd, const char *message)
{
    g_autofree char *p = g_strdup_printf("id=f0,netdev=n,%s=%s,%s_fd=%s",
                                         property, netdev, property, fd);
    g_autofree char *want = g_strconcat(ID, message, NULL);
    QDict *error = rig_add_error(r, p);
    const char *desc = qdict_get_str(error, "desc");

    if (!g_pattern_match_simple(want, desc)) {
        g_assert_cmpstr(desc, ==, want);
    }
    qobject_unref(error);
}

/* Refused, and nothing is left of it in QEMU. */
static void test_wrong(const void *data)
{
    const WrongCase *c = data;
    Rig *r = rig_new();
    unsigned i, fds;
    int fd;

    rig_tap(r, "x", 0);
    if_set_mac("tap-x", TAP_MAC);
    rig_tap(r, "y", 0);
    rig_wire(r, "n");
    rig_start(r);
    rig_sync(r);
    fds = rig_count_fds(r);
    for (i = 0; i < 2; i++) {
        fd = c->open();
        qtest_qmp_fds_assert_success(r->qts, &fd, 1, "{'execute': 'getfd', "
                                     "'arguments': {'fdname': 'wrong'}}");
        close(fd);
        expect_wrong(r, "x", i ? "out_netdev" : "in_netdev", "wrong",
                     c->message);
        rig_sync(r);
        g_assert_cmpuint(rig_count_fds(r), ==, fds);
    }
    if (elsewhere_tap) {
        close(elsewhere_tap);
        elsewhere_tap = 0;
    }
    rig_free(r);
}

/* A number remains good after it was used for the wrong netdev. */
static void test_wrong_number(const void *unused)
{
    Rig *r = rig_new();
    g_autofree char *good = NULL;
    g_autofree char *p = NULL;

    rig_tap(r, "x", 0);
    rig_tap(r, "y", 0);
    rig_wire(r, "n");
    good = g_strdup_printf("%d", rig_give_fd(r, socket_on("tap-y", SOCK_RAW,
                                                          0)));
    p = g_strdup_printf("id=f0,netdev=n,in_netdev=y,in_netdev_fd=%s", good);
    rig_start(r);
    expect_wrong(r, "x", "in_netdev", good, "in_netdev_fd '*': the packet "
                 "socket * is bound to interface 'tap-y' *");
    rig_add(r, p);
    rig_free(r);
}

static void test_wrong_name(const void *unused)
{
    Rig *r = rig_new();

    rig_tap(r, "x", 0);
    rig_wire(r, "n");
    rig_start(r);
    expect_wrong(r, "x", "in_netdev", "999", "in_netdev_fd '999': file "
                 "descriptor 999 is not open");
    expect_wrong(r, "x", "in_netdev", "nope", "in_netdev_fd 'nope': File "
                 "descriptor named 'nope' has not been found");
    expect_wrong(r, "x", "out_netdev", "/dev/fdset/7", "out_netdev_fd "
                 "'/dev/fdset/7': *fdset*");
    expect_wrong(r, "x", "out_netdev", "", "out_netdev_fd '': *");
    rig_free(r);
}

/*
 * One socket for two objects, by the same name or another: the second is
 * refused, the first goes on.  @data: the socket is in a set of descriptors
 */
static void test_twice(const void *data)
{
    const bool set = data;
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    g_autofree char *name = NULL, *first = NULL, *second = NULL;
    int co, fd = socket_on(x->ifname, SOCK_RAW, 0);

    rig_wire(r, "n");
    co = rig_chardev(r, "co");
    rig_chardev(r, "ci");
    rig_keep_fd(r, fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!set) {
        rig_give_fd(r, fd);
    }
    rig_start(r);
    if (set) {
        qtest_qmp_fds_assert_success(r->qts, &fd, 1, "{'execute': 'add-fd', "
                                     "'arguments': {'fdset-id': 3}}");
        close(fd);
    }
    name = set ? g_strdup("/dev/fdset/3") : g_strdup_printf("%d", fd);
    first = g_strdup_printf("id=f1,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                            "in_netdev_fd=%s", name);
    rig_add(r, first);
    expect_wrong(r, "x", "in_netdev", name, "in_netdev_fd '*': the packet "
                 "socket * is in use already, by another redirector or the "
                 "other end of this one: each needs one of its own");
    expect_wrong(r, "x", "out_netdev", name, "out_netdev_fd '*': the packet "
                 "socket * is in use already, *");
    send_packets(x->outside, 60, 0, 5);
    expect_packets(x->inside, 60, 0, 5);
    expect_frames(co, 60, 0, 5);
    rig_del(r, "f1");
    if (set) {
        second = g_strdup_printf("id=f2,netdev=n,indev=ci,out_netdev=x,"
                                 "out_netdev_fd=%s", name);
        rig_add(r, second);
    }
    rig_free(r);
}

/*
 * The socket was opened with a protocol: what it received before is not
 * captured, and as an injection's it collects nothing.
 */
static void test_protocol(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    g_autofree char *capture = NULL;
    g_autofree char *inject = NULL;
    int ci, co, sock[2], ours;

    rig_wire(r, "n");
    ci = rig_chardev(r, "ci");
    co = rig_chardev(r, "co");
    sock[0] = rig_give_fd(r, socket_on(x->ifname, SOCK_RAW, ETH_P_ALL));
    sock[1] = rig_give_fd(r, socket_on(x->ifname, SOCK_RAW, ETH_P_ALL));
    ours = rig_keep_fd(r, fcntl(sock[1], F_DUPFD_CLOEXEC, 0));
    capture = g_strdup_printf("id=f0,netdev=n,queue=tx,in_netdev=x,outdev=co,"
                              "in_netdev_fd=%d", sock[0]);
    inject = g_strdup_printf("id=f1,netdev=n,indev=ci,out_netdev=x,"
                             "out_netdev_fd=%d", sock[1]);
    rig_start(r);
    send_packets(x->outside, 60, 0, 5);
    expect_packets(x->inside, 60, 0, 5);
    rig_add(r, capture);
    rig_add(r, inject);
    send_packets(x->outside, 60, 5, 5);
    expect_packets(x->inside, 60, 5, 5);
    expect_frames(co, 60, 5, 5);
    send_frames(ci, 60, 10, 5);
    expect_packets(x->inside, 60, 10, 5);
    expect_silence(co);
    expect_silence(ours);
    rig_free(r);
}

static void add_access_cases(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/access/%s", cases[i].name);

        case_add(path, test_access, &cases[i]);
    }
    for (i = 0; i < ARRAY_SIZE(wrong); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/access/wrong/%s",
                            wrong[i].name);

        case_add(path, test_wrong, &wrong[i]);
    }
}

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    add_access_cases();
    case_add("/filter-redirector/access/no-entry/capability", test_no_entry,
             NULL);
    case_add("/filter-redirector/access/no-entry/sandbox", test_no_entry,
             "sandbox");
    case_add("/filter-redirector/access/no-question", test_no_question, NULL);
    case_add("/filter-redirector/access/no-question/decoy", test_no_question,
             "decoy");
    case_add("/filter-redirector/access/wrong/number", test_wrong_number,
             NULL);
    case_add("/filter-redirector/access/wrong/name", test_wrong_name, NULL);
    case_add("/filter-redirector/access/twice/number", test_twice, NULL);
    case_add("/filter-redirector/access/twice/set", test_twice, "set");
    case_add("/filter-redirector/access/protocol", test_protocol, NULL);

    return g_test_run();
}
