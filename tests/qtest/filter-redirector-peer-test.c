/*
 * QTest of filter-redirector's chardevs: kinds of them, peers that close one
 * direction, that mean another format, or use TLS or websockets
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "qemu/bswap.h"
#include "qobject/qlist.h"
#include "filter-redirector-helpers.h"

#define SIZE 200
#define COUNT 50

/*
 * A peer that reads, and says that it will say nothing
 */

/* A listening chardev's port on this host, once QEMU runs. */
static int chardev_port(Rig *r, const char *id)
{
    QDict *reply = qtest_qmp(r->qts, "{'execute': 'query-chardev'}");
    QListEntry *entry;
    int port = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(reply, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));
        const char *name = qdict_get_str(info, "filename");

        if (!strcmp(qdict_get_str(info, "label"), id)) {
            port = atoi(strrchr(name, ':') + 1);
        }
    }
    qobject_unref(reply);
    g_assert_cmpint(port, >, 0);
    return port;
}

static int connect_tcp(Rig *r, int port)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr = { htonl(INADDR_LOOPBACK) },
    };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), ==,
                    0);
    return rig_keep_fd(r, fd);
}

#define TCP_SERVER "host=127.0.0.1,port=0,server=on,wait=off"

/* A redirector that writes to a server; the peer comes over @tcp or a path. */
typedef struct Half {
    Rig *r;
    Port *x;
    char *path;
    bool tcp;
} Half;

static Half half_start(bool tcp, const char *props)
{
    Half h = { .r = rig_new(), .tcp = tcp };
    g_autofree char *all = g_strdup_printf("id=f0,netdev=x,outdev=co%s%s",
                                           *props ? "," : "", props);

    if_set_up("lo", true);
    h.x = rig_tap(h.r, "x", TAP_GUEST);
    if (tcp) {
        g_string_append(h.r->args, "-chardev socket,id=co," TCP_SERVER " ");
    } else {
        h.path = rig_server(h.r, "co");
    }
    rig_start(h.r);
    rig_add(h.r, all);
    return h;
}

static int half_connect(Half *h)
{
    return h->tcp ? connect_tcp(h->r, chardev_port(h->r, "co"))
                  : rig_connect(h->r, h->path);
}

static void half_end(Half *h)
{
    rig_free(h->r);
    g_free(h->path);
}

/* It gets its packets, and the next one when it has gone. */
static void test_half_close(const void *data)
{
    Half h = half_start(data, "queue=tx");
    unsigned i;

    for (i = 0; i < 3; i++) {
        int fd = half_connect(&h);

        rig_wait_state(h.r, "f0", "output", "active");
        g_assert_cmpint(shutdown(fd, SHUT_WR), ==, 0);
        g_usleep(20 * 1000);
        rig_sync(h.r);
        send_packets(h.x->outside, SIZE, 2 * COUNT * i, COUNT);
        expect_frames(fd, SIZE, 2 * COUNT * i, COUNT);
        send_packets(h.x->outside, SIZE, 2 * COUNT * i + COUNT, COUNT);
        expect_frames(fd, SIZE, 2 * COUNT * i + COUNT, COUNT);
        rig_close(h.r, fd);
        if (h.tcp) {
            /* The first packet brings the news, the next one the error. */
            send_packet(h.x->outside, SIZE, 0);
            g_usleep(10 * 1000);
            rig_sync(h.r);
            send_packet(h.x->outside, SIZE, 0);
        }
        rig_wait_state(h.r, "f0", "output", "disconnected");
    }
    half_end(&h);
}

/*
 * Where nothing may be lost, it counts as gone: over TCP nobody knows whether
 * it will read.
 */
static void test_half_close_hand_over(const void *data)
{
    Half h = half_start(data, "queue=tx,enable_when_stopped=on,"
                              "enable_when_running=off");
    int fd = half_connect(&h);

    rig_wait_state(h.r, "f0", "output", "active");
    g_assert_cmpint(shutdown(fd, SHUT_WR), ==, 0);
    rig_wait_state(h.r, "f0", "output", "disconnected");
    expect_eof(fd);
    half_end(&h);
}

