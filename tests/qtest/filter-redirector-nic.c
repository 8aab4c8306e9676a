/*
 * Helpers of the filter-redirector qtests: virtio-net devices, and packets
 * with offloads
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/socket.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"
#include "filter-redirector-nic.h"

/*
 * Devices
 */

#define FIRST_SLOT 4

void pc_add_nic(Pc *pc, Rig *r, const char *netdev, const char *props)
{
    pc->r = r;
    r->machine = "-M pc";
    g_assert_cmpuint(pc->nnics, <, NICS_MAX);
    g_string_append_printf(r->args, "-device virtio-net-pci,netdev=%s,"
                           "addr=%02x.0,romfile=%s%s ", netdev,
                           FIRST_SLOT + pc->nnics++, *props ? "," : "", props);
}

char *pc_make_firmware(void)
{
    g_autofree char *zeros = g_malloc0(64 * 1024);
    char *path;
    int fd = g_file_open_tmp("qtest-redirector-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    g_assert_true(g_file_set_contents(path, zeros, 64 * 1024, NULL));
    return path;
}

void pc_start(Pc *pc)
{
    g_autofree char *firmware = pc_make_firmware();
    unsigned i;

    g_string_append_printf(pc->r->args, "-bios %s ", firmware);
    rig_start(pc->r);
    unlink(firmware);
    pc_alloc_init(&pc->alloc, pc->r->qts, 0);
    pc->bus = qpci_new_pc(pc->r->qts, &pc->alloc);
    for (i = 0; i < pc->nnics; i++) {
        QPCIAddress addr = { .devfn = QPCI_DEVFN(FIRST_SLOT + i, 0) };

        pc->nics[i] = virtio_pci_new(pc->bus, &addr);
        g_assert_nonnull(pc->nics[i]);
        qvirtio_pci_device_enable(pc->nics[i]);
        qvirtio_start_device(&pc->nics[i]->vdev);
    }
}

static void select_word(QVirtioPCIDevice *dev, size_t selector, unsigned word)
{
    qpci_io_writel(dev->pdev, dev->bar, dev->common_cfg_offset + selector,
                   word);
}

bool pc_nic_offers(Pc *pc, unsigned nic, unsigned bit)
{
    QVirtioPCIDevice *dev = pc->nics[nic];

    if (bit < 64) {
        return qvirtio_get_features(&dev->vdev) & (1ull << bit);
    }
    select_word(dev, offsetof(struct virtio_pci_common_cfg,
                              device_feature_select), bit / 32);
    return qpci_io_readl(dev->pdev, dev->bar, dev->common_cfg_offset +
                         offsetof(struct virtio_pci_common_cfg,
                                  device_feature)) & (1u << bit % 32);
}

void pc_nic_enable(Pc *pc, unsigned nic, uint64_t features, uint32_t more)
{
    QVirtioPCIDevice *dev = pc->nics[nic];

    if (more) {
        /* libqos knows 64 bits only. */
        select_word(dev, offsetof(struct virtio_pci_common_cfg,
                                  guest_feature_select), 2);
        qpci_io_writel(dev->pdev, dev->bar, dev->common_cfg_offset +
                       offsetof(struct virtio_pci_common_cfg, guest_feature),
                       more);
    }
    qvirtio_set_features(&dev->vdev, features);
    qvirtio_set_driver_ok(&dev->vdev);
}

/* What a modern device puts in front of each packet. */
#define NIC_HDR_LEN 12
#define NIC_BUFFERS 64

static void add_buffers(Pc *pc, unsigned nic, unsigned queue)
{
    NicQueue *q = &pc->rx[nic][queue];
    unsigned i;

    q->buffers = guest_alloc(&pc->alloc, NIC_BUFFERS * NIC_BUFFER_LEN);
    for (i = 0; i < NIC_BUFFERS; i++) {
        uint32_t head = qvirtqueue_add(pc->r->qts, q->vq,
                                       q->buffers + i * NIC_BUFFER_LEN,
                                       NIC_BUFFER_LEN, true, false);

        g_assert_cmpuint(head, ==, i);
        qvirtqueue_kick(pc->r->qts, q->vq->vdev, q->vq, head);
    }
}

static void set_queue_pairs(Pc *pc, QVirtQueue *ctrl, uint16_t pairs)
{
    const uint8_t command[] = {
        VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
        pairs & 0xff, pairs >> 8,
    };
    uint64_t addr = guest_alloc(&pc->alloc, 64);
    uint64_t ack = addr + sizeof(command);
    uint32_t head;

    qtest_memwrite(pc->r->qts, addr, command, sizeof(command));
    qtest_writeb(pc->r->qts, ack, 0xff);
    head = qvirtqueue_add(pc->r->qts, ctrl, addr, 2, false, true);
    qvirtqueue_add(pc->r->qts, ctrl, addr + 2, 2, false, true);
    qvirtqueue_add(pc->r->qts, ctrl, ack, 1, true, false);
    qvirtqueue_kick(pc->r->qts, ctrl->vdev, ctrl, head);
    qvirtio_wait_used_elem(pc->r->qts, ctrl->vdev, ctrl, head, NULL,
                           WAIT_SECONDS * G_USEC_PER_SEC);
    g_assert_cmphex(qtest_readb(pc->r->qts, ack), ==, VIRTIO_NET_OK);
    qvirtqueue_cleanup(ctrl->vdev->bus, ctrl, &pc->alloc);
}

void pc_nic_set_up(Pc *pc, unsigned nic, uint64_t features, unsigned queues)
{
    QVirtioDevice *dev = &pc->nics[nic]->vdev;
    QVirtQueue *ctrl = NULL;
    unsigned i;

    g_assert_cmpuint(queues, <=, NIC_QUEUES_MAX);
    qvirtio_set_features(dev, features | 1ull << VIRTIO_F_VERSION_1);
    for (i = 0; i < queues; i++) {
        pc->rx[nic][i].vq = qvirtqueue_setup(dev, &pc->alloc, 2 * i);
    }
    if (queues > 1) {
        ctrl = qvirtqueue_setup(dev, &pc->alloc, 2 * queues);
    }
    qvirtio_set_driver_ok(dev);
    if (ctrl) {
        set_queue_pairs(pc, ctrl, queues);
    }
}

void pc_nic_give_buffers(Pc *pc, unsigned nic)
{
    unsigned i;

    for (i = 0; i < NIC_QUEUES_MAX && pc->rx[nic][i].vq; i++) {
        add_buffers(pc, nic, i);
    }
}

void pc_nic_drive(Pc *pc, unsigned nic, uint64_t features, unsigned queues)
{
    pc_nic_set_up(pc, nic, features, queues);
    pc_nic_give_buffers(pc, nic);
}

static void free_queues(Pc *pc, unsigned nic)
{
    unsigned i;

    for (i = 0; i < NIC_QUEUES_MAX; i++) {
        NicQueue *q = &pc->rx[nic][i];

        if (q->vq) {
            if (q->buffers) {
                guest_free(&pc->alloc, q->buffers);
                q->buffers = 0;
            }
            qvirtqueue_cleanup(q->vq->vdev->bus, q->vq, &pc->alloc);
            q->vq = NULL;
        }
    }
}

void pc_nic_redrive(Pc *pc, unsigned nic, uint64_t features, unsigned queues)
{
    QVirtioPCIDevice *dev = pc->nics[nic];

    free_queues(pc, nic);
    qvirtio_pci_device_enable(dev);
    qvirtio_start_device(&dev->vdev);
    pc_nic_drive(pc, nic, features, queues);
}

size_t pc_nic_poll(Pc *pc, unsigned nic, unsigned queue, uint8_t *packet)
{
    NicQueue *q = &pc->rx[nic][queue];
    uint32_t head, len;

    if (!q->vq || !qvirtqueue_get_buf(pc->r->qts, q->vq, &head, &len)) {
        return 0;
    }
    g_assert_cmpuint(head, <, NIC_BUFFERS);
    g_assert_cmpuint(len, >, NIC_HDR_LEN);
    g_assert_cmpuint(len, <=, NIC_BUFFER_LEN);
    len -= NIC_HDR_LEN;
    qtest_memread(pc->r->qts, q->buffers + head * NIC_BUFFER_LEN + NIC_HDR_LEN,
                  packet, len);
    qvirtqueue_kick(pc->r->qts, q->vq->vdev, q->vq, head);
    return len;
}

size_t pc_nic_take(Pc *pc, unsigned nic, uint8_t *packet)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    size_t got;

    while (!(got = pc_nic_poll(pc, nic, 0, packet))) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    return got;
}

