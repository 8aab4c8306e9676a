/*
 * Helpers of the filter-redirector qtests: namespaces, interfaces, threads
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <arpa/inet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include "qemu/cutils.h"
#include "filter-redirector-helpers.h"

/* linux/if_packet.h has it since Linux 4.20. */
#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

/* ... and since Linux 6.6. */
#ifndef PACKET_VNET_HDR_SZ
#define PACKET_VNET_HDR_SZ 24
#endif

/*
 * The sandbox
 */

/* Set for a program that is in its own namespaces already. */
#define SANDBOX_ENV "FILTER_REDIRECTOR_TEST_SANDBOX"

/* Why there is none; the cases are skipped with it. */
static char *sandbox_error;

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == strlen(text);

    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* Root in the user namespace: QEMU keeps the capabilities when it starts. */
static bool map_root(uid_t uid, gid_t gid)
{
    g_autofree char *uids = g_strdup_printf("0 %u 1", (unsigned)uid);
    g_autofree char *gids = g_strdup_printf("0 %u 1", (unsigned)gid);

    return write_file("/proc/self/setgroups", "deny") &&
           write_file("/proc/self/uid_map", uids) &&
           write_file("/proc/self/gid_map", gids);
}

/*
 * Runs the program once more, in a user and a network namespace, and exits as
 * it does.  A new process, because one with threads, and QEMU's libraries
 * start one before main(), can't enter a user namespace; by the system call,
 * because fork() would start that thread again.
 * Return: only if that can't be done; errno says why
 */
static void reenter(char **argv)
{
    const uid_t uid = getuid();
    const gid_t gid = getgid();
    const int no_map = 125;
    int status;
    pid_t pid;

    setenv(SANDBOX_ENV, "1", 1);
    pid = syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNET | SIGCHLD, NULL,
                  NULL, NULL, NULL);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (map_root(uid, gid)) {
            execv("/proc/self/exe", argv);
        }
        _exit(no_map);
    }
    if (pid > 0) {
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        if (!WIFEXITED(status)) {
            exit(EXIT_FAILURE);
        } else if (WEXITSTATUS(status) != no_map) {
            exit(WEXITSTATUS(status));
        }
        errno = EPERM;
    }
}

/* IPv6 would send packets of its own on each new interface. */
static bool silence_ipv6(void)
{
    return access("/proc/sys/net/ipv6", F_OK) ||
           (write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1") &&
            write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"));
}

static bool probe_tap(void)
{
    struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    int fd = open("/dev/net/tun", O_RDWR);
    bool ok = fd >= 0 && ioctl(fd, TUNSETIFF, &ifr) == 0;
    int err = errno;

    if (fd >= 0) {
        close(fd);
    }
    errno = err;
    return ok;
}

static bool probe_packet_socket(void)
{
    int fd = socket(AF_PACKET, SOCK_RAW, 0);

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

void sandbox_enter(char **argv)
{
    const char *what = NULL;

    if (!getenv(SANDBOX_ENV) && unshare(CLONE_NEWNET)) {
        reenter(argv);
        what = "no private network namespace";
    }
    if (!what && !probe_tap()) {
        what = "cannot create a TAP through /dev/net/tun";
    }
    if (!what && !probe_packet_socket()) {
        what = "cannot open a packet socket";
    }
    if (!what && !silence_ipv6()) {
        what = "cannot switch IPv6 off in a private network namespace";
    }
    if (what) {
        sandbox_error = g_strdup_printf("%s: %s", what, strerror(errno));
    }
}

typedef struct Case {
    void (*func)(const void *data);
    const void *data;
} Case;

static void case_run(const void *opaque)
{
    const Case *c = opaque;

    if (sandbox_error) {
        g_test_skip(sandbox_error);
        return;
    }
    c->func(c->data);
}

void case_add(const char *path, void (*func)(const void *data),
              const void *data)
{
    Case *c = g_new(Case, 1);

    *c = (Case) { func, data };
    qtest_add_data_func_full(path, c, case_run, g_free);
}

/*
 * Interfaces
 */

static int if_ioctl(unsigned long request, const char *ifname,
                    struct ifreq *ifr)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int ret;

    g_assert_cmpint(fd, >=, 0);
    pstrcpy(ifr->ifr_name, sizeof(ifr->ifr_name), ifname);
    ret = ioctl(fd, request, ifr);
    close(fd);
    return ret;
}

void if_set_up(const char *ifname, bool up)
{
    struct ifreq ifr = { };

    g_assert_cmpint(if_ioctl(SIOCGIFFLAGS, ifname, &ifr), ==, 0);
    if (up) {
        ifr.ifr_flags |= IFF_UP;
    } else {
        ifr.ifr_flags &= ~IFF_UP;
    }
    g_assert_cmpint(if_ioctl(SIOCSIFFLAGS, ifname, &ifr), ==, 0);
}


static struct sockaddr inet_addr_of(const char *text)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
    } addr = { .in.sin_family = AF_INET };

    g_assert_cmpint(inet_pton(AF_INET, text, &addr.in.sin_addr), ==, 1);
    return addr.any;
}

