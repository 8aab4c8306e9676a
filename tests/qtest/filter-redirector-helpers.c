/*
 * Helpers of the filter-redirector qtests: a QEMU, packets, streams
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/if_ether.h>
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qobject/qlist.h"
#include "filter-redirector-helpers.h"

#define ETH_P_TEST 0x88b5 /* IEEE 802: for local experiments */

/*
 * Waiting
 */

static int64_t deadline(void)
{
    return g_get_monotonic_time() + WAIT_SECONDS * G_USEC_PER_SEC;
}

static void wait_fd(int fd, short events, int64_t end)
{
    struct pollfd p = { .fd = fd, .events = events };
    int64_t left;
    int ret;

    do {
        left = MAX(0, end - g_get_monotonic_time());
        ret = poll(&p, 1, left / 1000);
    } while (ret < 0 && errno == EINTR);
    g_assert_cmpint(ret, ==, 1); /* 0: what was expected did not come */
}

/*
 * The rig
 */

int rig_keep_fd(Rig *r, int fd)
{
    g_assert_cmpuint(r->nfds, <, FDS_MAX);
    r->fds[r->nfds++] = fd;
    return fd;
}

int rig_give_fd(Rig *r, int fd)
{
    g_assert_cmpuint(r->nqemu_fds, <, FDS_MAX);
    r->qemu_fds[r->nqemu_fds++] = fd;
    return fd;
}

void rig_close(Rig *r, int fd)
{
    unsigned i;

    for (i = 0; r->fds[i] != fd; i++) {
        g_assert_cmpuint(i + 1, <, r->nfds);
    }
    r->fds[i] = r->fds[--r->nfds];
    close(fd);
}

/* Return: our end; the other one is to be inherited by QEMU. */
static int rig_socketpair(Rig *r, int type, int *qemu_fd)
{
    int fd[2];

    g_assert_cmpint(socketpair(AF_UNIX, type, 0, fd), ==, 0);
    g_assert_cmpint(fcntl(fd[0], F_SETFD, FD_CLOEXEC), ==, 0);
    g_assert_cmpint(fcntl(fd[0], F_SETFL, O_NONBLOCK), ==, 0);
    *qemu_fd = rig_give_fd(r, fd[1]);
    return rig_keep_fd(r, fd[0]);
}

Rig *rig_new(void)
{
    Rig *r = g_new0(Rig, 1);

    r->machine = "-M none";
    r->args = g_string_new("-nodefaults ");
    return r;
}

static Port *port_new(Rig *r, const char *id)
{
    Port *p = &r->ports[r->nports++];

    g_assert_cmpuint(r->nports, <=, PORTS_MAX);
    *p = (Port) { .id = id, .outside = -1, .inside = -1, .tap = -1 };
    return p;
}

static void rig_dgram(Rig *r, const char *id, int *fd)
{
    int qemu_fd;

    *fd = rig_socketpair(r, SOCK_DGRAM, &qemu_fd);
    g_string_append_printf(r->args, "-netdev dgram,id=%s,local.type=fd,"
                           "local.str=%d ", id, qemu_fd);
}

static void port_add_guest(Rig *r, Port *p)
{
    g_autofree char *guest = g_strdup_printf("%s-guest", p->id);

    rig_dgram(r, guest, &p->inside);
    g_string_append_printf(r->args,
                           "-netdev hubport,id=%s-hub0,hubid=%u,netdev=%s "
                           "-netdev hubport,id=%s-hub1,hubid=%u,netdev=%s ",
                           p->id, r->nports, p->id,
                           p->id, r->nports, guest);
}