/* A sender's packets arrive, though it has left by then. */
static void test_half_close_sender(const void *data)
{
    Rig *r = rig_new();
    Port *n = rig_wire(r, "n");
    g_autofree char *path = rig_server(r, "ci");
    int fd;

    rig_start(r);
    rig_add(r, "id=f0,netdev=n,queue=tx,indev=ci");
    fd = rig_connect(r, path);
    send_frames(fd, SIZE, 0, COUNT);
    g_assert_cmpint(shutdown(fd, SHUT_WR), ==, 0);
    expect_packets(n->inside, SIZE, 0, COUNT);
    rig_wait_state(r, "f0", "input", "disconnected");
    rig_free(r);
}

/*
 * Chardevs without a connection
 */

typedef struct Kind {
    Rig *r;
    Port *n;
    Port *x;
    char *dir;
} Kind;

static Kind kind_new(void)
{
    Kind k = { .r = rig_new() };

    k.n = rig_wire(k.r, "n");
    k.x = rig_tap(k.r, "x", TAP_GUEST);
    g_free(rig_server(k.r, "unused"));
    k.dir = k.r->dir;
    return k;
}

static char *kind_fifo(Kind *k, const char *name)
{
    char *path = g_strdup_printf("%s/%s", k->dir, name);

    g_assert_cmpint(mkfifo(path, 0600), ==, 0);
    return path;
}

#define DAMAGE "\xff\xff\xff\xff"

/* What damages the stream ends it for good: the state says so. */
static void expect_damage(Kind *k, int fd)
{
    g_assert_cmpint(write(fd, DAMAGE, 4), ==, 4);
    rig_wait_state(k->r, "f1", "input", "disconnected");
    assert_stat(k->r, "f1", "input.stats.errors", 1);
    rig_sync(k->r);
    expect_answers(k->r);
    g_usleep(20 * 1000);
    rig_wait_state(k->r, "f1", "input", "disconnected");
}

static void write_frames(int fd, uint32_t first, unsigned n)
{
    uint8_t frame[4 + SIZE];
    unsigned i;

    for (i = 0; i < n; i++) {
        stl_be_p(frame, SIZE);
        packet_fill(frame + 4, SIZE, first + i);
        g_assert_cmpint(write(fd, frame, sizeof(frame)), ==, sizeof(frame));
    }
}

static void test_pipe(const void *unused)
{
    Kind k = kind_new();
    g_autofree char *in = kind_fifo(&k, "p.in");
    g_autofree char *out = kind_fifo(&k, "p.out");
    g_autofree char *in2 = kind_fifo(&k, "q.in");
    g_autofree char *out2 = kind_fifo(&k, "q.out");
    int to, from;

    g_string_append_printf(k.r->args, "-chardev pipe,id=co,path=%s/p "
                           "-chardev pipe,id=ci,path=%s/q ", k.dir, k.dir);
    rig_start(k.r);
    rig_add(k.r, "id=f0,netdev=x,queue=tx,outdev=co");
    rig_add(k.r, "id=f1,netdev=n,queue=tx,indev=ci");
    from = rig_keep_fd(k.r, open(out, O_RDONLY | O_CLOEXEC));
    to = rig_keep_fd(k.r, open(in2, O_WRONLY | O_CLOEXEC));
    rig_wait_state(k.r, "f0", "output", "active");
    rig_wait_state(k.r, "f1", "input", "active");
    /* More than a pipe holds. */
    send_packets(k.x->outside, SIZE, 0, 500);
    expect_frames(from, SIZE, 0, 500);
    write_frames(to, 0, COUNT);
    expect_packets(k.n->inside, SIZE, 0, COUNT);
    expect_damage(&k, to);
    rig_free(k.r);
    unlink(in);
    unlink(out);
    unlink(in2);
    unlink(out2);
}

