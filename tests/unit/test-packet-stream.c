/*
 * Unit test of packet streams
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "net/packet-stream.h"

#define SIZE (4 * PACKET_STREAM_FRAME_MAX)

/* A packet whose every byte depends on its number and place. */
static void fill(uint8_t *buf, size_t len, unsigned number)
{
    size_t i;

    for (i = 0; i < len; i++) {
        buf[i] = number * 31 + i * 7 + (i >> 8);
    }
}

static bool put(PacketStream *s, size_t hdr_len, size_t len, unsigned number)
{
    g_autofree uint8_t *buf = g_malloc(hdr_len + len);
    struct iovec iov[2] = {
        { buf + hdr_len, len / 2 }, { buf + hdr_len + len / 2, len - len / 2 },
    };

    fill(buf, hdr_len + len, number);
    return packet_stream_put(s, buf, hdr_len, iov, 2);
}

static void check_front(PacketStream *s, size_t plain_hdr_len, size_t hdr_len,
                        size_t len, unsigned number)
{
    g_autofree uint8_t *buf = g_malloc(hdr_len + len);
    PacketFrame f;

    fill(buf, hdr_len + len, number);
    g_assert_cmpuint(packet_stream_peek(s, plain_hdr_len, &f, 1), ==, 1);
    g_assert_cmpmem(f.hdr, f.hdr_len, buf, hdr_len);
    g_assert_cmpuint(f.iovcnt, ==, 1);
    g_assert_cmpmem(f.iov[0].iov_base, f.len, buf + hdr_len, len);
}

/* What is put in comes out, in order, for longer than the buffer lasts. */
static void test_fifo(const void *opaque)
{
    bool vnet_hdr = GPOINTER_TO_INT(opaque);
    static const size_t lens[] = { 1, 14, 60, 1514, 9014, 65000 };
    PacketStream s;
    unsigned in = 0, out = 0;

    packet_stream_init(&s, SIZE, vnet_hdr);
    while (out < 1000) {
        while (in < 1000 && put(&s, 12, lens[in % ARRAY_SIZE(lens)], in)) {
            in++;
        }
        g_assert_cmpuint(s.packets, ==, in - out);
        g_assert_cmpuint(in, >, out);
        check_front(&s, 12, 12, lens[out % ARRAY_SIZE(lens)], out);
        packet_stream_drop(&s, 1);
        out++;
    }
    g_assert_cmpuint(packet_stream_room(&s), ==, SIZE);
    packet_stream_destroy(&s);
}

static void test_truncate(const void *opaque)
{
    bool vnet_hdr = GPOINTER_TO_INT(opaque);
    PacketStream s;
    unsigned i;

    packet_stream_init(&s, SIZE, vnet_hdr);
    g_assert_cmpuint(packet_stream_truncate(&s, 3), ==, 0);
    for (i = 0; i < 10; i++) {
        g_assert_true(put(&s, 12, 60 + i, i));
    }
    packet_stream_drop(&s, 1);
    g_assert_cmpuint(packet_stream_truncate(&s, 9), ==, 0);
    g_assert_cmpuint(packet_stream_truncate(&s, 4), ==, 5);
    g_assert_true(put(&s, 12, 100, 10));
    g_assert_cmpuint(s.packets, ==, 5);
    for (i = 1; i < 5; i++) {
        check_front(&s, 12, 12, 60 + i, i);
        packet_stream_drop(&s, 1);
    }
    check_front(&s, 12, 12, 100, 10);
    g_assert_cmpuint(packet_stream_truncate(&s, 0), ==, 1);
    g_assert_cmpuint(packet_stream_room(&s), >=, SIZE / 2);
    packet_stream_destroy(&s);
}