Port *rig_tap(Rig *r, const char *id, unsigned bits)
{
    Port *p = port_new(r, id);
    const unsigned queues = MAX(bits >> TAP_QUEUES_SHIFT, 1);
    int fd[TAP_QUEUES_MAX];
    unsigned i;

    g_assert_cmpuint(queues, <=, TAP_QUEUES_MAX);
    snprintf(p->ifname, sizeof(p->ifname), "tap-%s", id);
    g_string_append_printf(r->args, "-netdev tap,id=%s,vhost=off,%s=", id,
                           queues > 1 ? "fds" : "fd");
    for (i = 0; i < queues; i++) {
        fd[i] = rig_give_fd(r, tap_open(p->ifname, queues > 1));
        g_string_append_printf(r->args, "%s%d", i ? ":" : "", fd[i]);
    }
    g_string_append(r->args, " ");
    if_set_up(p->ifname, true);
    p->outside = rig_keep_fd(r, if_open(p->ifname));
    if (bits & TAP_HELD) {
        p->tap = rig_keep_fd(r, fcntl(fd[0], F_DUPFD_CLOEXEC, 0));
    }
    if (bits & TAP_GUEST) {
        port_add_guest(r, p);
    } else if (bits & TAP_STUCK) {
        g_string_append_printf(r->args, "-netdev hubport,id=%s-hub0,hubid=%u,"
                               "netdev=%s ", id, r->nports, id);
    }
    return p;
}

int rig_tap_fd(Rig *r, const char *id, int fd)
{
    Port *p = port_new(r, id);

    g_string_append_printf(r->args, "-netdev tap,id=%s,fd=%d,vhost=off ", id,
                           fd);
    port_add_guest(r, p);
    return p->inside;
}

Port *rig_wire(Rig *r, const char *id)
{
    Port *p = port_new(r, id);

    rig_dgram(r, id, &p->outside);
    port_add_guest(r, p);
    return p;
}

Port *rig_stream(Rig *r, const char *id)
{
    Port *p = port_new(r, id);
    int qemu_fd;

    p->outside = rig_socketpair(r, SOCK_STREAM, &qemu_fd);
    g_string_append_printf(r->args, "-netdev stream,id=%s,server=off,"
                           "addr.type=fd,addr.str=%d ", id, qemu_fd);
    port_add_guest(r, p);
    return p;
}

int rig_chardev(Rig *r, const char *id)
{
    int qemu_fd;
    int fd = rig_socketpair(r, SOCK_STREAM, &qemu_fd);

    g_string_append_printf(r->args, "-chardev socket,id=%s,fd=%d ", id,
                           qemu_fd);
    return fd;
}

char *rig_server(Rig *r, const char *id)
{
    char *path;

    if (!r->dir) {
        r->dir = g_dir_make_tmp("qtest-redirector-XXXXXX", NULL);
        g_assert_nonnull(r->dir);
    }
    path = g_strdup_printf("%s/%s", r->dir, id);
    g_string_append_printf(r->args, "-chardev socket,id=%s,path=%s,"
                           "server=on,wait=off ", id, path);
    return path;
}

int rig_connect(Rig *r, const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(fd, >=, 0);
    pstrcpy(addr.sun_path, sizeof(addr.sun_path), path);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), ==,
                    0);
    g_assert_cmpint(fcntl(fd, F_SETFL, O_NONBLOCK), ==, 0);
    return rig_keep_fd(r, fd);
}

void rig_start(Rig *r)
{
    r->qts = qtest_initf("%s %s", r->machine, r->args->str);
    while (r->nqemu_fds) {
        close(r->qemu_fds[--r->nqemu_fds]);
    }
}

static void remove_dir(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        unlink(file);
    }
    g_dir_close(dir);
    rmdir(path);
}

void rig_free(Rig *r)
{
    if (r->qts) {
        qtest_quit(r->qts);
    }
    while (r->nqemu_fds) {
        close(r->qemu_fds[--r->nqemu_fds]);
    }
    while (r->nfds) {
        close(r->fds[--r->nfds]);
    }
    if (r->dir) {
        remove_dir(r->dir);
        g_free(r->dir);
    }
    g_string_free(r->args, true);
    g_free(r);
}

/*
 * The monitor
 */