void pc_nic_expect(Pc *pc, unsigned nic, size_t size, uint32_t first,
                   unsigned n)
{
    const int64_t end = g_get_monotonic_time() +
                        WAIT_SECONDS * G_USEC_PER_SEC;
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    unsigned i = 0;

    while (i < n) {
        size_t got = pc_nic_poll(pc, nic, 0, packet);

        if (!got) {
            /* What was expected did not come? */
            g_assert_cmpint(g_get_monotonic_time(), <, end);
            g_usleep(100);
            continue;
        }
        g_assert_cmpuint(packet_seq(packet), ==, first + i);
        g_assert_cmpuint(got, ==, size);
        packet_check(packet, got);
        i++;
    }
}

void pc_nic_expect_silence(Pc *pc, unsigned nic)
{
    g_autofree uint8_t *packet = g_malloc(PACKET_MAX);
    unsigned i;

    for (i = 0; i < NIC_QUEUES_MAX; i++) {
        g_assert_cmpuint(pc_nic_poll(pc, nic, i, packet), ==, 0);
    }
}

void pc_sleep(Pc *pc, unsigned type)
{
    const uint16_t base = 0x600;
    QPCIDevice *pm = qpci_device_find(pc->bus, QPCI_DEVFN(1, 3));

    g_assert_nonnull(pm);
    qpci_config_writel(pm, 0x40, base | 1);
    qpci_config_writeb(pm, 0x80, 1);
    qtest_outw(pc->r->qts, base + 4, 1 << 13 | type << 10);
    g_free(pm);
}