void if_set_route(const char *ifname, const char *address,
                  const char *netmask, const char *gateway)
{
    struct ifreq addr = { .ifr_addr = inet_addr_of(address) };
    struct ifreq mask = { .ifr_netmask = inet_addr_of(netmask) };
    struct rtentry route = {
        .rt_dst = inet_addr_of("0.0.0.0"),
        .rt_genmask = inet_addr_of("0.0.0.0"),
        .rt_gateway = inet_addr_of(gateway),
        .rt_flags = RTF_UP | RTF_GATEWAY,
    };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(if_ioctl(SIOCSIFADDR, ifname, &addr), ==, 0);
    g_assert_cmpint(if_ioctl(SIOCSIFNETMASK, ifname, &mask), ==, 0);
    if_set_up(ifname, true);
    g_assert_cmpint(ioctl(fd, SIOCADDRT, &route), ==, 0);
    close(fd);
}

void if_rename(const char *ifname, const char *new_name)
{
    struct ifreq ifr = { };

    if_set_up(ifname, false);
    pstrcpy(ifr.ifr_newname, sizeof(ifr.ifr_newname), new_name);
    g_assert_cmpint(if_ioctl(SIOCSIFNAME, ifname, &ifr), ==, 0);
    if_set_up(new_name, true);
}

void if_set_mtu(const char *ifname, int mtu)
{
    struct ifreq ifr = { .ifr_mtu = mtu };

    g_assert_cmpint(if_ioctl(SIOCSIFMTU, ifname, &ifr), ==, 0);
}

void if_set_mac(const char *ifname, uint8_t last)
{
    struct ifreq ifr = { .ifr_hwaddr.sa_family = ARPHRD_ETHER };

    ifr.ifr_hwaddr.sa_data[0] = 0x02; /* locally administered */
    ifr.ifr_hwaddr.sa_data[ETH_ALEN - 1] = last;
    g_assert_cmpint(if_ioctl(SIOCSIFHWADDR, ifname, &ifr), ==, 0);
}

void if_set_txqueuelen(const char *ifname, int len)
{
    struct ifreq ifr = { .ifr_qlen = len };

    g_assert_cmpint(if_ioctl(SIOCSIFTXQLEN, ifname, &ifr), ==, 0);
}

typedef struct LinkRequest {
    struct nlmsghdr nh;
    struct ifinfomsg ifi;
    uint8_t attrs[128];
} LinkRequest;

static struct rtattr *link_attr(LinkRequest *req, int type, const void *data,
                                size_t size)
{
    struct rtattr *rta = (void *)((uint8_t *)req +
                                  NLMSG_ALIGN(req->nh.nlmsg_len));

    rta->rta_type = type;
    rta->rta_len = RTA_LENGTH(size);
    memcpy(RTA_DATA(rta), data, size);
    req->nh.nlmsg_len = NLMSG_ALIGN(req->nh.nlmsg_len) +
                        RTA_ALIGN(rta->rta_len);
    g_assert_cmpuint(req->nh.nlmsg_len, <=, sizeof(*req));
    return rta;
}