static QDict *parse_props(const char *props)
{
    QDict *dict = qdict_new();
    g_auto(GStrv) pairs = g_strsplit(props, ",", -1);
    unsigned i;

    qdict_put_str(dict, "qom-type", "filter-redirector");
    for (i = 0; pairs[i]; i++) {
        g_auto(GStrv) kv = g_strsplit(pairs[i], "=", 2);

        if (!strcmp(kv[0], "ring_size") || !strcmp(kv[0], "snaplen")) {
            qdict_put_int(dict, kv[0], g_ascii_strtoull(kv[1], NULL, 10));
        } else if (!strcmp(kv[0], "enable_when_stopped") ||
                   !strcmp(kv[0], "enable_when_running") ||
                   !strcmp(kv[0], "vnet_hdr_support")) {
            qdict_put_bool(dict, kv[0], !strcmp(kv[1], "on"));
        } else {
            qdict_put_str(dict, kv[0], kv[1]);
        }
    }
    return dict;
}

void rig_add(Rig *r, const char *props)
{
    qtest_qmp_assert_success(r->qts, "{'execute': 'object-add', "
                             "'arguments': %p}", parse_props(props));
}

QDict *rig_add_error(Rig *r, const char *props)
{
    return qtest_qmp_assert_failure_ref(r->qts, "{'execute': 'object-add', "
                                        "'arguments': %p}",
                                        parse_props(props));
}

bool rig_has_object(Rig *r, const char *type)
{
    QDict *reply = qtest_qmp(r->qts, "{'execute': 'qom-list-types', "
                             "'arguments': {'implements': %s}}", type);
    bool found = !qlist_empty(qdict_get_qlist(reply, "return"));

    qobject_unref(reply);
    return found;
}

void rig_del(Rig *r, const char *id)
{
    qtest_qmp_assert_success(r->qts, "{'execute': 'object-del', "
                             "'arguments': {'id': %s}}", id);
}

void rig_set(Rig *r, const char *id, const char *prop, const char *value)
{
    g_autofree char *path = g_strdup_printf("/objects/%s", id);

    qtest_qmp_assert_success(r->qts, "{'execute': 'qom-set', 'arguments': "
                             "{'path': %s, 'property': %s, 'value': %s}}",
                             path, prop, value);
}

/* Waits while the run state is this one, or until it is; what it is then. */
static char *wait_while_runstate(Rig *r, const char *state, bool is)
{
    const int64_t until = deadline();
    char *now = rig_runstate(r);

    while (g_str_equal(now, state) == is && g_get_monotonic_time() < until) {
        g_usleep(1000);
        g_free(now);
        now = rig_runstate(r);
    }
    return now;
}

void rig_stop(Rig *r)
{
    qtest_qmp_assert_success(r->qts, "{'execute': 'stop'}");
}

void rig_cont(Rig *r)
{
    /*
     * QEMU tells of a migration's end before it leaves this run state, in
     * which it refuses to go on.
     */
    g_free(wait_while_runstate(r, "finish-migrate", true));
    qtest_qmp_assert_success(r->qts, "{'execute': 'cont'}");
}

int64_t rig_sync(Rig *r)
{
    int64_t longest = 0;
    unsigned i;

    for (i = 0; i < 2; i++) {
        int64_t start = g_get_monotonic_time();

        qtest_qmp_assert_success(r->qts, "{'execute': 'query-status'}");
        longest = MAX(longest, g_get_monotonic_time() - start);
    }
    return longest;
}

unsigned rig_count_fds(Rig *r)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd",
                                            (int)qtest_pid(r->qts));
    GDir *dir = g_dir_open(path, 0, NULL);
    unsigned n = 0;

    g_assert_nonnull(dir);
    while (g_dir_read_name(dir)) {
        n++;
    }
    g_dir_close(dir);
    return n;
}

QDict *rig_info(Rig *r, const char *id)
{
    QDict *reply = qtest_qmp(r->qts,
                             "{'execute': 'query-filter-redirectors'}");
    QDict *found = NULL;
    QListEntry *e;

    g_assert_true(qdict_haskey(reply, "return"));
    QLIST_FOREACH_ENTRY(qdict_get_qlist(reply, "return"), e) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(e));

        if (!strcmp(qdict_get_str(info, "id"), id)) {
            found = qobject_ref(info);
        }
    }
    qobject_unref(reply);
    return found;
}

