/*
 * Fuzzer of the way from a peer's bytes to the injector: net/packet-stream.c
 * and net/packet-inject.c
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The input first says what bytes the peer sends, then in what pieces they
 * arrive, when packets are taken out, and how much of them the kernel takes.
 * What packets there are is found by going over all bytes at once: it must not
 * depend on the pieces.
 */

#include "qemu/osdep.h"
#include <linux/if_ether.h>
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "qemu/units.h"
#include "net/packet-stream.h"
#include "net/packet-inject.h"
#include "../../net/packet-socket-int.h"
#include "input.h"

#define QUEUE_SIZE (512 * KiB)      /* as the redirector's */
#define WIRE_MAX (1 * MiB)
#define FRAMES_MAX 4096

typedef struct WireFrame {
    size_t start;           /* of the frame */
    size_t end;
    size_t data;            /* of the vnet header */
    size_t hdr_len;
} WireFrame;

static uint8_t wire[WIRE_MAX];
static size_t wire_len;
static WireFrame frames[FRAMES_MAX];
static unsigned nframes;
static size_t damage;       /* bytes until it is seen that one is wrong */

static bool vnet;           /* frames have the vnet header's length */
static size_t plain_hdr_len;
static PacketStream rx, tx;
static size_t fed;
static unsigned taken;      /* frames that have been taken out */
static bool damaged;

/* The kernel */

static FuzzInput *script;   /* says what the kernel does */
static unsigned expect;     /* the frame that the next message must be */
static int kernel_errno;    /* of the last call */
static int state;           /* of the interface */

int __wrap_sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags);

static void check_message(const struct msghdr *msg, const WireFrame *f)
{
    static uint8_t data[PACKET_LEN_MAX + 32];
    size_t hdr_len = MIN(f->hdr_len, f->end - f->data), basic = MIN(hdr_len, 10);
    size_t len = iov_to_buf(msg->msg_iov, msg->msg_iovlen, 0, data,
                            sizeof(data));
    static const uint8_t zeros[10];

    g_assert(len == 10 + f->end - f->data - hdr_len);
    g_assert(!memcmp(data, wire + f->data, basic));
    g_assert(!memcmp(data + basic, zeros, 10 - basic));
    g_assert(!memcmp(data + 10, wire + f->data + hdr_len, len - 10));
}

int __wrap_sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
    static const int errors[8] = {
        EAGAIN, ENOBUFS, EINTR, ENXIO, ENETDOWN, ENODEV, EMSGSIZE, EINVAL,
    };
    unsigned what = take8(script), i, sent;

    g_assert(flags == MSG_DONTWAIT && n && n <= PACKET_INJECT_BATCH);
    if (what & 128) {
        kernel_errno = errno = errors[what & 7];
        state = (what & 64 ? -ENODEV : what & 32 ? -ENETDOWN : 0);
        return -1;
    }
    sent = what ? 1 + what % n : n;
    for (i = 0; i < sent; i++) {
        check_message(&msgs[i].msg_hdr, &frames[expect++]);
    }
    kernel_errno = 0;
    return sent;
}

/* QEMU 10.0's trace points want it; with its own, most of QEMU would follow. */
int qemu_get_thread_id(void)
{
    return 1;
}

void packet_socket_close(int fd, bool used)
{
    g_assert_not_reached();
}

bool packet_interface_backlogged(NetClientState *nc)
{
    g_assert_not_reached();     /* there is no netdev */
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
    return true;
}

int packet_socket_state(int fd, const PacketInterface *iface, char *name)
{
    return state;
}

int __wrap_setsockopt(int fd, int level, int name, const void *val,
                      socklen_t len);

int __wrap_setsockopt(int fd, int level, int name, const void *val,
                      socklen_t len)
{
    return 0;
}

/* What the peer sends */

static void send_bytes(const uint8_t *data, size_t len)
{
    len = MIN(len, WIRE_MAX - wire_len);
    memcpy(wire + wire_len, data, len);
    wire_len += len;
}

