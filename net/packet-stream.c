/*
 * Packets in a byte stream, and a bounded queue of them
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/iov.h"
#include "net/packet-stream.h"

void packet_stream_init(PacketStream *s, size_t size, bool vnet_hdr)
{
    assert(size >= 4 * PACKET_STREAM_FRAME_MAX);
    *s = (PacketStream) {
        .buf = g_malloc(size),
        .size = size,
        .vnet_hdr = vnet_hdr,
    };
}

void packet_stream_destroy(PacketStream *s)
{
    g_free(s->buf);
    *s = (PacketStream) {};
}

static size_t prefix_len(const PacketStream *s)
{
    return s->vnet_hdr ? 8 : 4;
}

/* Makes @len bytes free at the tail; the caller has looked at the room. */
static uint8_t *make_room(PacketStream *s, size_t len)
{
    if (s->size - s->tail < len) {
        memmove(s->buf, s->buf + s->head, s->tail - s->head);
        s->scanned -= s->head;
        s->tail -= s->head;
        s->head = 0;
    }
    return s->buf + s->tail;
}

bool packet_stream_put(PacketStream *s, const uint8_t *hdr, size_t hdr_len,
                       const struct iovec *iov, unsigned iovcnt)
{
    size_t len = iov_size(iov, iovcnt);
    size_t frame = prefix_len(s) + hdr_len + len;
    uint8_t *p;
    unsigned i;

    assert(s->scanned == s->tail);
    assert(hdr_len + len && hdr_len + len <= PACKET_LEN_MAX);
    if (packet_stream_room(s) < frame) {
        return false;
    }
    p = make_room(s, frame);
    stl_be_p(p, hdr_len + len);
    if (s->vnet_hdr) {
        stl_be_p(p + 4, hdr_len);
    }
    p += prefix_len(s);
    /* A length of 0 may come with a null pointer, which memcpy() forbids. */
    if (hdr_len) {
        memcpy(p, hdr, hdr_len);
    }
    p += hdr_len;
    for (i = 0; i < iovcnt; i++) {
        memcpy(p, iov[i].iov_base, iov[i].iov_len);
        p += iov[i].iov_len;
    }
    s->tail += frame;
    s->scanned = s->tail;
    s->packets++;
    return true;
}

static bool len_ok(uint32_t len)
{
    return len && len <= PACKET_LEN_MAX;
}

/* Moves @scanned over the packets that have become complete. */
static int scan(PacketStream *s)
{
    while (s->tail - s->scanned >= 4) {
        const uint8_t *p = s->buf + s->scanned;
        size_t have = s->tail - s->scanned;
        uint32_t len = ldl_be_p(p);

        if (!len_ok(len)) {
            return -EINVAL;
        }
        if (s->vnet_hdr && have >= 8) {
            uint32_t hdr_len = ldl_be_p(p + 4);

            if (hdr_len > len || !vnet_hdr_len_ok(hdr_len)) {
                return -EINVAL;
            }
        }
        if (have < prefix_len(s) + len) {
            break;
        }
        s->scanned += prefix_len(s) + len;
        s->packets++;
    }
    return 0;
}

int packet_stream_add(PacketStream *s, const uint8_t *buf, size_t len)
{
    int ret;

    assert(len <= packet_stream_room(s));
    memcpy(make_room(s, len), buf, len);
    s->tail += len;
    ret = scan(s);
    if (ret < 0) {
        packet_stream_trim(s);
    }
    return ret;
}

bool packet_stream_trim(PacketStream *s)
{
    bool incomplete = s->tail != s->scanned;

    s->tail = s->scanned;
    return incomplete;
}

/* In a stream with lengths of vnet headers: read from one without */
static bool odd_with_len(const uint8_t *data, size_t len)
{
    /* A vnet header that asks for nothing became a length and an address. */
    return len >= 10 && buffer_is_zero(data, 10);
}

/* In a stream without: read from one with a length of 0 */
static bool odd_without_len(const uint8_t *data, size_t len, size_t hdr_len)
{
    const size_t fields = 10;   /* of a vnet header that mean something */

    if (len < fields || !buffer_is_zero(data, 4)) {
        return false;
    }
    /* An address, or a vnet header that asks for nothing, but says how. */
    return !hdr_len || !buffer_is_zero(data + 4, fields - 4);
}

PacketStreamMatch packet_stream_match(const PacketStream *s, size_t hdr_len)
{
    const uint8_t *data = s->buf + s->head + 4;
    size_t len, end = s->head + packet_stream_front(s, &len);
    uint32_t first = len >= 4 ? ldl_be_p(data) : 0;

    if (!s->vnet_hdr && first && vnet_hdr_len_ok(first)) {
        return PACKET_STREAM_MISMATCH;
    }
    if (s->vnet_hdr ? !odd_with_len(data, len)
                    : !odd_without_len(data, len, hdr_len)) {
        return PACKET_STREAM_MATCH;
    }
    if (s->tail - end < 4) {
        return PACKET_STREAM_UNCLEAR;
    }
    return len_ok(ldl_be_p(s->buf + end)) ? PACKET_STREAM_MATCH
                                          : PACKET_STREAM_MISMATCH;
}

unsigned packet_stream_peek(const PacketStream *s, size_t hdr_len,
                            PacketFrame *frames, unsigned max)
{
    const uint8_t *p = s->buf + s->head;
    unsigned i, n = MIN(max, s->packets);

    for (i = 0; i < n; i++) {
        PacketFrame *f = &frames[i];
        size_t len = ldl_be_p(p);
        const uint8_t *data = p + prefix_len(s);

        f->hdr_len = MIN(s->vnet_hdr ? ldl_be_p(p + 4) : hdr_len, len);
        memcpy(f->hdr, data, f->hdr_len);
        f->len = len - f->hdr_len;
        f->iov[0] = (struct iovec) { (void *)(data + f->hdr_len), f->len };
        f->iovcnt = 1;
        f->cut = 0;
        f->time_ns = 0;
        p = data + len;
    }
    return n;
}

size_t packet_stream_front(const PacketStream *s, size_t *len)
{
    assert(s->packets);
    *len = ldl_be_p(s->buf + s->head);
    return prefix_len(s) + *len;
}

void packet_stream_drop(PacketStream *s, unsigned n)
{
    assert(n <= s->packets);
    s->packets -= n;
    while (n--) {
        s->head += prefix_len(s) + ldl_be_p(s->buf + s->head);
    }
    if (s->head == s->tail) {
        s->head = s->scanned = s->tail = 0;
    }
}

void packet_stream_drop_all(PacketStream *s)
{
    s->packets = 0;
    s->head = s->scanned;
    if (s->head == s->tail) {
        s->head = s->scanned = s->tail = 0;
    }
}

unsigned packet_stream_truncate(PacketStream *s, unsigned n)
{
    size_t end = s->head;
    unsigned i, gone = s->packets - MIN(n, s->packets);

    assert(s->scanned == s->tail);
    for (i = 0; i < n && i < s->packets; i++) {
        end += prefix_len(s) + ldl_be_p(s->buf + end);
    }
    s->packets -= gone;
    s->scanned = s->tail = end;
    return gone;
}

const uint8_t *packet_stream_data(const PacketStream *s, size_t *len)
{
    *len = s->scanned - s->head;
    return s->buf + s->head;
}
