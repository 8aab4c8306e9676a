/*
 * QTest of filter-redirector's netdev endpoints: real vhost-net
 *
 * The guest is a driver in this program, so that the kernel's vhost carries
 * its packets and QEMU's net layer sees none of them.  Needs /dev/vhost-net.
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <linux/if_ether.h>
#include "qemu/bswap.h"
#include "filter-redirector-guest.h"
#include "filter-redirector-nic.h"

#define SLOT 4
#define SIZE 200            /* of most packets */
#define TURN 64             /* packets that the guest takes at once */

/* What makes an outdev redirector the source's half of a hand-over. */
#define HANDOVER "queue=tx,enable_when_stopped=on,vnet_hdr_support=on"

/* Not every kernel's vhost has these, and QEMU's device would want them. */
#define NIC_PROPS "queue_reset=off,host_uso=off,guest_uso4=off,guest_uso6=off"

/* A QEMU with one vhost netdev. */
typedef struct Machine {
    Rig *r;
    Port *tap;
    uint8_t *memory;
    char *dir;
} Machine;

/* The guest, and what it has to get next. */
typedef struct Test {
    Guest guest;
    Machine source;
    Machine destination;
    uint32_t next;
    size_t size;
} Test;

/*
 * The guest's way to QEMU
 */

static uint32_t op_in(void *opaque, uint16_t port)
{
    return qtest_inl(opaque, port);
}

static void op_out(void *opaque, uint16_t port, uint32_t value)
{
    qtest_outl(opaque, port, value);
}

static uint32_t op_read(void *opaque, uint64_t address, unsigned size)
{
    return size == 1 ? qtest_readb(opaque, address) :
           size == 2 ? qtest_readw(opaque, address) :
           qtest_readl(opaque, address);
}

static void op_write(void *opaque, uint64_t address, unsigned size,
                     uint32_t value)
{
    if (size == 1) {
        qtest_writeb(opaque, address, value);
    } else if (size == 2) {
        qtest_writew(opaque, address, value);
    } else {
        qtest_writel(opaque, address, value);
    }
}

static void op_copy(void *opaque, uint64_t address, const void *data,
                    size_t size)
{
    qtest_bufwrite(opaque, address, data, size);
}

static const GuestOps ops = { op_in, op_out, op_read, op_write, op_copy };

/*
 * Machines
 */

static uint8_t *map_memory(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *memory;

    g_assert_cmpint(fd, >=, 0);
    memory = mmap(NULL, GUEST_MEMORY, PROT_READ, MAP_SHARED, fd, 0);
    g_assert_true(memory != MAP_FAILED);
    close(fd);
    return memory;
}

/* Adds the netdev @id, and all the machine needs; the caller may add more. */
static void machine_init(Machine *m, const char *id)
{
    int fd;

    m->r = rig_new();
    m->r->machine = "-M pc,memory-backend=memory";
    m->dir = g_dir_make_tmp("qtest-vhost-XXXXXX", NULL);
    g_assert_nonnull(m->dir);
    m->tap = &m->r->ports[m->r->nports++];
    *m->tap = (Port) { .id = id, .inside = -1, .tap = -1 };
    snprintf(m->tap->ifname, sizeof(m->tap->ifname), "tap-%s", id);
    fd = rig_give_fd(m->r, tap_open(m->tap->ifname, false));
    if_set_up(m->tap->ifname, true);
    m->tap->outside = rig_keep_fd(m->r, if_open(m->tap->ifname));
    g_string_append_printf(m->r->args,
        "-m %d -object memory-backend-file,id=memory,size=%dM,share=on,"
        "mem-path=%s/memory -netdev tap,id=%s,fd=%d,vhost=on "
        "-device virtio-net-pci,id=nic,netdev=%s,addr=%02x.0,romfile=,"
        "rx_queue_size=%d," NIC_PROPS " ", GUEST_MEMORY >> 20,
        GUEST_MEMORY >> 20, m->dir, id, fd, id, SLOT, GUEST_RX_SIZE);
}

static void machine_start(Machine *m)
{
    g_autofree char *firmware = pc_make_firmware();
    g_autofree char *memory = g_strdup_printf("%s/memory", m->dir);

    g_string_append_printf(m->r->args, "-bios %s ", firmware);
    rig_start(m->r);
    unlink(firmware);
    m->memory = map_memory(memory);
}

static void machine_end(Machine *m)
{
    g_autofree char *memory = g_strdup_printf("%s/memory", m->dir);

    munmap(m->memory, GUEST_MEMORY);
    unlink(memory);
    rig_free(m->r);
    rmdir(m->dir);
    g_free(m->dir);
}