static void send_frame(FuzzInput *in)
{
    static const uint8_t hdr_lens[8] = { 0, 10, 12, 20, 24, 10, 12, 10 };
    static uint8_t data[PACKET_LEN_MAX + 1];
    unsigned how = take8(in), hdr_len = hdr_lens[how & 7];
    size_t len = (how & 24) == 24 ? PACKET_LEN_MAX - take8(in)
               : (how & 88) == 16 ? take16(in) : take8(in);
    uint8_t prefix[8];

    stl_be_p(prefix, len);
    stl_be_p(prefix + 4, MIN(hdr_len, how & 32 ? 24 : len));
    fill_pattern(data, MIN(len, 64), how + len);
    send_bytes(prefix, vnet ? 8 : 4);
    send_bytes(data, len);
}

static void build_wire(FuzzInput *in)
{
    unsigned n = take8(in) % 32;
    uint8_t raw[16];
    unsigned i, len;

    wire_len = 0;
    while (n--) {
        unsigned op = take8(in);

        if (op & 3) {
            send_frame(in);
            continue;
        }
        for (i = 0, len = 1 + (op >> 4); i < len; i++) {
            raw[i] = take8(in);
        }
        send_bytes(raw, len);
    }
}

/* Finds all packets at once. */
static void read_wire(void)
{
    size_t at = 0, prefix = vnet ? 8 : 4;

    nframes = 0;
    damage = SIZE_MAX;
    while (at + 4 <= wire_len && nframes < FRAMES_MAX) {
        size_t len = ldl_be_p(wire + at), hdr_len = plain_hdr_len;

        if (!len || len > PACKET_LEN_MAX) {
            damage = at + 4;
            return;
        }
        if (vnet && at + 8 <= wire_len) {
            hdr_len = ldl_be_p(wire + at + 4);
            if (hdr_len > len || (hdr_len != 0 && hdr_len != 10 &&
                                  hdr_len != 12 && hdr_len != 20 &&
                                  hdr_len != 24)) {
                damage = at + 8;
                return;
            }
        }
        if (at + prefix + len > wire_len) {
            return;
        }
        frames[nframes++] = (WireFrame) { at, at + prefix + len, at + prefix,
                                          hdr_len };
        at += prefix + len;
    }
    /* So that nothing is left that would not be compared. */
    wire_len = nframes == FRAMES_MAX ? at : wire_len;
}

/* The redirector's side */

static unsigned complete(void)
{
    unsigned n = taken;

    while (n < nframes && frames[n].end <= fed) {
        n++;
    }
    return n - taken;
}

static void feed(size_t len)
{
    uint8_t *copy;
    int ret;

    len = MIN(len, MIN(wire_len - fed, packet_stream_room(&rx)));
    if (damaged || !len) {
        return;
    }
    if (len < 256) {
        copy = g_memdup2(wire + fed, len);      /* ASan sees its end */
        ret = packet_stream_add(&rx, copy, len);
        g_free(copy);
    } else {
        ret = packet_stream_add(&rx, wire + fed, len);
    }
    fed += len;
    damaged = damage <= fed;
    g_assert(ret == (damaged ? -EINVAL : 0));
    g_assert(rx.packets == complete());
    if (rx.packets) {
        packet_stream_match(&rx, plain_hdr_len);
    }
}

static void check_frame(const PacketFrame *f, const WireFrame *w)
{
    size_t hdr_len = MIN(w->hdr_len, w->end - w->data);

    g_assert(f->hdr_len == hdr_len && f->len == w->end - w->data - hdr_len);
    g_assert(f->iovcnt == 1 && f->iov[0].iov_len == f->len);
    g_assert(!memcmp(f->hdr, wire + w->data, hdr_len));
    g_assert(!memcmp(f->iov[0].iov_base, wire + w->data + hdr_len, f->len));
}

