/*
 * QTest of filter-redirector: filters behind a capture, and the pcap files that
 * filter-dump writes there
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "filter-redirector-nic.h"

/*
 * Where the redirector sits: on a hub port that nobody is at; or on the netdev
 * that it captures.  The NIC of that one has no driver, so that QEMU's net
 * layer sees one packet, and then only copies, as where vhost is at work.
 */
typedef struct Place {
    const char *name;
    const char *netdev;
    bool own;
} Place;

static const Place places[] = {
    { "hubport", "p" },
    { "own", "x", true },
};

typedef struct Setup {
    const Place *place;
    Pc pc;
    Rig *r;
    Port *x;
    int co;
    int tap_hdr_len;
    char *file;
} Setup;

/* @props: of the redirector, or "" */
static Setup *setup_new(const Place *place, const char *props)
{
    Setup *s = g_new0(Setup, 1);
    g_autofree char *redirector =
        g_strdup_printf("id=f0,netdev=%s,in_netdev=x%s%s", place->netdev,
                        *props ? "," : "", props);
    int fd = g_file_open_tmp("qtest-redirector-XXXXXX.pcap", &s->file, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    s->place = place;
    s->r = rig_new();
    s->x = rig_tap(s->r, "x", TAP_HELD | (place->own ? 0 : TAP_STUCK));
    s->co = rig_chardev(s->r, "co");
    if (place->own) {
        pc_add_nic(&s->pc, s->r, "x", "disable-legacy=on");
        pc_start(&s->pc);
    } else {
        g_string_append(s->r->args, "-netdev hubport,id=p,hubid=99 ");
        rig_start(s->r);
    }
    g_assert_cmpint(ioctl(s->x->tap, TUNGETVNETHDRSZ, &s->tap_hdr_len), ==, 0);
    send_packet(s->x->outside, 100, UINT32_MAX);
    rig_wait_tx_packets(s->r, s->x, 1);
    rig_sync(s->r);
    rig_add(s->r, redirector);
    return s;
}

static void setup_free(Setup *s)
{
    if (s->place->own) {
        pc_end(&s->pc);
    } else {
        rig_free(s->r);
    }
    unlink(s->file);
    g_free(s->file);
    g_free(s);
}

/* @object: as JSON, but for the id and the netdev */
static void object_add(Setup *s, const char *id, const char *object)
{
    g_autofree char *command =
        g_strdup_printf("{'execute': 'object-add', 'arguments': {'id': '%s', "
                        "'netdev': '%s', %s}}", id, s->place->netdev, object);
    QDict *reply;

    qtest_qmp_send_raw(s->r->qts, "%s", command);
    reply = qtest_qmp_receive(s->r->qts);
    g_assert_true(qdict_haskey(reply, "return"));
    qobject_unref(reply);
}

static void dump_add(Setup *s, const char *queue, unsigned maxlen)
{
    g_autofree char *object =
        g_strdup_printf("'qom-type': 'filter-dump', 'queue': '%s', "
                        "'file': '%s', 'maxlen': %u", queue, s->file, maxlen);

    object_add(s, "d0", object);
}

#define MAXLEN 65536

/* What a guest sends. */
static void guest_send(Setup *s, const uint8_t *hdr, const uint8_t *packet,
                       size_t size)
{
    g_autofree uint8_t *buf = g_malloc0(s->tap_hdr_len + size);

    if (hdr) {
        memcpy(buf, hdr, VNET_LEN_KERNEL);
    }
    memcpy(buf + s->tap_hdr_len, packet, size);
    g_assert_cmpint(write(s->x->tap, buf, s->tap_hdr_len + size), ==,
                    s->tap_hdr_len + size);
}

static void pcap_wait(Pcap *p, Setup *s, unsigned n)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;

    do {
        g_usleep(1000);
        pcap_read(p, s->file);
    } while (p->n < n && g_get_monotonic_time() < end);
    g_assert_cmpuint(p->n, ==, n);
}