static void test_file(const void *data)
{
    const bool damaged = data;
    Kind k = kind_new();
    g_autofree char *in = g_strdup_printf("%s/in", k.dir);
    g_autofree char *out = g_strdup_printf("%s/out", k.dir);
    int fd = open(in, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    struct stat st = { };

    write_frames(fd, 0, COUNT);
    if (damaged) {
        g_assert_cmpint(write(fd, DAMAGE, 4), ==, 4);
    }
    close(fd);
    g_string_append_printf(k.r->args, "-chardev file,id=co,path=%s "
                           "-chardev file,id=ci,path=/dev/null,input-path=%s ",
                           out, in);
    rig_start(k.r);
    rig_add(k.r, "id=f0,netdev=x,queue=tx,outdev=co");
    rig_add(k.r, "id=f1,netdev=n,queue=tx,indev=ci");
    expect_packets(k.n->inside, SIZE, 0, COUNT);
    rig_wait_state(k.r, "f1", "input", "disconnected");
    assert_stat(k.r, "f1", "input.stats.errors", damaged);
    send_packets(k.x->outside, SIZE, 0, COUNT);
    rig_wait_stat(k.r, "f0", "output.stats.packets", COUNT);
    fd = rig_keep_fd(k.r, open(out, O_RDONLY | O_CLOEXEC));
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, COUNT * (4 + SIZE));
    expect_frames(fd, SIZE, 0, COUNT);
    rig_free(k.r);
    unlink(in);
    unlink(out);
}

/* The terminal of a chardev, once QEMU runs. */
static int open_pty(Rig *r, const char *id)
{
    QDict *reply = qtest_qmp(r->qts, "{'execute': 'query-chardev'}");
    QListEntry *entry;
    int fd = -1;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(reply, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));
        const char *name = qdict_get_str(info, "filename");

        if (!strcmp(qdict_get_str(info, "label"), id)) {
            g_assert_true(g_str_has_prefix(name, "pty:"));
            fd = open(name + strlen("pty:"), O_RDWR | O_NOCTTY | O_CLOEXEC);
        }
    }
    qobject_unref(reply);
    g_assert_cmpint(fd, >=, 0);
    return rig_keep_fd(r, fd);
}

static void test_pty(const void *unused)
{
    Kind k = kind_new();
    int to, from;

    g_string_append(k.r->args, "-chardev pty,id=co -chardev pty,id=ci ");
    rig_start(k.r);
    rig_add(k.r, "id=f0,netdev=x,queue=tx,outdev=co");
    rig_add(k.r, "id=f1,netdev=n,queue=tx,indev=ci");
    rig_wait_state(k.r, "f0", "output", "disconnected");
    from = open_pty(k.r, "co");
    to = open_pty(k.r, "ci");
    rig_wait_state(k.r, "f0", "output", "active");
    rig_wait_state(k.r, "f1", "input", "active");
    send_packets(k.x->outside, SIZE, 0, 500);
    expect_frames(from, SIZE, 0, 500);
    write_frames(to, 0, COUNT / 10);
    expect_packets(k.n->inside, SIZE, 0, COUNT / 10);
    expect_damage(&k, to);
    rig_free(k.r);
}

/* Takes all, brings nothing. */
static void test_null(const void *unused)
{
    Kind k = kind_new();

    g_string_append(k.r->args, "-chardev null,id=co -chardev null,id=ci ");
    rig_start(k.r);
    rig_add(k.r, "id=f0,netdev=x,queue=tx,outdev=co");
    rig_add(k.r, "id=f1,netdev=n,queue=tx,indev=ci");
    send_packets(k.x->outside, SIZE, 0, COUNT);
    rig_wait_stat(k.r, "f0", "output.stats.packets", COUNT);
    rig_wait_state(k.r, "f0", "output", "active");
    rig_free(k.r);
}

/*
 * vnet_hdr_support on one side only
 */

typedef struct MatchCase {
    const char *name;
    bool sender;
    bool receiver;
} MatchCase;

/* test-packet-stream has all lengths of vnet headers; these netdevs have 0. */
static const MatchCase matches[] = {
    { "on-off", true, false },
    { "off-on", false, true },
};

/* Two packets at once: the peer may be gone after the first. */
static void send_two(int fd, uint32_t seq, bool vnet)
{
    uint8_t bytes[2 * (8 + SIZE)] = { 0 };
    size_t head = vnet ? 8 : 4, len = head + SIZE;
    unsigned i;

    for (i = 0; i < 2; i++) {
        stl_be_p(bytes + i * len, SIZE);
        packet_fill(bytes + i * len + head, SIZE, seq + i);
    }
    send_bytes(fd, bytes, 2 * len);
}