/* QEMU 11.0 dies of x-query-virtio-status while a vhost-net runs. */
static void assert_vhost_runs(Machine *m)
{
    qtest_qmp_assert_success(m->r->qts,
        "{'execute': 'x-query-virtio-vhost-queue-status', 'arguments': "
        "{'path': '/machine/peripheral/nic/virtio-backend', 'queue': 0}}");
}

/*
 * The guest's packets
 */

static void take(void *opaque, const GuestPacket *packet)
{
    Test *t = opaque;

    g_assert_cmpuint(packet->size, ==, t->size);
    g_assert_cmpuint(packet_seq(packet->data), ==, t->next);
    packet_check(packet->data, packet->size);
    t->next++;
}

/* The guest's next packets are these, and there is none behind them. */
static void guest_expect(Test *t, uint32_t first, unsigned n)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;

    t->next = first;
    while (t->next < first + n && g_get_monotonic_time() < end) {
        if (!guest_receive(&t->guest, take, t, TURN)) {
            g_usleep(500);
        }
        guest_flush(&t->guest);
        guest_kick(&t->guest);
    }
    g_assert_cmpuint(t->next, ==, first + n);
    g_usleep(20 * 1000);
    g_assert_cmpuint(guest_receive(&t->guest, take, t, TURN), ==, 0);
}

/* Sends to the guest and sees all arrive, a ring's worth at a time. */
static void guest_exchange(Test *t, Machine *m, uint32_t first, unsigned n)
{
    unsigned done, count;

    for (done = 0; done < n; done += count) {
        count = MIN(n - done, GUEST_RX_SIZE / 2);
        send_packets(m->tap->outside, t->size, first + done, count);
        guest_expect(t, first + done, count);
    }
}

/* A test with a source whose guest runs. */
static Test *test_new(void)
{
    Test *t = g_new0(Test, 1);

    t->size = SIZE;
    machine_init(&t->source, "s");
    return t;
}

static void test_start(Test *t)
{
    machine_start(&t->source);
    guest_boot(&t->guest, &ops, t->source.r->qts, t->source.memory, SLOT, 1);
    guest_kick(&t->guest);
    assert_vhost_runs(&t->source);
}

static void test_end(Test *t)
{
    machine_end(&t->source);
    if (t->destination.r) {
        machine_end(&t->destination);
    }
    g_free(t);
}

static void test_receive(const void *data)
{
    Test *t = test_new();

    test_start(t);
    guest_exchange(t, &t->source, 0, 3 * GUEST_RX_SIZE);
    t->size = 1514;
    guest_exchange(t, &t->source, 7000, 100);
    test_end(t);
}

/* Packets from the guest, each until it has come out of the TAP. */
static void guest_sends(Test *t, unsigned from, unsigned to)
{
    uint8_t header[GUEST_HEADER] = { 0 }, packet[SIZE];
    unsigned i;

    for (i = from; i < to; i++) {
        packet_fill(packet, sizeof(packet), i);
        g_assert_true(guest_send(&t->guest, 0, header, packet,
                                 sizeof(packet)));
        guest_flush(&t->guest);
        guest_kick(&t->guest);
        expect_packet(t->source.tap->outside, sizeof(packet), i);
    }
}

static void test_send(const void *data)
{
    Test *t = test_new();

    test_start(t);
    guest_sends(t, 0, 3 * GUEST_TX_SIZE);
    test_end(t);
}

static const Offload super = {
    .gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .tcp = true, .gso_size = 1448,
    .payload = 60000,
};

static void take_super(void *opaque, const GuestPacket *packet)
{
    g_autofree uint8_t *want = g_malloc(PACKET_MAX);
    uint8_t hdr[VNET_LEN_KERNEL];
    size_t size = offload_fill(&super, hdr, want);

    g_assert_cmpmem(packet->data, packet->size, want, size);
    g_assert_cmpuint(packet->header[1], ==, super.gso_type);
}

/* A super-packet comes in many buffers, and is not cut. */
static void test_super(const void *data)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    uint8_t hdr[VNET_LEN_KERNEL];
    size_t size = offload_fill(&super, hdr, packet);
    Test *t = test_new();

    test_start(t);
    set_vnet_hdr(t->source.tap->outside);
    send_offload(t->source.tap->outside, hdr, packet, size);
    while (!guest_receive(&t->guest, take_super, NULL, 1)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    test_end(t);
}