uint64_t rig_stat(Rig *r, const char *id, const char *path)
{
    QDict *info = rig_info(r, id);
    g_auto(GStrv) keys = g_strsplit(path, ".", -1);
    QDict *dict = info;
    uint64_t value;
    unsigned i;

    g_assert_nonnull(info);
    for (i = 0; keys[i + 1]; i++) {
        dict = qdict_get_qdict(dict, keys[i]);
        g_assert_nonnull(dict);
    }
    value = qdict_get_int(dict, keys[i]);
    qobject_unref(info);
    return value;
}

char *rig_state(Rig *r, const char *id, const char *end)
{
    QDict *info = rig_info(r, id);
    char *state;

    g_assert_nonnull(info);
    state = g_strdup(qdict_get_str(qdict_get_qdict(info, end), "state"));
    qobject_unref(info);
    return state;
}

void rig_wait_stat(Rig *r, const char *id, const char *path, uint64_t value)
{
    const int64_t end = deadline();

    while (rig_stat(r, id, path) != value && g_get_monotonic_time() < end) {
        g_usleep(1000);
    }
    assert_stat(r, id, path, value);
}

void rig_wait_stat_min(Rig *r, const char *id, const char *path, uint64_t min)
{
    const int64_t end = deadline();

    while (rig_stat(r, id, path) < min && g_get_monotonic_time() < end) {
        g_usleep(1000);
    }
    g_assert_cmpuint(rig_stat(r, id, path), >=, min);
}

void rig_wait_tx_packets(Rig *r, const Port *tap, uint64_t value)
{
    const int64_t end = deadline();

    while (if_tx_packets(tap->ifname) < value &&
           g_get_monotonic_time() < end) {
        rig_sync(r);
    }
    g_assert_cmpuint(if_tx_packets(tap->ifname), ==, value);
}

void rig_wait_state(Rig *r, const char *id, const char *end,
                    const char *state)
{
    const int64_t until = deadline();
    char *now = rig_state(r, id, end);

    while (strcmp(now, state) && g_get_monotonic_time() < until) {
        g_usleep(1000);
        g_free(now);
        now = rig_state(r, id, end);
    }
    g_assert_cmpstr(now, ==, state);
    g_free(now);
}

static char *rig_phase(Rig *r, const char *id)
{
    QDict *info = rig_info(r, id);
    char *phase;

    g_assert_nonnull(info);
    phase = g_strdup(qdict_get_try_str(info, "phase") ?: "");
    qobject_unref(info);
    return phase;
}

void rig_wait_phase(Rig *r, const char *id, const char *phase)
{
    const int64_t until = deadline();
    char *now = rig_phase(r, id);

    while (strcmp(now, phase) && g_get_monotonic_time() < until) {
        g_usleep(1000);
        g_free(now);
        now = rig_phase(r, id);
    }
    g_assert_cmpstr(now, ==, phase);
    g_free(now);
}

static void wait_migration(Rig *r)
{
    const int64_t until = deadline();
    bool done = false;

    while (!done && g_get_monotonic_time() < until) {
        QDict *reply = qtest_qmp_assert_success_ref(
            r->qts, "{'execute': 'query-migrate'}");
        const char *status = qdict_get_try_str(reply, "status");

        g_assert_cmpstr(status, !=, "failed");
        done = !g_strcmp0(status, "completed");
        qobject_unref(reply);
        if (!done) {
            g_usleep(1000);
        }
    }
    g_assert_true(done);
}

void rig_migrate(Rig *r, const char *file)
{
    g_autofree char *uri = g_strdup_printf("exec:cat > %s", file);

    qtest_qmp_assert_success(r->qts, "{'execute': 'migrate', 'arguments': "
                             "{'uri': %s}}", uri);
    wait_migration(r);
}

char *rig_runstate(Rig *r)
{
    QDict *info = qtest_qmp_assert_success_ref(r->qts,
                                               "{'execute': 'query-status'}");
    char *state = g_strdup(qdict_get_str(info, "status"));

    qobject_unref(info);
    return state;
}