/* No more than that. */
static void pcap_final(Pcap *p, Setup *s, unsigned n)
{
    pcap_wait(p, s, n);
    g_usleep(50 * 1000);    /* longer than one stays in the ring */
    rig_sync(s->r);
    pcap_read(p, s->file);
    g_assert_cmpuint(p->n, ==, n);
}

/*
 * Both directions in the order in which they came, with the time at which they
 * passed
 */

#define SIZE 200
#define COUNT 20

typedef struct DirCase {
    const char *queue;
    bool tx;
    bool rx;
} DirCase;

static const DirCase dirs[] = {
    { "all", true, true },
    { "tx", true, false },
    { "rx", false, true },
};

static void check_times(Setup *s, const DirCase *dir)
{
    int64_t before[COUNT], after[COUNT];
    uint8_t packet[SIZE];
    g_auto(Pcap) p = { };
    unsigned i, n = 0;

    dump_add(s, dir->queue, MAXLEN);
    for (i = 0; i < COUNT; i++) {
        bool tx = i % 2;

        before[n] = g_get_real_time();
        packet_fill(packet, SIZE, i);
        if (tx) {
            send_packet(s->x->outside, SIZE, i);
        } else {
            guest_send(s, NULL, packet, SIZE);
        }
        after[n] = g_get_real_time();
        n += tx ? dir->tx : dir->rx;
        g_usleep(3000);
    }
    pcap_final(&p, s, n);
    for (i = 0; i < n; i++) {
        const PcapRecord *r = &p.records[i];

        g_assert_cmpuint(r->size, ==, SIZE);
        g_assert_cmpuint(r->len, ==, SIZE);
        packet_check(r->data, SIZE);
        g_assert_cmpuint(packet_seq(r->data), ==,
                         n == COUNT ? i : 2 * i + dir->tx);
        g_assert_cmpint(r->time_us, >=, before[i]);
        g_assert_cmpint(r->time_us, <=, after[i]);
    }
}

static void test_times(const void *data)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(dirs); i++) {
        Setup *s = setup_new(data, "");

        check_times(s, &dirs[i]);
        setup_free(s);
    }
}

/* Of the redirector, too: it captures one direction. */
static void test_queue(const void *data)
{
    unsigned i;

    for (i = 1; i < ARRAY_SIZE(dirs); i++) {
        g_autofree char *queue = g_strdup_printf("queue=%s", dirs[i].queue);
        Setup *s = setup_new(data, queue);
        DirCase c = dirs[i];

        c.queue = "all";
        check_times(s, &c);
        setup_free(s);
    }
}

/*
 * Packets with something left to do, and with VLAN tags
 */

static const Offload offloads[] = {
    { "csum-udp4", .payload = 100 },
    { "csum-udp6", .ip6 = true, .payload = 101 },
    { "csum-tcp6-ext", .tcp = true, .ip6 = true, .ip6_header = true,
      .payload = 1000 },
    { "csum-vlan", .payload = 100, .tags = { ETH_P_8021Q } },
    { "csum-qinq", .tcp = true, .payload = 99,
      .tags = { ETH_P_8021AD, ETH_P_8021Q } },
    { "tso4", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1000,
      .payload = 4500 },
    { "tso4-vlan", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1448,
      .payload = 3000, .tags = { ETH_P_8021Q } },
    { "tso4-longest", VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true,
      .gso_size = 1460, .payload = 65535 - 14 - 20 - 20 },
    { "tso6", VIRTIO_NET_HDR_GSO_TCPV6, .tcp = true, .ip6 = true,
      .gso_size = 1440, .payload = 20001 },
};

static unsigned segments(const Offload *o)
{
    return o->gso_size ? DIV_ROUND_UP(o->payload, o->gso_size) : 1;
}

/* Sends all of them, and from the guest in any case. */
static unsigned send_offloads(Setup *s)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    uint8_t hdr[VNET_LEN_KERNEL];
    unsigned i, n = 0;

    set_vnet_hdr(s->x->outside);
    for (i = 0; i < ARRAY_SIZE(offloads); i++) {
        const Offload *o = &offloads[i];
        size_t size = offload_fill(o, hdr, packet);

        guest_send(s, hdr, packet, size);
        n += s->place->own ? 1 : segments(o);
    }
    return n;
}

