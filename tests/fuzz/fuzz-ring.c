/*
 * Fuzzer of net/packet-capture.c: what the kernel puts into the ring comes out
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The ring is memory of this program, which does there what the kernel's
 * tpacket_rcv() does.  The input says what packets arrive, when the kernel
 * closes a block or gives a packet up whose place it has reserved, and what the
 * reader does.  All that comes out is compared with what went in.
 *
 * In some inputs anything may stand in a block: what comes out is not compared
 * then, but must lie where it may.
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sanitizer/asan_interface.h>
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "qemu/units.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "net/packet-capture.h"
#include "../../net/packet-socket-int.h"
#include "input.h"

#define RING_BLOCK (128 * KiB)
#define BLOCKS_MAX 8
#define VNET_LEN 10
#define PENDING_MAX 4096
#define READ_MAX 64
#define RING_FD 1000
#define ALIGNMENT 8

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
    bool given_up;          /* the kernel has dropped it */
    bool stale;             /* it has been thrown away */
} Expected;

static uint8_t ring[BLOCKS_MAX * RING_BLOCK] QEMU_ALIGNED(4096);
static unsigned blocks;
static bool macvtap;
static bool wild;               /* anything may stand in a block */
static bool cut_ok;             /* packets may be cut off */

/* The kernel's place: the block that it fills */
static unsigned block;
static size_t used;             /* bytes of that block; 0: not opened */
static struct tpacket3_hdr *last;
static unsigned drops;          /* since PACKET_STATISTICS was read */

static Expected pending[PENDING_MAX];
static unsigned head, closed, tail;     /* closed: those in closed blocks */
static uint64_t all_drops, truncated, thrown;
static uint64_t doubtful;       /* errors perhaps: thrown away unseen */

int __wrap_setsockopt(int fd, int level, int name, const void *val,
                      socklen_t len);
int __wrap_getsockopt(int fd, int level, int name, void *val, socklen_t *len);

