/*
 * Fuzzer of net/packet-capture.c: what the kernel puts into the ring comes out
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The ring is memory of this program, which does there what the kernel's
 * tpacket_rcv() does.  The input says what
 * packets arrive, when the kernel closes a block, and when the reader reads and
 * releases how many.  All that comes out is compared with what went in.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "../../net/packet-socket-int.h"
#include "input.h"

#define BLOCK_SIZE (128 * KiB)
#define BLOCKS_MAX 8
#define VNET_LEN 10
#define PENDING_MAX 4096
#define READ_MAX 64
#define RING_FD 1000

/* What the reader must find next. */
typedef struct Expected {
    unsigned len;           /* of the packet on the wire, without its tag */
    unsigned snaplen;
    unsigned seed;          /* of its bytes */
    uint8_t hdr[VNET_LEN];
    uint32_t status;
    uint16_t tci;
    uint16_t tpid;
    uint8_t pkttype;
    int64_t time_ns;
    unsigned block;
    bool last;              /* of its block */
} Expected;

static uint8_t ring[BLOCKS_MAX * BLOCK_SIZE] QEMU_ALIGNED(4096);
static unsigned blocks;
static bool macvtap;

/* The kernel's place: the block that it fills */
static unsigned block;
static size_t used;             /* bytes of that block; 0: not opened */
static struct tpacket3_hdr *last;
static unsigned drops;          /* since PACKET_STATISTICS was read */

static Expected pending[PENDING_MAX];
static unsigned head, closed, tail;     /* closed: those in closed blocks */
static uint64_t all_drops, truncated;

int __wrap_setsockopt(int fd, int level, int name, const void *val,
                      socklen_t len);
int __wrap_getsockopt(int fd, int level, int name, void *val, socklen_t *len);

int __wrap_setsockopt(int fd, int level, int name, const void *val,
                      socklen_t len)
{
    if (name == PACKET_RX_RING) {
        const struct tpacket_req3 *req = val;

        g_assert(len == sizeof(*req) && req->tp_block_size == BLOCK_SIZE);
        g_assert(req->tp_frame_nr ==
                 req->tp_block_nr * (BLOCK_SIZE / req->tp_frame_size));
        blocks = req->tp_block_nr;
    }
    return 0;
}

int __wrap_getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
    struct tpacket_stats_v3 *stats = val;

    g_assert(name == PACKET_STATISTICS && *len == sizeof(*stats));
    *stats = (struct tpacket_stats_v3) { .tp_drops = drops };
    drops = 0;
    return 0;
}

void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd,
                  off_t offset);
int __wrap_munmap(void *addr, size_t len);

void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd,
                  off_t offset)
{
    g_assert(fd == RING_FD && len == blocks * BLOCK_SIZE);
    return ring;
}

int __wrap_munmap(void *addr, size_t len)
{
    g_assert(addr == ring && len == blocks * BLOCK_SIZE);
    return 0;
}

/* QEMU 10.0's trace points want it; with its own, most of QEMU would follow. */
int qemu_get_thread_id(void)
{
    return 1;
}

int qemu_close(int fd)
{
    g_assert(fd == RING_FD);
    return 0;
}

bool packet_socket_set_up(int fd, Error **errp)
{
    return true;
}

int packet_socket_filter(int fd, struct sock_filter *insns, unsigned short n,
                         Error **errp)
{
    return 0;
}

bool packet_socket_bind(int fd, const PacketInterface *iface,
                        uint16_t protocol, Error **errp)
{
    g_assert(protocol == ETH_P_ALL);
    return true;
}

int packet_socket_state(int fd, const PacketInterface *iface, char *name)
{
    return 0;
}

static struct tpacket_hdr_v1 *block_hdr(unsigned n)
{
    struct tpacket_block_desc *desc = (void *)(ring + n * BLOCK_SIZE);

    return &desc->hdr.bh1;
}

static void close_block(unsigned status)
{
    if (used) {
        last->tp_next_offset = 0;
        pending[(tail - 1) % PENDING_MAX].last = true;
        block_hdr(block)->block_status = TP_STATUS_USER | status;
        block = (block + 1) % blocks;
        used = 0;
        closed = tail;
    }
}