/* All packets at once; what is incomplete stays. */
static void test_drop_all(const void *opaque)
{
    bool vnet_hdr = GPOINTER_TO_INT(opaque);
    uint8_t rest[] = { 0, 0 };
    PacketStream s;
    unsigned i;

    packet_stream_init(&s, SIZE, vnet_hdr);
    for (i = 0; i < 10; i++) {
        g_assert_true(put(&s, 12, 60, i));
    }
    packet_stream_drop(&s, 1);
    packet_stream_drop_all(&s);
    g_assert_cmpuint(s.packets, ==, 0);
    g_assert_cmpuint(packet_stream_room(&s), ==, SIZE);
    g_assert_true(put(&s, 12, 60, 10));
    g_assert_cmpint(packet_stream_add(&s, rest, sizeof(rest)), ==, 0);
    packet_stream_drop_all(&s);
    g_assert_cmpuint(s.packets, ==, 0);
    g_assert_true(packet_stream_trim(&s));
    g_assert_true(put(&s, 12, 60, 11));
    check_front(&s, 12, 12, 60, 11);
    packet_stream_destroy(&s);
}

/* A stream less than half full always takes the longest packet. */
static void test_room(void)
{
    PacketStream s;
    unsigned i;

    packet_stream_init(&s, SIZE, true);
    for (i = 0; i < 100; i++) {
        while (s.tail - s.head > SIZE / 2) {
            packet_stream_drop(&s, 1);
        }
        g_assert_true(put(&s, 24, PACKET_LEN_MAX - 24, i));
    }
    packet_stream_destroy(&s);
}

/* Bytes that arrive in pieces of any size make the same packets. */
static void test_pieces(const void *opaque)
{
    bool vnet_hdr = GPOINTER_TO_INT(opaque);
    PacketStream a, b;
    const uint8_t *data;
    size_t len, piece, off, n;
    unsigned i;

    packet_stream_init(&a, SIZE, vnet_hdr);
    for (i = 0; i < 20; i++) {
        g_assert_true(put(&a, 10, 1 + i * 97, i));
    }
    data = packet_stream_data(&a, &len);

    for (piece = 1; piece < 50; piece++) {
        packet_stream_init(&b, SIZE, vnet_hdr);
        for (off = 0; off < len; off += n) {
            n = MIN(piece, len - off);
            g_assert_cmpint(packet_stream_add(&b, data + off, n), ==, 0);
        }
        g_assert_false(packet_stream_trim(&b));
        for (i = 0; i < 20; i++) {
            check_front(&b, 10, 10, 1 + i * 97, i);
            packet_stream_drop(&b, 1);
        }
        packet_stream_destroy(&b);
    }
    packet_stream_destroy(&a);
}

/* Without its header's length in the stream, the caller's word counts. */
static void test_plain_hdr_len(void)
{
    PacketStream s;
    PacketFrame f;

    packet_stream_init(&s, SIZE, false);
    g_assert_true(put(&s, 0, 5, 1));
    check_front(&s, 0, 0, 5, 1);
    check_front(&s, 3, 3, 2, 1);
    packet_stream_peek(&s, 10, &f, 1);
    g_assert_cmpuint(f.len, ==, 0);
    packet_stream_destroy(&s);
}

/* No header need not mean an address: UBSan minds. */
static void test_no_hdr(void)
{
    uint8_t byte = 7;
    struct iovec iov = { &byte, 1 };
    PacketStream s;
    PacketFrame f;

    packet_stream_init(&s, SIZE, true);
    g_assert_true(packet_stream_put(&s, NULL, 0, &iov, 1));
    g_assert_cmpuint(packet_stream_peek(&s, 0, &f, 1), ==, 1);
    g_assert_cmpuint(f.hdr_len, ==, 0);
    g_assert_cmpmem(f.iov[0].iov_base, f.len, &byte, 1);
    packet_stream_destroy(&s);
}

static void test_trim(void)
{
    PacketStream s;
    uint8_t bytes[20] = {};

    packet_stream_init(&s, SIZE, false);
    stl_be_p(bytes, 8);
    stl_be_p(bytes + 12, 8);
    g_assert_cmpint(packet_stream_add(&s, bytes, sizeof(bytes)), ==, 0);
    g_assert_cmpuint(s.packets, ==, 1);
    g_assert_true(packet_stream_trim(&s));
    g_assert_false(packet_stream_trim(&s));
    g_assert_cmpuint(s.packets, ==, 1);
    packet_stream_drop(&s, 1);
    g_assert_cmpuint(packet_stream_room(&s), ==, SIZE);
    packet_stream_destroy(&s);
}