/* They are whole, and their checksums filled in. */
static void check_offloads(const Pcap *p)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    uint8_t hdr[VNET_LEN_KERNEL];
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(offloads); i++) {
        size_t size = offload_fill(&offloads[i], hdr, packet);

        offload_complete(hdr, packet, size);
        g_assert_cmpuint(p->records[i].size, ==, size);
        g_assert_cmpmem(p->records[i].data, p->records[i].len, packet, size);
    }
}

static void test_offloads(const void *data)
{
    Setup *s = setup_new(data, "");
    g_auto(Pcap) p = { };

    dump_add(s, "all", MAXLEN);
    pcap_final(&p, s, send_offloads(s));
    if (s->place->own) {
        check_offloads(&p);
    }
    setup_free(s);
}

/*
 * Runs a program.
 * @name: its name, followed by arguments and NULL
 * Return: what it said
 */
static char *run_program(const char *name, ...)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autofree char *err = NULL;
    g_autofree char *out = NULL;
    const char *arg;
    int status;
    va_list ap;

    va_start(ap, name);
    for (arg = name; arg; arg = va_arg(ap, const char *)) {
        g_ptr_array_add(argv, (char *)arg);
    }
    va_end(ap);
    g_ptr_array_add(argv, NULL);
    g_assert_true(g_spawn_sync(NULL, (char **)argv->pdata, NULL,
                               G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err,
                               &status, NULL));
    if (status) {
        g_test_message("%s", err);
    }
    g_assert_cmpint(status, ==, 0);
    return g_strconcat(out, err, NULL);
}

static unsigned count_of(const char *text, const char *word)
{
    unsigned n = 0;

    for (; (text = strstr(text, word)); text += strlen(word)) {
        n++;
    }
    return n;
}

static void check_complaints(const char *text)
{
    static const char *const complaints[] = {
        "incorrect", "bad ", "wrong", "truncated", "Malformed", "missing",
        "[|", "unverified",
    };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(complaints); i++) {
        if (strstr(text, complaints[i])) {
            g_test_message("%s", text);
        }
        g_assert_null(strstr(text, complaints[i]));
    }
}

/* Return: false if there is no such program; then the case has been skipped */
static bool have_program(const char *name)
{
    g_autofree char *path = g_find_program_in_path(name);
    g_autofree char *why = g_strdup_printf("no %s", name);

    if (!path) {
        g_test_skip(why);
    }
    return path;
}

static void test_tcpdump(const void *data)
{
    Setup *s;
    g_auto(Pcap) p = { };
    g_autofree char *text = NULL;
    unsigned n;

    if (!have_program("tcpdump")) {
        return;
    }
    s = setup_new(data, "");
    dump_add(s, "all", MAXLEN);
    n = send_offloads(s);
    pcap_final(&p, s, n);
    text = run_program("tcpdump", "-nevvr", s->file, NULL);
    check_complaints(text);
    g_assert_cmpuint(count_of(text, "vlan 100,"), ==, s->place->own ? 3 : 5);
    g_assert_cmpuint(count_of(text, "udp sum ok") +
                     count_of(text, "(correct)"), ==, n);
    setup_free(s);
}

/* What Wireshark has to say about it. */
static void test_tshark(const void *data)
{
    Setup *s;
    g_auto(Pcap) p = { };
    g_autofree char *all = NULL;
    g_autofree char *good = NULL;
    unsigned n;

    if (!have_program("tshark")) {
        return;
    }
    s = setup_new(data, "");
    dump_add(s, "all", MAXLEN);
    n = send_offloads(s);
    pcap_final(&p, s, n);
    all = run_program("tshark", "-nr", s->file, "-T", "fields",
                      "-e", "eth.type",
                      "-Y", "_ws.malformed || frame.cap_len < frame.len",
                      NULL);
    g_assert_cmpuint(count_of(all, "0x"), ==, 0);
    good = run_program("tshark", "-nr", s->file,
                       "-otcp.check_checksum:TRUE",
                       "-oudp.check_checksum:TRUE",
                       "-oip.check_checksum:TRUE",
                       "-T", "fields", "-e", "frame.time_epoch",
                       "-Y", "(tcp.checksum.status == 1 || "
                       "udp.checksum.status == 1) && "
                       "!(ip.checksum.status == 0)", NULL);
    g_assert_cmpuint(count_of(good, "000\n"), ==, n);  /* ns: it has us */
    setup_free(s);
}