/* The guest gets its packets, each once, and the chardev a copy. */
static void test_capture(const void *data)
{
    Test *t = test_new();
    int co = rig_chardev(t->source.r, "co");

    test_start(t);
    rig_add(t->source.r, "id=f0,netdev=s,queue=tx,in_netdev=s,outdev=co,"
            "vnet_hdr_support=on");
    send_packets(t->source.tap->outside, SIZE, 0, 300);
    guest_expect(t, 0, 300);
    for (unsigned i = 0; i < 300; i++) {
        expect_frame(co, SIZE, i, GUEST_HEADER);
    }
    assert_vhost_runs(&t->source);
    test_end(t);
}

/* @object: as JSON, but for id and netdev.  Return: the reply */
static QDict *object_add(Test *t, const char *id, const char *object)
{
    g_autofree char *command =
        g_strdup_printf("{'execute': 'object-add', 'arguments': {'id': '%s', "
                        "'netdev': 's', %s}}", id, object);

    qtest_qmp_send_raw(t->source.r->qts, "%s", command);
    return qtest_qmp_receive(t->source.r->qts);
}

static void expect_refused(Test *t, const char *object, const char *message)
{
    QDict *reply = object_add(t, "o", object);
    QDict *error = qdict_get_qdict(reply, "error");

    g_assert_nonnull(error);
    g_assert_cmpstr(qdict_get_str(error, "desc"), ==, message);
    qobject_unref(reply);
}

#define VHOST "'o': netdev 's' uses vhost, so that its packets don't pass " \
              "through QEMU"
#define BEHIND VHOST ": put it behind a filter-redirector that captures " \
               "them ('netdev' and 'in_netdev' are 's', no 'outdev')"

#define PCAP_COUNT 100

/* Packets to the guest, then from it, then QEMU's own announcement. */
static void check_pcap(const Pcap *p, int64_t start)
{
    unsigned i;

    g_assert_cmpuint(p->n, ==, 2 * PCAP_COUNT + 1);
    for (i = 0; i < 2 * PCAP_COUNT; i++) {
        const PcapRecord *r = &p->records[i];

        g_assert_cmpuint(r->size, ==, SIZE);
        g_assert_cmpuint(r->len, ==, SIZE);
        g_assert_cmpuint(packet_seq(r->data), ==, i);
        packet_check(r->data, SIZE);
        g_assert_cmpint(r->time_us, >=, i ? p->records[i - 1].time_us : start);
        g_assert_cmpint(r->time_us, <=, g_get_real_time());
    }
    g_assert_cmphex(lduw_be_p(p->records[i].data + 12), ==, ETH_P_RARP);
}

/* A file of both directions; other filters are refused, or get copies, too. */
static void test_pcap(const void *data)
{
    const int64_t start = g_get_real_time();
    g_autofree char *file = NULL, *dump = NULL, *head = NULL;
    g_auto(Pcap) p = { };
    Test *t = test_new();

    test_start(t);
    file = g_strdup_printf("%s/pcap", t->source.dir);
    dump = g_strdup_printf("'qom-type': 'filter-dump', 'file': '%s'", file);
    head = g_strdup_printf("%s, 'position': 'head'", dump);
    expect_refused(t, dump, "filter-dump " BEHIND);
    rig_add(t->source.r, "id=f0,netdev=s,in_netdev=s");
    expect_refused(t, head, "filter-dump " BEHIND);
    expect_refused(t, "'qom-type': 'filter-buffer', 'interval': 1000",
                   "filter-buffer " VHOST);
    expect_refused(t, "'qom-type': 'filter-rewriter'",
                   "filter-rewriter " VHOST);
    if (rig_has_object(t->source.r, "filter-replay")) {
        expect_refused(t, "'qom-type': 'filter-replay'",
                       "filter-replay " VHOST);
    }
    qobject_unref(object_add(t, "d0", dump));

    guest_exchange(t, &t->source, 0, PCAP_COUNT);
    guest_sends(t, PCAP_COUNT, 2 * PCAP_COUNT);
    qtest_qmp_assert_success(t->source.r->qts,
        "{'execute': 'announce-self', 'arguments': {'initial': 1, 'max': 1, "
        "'rounds': 1, 'step': 1}}");
    rig_wait_stat(t->source.r, "f0", "output.stats.packets",
                  2 * PCAP_COUNT + 1);
    g_usleep(50 * 1000);    /* no packet comes twice */
    rig_sync(t->source.r);
    pcap_read(&p, file);
    check_pcap(&p, start);
    assert_vhost_runs(&t->source);
    unlink(file);
    test_end(t);
}