typedef struct Damage {
    const char *name;
    bool vnet_hdr;
    uint32_t len;
    uint32_t hdr_len;
    bool good;
} Damage;

static const Damage damages[] = {
    { "zero", false, 0, 0, false },
    { "longest", false, PACKET_LEN_MAX, 0, true },
    { "too-long", false, PACKET_LEN_MAX + 1, 0, false },
    { "all-ones", false, UINT32_MAX, 0, false },
    { "header-equal", true, 12, 12, true },
    { "header-longer", true, 11, 12, false },
    { "header-odd", true, 100, 11, false },
    { "header-huge", true, 100, UINT32_MAX, false },
    { "header-none", true, 100, 0, true },
};

/* Damage is found at once, and what came before it is kept. */
static void test_damage(const void *opaque)
{
    const Damage *d = opaque;
    g_autofree uint8_t *buf = g_malloc0(8 + PACKET_LEN_MAX);
    size_t prefix = d->vnet_hdr ? 8 : 4;
    PacketStream s;
    int ret;

    packet_stream_init(&s, SIZE, d->vnet_hdr);
    g_assert_true(put(&s, 0, 60, 1));
    stl_be_p(buf, d->len);
    stl_be_p(buf + 4, d->vnet_hdr ? d->hdr_len : 0);
    ret = packet_stream_add(&s, buf, prefix);
    g_assert_cmpint(ret, ==, d->good ? 0 : -EINVAL);
    g_assert_cmpuint(s.packets, ==, 1);
    if (d->good) {
        g_assert_cmpint(packet_stream_add(&s, buf + prefix, d->len), ==, 0);
        g_assert_cmpuint(s.packets, ==, 2);
    } else {
        g_assert_false(packet_stream_trim(&s));
    }
    check_front(&s, 0, 0, 60, 1);
    packet_stream_destroy(&s);
}

/* Whatever bytes come, packets stay within their bounds. */
/* As a sender with these settings writes it; all packets are alike. */
static GByteArray *sent(bool vnet_hdr, size_t hdr_len, bool offload,
                        unsigned packets)
{
    static const uint8_t mac[] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
    GByteArray *bytes = g_byte_array_new();
    uint8_t buf[8 + VNET_HDR_LEN_MAX + 100] = { 0 };
    uint8_t *hdr = buf + (vnet_hdr ? 8 : 4), *data = hdr + hdr_len;

    stl_be_p(buf, hdr_len + 100);
    if (vnet_hdr) {
        stl_be_p(buf + 4, hdr_len);
    }
    if (offload && hdr_len) {
        hdr[0] = 1; /* VIRTIO_NET_HDR_F_NEEDS_CSUM */
        hdr[6] = 34;
        hdr[8] = 6;
    }
    fill(data, 100, 5);
    memcpy(data, mac, sizeof(mac));
    while (packets--) {
        g_byte_array_append(bytes, buf, data + 100 - buf);
    }
    return bytes;
}

/*
 * Reads it, byte by byte.  Return: what is found when the first packet can be
 * passed on; UNCLEAR: it can't be
 */
static PacketStreamMatch match(const GByteArray *bytes, bool vnet_hdr,
                               size_t hdr_len)
{
    PacketStreamMatch ret = PACKET_STREAM_UNCLEAR;
    PacketStream s;
    unsigned i;

    packet_stream_init(&s, SIZE, vnet_hdr);
    for (i = 0; i < bytes->len && ret == PACKET_STREAM_UNCLEAR; i++) {
        if (packet_stream_add(&s, bytes->data + i, 1) < 0) {
            ret = PACKET_STREAM_MISMATCH;
        } else if (s.packets) {
            ret = packet_stream_match(&s, hdr_len);
        }
    }
    packet_stream_destroy(&s);
    return ret;
}

static void test_match(void)
{
    static const size_t lens[] = { 0, 10, 12, 20, 24 };
    unsigned i, from, to, offload;

    for (i = 0; i < ARRAY_SIZE(lens); i++) {
        for (from = 0; from < 2; from++) {
            for (offload = 0; offload < 2; offload++) {
                g_autoptr(GByteArray) one = sent(from, lens[i], offload, 1);
                g_autoptr(GByteArray) two = sent(from, lens[i], offload, 2);

                for (to = 0; to < 2; to++) {
                    PacketStreamMatch first = match(one, to, lens[i]);

                    if (from == to) {
                        g_assert_cmpint(first, ==, PACKET_STREAM_MATCH);
                    } else {
                        g_assert_cmpint(first, !=, PACKET_STREAM_MATCH);
                        g_assert_cmpint(match(two, to, lens[i]), ==,
                                        PACKET_STREAM_MISMATCH);
                    }
                }
            }
        }
    }
}