void pc_end(Pc *pc)
{
    unsigned i;

    for (i = 0; i < pc->nnics; i++) {
        free_queues(pc, i);
    }
    for (i = 0; i < pc->nnics; i++) {
        qos_object_destroy(&pc->nics[i]->obj);
    }
    if (pc->bus) {
        qpci_free_pc(pc->bus);
        alloc_destroy(&pc->alloc);
    }
    rig_free(pc->r);
}

/*
 * Packets
 */

static uint32_t sum_bytes(const uint8_t *data, size_t size, uint32_t sum)
{
    size_t i;

    for (i = 0; i < size; i++) {
        sum += i % 2 ? data[i] : data[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

static size_t fill_eth(const Offload *o, uint8_t *p)
{
    size_t n = 2 * ETH_ALEN, i;

    packet_fill(p, ETH_ZLEN, 0);
    for (i = 0; i < ARRAY_SIZE(o->tags) && o->tags[i]; i++) {
        stw_be_p(p + n, o->tags[i]);
        stw_be_p(p + n + 2, 0x6064 + i);
        n += 4;
    }
    stw_be_p(p + n, o->ip6 ? ETH_P_IPV6 : ETH_P_IP);
    return n + 2;
}

static size_t fill_ip(const Offload *o, uint8_t *p, size_t l4_len)
{
    const uint8_t proto = o->tcp ? IPPROTO_TCP : IPPROTO_UDP;
    size_t i, n = 40;

    if (!o->ip6) {
        memset(p, 0, 20);
        p[0] = 0x45;
        stw_be_p(p + 2, 20 + l4_len);
        stw_be_p(p + 4, 0xfffe);
        p[6] = 0x40;
        p[8] = 64;
        p[9] = proto;
        stl_be_p(p + 12, 0xc0000201);
        stl_be_p(p + 16, 0xc0000202);
        stw_be_p(p + 10, ~sum_bytes(p, 20, 0));
        return 20;
    }
    memset(p, 0, n);
    p[0] = 0x60;
    p[6] = proto;
    p[7] = 64;
    for (i = 8; i < n; i++) {
        p[i] = i * 7;
    }
    if (o->ip6_header) {
        static const uint8_t options[] = { 0, 0, 1, 4, 0, 0, 0, 0 };

        memcpy(p + n, options, sizeof(options));
        p[n] = proto;
        p[6] = IPPROTO_DSTOPTS;
        n += sizeof(options);
    }
    stw_be_p(p + 4, n - 40 + l4_len);
    return n;
}

static size_t fill_l4(const Offload *o, uint8_t *p)
{
    memset(p, 0, 20);
    stw_be_p(p, 1000);
    stw_be_p(p + 2, 2000);
    if (!o->tcp) {
        stw_be_p(p + 4, 8 + o->payload);
        return 8;
    }
    stl_be_p(p + 4, 0xfffff000); /* wraps in one of the first segments */
    p[12] = 5 << 4;
    p[13] = 0x18; /* ACK, PSH */
    stw_be_p(p + 14, 512);
    return 20;
}

size_t offload_fill(const Offload *o, uint8_t *hdr, uint8_t *packet)
{
    const size_t l4_len = o->payload + (o->tcp ? 20 : 8);
    const size_t field = o->tcp ? 16 : 6;
    size_t l3 = fill_eth(o, packet);
    size_t l4 = l3 + fill_ip(o, packet + l3, l4_len);
    size_t data = l4 + fill_l4(o, packet + l4);
    size_t i;

    for (i = 0; i < o->payload; i++) {
        packet[data + i] = i + (i >> 8) + (i >> 16);
    }
    stw_be_p(packet + l4 + field,
             sum_bytes(packet + l3 + (o->ip6 ? 8 : 12), o->ip6 ? 32 : 8,
                       (o->tcp ? IPPROTO_TCP : IPPROTO_UDP) + l4_len));

    hdr[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    hdr[1] = o->gso_type;
    stw_he_p(hdr + 2, o->gso_type ? data : 0);
    stw_he_p(hdr + 4, o->gso_size);
    stw_he_p(hdr + 6, l4);
    stw_he_p(hdr + 8, field);
    return data + o->payload;
}

void offload_complete(const uint8_t *hdr, uint8_t *packet, size_t size)
{
    const size_t start = lduw_he_p(hdr + 6);
    const size_t pos = start + lduw_he_p(hdr + 8);
    uint16_t sum;

    if (hdr[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        g_assert_cmpuint(pos + 2, <=, size);
        sum = ~sum_bytes(packet + start, size - start, 0);
        stw_be_p(packet + pos, sum ?: 0xffff);
    }
}

void set_vnet_hdr(int fd)
{
    const int on = 1;

    g_assert_cmpint(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on,
                               sizeof(on)), ==, 0);
}

void send_offload(int fd, const uint8_t *hdr, const uint8_t *packet,
                  size_t size)
{
    g_autofree uint8_t *buf = g_malloc(VNET_LEN_KERNEL + size);

    memcpy(buf, hdr, VNET_LEN_KERNEL);
    memcpy(buf + VNET_LEN_KERNEL, packet, size);
    send_raw(fd, buf, VNET_LEN_KERNEL + size);
}