static bool open_block(void)
{
    struct tpacket_block_desc *desc = (void *)(ring + block * BLOCK_SIZE);

    if (used) {
        return true;
    }
    if (desc->hdr.bh1.block_status & TP_STATUS_USER) {
        return false;
    }
    used = TPACKET_ALIGN(sizeof(*desc));
    desc->version = TPACKET_V3;
    desc->offset_to_priv = used;
    desc->hdr.bh1.num_pkts = 0;
    desc->hdr.bh1.offset_to_first_pkt = used;
    return true;
}

static void drop(void)
{
    drops++;
    all_drops++;
}

static void put_packet(const Expected *e)
{
    size_t net = TPACKET_ALIGN(TPACKET3_HDRLEN + MAX(ETH_HLEN, 16)) + VNET_LEN;
    size_t mac = net - ETH_HLEN;
    size_t room = BLOCK_SIZE - TPACKET_ALIGN(sizeof(struct tpacket_block_desc));
    size_t size = TPACKET_ALIGN(mac + e->snaplen);
    struct tpacket3_hdr *hdr;
    struct sockaddr_ll *addr;

    g_assert(size <= room);
    if (used && used + size > BLOCK_SIZE) {
        close_block(0);
    }
    if (tail - head == PENDING_MAX || !open_block()) {
        drop();
        return;
    }
    hdr = (void *)(ring + block * BLOCK_SIZE + used);
    *hdr = (struct tpacket3_hdr) {
        .tp_next_offset = size,
        .tp_sec = e->time_ns / NANOSECONDS_PER_SECOND,
        .tp_nsec = e->time_ns % NANOSECONDS_PER_SECOND,
        .tp_snaplen = e->snaplen,
        .tp_len = e->len,
        .tp_status = TP_STATUS_USER | e->status,
        .tp_mac = mac,
        .tp_net = net,
        .hv1 = { .tp_vlan_tci = e->tci, .tp_vlan_tpid = e->tpid },
    };
    addr = (void *)((uint8_t *)hdr + TPACKET_ALIGN(sizeof(*hdr)));
    *addr = (struct sockaddr_ll) { .sll_pkttype = e->pkttype };
    memcpy((uint8_t *)hdr + mac - VNET_LEN, e->hdr, VNET_LEN);
    fill_pattern((uint8_t *)hdr + mac, e->snaplen, e->seed);
    used += size;
    last = hdr;
    pending[tail % PENDING_MAX] = *e;
    pending[tail % PENDING_MAX].block = block;
    pending[tail++ % PENDING_MAX].last = false;
    block_hdr(block)->num_pkts++;
}

static void arrive(FuzzInput *in)
{
    static const uint8_t types[4] = {
        PACKET_OUTGOING, PACKET_HOST, PACKET_OTHERHOST, PACKET_BROADCAST,
    };
    static const unsigned longest = PACKET_LEN_MAX - VNET_HDR_LEN_MAX -
                                    VNET_VLAN_TAG_LEN;
    static int64_t now;
    unsigned how = take8(in), what = take8(in);
    Expected e = {
        .seed = how,
        .pkttype = types[what >> 2 & 3],
        .tci = 0x2064 + what,
        .tpid = what & 16 ? ETH_P_8021AD : ETH_P_8021Q,
        .time_ns = now += 999999999,
    };
    unsigned i;

    switch (how & 7) {
    case 0 ... 2:
        e.len = 60;
        break;
    case 3 ... 5:
        e.len = take8(in);
        break;
    case 6:
        e.len = take16(in) % 4096;
        break;
    case 7:
        e.len = what & 128 ? take16(in) : longest - 2 + (what & 3);
        break;
    }
    e.snaplen = how & 8 ? MIN(e.len, take16(in)) : e.len;
    if (how & 16) {
        e.status = TP_STATUS_VLAN_VALID |
                   (what & 32 ? TP_STATUS_VLAN_TPID_VALID : 0);
    }
    for (i = 0; how & 32 && i < VNET_LEN; i++) {
        e.hdr[i] = take8(in);
    }
    put_packet(&e);
}

/* The reader */

static bool whole(const Expected *e)
{
    return e->len == e->snaplen &&
           e->len <= PACKET_LEN_MAX - VNET_HDR_LEN_MAX - VNET_VLAN_TAG_LEN;
}