void rig_wait_runstate(Rig *r, const char *state)
{
    g_autofree char *now = wait_while_runstate(r, state, false);

    g_assert_cmpstr(now, ==, state);
}

Bench bench_new(void)
{
    Bench b = { .r = rig_new() };

    b.n = rig_wire(b.r, "n");
    b.x = rig_tap(b.r, "x", TAP_GUEST);
    b.ci = rig_chardev(b.r, "ci");
    b.co = rig_chardev(b.r, "co");
    return b;
}

Bench bench_start(const char *props)
{
    Bench b = bench_new();

    rig_start(b.r);
    rig_add(b.r, props);
    return b;
}

/*
 * Packets
 */

void packet_fill(uint8_t *packet, size_t size, uint32_t seq)
{
    static const uint8_t header[] = {
        0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2,
        ETH_P_TEST >> 8, ETH_P_TEST & 0xff,
    };
    size_t i;

    memcpy(packet, header, sizeof(header));
    stl_be_p(packet + sizeof(header), seq);
    for (i = sizeof(header) + sizeof(seq); i < size; i++) {
        packet[i] = seq * 7 + i;
    }
}

uint32_t packet_seq(const uint8_t *packet)
{
    return ldl_be_p(packet + ETH_HLEN);
}

void packet_check(const uint8_t *packet, size_t size)
{
    g_autofree uint8_t *want = g_malloc(PACKET_MAX);

    g_assert_cmpuint(size, >=, ETH_ZLEN);
    packet_fill(want, size, packet_seq(packet));
    g_assert_cmpmem(packet, size, want, size);
}

void send_raw(int fd, const void *packet, size_t size)
{
    const int64_t end = deadline();
    ssize_t ret;

    while ((ret = send(fd, packet, size, MSG_NOSIGNAL)) < 0 &&
           (errno == EAGAIN || errno == EINTR)) {
        wait_fd(fd, POLLOUT, end);
    }
    g_assert_cmpint(ret, ==, size);
}

size_t recv_raw(int fd, void *packet)
{
    ssize_t ret;

    wait_fd(fd, POLLIN, deadline());
    ret = recv(fd, packet, PACKET_MAX, 0);
    g_assert_cmpint(ret, >, 0);
    return ret;
}

size_t read_raw(int fd, void *packet)
{
    ssize_t ret;

    wait_fd(fd, POLLIN, deadline());
    ret = read(fd, packet, PACKET_MAX);
    g_assert_cmpint(ret, >, 0);
    return ret;
}

void clear_error(int fd)
{
    int err;
    socklen_t len = sizeof(err);

    g_assert_cmpint(getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len), ==, 0);
}

void send_packet(int fd, size_t size, uint32_t seq)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);

    packet_fill(packet, size, seq);
    send_raw(fd, packet, size);
}

void send_packets(int fd, size_t size, uint32_t first, unsigned n)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        send_packet(fd, size, first + i);
    }
}

static void check_packet(const uint8_t *packet, size_t got, size_t size,
                         uint32_t seq)
{
    g_assert_cmpuint(got, ==, size);
    g_assert_cmpuint(packet_seq(packet), ==, seq);
    packet_check(packet, size);
}

void expect_packet(int fd, size_t size, uint32_t seq)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);

    check_packet(packet, recv_raw(fd, packet), size, seq);
}

void expect_packets(int fd, size_t size, uint32_t first, unsigned n)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        expect_packet(fd, size, first + i);
    }
}

void expect_silence(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    g_assert_cmpint(poll(&p, 1, 0), ==, 0);
}

void expect_eof(int fd)
{
    char c;

    wait_fd(fd, POLLIN, deadline());
    g_assert_cmpint(recv(fd, &c, 1, 0), <=, 0);
}

/*
 * Files of filter-dump
 */

void pcap_clear(Pcap *p)
{
    g_free(p->text);
    memset(p, 0, sizeof(*p));
}