/* Passes a packet on as the redirector does to another character device. */
static void forward(const PacketFrame *f)
{
    size_t hdr_len = plain_hdr_len, frame, len, have;
    uint8_t hdr[VNET_HDR_LEN_MAX];
    const uint8_t *data;

    if (!f->len || f->len + hdr_len > PACKET_LEN_MAX) {
        return;
    }
    vnet_hdr_convert(hdr, hdr_len, f->hdr, f->hdr_len);
    while (!packet_stream_put(&tx, hdr, hdr_len, f->iov, f->iovcnt)) {
        packet_stream_drop(&tx, 1 + tx.packets / 2);
    }
    frame = (vnet ? 4 : 8) + hdr_len + f->len;  /* tx is the other kind */
    data = packet_stream_data(&tx, &have);
    g_assert(have >= frame);
    data += have - frame;
    g_assert(ldl_be_p(data) == hdr_len + f->len);
    g_assert(vnet || ldl_be_p(data + 4) == hdr_len);
    g_assert(!memcmp(data + frame - f->len, f->iov[0].iov_base, f->len));
    g_assert(!memcmp(data + frame - f->len - hdr_len, hdr, hdr_len));
    g_assert(packet_stream_front(&tx, &len) >= len);
}

static void inject(PacketInject *inj, unsigned max)
{
    PacketFrame f[PACKET_INJECT_BATCH];
    unsigned i, sent, n = packet_stream_peek(&rx, plain_hdr_len, f,
                                             MIN(max, PACKET_INJECT_BATCH));
    int err;

    g_assert(n == MIN(MIN(max, PACKET_INJECT_BATCH), complete()));
    for (i = 0; i < n; i++) {
        check_frame(&f[i], &frames[taken + i]);
        forward(&f[i]);
    }
    if (!n) {
        return;
    }
    expect = taken;
    sent = packet_inject_send(inj, f, n, &err);
    g_assert(sent <= n && (sent == n) == !err && expect == taken + sent);
    if (err) {
        int want = kernel_errno == EAGAIN ? -ENOBUFS : -kernel_errno;

        if (want == -ENXIO || want == -ENETDOWN || want == -ENOBUFS) {
            want = state ?: -ENOBUFS;
        }
        g_assert(err == want);
    }
    packet_stream_drop(&rx, sent);
    taken += sent;
    g_assert(rx.packets == complete());
}

static void run(FuzzInput *in)
{
    static PacketInject *inj;
    FuzzInput end = {};

    if (!inj) {
        PacketInterface iface = { .name = "fuzz" };

        /* Not a socket: nothing to be received, and sendmmsg() is ours. */
        inj = packet_inject_new(open("/dev/null", O_WRONLY), &iface,
                                &error_abort);
    }
    script = in;
    while (in->len) {
        unsigned op = take8(in);

        if (op & 1) {
            feed(op & 2 ? take16(in) * 4 : op >> 2);
        } else {
            inject(inj, 1 + (op >> 2));
        }
    }
    script = &end;          /* from here on the kernel takes everything */
    do {
        while (rx.packets) {
            inject(inj, PACKET_INJECT_BATCH);
        }
        feed(WIRE_MAX);
    } while (rx.packets || (fed < wire_len && !damaged));

    g_assert(taken == nframes);
    g_assert(packet_stream_trim(&rx) ==
             (!damaged && fed > (nframes ? frames[nframes - 1].end : 0)));
    g_assert(packet_stream_room(&rx) >= QUEUE_SIZE / 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint8_t hdr_lens[8] = { 0, 10, 12, 20, 24, 12, 12, 10 };
    static PacketStream streams[2];
    FuzzInput in = { data, len };
    unsigned mode = take8(&in);

    if (!streams[0].buf) {
        packet_stream_init(&streams[0], QUEUE_SIZE, false);
        packet_stream_init(&streams[1], QUEUE_SIZE, true);
    }
    vnet = mode & 1;
    plain_hdr_len = hdr_lens[mode >> 1 & 7];
    build_wire(&in);
    read_wire();
    fed = taken = 0;
    damaged = false;
    rx = streams[vnet];
    tx = streams[!vnet];
    run(&in);
    /* Empty streams begin anew, the memory is kept. */
    packet_stream_drop(&tx, tx.packets);
    return 0;
}