/* Not even a strange packet is taken for damage where a length follows. */
static void test_match_strange(void)
{
    static const size_t lens[] = { 0, 10, 12 };
    unsigned i, vnet;

    for (i = 0; i < ARRAY_SIZE(lens); i++) {
        for (vnet = 0; vnet < 2; vnet++) {
            g_autoptr(GByteArray) bytes = sent(vnet, lens[i], false, 2);

            memset(bytes->data + (vnet ? 8 : 4) + lens[i], 0, 12);
            g_assert_cmpint(match(bytes, vnet, lens[i]), ==,
                            PACKET_STREAM_MATCH);
        }
    }
}

static void test_random(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    PacketFrame frames[8];
    uint8_t bytes[256];
    PacketStream s = {};
    unsigned i, j, n;

    for (i = 0; i < 200000; i++) {
        if (i % 1000 == 0) {
            packet_stream_init(&s, SIZE, i % 2000 == 0);
        }
        for (j = 0; j < sizeof(bytes); j++) {
            /* Small numbers, so that some are good lengths. */
            bytes[j] = g_rand_int_range(rand, 0, 4) ? 0
                       : g_rand_int_range(rand, 0, 64);
        }
        n = g_rand_int_range(rand, 0, sizeof(bytes));
        if (packet_stream_room(&s) >= n) {
            packet_stream_add(&s, bytes, n);
        }
        n = packet_stream_peek(&s, 12, frames, ARRAY_SIZE(frames));
        for (j = 0; j < n; j++) {
            uint8_t *data = frames[j].iov[0].iov_base;

            g_assert_cmpuint(frames[j].hdr_len, <=, VNET_HDR_LEN_MAX);
            g_assert_true(data >= s.buf + s.head);
            g_assert_true(data + frames[j].len <= s.buf + s.scanned);
        }
        packet_stream_drop(&s, n);
        if (i % 1000 == 999) {
            packet_stream_destroy(&s);
        }
    }
}

int main(int argc, char **argv)
{
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/packet-stream/fifo", GINT_TO_POINTER(false),
                         test_fifo);
    g_test_add_data_func("/packet-stream/fifo/vnet-hdr", GINT_TO_POINTER(true),
                         test_fifo);
    g_test_add_data_func("/packet-stream/truncate", GINT_TO_POINTER(false),
                         test_truncate);
    g_test_add_data_func("/packet-stream/truncate/vnet-hdr",
                         GINT_TO_POINTER(true), test_truncate);
    g_test_add_data_func("/packet-stream/drop-all", GINT_TO_POINTER(false),
                         test_drop_all);
    g_test_add_data_func("/packet-stream/drop-all/vnet-hdr",
                         GINT_TO_POINTER(true), test_drop_all);
    g_test_add_func("/packet-stream/room", test_room);
    g_test_add_data_func("/packet-stream/pieces", GINT_TO_POINTER(false),
                         test_pieces);
    g_test_add_data_func("/packet-stream/pieces/vnet-hdr",
                         GINT_TO_POINTER(true), test_pieces);
    g_test_add_func("/packet-stream/plain-header-length", test_plain_hdr_len);
    g_test_add_func("/packet-stream/no-header", test_no_hdr);
    g_test_add_func("/packet-stream/trim", test_trim);
    for (i = 0; i < ARRAY_SIZE(damages); i++) {
        g_autofree char *path = g_strdup_printf("/packet-stream/damage/%s",
                                                damages[i].name);

        g_test_add_data_func(path, &damages[i], test_damage);
    }
    g_test_add_func("/packet-stream/match", test_match);
    g_test_add_func("/packet-stream/match/strange", test_match_strange);
    g_test_add_func("/packet-stream/random", test_random);
    return g_test_run();
}