/* Nothing arrives, and the state tells; a peer that means the same is heard. */
static void test_match(const void *data)
{
    const MatchCase *c = data;
    Rig *r = rig_new();
    Port *n = rig_wire(r, "n");
    g_autofree char *path = rig_server(r, "ci");
    unsigned i;
    int fd;

    rig_start(r);
    rig_add(r, c->receiver ? "id=f0,netdev=n,queue=tx,indev=ci,"
                             "vnet_hdr_support=on"
                           : "id=f0,netdev=n,queue=tx,indev=ci");
    for (i = 0; i < 3; i++) {
        fd = rig_connect(r, path);
        send_two(fd, 2 * i, c->sender);
        expect_eof(fd);
        rig_wait_state(r, "f0", "input", "disconnected");
        assert_stat(r, "f0", "input.stats.errors", 2 * i + 1);
        rig_close(r, fd);

        fd = rig_connect(r, path);
        send_frame(fd, SIZE, 100 + i, c->receiver ? 0 : NO_VNET);
        expect_packet(n->inside, SIZE, 100 + i);
        send_bytes(fd, "\xff\xff\xff\xff", 4);
        expect_eof(fd);
        rig_close(r, fd);
        rig_wait_state(r, "f0", "input", "disconnected");
    }
    assert_stat(r, "f0", "input.stats.packets", 3);
    expect_silence(n->inside);
    rig_free(r);
}

/*
 * TLS, between two redirectors
 */

static void test_tls(const void *data)
{
    const bool vnet = data;
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    Port *n = rig_wire(r, "n");
    g_autofree char *dir = NULL;
    g_autofree char *keys = NULL;
    unsigned i;

    g_free(rig_server(r, "unused"));
    dir = g_strdup(r->dir);
    keys = g_strdup_printf("%s/keys.psk", dir);
    g_assert_true(g_file_set_contents(keys, "qemu:00112233445566778899aabbccdd"
                                      "eeff00112233445566778899aabbccddeeff\n",
                                      -1, NULL));
    if_set_up("lo", true);
    g_string_append_printf(r->args,
        "-object tls-creds-psk,id=server,endpoint=server,dir=%s "
        "-object tls-creds-psk,id=client,endpoint=client,dir=%s,username=qemu "
        "-chardev socket,id=ci,host=127.0.0.1,port=4445,server=on,wait=off,"
        "tls-creds=server "
        "-chardev socket,id=co,host=127.0.0.1,port=4445,tls-creds=client ",
        dir, dir);
    rig_start(r);
    rig_add(r, vnet ? "id=f1,netdev=n,queue=tx,indev=ci,vnet_hdr_support=on"
                    : "id=f1,netdev=n,queue=tx,indev=ci");
    rig_add(r, vnet ? "id=f0,netdev=x,queue=tx,outdev=co,vnet_hdr_support=on"
                    : "id=f0,netdev=x,queue=tx,outdev=co");
    rig_wait_state(r, "f0", "output", "active");
    rig_wait_state(r, "f1", "input", "active");
    for (i = 0; i < 40; i++) {
        send_packets(x->outside, 1000, COUNT * i, COUNT);
        expect_packets(n->inside, 1000, COUNT * i, COUNT);
    }
    assert_stat(r, "f0", "output.stats.lost", 0);
    assert_stat(r, "f1", "input.stats.errors", 0);
    rig_free(r);
    unlink(keys);
    rmdir(dir);
}

/*
 * A websocket
 */

static void ws_open(int fd)
{
    static const char request[] =
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n"
        "Sec-WebSocket-Protocol: binary\r\n\r\n";
    g_autoptr(GString) reply = g_string_new("");

    send_bytes(fd, request, strlen(request));
    while (!g_str_has_suffix(reply->str, "\r\n\r\n")) {
        char c;

        recv_bytes(fd, &c, 1);
        g_string_append_c(reply, c);
    }
    g_assert_true(g_str_has_prefix(reply->str, "HTTP/1.1 101 "));
}