/* Return: false if it is not all there yet */
static bool pcap_record(PcapRecord *r, const char *header, size_t left)
{
    if (left < 16) {
        return false;
    }
    *r = (PcapRecord) {
        .time_us = (int64_t)ldl_he_p(header) * G_USEC_PER_SEC +
                   ldl_he_p(header + 4),
        .len = (uint32_t)ldl_he_p(header + 8),
        .size = (uint32_t)ldl_he_p(header + 12),
        .data = (const uint8_t *)header + 16,
    };
    return left - 16 >= r->len;
}

void pcap_read(Pcap *p, const char *file)
{
    size_t pos = 24;
    gsize len;

    pcap_clear(p);
    g_assert_true(g_file_get_contents(file, &p->text, &len, NULL));
    g_assert_cmpuint(len, >=, pos);
    g_assert_cmphex((uint32_t)ldl_he_p(p->text), ==, 0xa1b2c3d4);
    g_assert_cmpuint(ldl_he_p(p->text + 20), ==, 1); /* Ethernet */
    while (pcap_record(&p->records[p->n], p->text + pos, len - pos)) {
        pos += 16 + p->records[p->n].len;
        g_assert_cmpuint(++p->n, <, ARRAY_SIZE(p->records));
    }
}

/*
 * Streams
 */

void send_bytes(int fd, const void *buf, size_t size)
{
    const int64_t end = deadline();
    size_t done = 0;

    while (done < size) {
        ssize_t ret = send(fd, buf + done, size - done, MSG_NOSIGNAL);

        if (ret < 0) {
            g_assert_true(errno == EAGAIN || errno == EINTR);
            wait_fd(fd, POLLOUT, end);
        } else {
            done += ret;
        }
    }
}

void recv_bytes(int fd, void *buf, size_t size)
{
    const int64_t end = deadline();
    size_t done = 0;

    while (done < size) {
        ssize_t ret;

        wait_fd(fd, POLLIN, end);
        ret = read(fd, buf + done, size - done);
        g_assert_cmpint(ret, >, 0);
        done += ret;
    }
}

static void send_u32(int fd, uint32_t value)
{
    value = cpu_to_be32(value);
    send_bytes(fd, &value, sizeof(value));
}

static uint32_t recv_u32(int fd)
{
    uint32_t value;

    recv_bytes(fd, &value, sizeof(value));
    return be32_to_cpu(value);
}

void send_frame_raw(int fd, const void *data, size_t size, int vnet)
{
    send_u32(fd, size);
    if (vnet != NO_VNET) {
        send_u32(fd, vnet);
    }
    send_bytes(fd, data, size);
}

size_t recv_frame(int fd, void *data, int vnet)
{
    uint32_t size = recv_u32(fd);

    g_assert_cmpuint(size, >, 0);
    g_assert_cmpuint(size, <=, PACKET_MAX);
    if (vnet != NO_VNET) {
        g_assert_cmpuint(recv_u32(fd), ==, vnet);
    }
    recv_bytes(fd, data, size);
    return size;
}

void send_frame(int fd, size_t size, uint32_t seq, int vnet)
{
    const size_t hdr_len = MAX(vnet, 0);
    g_autofree uint8_t *data = g_malloc0(PACKET_MAX);

    packet_fill(data + hdr_len, size, seq);
    send_frame_raw(fd, data, hdr_len + size, vnet);
}

void send_frames(int fd, size_t size, uint32_t first, unsigned n)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        send_frame(fd, size, first + i, NO_VNET);
    }
}

void expect_frame(int fd, size_t size, uint32_t seq, int vnet)
{
    const size_t hdr_len = MAX(vnet, 0);
    g_autofree uint8_t *data = g_malloc(PACKET_MAX);
    size_t got = recv_frame(fd, data, vnet);

    g_assert_cmpuint(got, >, hdr_len);
    check_packet(data + hdr_len, got - hdr_len, size, seq);
}

void expect_frames(int fd, size_t size, uint32_t first, unsigned n)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        expect_frame(fd, size, first + i, NO_VNET);
    }
}

/*
 * Floods
 */

/*
 * Return: false if the flood is to end.  It looks at its stop flag whenever
 * it has waited for a while; the peer may also be gone.
 */