/* The rest of a packet is told to be missing, by whomever it was left out. */
static void test_short(const void *data)
{
    Setup *s = setup_new(data, "snaplen=100");
    g_auto(Pcap) p = { };

    dump_add(s, "all", MAXLEN);
    send_packet(s->x->outside, 99, 0);
    send_packet(s->x->outside, 1000, 1);
    pcap_final(&p, s, 2);
    g_assert_cmpuint(p.records[0].size, ==, 99);
    g_assert_cmpuint(p.records[0].len, ==, 99);
    g_assert_cmpuint(p.records[1].size, ==, 1000);
    g_assert_cmpuint(p.records[1].len, ==, 100);
    rig_del(s->r, "d0");
    dump_add(s, "all", 70);
    send_packet(s->x->outside, 1000, 2);
    pcap_final(&p, s, 1);
    g_assert_cmpuint(p.records[0].size, ==, 1000);
    g_assert_cmpuint(p.records[0].len, ==, 70);
    setup_free(s);
}

/*
 * Another filter in between: it gets what the capture brings, and lets it pass
 */

typedef struct BetweenCase {
    const char *name;
    const char *type;
    const char *props;      /* as JSON */
    bool mirror;            /* all packets come to co as well */
    bool waits;             /* for the NIC: not where that takes nothing */
} BetweenCase;

static const BetweenCase between[] = {
    { "buffer", "filter-buffer", "'interval': 1000" },
    { "mirror", "filter-mirror", "'outdev': 'co'", true },
    { "mirror-vnet", "filter-mirror", "'outdev': 'co', "
      "'vnet_hdr_support': true", true },
    { "rewriter", "filter-rewriter", "'queue': 'all'" },
    { "rewriter-vnet", "filter-rewriter", "'vnet_hdr_support': true",
      .waits = true },
    { "replay", "filter-replay", "'queue': 'all'" },
    { "dump", "filter-dump", "'file': '/dev/null'" },
};

/* TCP packets, since filter-rewriter lets all others pass. */
static size_t tcp_fill(uint8_t *packet, uint16_t seq)
{
    static const Offload tcp = { .tcp = true, .payload = 100 };
    uint8_t hdr[VNET_LEN_KERNEL];
    size_t size = offload_fill(&tcp, hdr, packet);

    stw_be_p(packet + ETH_HLEN + 20, 1000 + seq);
    offload_complete(hdr, packet, size);
    return size;
}

static void check_between(Setup *s, const BetweenCase *c, bool vnet)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    const size_t hdr_len = s->place->own ? s->tap_hdr_len : 0;
    g_auto(Pcap) p = { };
    unsigned i;

    dump_add(s, "all", MAXLEN);
    for (i = 0; i < COUNT; i++) {
        size_t size = tcp_fill(packet, i);

        if (i % 2) {
            send_raw(s->x->outside, packet, size);
        } else {
            guest_send(s, NULL, packet, size);
            g_assert_cmpmem(got, recv_raw(s->x->outside, got), packet, size);
        }
        rig_wait_stat(s->r, "f0", "input.stats.packets", i + 1);
        qtest_clock_step(s->r->qts, 2 * SCALE_MS); /* filter-buffer lets go */
        if (c->mirror) {
            g_assert_cmpuint(recv_frame(s->co, got, vnet ? (int)hdr_len
                                                         : NO_VNET), ==,
                             hdr_len + size);
            g_assert_cmpmem(got + hdr_len, size, packet, size);
        }
    }
    pcap_final(&p, s, COUNT);
    for (i = 0; i < COUNT; i++) {
        size_t size = tcp_fill(packet, i);

        g_assert_cmpmem(p.records[i].data, p.records[i].len, packet, size);
        g_assert_cmpint(ABS(p.records[i].time_us - g_get_real_time()), <,
                        60 * G_USEC_PER_SEC);
    }
    expect_silence(s->co);
    expect_silence(s->x->outside);
}