/* All queues of a netdev come into one file. */
static void test_pcap_queues(const void *data)
{
    char ifname[16] = "tap-m";
    uint8_t packet[10 + SIZE] = { 0 };
    g_autofree char *dir = g_dir_make_tmp("qtest-vhost-XXXXXX", NULL);
    g_autofree char *file = g_strdup_printf("%s/pcap", dir);
    g_autofree char *dump = g_strdup_printf("'qom-type': 'filter-dump', "
                                            "'file': '%s'", file);
    g_auto(Pcap) p = { };
    Test t = { .source.r = rig_new() };
    Rig *r = t.source.r;
    int fds[2], queues[2];
    unsigned i;

    for (i = 0; i < 2; i++) {
        fds[i] = rig_give_fd(r, tap_open(ifname, true));
        queues[i] = rig_keep_fd(r, fcntl(fds[i], F_DUPFD_CLOEXEC, 0));
    }
    g_string_append_printf(r->args, "-netdev tap,id=s,fds=%d:%d,vhost=on ",
                           fds[0], fds[1]);
    if_set_up(ifname, true);
    rig_start(r);
    rig_add(r, "id=f0,netdev=s,in_netdev=s,queue=rx");
    qobject_unref(object_add(&t, "d0", dump));
    for (i = 0; i < PCAP_COUNT; i++) {
        packet_fill(packet + 10, SIZE, i);
        g_assert_cmpint(write(queues[i % 2], packet, sizeof(packet)), ==,
                        sizeof(packet));
    }
    rig_wait_stat(r, "f0", "output.stats.packets", PCAP_COUNT);
    pcap_read(&p, file);
    g_assert_cmpuint(p.n, ==, PCAP_COUNT);
    for (i = 0; i < PCAP_COUNT; i++) {
        g_assert_cmpuint(packet_seq(p.records[i].data), ==, i);
    }
    unlink(file);
    rmdir(dir);
    rig_free(r);
}

static void test_inject(const void *data)
{
    Test *t = test_new();
    int ci = rig_chardev(t->source.r, "ci");
    unsigned i;

    test_start(t);
    rig_add(t->source.r, "id=f0,netdev=s,indev=ci,out_netdev=s,"
            "vnet_hdr_support=on");
    for (i = 0; i < 300; i++) {
        send_frame(ci, SIZE, i, GUEST_HEADER);
    }
    guest_expect(t, 0, 300);
    rig_stop(t->source.r);
    for (i = 300; i < 600; i++) {
        send_frame(ci, SIZE, i, GUEST_HEADER);
    }
    rig_cont(t->source.r);
    guest_kick(&t->guest);
    guest_expect(t, 300, 300);
    assert_stat(t->source.r, "f0", "output.stats.packets", 600);
    test_end(t);
}

/*
 * Migrations
 */

static void wait_migration(Machine *m, const char *wanted)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    g_autofree char *status = NULL;

    do {
        QDict *answer = qtest_qmp(m->r->qts, "{'execute': 'query-migrate'}");
        QDict *info = qdict_get_qdict(answer, "return");

        g_usleep(1000);
        g_free(status);
        status = g_strdup(qdict_get_try_str(info, "status"));
        qobject_unref(answer);
    } while (g_strcmp0(status, wanted) && g_get_monotonic_time() < end);
    g_assert_cmpstr(status, ==, wanted);
}

static void wait_running(Machine *m)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    bool running;

    do {
        QDict *answer = qtest_qmp(m->r->qts, "{'execute': 'query-status'}");

        running = qdict_get_bool(qdict_get_qdict(answer, "return"), "running");
        qobject_unref(answer);
    } while (!running && g_get_monotonic_time() < end);
    g_assert_true(running);
}

/*
 * Migrates as far as the switchover: the source has stopped.  Packets 0 to 99
 * have reached the guest there, 100 to 299 wait in the source's TAP.
 */
static void to_switchover(Test *t)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/migration",
                                           t->source.dir);

    guest_exchange(t, &t->source, 0, 100);
    qtest_qmp_assert_success(t->source.r->qts,
        "{'execute': 'migrate-set-capabilities', 'arguments': "
        "{'capabilities': [{'capability': 'pause-before-switchover', "
        "'state': true}]}}");
    /* The network's own packets don't count here. */
    qtest_qmp_assert_success(t->destination.r->qts,
        "{'execute': 'migrate-set-parameters', 'arguments': "
        "{'announce-rounds': 0}}");
    qtest_qmp_assert_success(t->destination.r->qts,
        "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    qtest_qmp_assert_success(t->source.r->qts,
        "{'execute': 'migrate', 'arguments': {'uri': %s}}", uri);
    wait_migration(&t->source, "pre-switchover");
    send_packets(t->source.tap->outside, SIZE, 100, 200);
}