static bool flood_send(Flood *f, const uint8_t *buf, size_t size)
{
    struct pollfd p = { .fd = f->fd, .events = POLLOUT };
    size_t done = 0;

    while (done < size) {
        ssize_t ret = send(f->fd, buf + done, size - done,
                           MSG_NOSIGNAL | MSG_DONTWAIT);

        if (ret >= 0) {
            done += ret;
        } else if (errno == ENETDOWN) {
            g_usleep(1000);
        } else if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR) {
            poll(&p, 1, 10);
        } else {
            return false;
        }
        if (done < size && g_atomic_int_get(&f->stop)) {
            return false;
        }
    }
    return true;
}

static void *flood_run(void *opaque)
{
    Flood *f = opaque;
    const size_t prefix = f->stream ? sizeof(uint32_t) : 0;
    g_autofree uint8_t *buf = g_malloc(PACKET_MAX);
    const int64_t end = deadline();

    stl_be_p(buf, f->size);
    while (f->sent < f->limit && !g_atomic_int_get(&f->stop)) {
        packet_fill(buf + prefix, f->size, f->sent);
        if ((f->limit != NO_LIMIT && g_get_monotonic_time() > end) ||
            !flood_send(f, buf, prefix + f->size)) {
            break;
        }
        f->sent++;
    }
    return NULL;
}

Flood *flood_start(int fd, size_t size, uint32_t limit, bool stream)
{
    Flood *f = g_new0(Flood, 1);

    f->fd = fd;
    f->size = size;
    f->limit = limit;
    f->stream = stream;
    f->thread = g_thread_new("flood", flood_run, f);
    return f;
}

uint32_t flood_finish(Flood *f)
{
    uint32_t sent;

    g_thread_join(f->thread);
    sent = f->sent;
    g_free(f);
    return sent;
}

uint32_t flood_stop(Flood *f)
{
    g_atomic_int_set(&f->stop, 1);
    return flood_finish(f);
}

static void *drain_run(void *opaque)
{
    Drain *d = opaque;
    struct pollfd p = { .fd = d->fd, .events = POLLIN };
    g_autofree uint8_t *buf = g_malloc(PACKET_MAX);

    while (!g_atomic_int_get(&d->stop)) {
        if (poll(&p, 1, 10) == 1 && recv(d->fd, buf, PACKET_MAX, 0) == 0) {
            break;
        }
    }
    return NULL;
}

Drain *drain_start(int fd)
{
    Drain *d = g_new0(Drain, 1);

    d->fd = fd;
    d->thread = g_thread_new("drain", drain_run, d);
    return d;
}

void drain_stop(Drain *d)
{
    g_atomic_int_set(&d->stop, 1);
    g_thread_join(d->thread);
    g_free(d);
}

/*
 * Watchdogs
 */

static void *watchdog_run(void *opaque)
{
    Watchdog *w = opaque;
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;

    while (!g_atomic_int_get(&w->stop)) {
        if (g_get_monotonic_time() > end) {
            g_test_message("QEMU does not answer");
            kill(w->pid, SIGKILL);
            break;
        }
        g_usleep(1000);
    }
    return NULL;
}

Watchdog *watchdog_start(Rig *r)
{
    Watchdog *w = g_new0(Watchdog, 1);

    w->pid = qtest_pid(r->qts);
    w->thread = g_thread_new("watchdog", watchdog_run, w);
    return w;
}

void watchdog_stop(Watchdog *w)
{
    g_atomic_int_set(&w->stop, 1);
    g_thread_join(w->thread);
    g_free(w);
}

/* The main loop comes round, and soon. */
void expect_answers(Rig *r)
{
    Watchdog *w = watchdog_start(r);
    unsigned i;

    for (i = 0; i < 20; i++) {
        g_assert_cmpint(rig_sync(r), <, G_USEC_PER_SEC);
        g_usleep(5000);
    }
    watchdog_stop(w);
}

size_t rig_memory(Rig *r)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            (int)qtest_pid(r->qts));
    g_autofree char *text = NULL;
    char *line;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    line = strstr(text, "VmRSS:");
    g_assert_nonnull(line);
    return g_ascii_strtoull(line + 6, NULL, 10) * 1024;
}