static void check_frame(const PacketFrame *f, const Expected *e)
{
    static uint8_t got[PACKET_LEN_MAX], want[PACKET_LEN_MAX];
    bool tagged = (e->status & TP_STATUS_VLAN_VALID) && e->len >= 12;
    bool outgoing = e->pkttype == PACKET_OUTGOING;
    size_t len = e->len + (tagged ? 4 : 0);
    uint8_t hdr[VNET_LEN];

    g_assert(f->len == len && f->hdr_len == VNET_LEN);
    g_assert(iov_to_buf(f->iov, f->iovcnt, 0, got, sizeof(got)) == len);
    fill_pattern(want, e->len, e->seed);
    if (tagged) {
        memmove(want + 16, want + 12, e->len - 12);
        stw_be_p(want + 12, e->status & TP_STATUS_VLAN_TPID_VALID ? e->tpid
                                                                 : 0x8100);
        stw_be_p(want + 14, e->tci);
    }
    g_assert(!memcmp(got, want, len));

    memcpy(hdr, e->hdr, VNET_LEN);
    if (tagged && (hdr[0] & 1)) {
        stw_he_p(hdr + 6, MIN(lduw_he_p(hdr + 6) + 4, UINT16_MAX));
    }
    if (tagged && hdr[1]) {
        stw_he_p(hdr + 2, MIN(lduw_he_p(hdr + 2) + 4, UINT16_MAX));
    }
    g_assert(!memcmp(f->hdr, hdr, VNET_LEN));
    g_assert(f->dir == (outgoing != macvtap ? NET_FILTER_DIRECTION_TX
                                            : NET_FILTER_DIRECTION_RX));
    g_assert(f->time_ns == e->time_ns);
}

/* All packets before @head are released: whose are their blocks? */
static void check_released(unsigned first)
{
    unsigned i;

    for (i = first; i != head; i++) {
        const Expected *e = &pending[i % PENDING_MAX];

        if (e->last) {
            g_assert(block_hdr(e->block)->block_status == TP_STATUS_KERNEL);
        } else if (i + 1 == head) {
            g_assert(block_hdr(e->block)->block_status & TP_STATUS_USER);
        }
    }
}

static void read_some(PacketCapture *c, unsigned max, unsigned keep)
{
    PacketFrame frames[READ_MAX];
    unsigned n = packet_capture_read(c, frames, max), i, want, first = head;

    while (head != closed && !whole(&pending[head % PENDING_MAX])) {
        head++;
        truncated++;
    }
    for (want = 0; want < max && head + want != closed &&
         whole(&pending[(head + want) % PENDING_MAX]); want++) {
        /* counts */
    }
    g_assert(n == want);
    for (i = 0; i < n; i++) {
        check_frame(&frames[i], &pending[(head + i) % PENDING_MAX]);
    }
    n -= MIN(n, keep);
    packet_capture_release(c, n);
    head += n;
    check_released(first);
}

static void check_losses(PacketCapture *c)
{
    uint64_t lost, errors;

    packet_capture_losses(c, &lost, &errors);
    g_assert(lost == all_drops && errors == truncated);
}

static PacketCapture *start(FuzzInput *in)
{
    static const unsigned sizes[4] = { 4, 4, 5, BLOCKS_MAX };
    unsigned how = take8(in), i;
    PacketInterface iface = { .name = "fuzz", .macvtap = how & 4 };

    macvtap = iface.macvtap;
    block = head = closed = tail = drops = used = 0;
    all_drops = truncated = 0;
    for (i = 0; i < BLOCKS_MAX; i++) {
        block_hdr(i)->block_status = TP_STATUS_KERNEL;
    }
    return packet_capture_new(RING_FD, &iface, NET_FILTER_DIRECTION_ALL,
                              sizes[how & 3] * BLOCK_SIZE, &error_abort);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    FuzzInput in = { data, len };
    PacketCapture *c = start(&in);
    unsigned op, i;

    while (in.len) {
        op = take8(&in);
        switch (op & 7) {
        case 0 ... 3:
            arrive(&in);
            break;
        case 4:         /* many of the same kind */
            for (i = 0; i < 1 << (op >> 6); i++) {
                FuzzInput same = in;

                arrive(&same);
            }
            break;
        case 5:
            close_block(op & 8 ? TP_STATUS_LOSING : TP_STATUS_BLK_TMO);
            break;
        case 6:
            read_some(c, 1 + (op >> 3) % READ_MAX, 0);
            break;
        case 7:
            if (op & 8) {
                check_losses(c);
            }
            read_some(c, READ_MAX, op >> 4);
            break;
        }
    }
    close_block(0);
    while (head != closed) {
        read_some(c, READ_MAX, 0);
    }
    g_assert(packet_capture_read(c, &(PacketFrame) {}, 1) == 0);
    check_losses(c);
    packet_capture_free(c);
    return 0;
}