static void finish(Test *t)
{
    g_autofree char *path = g_strdup_printf("%s/migration", t->source.dir);

    qtest_qmp_assert_success(t->source.r->qts,
        "{'execute': 'migrate-continue', 'arguments': "
        "{'state': 'pre-switchover'}}");
    wait_migration(&t->source, "completed");
    wait_running(&t->destination);
    unlink(path);
    guest_move(&t->guest, t->destination.r->qts, t->destination.memory);
    guest_kick(&t->guest);
    assert_vhost_runs(&t->destination);
}

/* Source and destination; @co, @ci: the test's ends of their chardevs. */
static Test *pair_new(int *co, int *ci)
{
    Test *t = test_new();

    machine_init(&t->destination, "d");
    g_string_append(t->destination.r->args, "-incoming defer ");
    *co = rig_chardev(t->source.r, "co");
    *ci = rig_chardev(t->destination.r, "ci");
    machine_start(&t->destination);
    test_start(t);
    return t;
}

/* Without a redirector the packets of the switchover are lost. */
static void test_stock(const void *data)
{
    int co, ci;
    Test *t = pair_new(&co, &ci);

    to_switchover(t);
    finish(t);
    guest_exchange(t, &t->destination, 300, 500);
    test_end(t);
}

/* They come out of the source, in order, and reach the guest, each once. */
static void test_handover(const void *data)
{
    g_autofree uint8_t *frame = g_malloc(PACKET_MAX);
    int co, ci;
    Test *t = pair_new(&co, &ci);
    unsigned i;

    rig_add(t->source.r, "id=f0,netdev=s,outdev=co," HANDOVER);
    rig_add(t->destination.r, "id=f0,netdev=d,indev=ci,out_netdev=d,"
            "vnet_hdr_support=on");
    to_switchover(t);
    expect_silence(co);
    finish(t);
    for (i = 100; i < 300; i++) {
        size_t size = recv_frame(co, frame, GUEST_HEADER);

        g_assert_cmpuint(packet_seq(frame + GUEST_HEADER), ==, i);
        send_frame_raw(ci, frame, size, GUEST_HEADER);
    }
    guest_expect(t, 100, 200);
    guest_exchange(t, &t->destination, 300, 500);
    expect_silence(co);
    test_end(t);
}

/* A migration that comes to nothing takes nothing from the guest. */
static void test_cancel(const void *data)
{
    int co, ci;
    Test *t = pair_new(&co, &ci);

    rig_add(t->source.r, "id=f0,netdev=s,outdev=co," HANDOVER);
    to_switchover(t);
    qtest_qmp_assert_success(t->source.r->qts,
                             "{'execute': 'migrate_cancel'}");
    wait_migration(&t->source, "cancelled");
    /* The destination has nothing to run, and ends. */
    qtest_set_expected_status(t->destination.r->qts, EXIT_FAILURE);
    qtest_wait_qemu(t->destination.r->qts);
    wait_running(&t->source);
    guest_kick(&t->guest);
    guest_expect(t, 100, 200);
    guest_exchange(t, &t->source, 300, 500);
    expect_silence(co);
    test_end(t);
}

/* Why there is no vhost-net here; NULL if there is. */
static char *vhost_missing(void)
{
    int fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        return g_strdup_printf("/dev/vhost-net: %s", strerror(errno));
    }
    close(fd);
    return NULL;
}

static void skip_case(const void *data)
{
    g_test_skip(data);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*func)(const void *data);
    } cases[] = {
        { "receive", test_receive },
        { "send", test_send },
        { "super-packet", test_super },
        { "capture", test_capture },
        { "pcap", test_pcap },
        { "pcap-queues", test_pcap_queues },
        { "inject", test_inject },
        { "migrate/stock", test_stock },
        { "migrate/hand-over", test_handover },
        { "migrate/cancel", test_cancel },
    };
    g_autofree char *missing = NULL;
    unsigned i;

    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);
    missing = vhost_missing();

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = g_strdup_printf("/filter-redirector/vhost/%s",
                                                cases[i].name);

        if (missing) {
            qtest_add_data_func(path, missing, (GTestDataFunc)skip_case);
        } else {
            case_add(path, cases[i].func, NULL);
        }
    }
    return g_test_run();
}