static void test_between(const void *data)
{
    const BetweenCase *c = data;
    g_autofree char *object = g_strdup_printf("'qom-type': '%s', %s", c->type,
                                              c->props);
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(places); i++) {
        Setup *s;

        if (places[i].own && c->waits) {
            continue;
        }
        s = setup_new(&places[i], "");
        if (rig_has_object(s->r, c->type)) {
            object_add(s, "f1", object);
            check_between(s, c, strstr(c->props, "vnet"));
        } else {
            g_test_skip("QEMU is built without this type of filter");
        }
        setup_free(s);
    }
}

/*
 * colo-compare takes what a capture brings as one of its sides: it lets go what
 * comes from both.
 */
static void test_compare(const void *data)
{
    Rig *r = rig_new();
    Port *x = rig_tap(r, "x", TAP_HELD | TAP_STUCK);
    g_autofree char *primary = rig_server(r, "primary");
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    g_autofree uint8_t *got = g_malloc(PACKET_MAX);
    int secondary = rig_chardev(r, "secondary");
    int out = rig_chardev(r, "out");
    const bool vnet = data;
    g_autofree char *redirector =
        g_strdup_printf("id=f0,netdev=p,in_netdev=x,outdev=co%s",
                        vnet ? ",vnet_hdr_support=on" : "");
    unsigned i;

    g_string_append_printf(r->args, "-netdev hubport,id=p,hubid=99 "
                           "-chardev socket,id=co,path=%s "
                           "-object iothread,id=thread "
                           "-object colo-compare,id=compare,iothread=thread,"
                           "primary_in=primary,secondary_in=secondary,"
                           "outdev=out%s ", primary,
                           vnet ? ",vnet_hdr_support=on" : "");
    rig_start(r);
    rig_add(r, redirector);
    rig_wait_state(r, "f0", "output", "active");
    for (i = 0; i < COUNT; i++) {
        size_t size = tcp_fill(packet, i);

        send_raw(x->outside, packet, size);
        send_frame_raw(secondary, packet, size, vnet ? 0 : NO_VNET);
        g_assert_cmpuint(recv_frame(out, got, vnet ? 0 : NO_VNET), ==, size);
        g_assert_cmpmem(got, size, packet, size);
    }
    /*
     * colo-compare's thread may not have returned from the write yet, and who
     * ends QEMU does not wait for it.
     */
    g_usleep(100 * 1000);
    rig_free(r);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*func)(const void *data);
    } cases[] = {
        { "times", test_times },
        { "queue", test_queue },
        { "offloads", test_offloads },
        { "tcpdump", test_tcpdump },
        { "tshark", test_tshark },
        { "short", test_short },
    };
    unsigned i, j;

    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);

    for (i = 0; i < ARRAY_SIZE(places); i++) {
        if (places[i].own && !qtest_has_device("virtio-net-pci")) {
            continue;
        }
        for (j = 0; j < ARRAY_SIZE(cases); j++) {
            g_autofree char *path =
                g_strdup_printf("/filter-redirector/pcap/%s/%s",
                                places[i].name, cases[j].name);

            case_add(path, cases[j].func, &places[i]);
        }
    }
    for (i = 0; i < ARRAY_SIZE(between) &&
                qtest_has_device("virtio-net-pci"); i++) {
        g_autofree char *path =
            g_strdup_printf("/filter-redirector/pcap/between/%s",
                            between[i].name);

        case_add(path, test_between, &between[i]);
    }
    case_add("/filter-redirector/pcap/compare", test_compare, NULL);
    case_add("/filter-redirector/pcap/compare-vnet", test_compare, "vnet");
    return g_test_run();
}