int __wrap_setsockopt(int fd, int level, int name, const void *val,
                      socklen_t len)
{
    if (name == PACKET_RX_RING) {
        const struct tpacket_req3 *req = val;

        if (!req->tp_block_nr) {
            return 0;
        }
        g_assert(len == sizeof(*req) && req->tp_block_size == RING_BLOCK);
        g_assert(req->tp_frame_nr ==
                 req->tp_block_nr * (RING_BLOCK / req->tp_frame_size));
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
    g_assert(fd == RING_FD && len == blocks * RING_BLOCK);
    return ring;
}

int __wrap_munmap(void *addr, size_t len)
{
    g_assert(addr == ring && len == blocks * RING_BLOCK);
    return 0;
}

/* QEMU 10.0's trace points want it; with its own, most of QEMU would follow. */
int qemu_get_thread_id(void)
{
    return 1;
}

/* A ring in a thread is never asked for; QEMU's own would bring most of it. */
QEMUBH *qemu_bh_new_full(QEMUBHFunc *cb, void *opaque, const char *name,
                         MemReentrancyGuard *guard)
{
    g_assert_not_reached();
}

void qemu_bh_schedule(QEMUBH *bh)
{
    g_assert_not_reached();
}

void qemu_bh_delete(QEMUBH *bh)
{
    g_assert_not_reached();
}

void packet_socket_close(int fd, bool used)
{
    g_assert(fd == RING_FD && used);
}

bool packet_socket_given(int fd)
{
    return true;
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
    struct tpacket_block_desc *desc = (void *)(ring + n * RING_BLOCK);

    return &desc->hdr.bh1;
}

static void close_block(unsigned status)
{
    if (used) {
        last->tp_next_offset = 0;
        if (!wild) {
            pending[(tail - 1) % PENDING_MAX].last = true;
        }
        block_hdr(block)->block_status = TP_STATUS_USER | status;
        block = (block + 1) % blocks;
        used = 0;
        closed = tail;
    }
}

static bool open_block(void)
{
    struct tpacket_block_desc *desc = (void *)(ring + block * RING_BLOCK);

    if (used) {
        return true;
    }
    if (desc->hdr.bh1.block_status & TP_STATUS_USER) {
        return false;
    }
    used = ROUND_UP(sizeof(*desc), ALIGNMENT);
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

static void fill_in(const Expected *e, struct tpacket3_hdr *hdr, size_t net,
                    size_t mac)
{
    struct sockaddr_ll *addr =
        (void *)((uint8_t *)hdr + TPACKET_ALIGN(sizeof(*hdr)));

    hdr->tp_sec = e->time_ns / NANOSECONDS_PER_SECOND;
    hdr->tp_nsec = e->time_ns % NANOSECONDS_PER_SECOND;
    hdr->tp_snaplen = e->snaplen;
    hdr->tp_len = e->len;
    hdr->tp_mac = mac;
    hdr->tp_net = net;
    hdr->tp_status |= TP_STATUS_USER;
    *addr = (struct sockaddr_ll) { .sll_pkttype = e->pkttype };
    memcpy((uint8_t *)hdr + mac - VNET_LEN, e->hdr, VNET_LEN);
    fill_pattern((uint8_t *)hdr + mac, e->snaplen, e->seed);
}

static void put_packet(const Expected *e)
{
    size_t net = TPACKET_ALIGN(TPACKET3_HDRLEN + MAX(ETH_HLEN, 16)) + VNET_LEN;
    size_t mac = net - ETH_HLEN;
    size_t room = RING_BLOCK - ROUND_UP(sizeof(struct tpacket_block_desc),
                                        ALIGNMENT);
    size_t size = ROUND_UP(mac + e->snaplen, ALIGNMENT);
    struct tpacket3_hdr *hdr;

    g_assert(size <= room);
    if (used && used + size >= RING_BLOCK) {
        close_block(0);
    }
    if (tail - head == PENDING_MAX || !open_block()) {
        drop();
        return;
    }
    hdr = (void *)(ring + block * RING_BLOCK + used);
    /* Reserving it: the rest is what was there. */
    hdr->tp_next_offset = size;
    hdr->hv1 = (struct tpacket_hdr_variant1) {
        .tp_vlan_tci = e->tci, .tp_vlan_tpid = e->tpid,
    };
    hdr->tp_status = e->status;
    if (e->given_up) {
        drop();
    } else {
        fill_in(e, hdr, net, mac);
    }
    used += size;
    last = hdr;
    block_hdr(block)->num_pkts++;
    if (!wild) {
        pending[tail % PENDING_MAX] = *e;
        pending[tail % PENDING_MAX].block = block;
        pending[tail++ % PENDING_MAX].last = false;
    }
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
    case 7:     /* long ones are rare: they take their time */
        e.len = (what & 0xc0) == 0xc0 ? take16(in) :
                (what & 0xc0) == 0x80 ? longest - 2 + (what & 3) :
                what * 16;
        break;
    }
    e.given_up = how & 64 && what & 1;
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

/* Anything in a header of a block that is handed over, or of a packet in it. */
static void scribble(FuzzInput *in)
{
    unsigned where = take16(in), bits = take8(in), i;
    struct tpacket_hdr_v1 *hdr = block_hdr(bits % blocks);
    uint8_t *base = ring + bits % blocks * RING_BLOCK;
    uint32_t value = take16(in);

    if (!(hdr->block_status & TP_STATUS_USER)) {
        return;
    }
    value = bits & 8 ? value << 16 : bits & 16 ? value : ~value;
    switch (bits >> 5) {
    case 0:
        hdr->num_pkts = value;
        break;
    case 1:
        hdr->offset_to_first_pkt = value;
        break;
    case 2:         /* a word anywhere */
        memcpy(base + MAX(where * 2 % (RING_BLOCK - 4), 48), &value, 4);
        break;
    case 3:         /* many of one kind */
        for (i = 48 + where % 64; i < RING_BLOCK / 8; i += 4) {
            memcpy(base + i, &value, 4);
        }
        break;
    default:        /* a word of the first packets' headers */
        memcpy(base + 48 + where % 1024 / 4 * 4, &value, 4);
        break;
    }
}

/* The reader */

static bool whole(const Expected *e)
{
    return !e->given_up && !e->stale && (e->len == e->snaplen || cut_ok) &&
           e->snaplen <= PACKET_LEN_MAX - VNET_HDR_LEN_MAX -
                         VNET_VLAN_TAG_LEN;
}

static void check_piece(const struct iovec *iov, unsigned seed, size_t skip)
{
    g_assert(!memcmp(iov->iov_base, pattern_from(seed) + skip, iov->iov_len));
}

static void check_frame(const PacketFrame *f, const Expected *e)
{
    bool tagged = (e->status & TP_STATUS_VLAN_VALID) && e->snaplen >= 12;
    bool outgoing = e->pkttype == PACKET_OUTGOING;
    size_t len = e->snaplen + (tagged ? 4 : 0);
    uint8_t hdr[VNET_LEN] = { 0 }, tag[4];

    g_assert(f->len == len && f->hdr_len == VNET_LEN);
    g_assert(f->cut == e->len - e->snaplen);
    g_assert(iov_size(f->iov, f->iovcnt) == len);
    check_piece(&f->iov[0], e->seed, 0);
    if (tagged) {
        stw_be_p(tag, e->status & TP_STATUS_VLAN_TPID_VALID ? e->tpid
                                                            : 0x8100);
        stw_be_p(tag + 2, e->tci);
        g_assert(f->iovcnt == 3 && f->iov[0].iov_len == 12);
        g_assert(f->iov[1].iov_len == 4 &&
                 !memcmp(f->iov[1].iov_base, tag, 4));
        check_piece(&f->iov[2], e->seed, 12);
    } else {
        g_assert(f->iovcnt == 1);
    }
    if (!f->cut) {
        memcpy(hdr, e->hdr, VNET_LEN);
    }
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

/* In one block of the ring that is the reader's, or in other valid memory. */
static void check_bounds(const PacketFrame *f)
{
    size_t left = f->len;
    unsigned i;

    g_assert(f->len <= PACKET_LEN_MAX - VNET_HDR_LEN_MAX);
    for (i = 0; i < f->iovcnt; i++) {
        uint8_t *data = f->iov[i].iov_base;
        size_t len = f->iov[i].iov_len;

        g_assert(len <= left);
        left -= len;
        if (data >= ring && data < ring + sizeof(ring)) {
            size_t first = (data - ring) / RING_BLOCK;

            g_assert(first < blocks);
            g_assert(!len || (data + len - 1 - ring) / RING_BLOCK == first);
            g_assert(block_hdr(first)->block_status & TP_STATUS_USER);
        } else {
            g_assert(!__asan_region_is_poisoned(data, len));
        }
    }
    g_assert(!left);
}

/* All packets before @head are released: whose are their blocks? */
static void check_released(unsigned first)
{
    unsigned i;

    for (i = first; i != head; i++) {
        const Expected *e = &pending[i % PENDING_MAX];

        if (e->last) {
            g_assert(block_hdr(e->block)->block_status == TP_STATUS_KERNEL);
        }
    }
}

/* Return: number of the next packet that can come out, from @i on */
static unsigned next_whole(unsigned i)
{
    while (i != closed && !whole(&pending[i % PENDING_MAX])) {
        i++;
    }
    return i;
}

static bool is_error(const Expected *e)
{
    return !e->given_up && !whole(e) && !e->stale;
}

static void pass_until(unsigned to)
{
    while (head != to) {
        const Expected *e = &pending[head++ % PENDING_MAX];

        truncated += is_error(e);
        doubtful += e->stale && !e->given_up;
    }
}

static unsigned read_some(PacketCapture *c, unsigned max, unsigned keep)
{
    static PacketFrame frames[READ_MAX];
    unsigned n = packet_capture_read(c, frames, max), i, at, first = head;
    unsigned release = n - MIN(n, keep);

    for (i = 0; wild && i < n; i++) {
        check_bounds(&frames[i]);
    }
    if (wild) {
        packet_capture_release(c, release);
        return n;
    }
    pass_until(next_whole(head));
    for (i = 0, at = head; i < n; i++) {
        if (i == release) {
            pass_until(at);
        }
        at = next_whole(at);
        g_assert(at != closed);
        check_frame(&frames[i], &pending[at++ % PENDING_MAX]);
    }
    if (i == release) {
        pass_until(at);
    }
    /* It may stop in front of what is no packet, but not at the first one. */
    g_assert(n || head == closed);
    packet_capture_release(c, release);
    check_released(first);
    return n;
}

static void check_losses(PacketCapture *c)
{
    uint64_t lost, errors;
    unsigned i, ahead = 0;

    packet_capture_losses(c, &lost, &errors);
    g_assert(lost == all_drops);
    if (wild) {
        return;
    }
    /* What is still to be read may have been looked at. */
    for (i = head; i != closed; i++) {
        const Expected *e = &pending[i % PENDING_MAX];

        ahead += is_error(e) || (e->stale && !e->given_up);
    }
    g_assert(errors >= truncated && errors <= truncated + doubtful + ahead);
    g_assert(packet_capture_discarded(c) <= thrown);
}

/* What was captured so far does not come out any more. */
static void discard(PacketCapture *c)
{
    unsigned i;

    packet_capture_discard(c);
    if (wild) {
        return;
    }
    for (i = head; i != tail; i++) {
        Expected *e = &pending[i % PENDING_MAX];

        thrown += !e->stale;
        e->stale = true;
    }
    pass_until(closed);
}

/* The kernel has half of the blocks again, if there was room. */
static void keep(PacketCapture *c)
{
    bool room = packet_capture_keep(c);
    unsigned i, handed = 0;

    for (i = 0; room && i < blocks; i++) {
        handed += block_hdr(i)->block_status != TP_STATUS_KERNEL;
    }
    g_assert(handed <= blocks / 2);
    for (i = head; i != closed; i++) {
        pending[i % PENDING_MAX].last = false;
    }
}

static PacketCapture *start(FuzzInput *in)
{
    static const unsigned sizes[4] = { 4, 4, 5, BLOCKS_MAX };
    unsigned how = take8(in), i;
    PacketInterface iface = { .name = "fuzz", .macvtap = how & 4 };
    PacketCaptureOptions options = {
        .dir = NET_FILTER_DIRECTION_ALL,
        .ring_size = sizes[how & 3] * RING_BLOCK,
        .snaplen = how & 8 ? 1 : 0,     /* see PACKET_RX_RING: not asked */
    };

    macvtap = iface.macvtap;
    cut_ok = how & 8;
    wild = (how & 0xf0) == 0xf0;
    block = head = closed = tail = drops = used = 0;
    all_drops = truncated = doubtful = thrown = 0;
    for (i = 0; i < BLOCKS_MAX; i++) {
        struct tpacket_block_desc *desc = (void *)(ring + i * RING_BLOCK);

        memset(desc, 0, sizeof(*desc));
    }
    return packet_capture_open(RING_FD, &iface, &options, &error_abort);
}

static void step(PacketCapture *c, FuzzInput *in)
{
    unsigned op = take8(in), i;

    switch (op & 7) {
    case 0 ... 2:
        arrive(in);
        break;
    case 3:
        if (wild) {
            scribble(in);
        } else {
            arrive(in);
        }
        break;
    case 4:         /* many of the same kind */
        for (i = 0; i < 1 << (op >> 6); i++) {
            FuzzInput same = *in;

            arrive(&same);
        }
        break;
    case 5:
        close_block(op & 8 ? TP_STATUS_LOSING : TP_STATUS_BLK_TMO);
        break;
    case 6:
        if ((op & 0xc0) == 0xc0) {
            keep(c);
        } else {
            read_some(c, 1 + (op >> 3) % READ_MAX, 0);
        }
        break;
    case 7:
        if ((op & 0xf8) == 0xf8) {
            discard(c);
        } else {
            check_losses(c);
            read_some(c, READ_MAX, op >> 4);
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    FuzzInput in = { data, len };
    PacketCapture *c = start(&in);
    unsigned i;

    while (in.len) {
        step(c, &in);
    }
    close_block(0);
    while (read_some(c, READ_MAX, 0)) {
        continue;
    }
    /* All has come out, or is known to be nothing: the kernel has the ring. */
    for (i = 0; i < blocks; i++) {
        g_assert(block_hdr(i)->block_status == TP_STATUS_KERNEL);
    }
    if (!wild) {
        pass_until(closed);
        g_assert(closed == tail);
    }
    check_losses(c);
    packet_capture_free(c);
    return 0;
}
