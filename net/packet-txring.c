/*
 * A ring to send packets from, for those that sendmsg() refuses
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What is said about Linux here was read in net/packet/af_packet.c and seen on
 * Linux 6.1 and 6.18.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <linux/if_packet.h>
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "qemu/units.h"
#include "standard-headers/linux/virtio_net.h"
#include "packet-txring.h"

/* A slot takes the longest packet; each is a block of the ring. */
#define SLOT_SIZE (128 * KiB)
#define SLOTS 16
QEMU_BUILD_BUG_ON(SLOT_SIZE < PACKET_LEN_MAX + 4 * KiB);

/* Where in its slot a packet begins, with its vnet header. */
#define DATA (TPACKET2_HDRLEN - sizeof(struct sockaddr_ll))
#define VNET_LEN sizeof(struct virtio_net_hdr)

/*
 * The kernel copies as much of a packet as the vnet header calls headers, and
 * the rest of it has to fit into the pages of a socket buffer.
 */
#define PAGES_MAX (60 * KiB)
#define COPY_MIN 256

static int set_ring(int fd, unsigned slots)
{
    struct tpacket_req req = { 0 };

    if (slots) {
        req.tp_block_size = SLOT_SIZE;
        req.tp_block_nr = slots;
        req.tp_frame_size = SLOT_SIZE;
        req.tp_frame_nr = slots;
    }
    return setsockopt(fd, SOL_PACKET, PACKET_TX_RING, &req, sizeof(req)) < 0
           ? -errno : 0;
}

int packet_txring_map(PacketTxRing *r, int fd)
{
    const int version = TPACKET_V2;
    int ret = setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version,
                         sizeof(version)) < 0 ? -errno : set_ring(fd, SLOTS);

    if (ret < 0) {
        return ret;
    }
    r->map = mmap(NULL, SLOTS * SLOT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                  fd, 0);
    if (r->map == MAP_FAILED) {
        ret = -errno;
        r->map = NULL;
        set_ring(fd, 0);
    }
    return ret;
}

void packet_txring_unmap(PacketTxRing *r, int fd)
{
    if (r->map) {
        munmap(r->map, SLOTS * SLOT_SIZE);
        r->map = NULL;
        set_ring(fd, 0);
    }
}

static struct tpacket2_hdr *slot_hdr(PacketTxRing *r, unsigned i)
{
    return (void *)(r->map + (r->head + i) % SLOTS * SLOT_SIZE);
}

static void fill_slot(struct tpacket2_hdr *hdr, const PacketFrame *f)
{
    uint8_t *data = (uint8_t *)hdr + DATA;
    uint8_t *hdr_len = data + offsetof(struct virtio_net_hdr, hdr_len);
    size_t copy = MAX(f->len - MIN(f->len, PAGES_MAX), MIN(f->len, COPY_MIN));

    vnet_hdr_convert(data, VNET_LEN, f->hdr, f->hdr_len);
    stw_he_p(hdr_len, MAX(lduw_he_p(hdr_len), copy));
    iov_to_buf(f->iov, f->iovcnt, 0, data + VNET_LEN, f->len);
    hdr->tp_len = VNET_LEN + f->len;
    qatomic_store_release(&hdr->tp_status, TP_STATUS_SEND_REQUEST);
}

/*
 * Ends what the kernel has not got round to.  A packet that it stops at is
 * still the next one for it.
 * Return: number of packets sent
 */
static unsigned collect(PacketTxRing *r, unsigned n)
{
    unsigned i, sent = 0;

    for (i = 0; i < n; i++) {
        uint32_t status = qatomic_load_acquire(&slot_hdr(r, i)->tp_status);

        if (sent == i && !(status & (TP_STATUS_SEND_REQUEST |
                                     TP_STATUS_WRONG_FORMAT))) {
            sent++;
        } else {
            qatomic_set(&slot_hdr(r, i)->tp_status, TP_STATUS_AVAILABLE);
        }
    }
    r->head = (r->head + sent) % SLOTS;
    return sent;
}

unsigned packet_txring_send(PacketTxRing *r, int fd,
                            const PacketFrame *frames, unsigned n, int *err)
{
    unsigned filled = 0, sent;

    /* A packet on its way keeps its slot. */
    while (filled < MIN(n, SLOTS) &&
           qatomic_load_acquire(&slot_hdr(r, filled)->tp_status) ==
           TP_STATUS_AVAILABLE) {
        fill_slot(slot_hdr(r, filled), &frames[filled]);
        filled++;
    }
    *err = RETRY_ON_EINTR(send(fd, NULL, 0, MSG_DONTWAIT)) < 0 ? -errno : 0;
    sent = collect(r, filled);
    if (sent < filled || !filled) {
        *err = *err ?: -ENOBUFS;
    } else {
        *err = 0;
    }
    return sent;
}