/* The payload of messages until there are as many bytes. */
static void ws_read(int fd, GByteArray *bytes, size_t wanted)
{
    while (bytes->len < wanted) {
        g_autofree uint8_t *payload = NULL;
        uint8_t head[10];
        size_t len;

        recv_bytes(fd, head, 2);
        g_assert_cmphex(head[0], ==, 0x82); /* whole, binary */
        len = head[1];
        if (len == 126) {
            recv_bytes(fd, head, 2);
            len = lduw_be_p(head);
        } else if (len == 127) {
            recv_bytes(fd, head, 8);
            len = ldq_be_p(head);
        }
        g_assert_cmpuint(len, <, 1024 * 1024);
        payload = g_malloc(len);
        recv_bytes(fd, payload, len);
        g_byte_array_append(bytes, payload, len);
    }
    g_assert_cmpuint(bytes->len, ==, wanted);
}

static void ws_send_frame(int fd, uint32_t seq)
{
    uint8_t message[8 + 4 + SIZE] = { 0x82, 0x80 | 126 };

    stw_be_p(message + 2, 4 + SIZE);
    stl_be_p(message + 4, 0);   /* a mask that changes nothing */
    stl_be_p(message + 8, SIZE);
    packet_fill(message + 12, SIZE, seq);
    send_bytes(fd, message, sizeof(message));
}

static void test_websocket(const void *unused)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_GUEST);
    Port *n = rig_wire(r, "n");
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    unsigned i;
    int ci, co;

    if_set_up("lo", true);
    g_string_append(r->args,
                    "-chardev socket,id=co,websocket=on," TCP_SERVER " "
                    "-chardev socket,id=ci,websocket=on," TCP_SERVER " ");
    rig_start(r);
    rig_add(r, "id=f0,netdev=x,queue=tx,outdev=co");
    rig_add(r, "id=f1,netdev=n,queue=tx,indev=ci");
    co = connect_tcp(r, chardev_port(r, "co"));
    ci = connect_tcp(r, chardev_port(r, "ci"));
    ws_open(co);
    ws_open(ci);
    rig_wait_state(r, "f0", "output", "active");
    rig_wait_state(r, "f1", "input", "active");
    send_packets(x->outside, SIZE, 0, 500);
    ws_read(co, bytes, 500 * (4 + SIZE));
    for (i = 0; i < 500; i++) {
        const uint8_t *frame = bytes->data + i * (4 + SIZE);

        g_assert_cmpuint(ldl_be_p(frame), ==, SIZE);
        packet_check(frame + 4, SIZE);
        g_assert_cmpuint(packet_seq(frame + 4), ==, i);
    }
    for (i = 0; i < COUNT; i++) {
        ws_send_frame(ci, i);
    }
    expect_packets(n->inside, SIZE, 0, COUNT);
    rig_free(r);
}

int main(int argc, char **argv)
{
    unsigned i;

    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    case_add("/filter-redirector/peer/half-close/unix", test_half_close, NULL);
    case_add("/filter-redirector/peer/half-close/tcp", test_half_close, "tcp");
    case_add("/filter-redirector/peer/half-close/hand-over/unix",
             test_half_close_hand_over, NULL);
    case_add("/filter-redirector/peer/half-close/hand-over/tcp",
             test_half_close_hand_over, "tcp");
    case_add("/filter-redirector/peer/half-close/sender",
             test_half_close_sender, NULL);
    case_add("/filter-redirector/peer/kind/pipe", test_pipe, NULL);
    case_add("/filter-redirector/peer/kind/file", test_file, NULL);
    case_add("/filter-redirector/peer/kind/file-damaged", test_file, "damaged");
    case_add("/filter-redirector/peer/kind/pty", test_pty, NULL);
    case_add("/filter-redirector/peer/kind/null", test_null, NULL);
    for (i = 0; i < ARRAY_SIZE(matches); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/peer/match/%s",
                            matches[i].name);

        case_add(path, test_match, &matches[i]);
    }
    case_add("/filter-redirector/peer/tls", test_tls, NULL);
    case_add("/filter-redirector/peer/tls-vnet", test_tls, "vnet");
    case_add("/filter-redirector/peer/websocket", test_websocket, NULL);
    return g_test_run();
}