/* Return: 0 or -errno */
static int link_request(LinkRequest *req, int type, int flags)
{
    struct {
        struct nlmsghdr nh;
        struct nlmsgerr err;
        uint8_t rest[512];
    } reply;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    g_assert_cmpint(fd, >=, 0);
    req->nh.nlmsg_type = type;
    req->nh.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    g_assert_cmpint(send(fd, req, req->nh.nlmsg_len, 0), ==,
                    req->nh.nlmsg_len);
    g_assert_cmpint(recv(fd, &reply, sizeof(reply), 0), >=,
                    sizeof(reply.nh) + sizeof(reply.err));
    g_assert_cmpint(reply.nh.nlmsg_type, ==, NLMSG_ERROR);
    close(fd);
    return reply.err.error;
}

void if_delete(const char *ifname)
{
    LinkRequest req = {
        .nh.nlmsg_len = NLMSG_LENGTH(sizeof(req.ifi)),
        .ifi.ifi_index = if_nametoindex(ifname),
    };

    g_assert_cmpint(req.ifi.ifi_index, >, 0);
    g_assert_cmpint(link_request(&req, RTM_DELLINK, 0), ==, 0);
}

typedef struct Move {
    const char *ifname;
    int from;
    int to;
} Move;

static void move(const void *data)
{
    const Move *m = data;
    const uint32_t to = m->to;
    LinkRequest req = { .nh.nlmsg_len = NLMSG_LENGTH(sizeof(req.ifi)) };

    if (m->from >= 0) {
        g_assert_cmpint(setns(m->from, CLONE_NEWNET), ==, 0);
    }
    req.ifi.ifi_index = if_nametoindex(m->ifname);
    g_assert_cmpint(req.ifi.ifi_index, >, 0);
    link_attr(&req, IFLA_NET_NS_FD, &to, sizeof(to));
    g_assert_cmpint(link_request(&req, RTM_NEWLINK, 0), ==, 0);
}

void if_move(const char *ifname, int from, int to)
{
    Move m = { ifname, from, to };

    run_isolated(move, &m);
}

typedef struct NetnsRequest {
    bool create;
    int fd;
} NetnsRequest;

static void open_netns(const void *data)
{
    NetnsRequest *req = (NetnsRequest *)data;

    if (req->create) {
        g_assert_cmpint(unshare(CLONE_NEWNET), ==, 0);
    }
    req->fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(req->fd, >=, 0);
}

int netns_open(bool create)
{
    NetnsRequest req = { create };

    run_isolated(open_netns, &req);
    return req.fd;
}

/*
 * Its device node is called after the interface's index, for all network
 * namespaces: an index of this process's own avoids another one's node.
 * Return: 0 or -errno
 */
static int add_macvtap(const char *ifname, const char *lower)
{
    const uint32_t index = if_nametoindex(lower);
    const char kind[] = "macvtap";
    LinkRequest req = {
        .nh.nlmsg_len = NLMSG_LENGTH(sizeof(req.ifi)),
        .ifi.ifi_index = 100000 + getpid(),
    };
    struct rtattr *info;

    link_attr(&req, IFLA_IFNAME, ifname, strlen(ifname) + 1);
    link_attr(&req, IFLA_LINK, &index, sizeof(index));
    info = link_attr(&req, IFLA_LINKINFO, "", 0);
    link_attr(&req, IFLA_INFO_KIND, kind, strlen(kind));
    info->rta_len = (uint8_t *)&req + req.nh.nlmsg_len - (uint8_t *)info;
    return link_request(&req, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
}

int macvtap_open(const char *ifname, const char *lower)
{
    g_autofree char *path = NULL;
    g_autofree char *reason = NULL;
    int ret = add_macvtap(ifname, lower);
    int fd;

    if (ret) {
        reason = g_strdup_printf("cannot create a macvtap: %s",
                                 strerror(-ret));
        g_test_skip(reason);
        return -1;
    }
    path = g_strdup_printf("/dev/tap%u", if_nametoindex(ifname));
    fd = open(path, O_RDWR);
    if (fd < 0) {
        reason = g_strdup_printf("cannot open %s: %s", path, strerror(errno));
        if_delete(ifname);
        g_test_skip(reason);
    }
    return fd;
}

/* Field 10 after the name; /proc/net follows the reader's namespace. */
uint64_t if_tx_packets(const char *ifname)
{
    g_autofree char *text = NULL;
    g_autofree char *start = g_strdup_printf("%s:", ifname);
    g_auto(GStrv) fields = NULL;
    unsigned i, n = 0;
    char *line;

    g_assert_true(g_file_get_contents("/proc/thread-self/net/dev", &text,
                                      NULL, NULL));
    line = strstr(text, start);
    g_assert_nonnull(line);
    fields = g_strsplit(line + strlen(start), " ", 64);
    for (i = 0; fields[i]; i++) {
        if (*fields[i] && ++n == 10) {
            return g_ascii_strtoull(fields[i], NULL, 10);
        }
    }
    g_assert_not_reached();
}

int tap_open(char *ifname, bool multi_queue)
{
    struct ifreq ifr = { };
    int fd = open("/dev/net/tun", O_RDWR); /* stays open in QEMU */

    g_assert_cmpint(fd, >=, 0);
    ifr.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
                    (multi_queue ? IFF_MULTI_QUEUE : 0);
    pstrcpy(ifr.ifr_name, sizeof(ifr.ifr_name), ifname);
    g_assert_cmpint(ioctl(fd, TUNSETIFF, &ifr), ==, 0);
    pstrcpy(ifname, IFNAMSIZ, ifr.ifr_name);
    return fd;
}

int if_open(const char *ifname)
{
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = if_nametoindex(ifname),
    };
    const int on = 1;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on,
                               sizeof(on)), ==, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    return fd;
}

/*
 * Threads
 */

static void *isolated_run(void *opaque)
{
    const Case *c = opaque;

    c->func(c->data);
    return NULL;
}

void run_isolated(void (*func)(const void *data), const void *data)
{
    Case c = { func, data };

    g_thread_join(g_thread_new("isolated", isolated_run, &c));
}

void enter_new_netns(void)
{
    g_assert_cmpint(unshare(CLONE_NEWNET), ==, 0);
    g_assert_true(silence_ipv6());
}

uint64_t netns_inode(void)
{
    struct stat st;

    g_assert_cmpint(stat("/proc/thread-self/ns/net", &st), ==, 0);
    return st.st_ino;
}

void drop_caps(uint64_t caps)
{
    struct __user_cap_header_struct head = {
        .version = _LINUX_CAPABILITY_VERSION_3,
    };
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    unsigned i;

    /* The bounding set counts for programs that root starts. */
    for (i = 0; i <= CAP_LAST_CAP; i++) {
        if (caps & CAP_BIT(i)) {
            g_assert_cmpint(prctl(PR_CAPBSET_DROP, i, 0, 0, 0), ==, 0);
        }
    }
    g_assert_cmpint(syscall(SYS_capget, &head, data), ==, 0);
    for (i = 0; i < ARRAY_SIZE(data); i++) {
        uint32_t keep = ~(caps >> (32 * i));

        data[i].effective &= keep;
        data[i].permitted &= keep;
        data[i].inheritable &= keep;
    }
    g_assert_cmpint(syscall(SYS_capset, &head, data), ==, 0);
}

/* The less significant half of a system call's argument. */
#define LOAD_ARG(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, \
                             offsetof(struct seccomp_data, args[n]) + \
                             4 * HOST_BIG_ENDIAN)

void deny_vnet_hdr_sz(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setsockopt, 0, 5),
        LOAD_ARG(1),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SOL_PACKET, 0, 3),
        LOAD_ARG(2),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_VNET_HDR_SZ, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOPROTOOPT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = { ARRAY_SIZE(filter), filter };
    const int size = 12;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
    g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), ==, 0);
    g_assert_cmpint(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR_SZ, &size,
                               sizeof(size)), <, 0);
    g_assert_cmpint(errno, ==, ENOPROTOOPT);
    close(fd);
}
