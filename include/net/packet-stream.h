/*
 * Packets in a byte stream, and a bounded queue of them
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_NET_PACKET_STREAM_H
#define QEMU_NET_PACKET_STREAM_H

#include "net/packet-frame.h"

/*
 * Netfilters send packets through character devices as
 *
 *   length of the packet with its vnet header   32 bits, big-endian
 *   length of the vnet header                   32 bits, big-endian; only with
 *                                               vnet_hdr_support
 *   vnet header and packet
 *
 * A PacketStream is a buffer of fixed size that holds packets in this form,
 * one behind another, with perhaps the beginning of one more at the end.  It
 * serves both ways: bytes of a peer are added and packets taken out, or
 * packets are put in and bytes written to a peer.  It does no I/O.
 */

/* The longest frame: both length fields and a packet. */
#define PACKET_STREAM_FRAME_MAX (8 + PACKET_LEN_MAX)

typedef struct PacketStream {
    uint8_t *buf;
    size_t size;        /* of @buf */
    size_t head;        /* where the first packet begins */
    size_t scanned;     /* where the last complete one ends */
    size_t tail;        /* where the bytes end */
    unsigned packets;   /* complete ones */
    bool vnet_hdr;      /* frames have the vnet header's length */
} PacketStream;

/**
 * packet_stream_init() - Make an empty stream
 * @s: stream
 * @size: bytes, at least four times PACKET_STREAM_FRAME_MAX, so that it always
 *        takes another frame when less than half full
 * @vnet_hdr: frames have the vnet header's length
 */
void packet_stream_init(PacketStream *s, size_t size, bool vnet_hdr);

/**
 * packet_stream_destroy() - Free a stream's memory
 * @s: stream, or all zero
 */
void packet_stream_destroy(PacketStream *s);

/**
 * packet_stream_room() - Tell how many bytes can be added now
 * @s: stream
 *
 * What is in the buffer is moved to its front only when at least half of it is
 * free there, which makes the cost of moving less than that of filling.
 */
static inline size_t packet_stream_room(const PacketStream *s)
{
    return s->size - s->tail + (s->head >= s->size / 2 ? s->head : 0);
}

/**
 * packet_stream_put() - Append a packet
 * @s: stream, without an incomplete packet at its end
 * @hdr: vnet header
 * @hdr_len: its length, bytes
 * @iov: the packet
 * @iovcnt: number of pieces
 *
 * Return: true, or false if there is no room
 */
bool packet_stream_put(PacketStream *s, const uint8_t *hdr, size_t hdr_len,
                       const struct iovec *iov, unsigned iovcnt);

/**
 * packet_stream_add() - Append bytes that a peer sent
 * @s: stream
 * @buf: bytes
 * @len: how many, at most packet_stream_room()
 *
 * Return: 0, or -EINVAL if they are no packets (a length is 0 or more than
 *         PACKET_LEN_MAX, a vnet header has an unknown length or is longer
 *         than its packet): then everything from there on has been dropped
 */
int packet_stream_add(PacketStream *s, const uint8_t *buf, size_t len);

/**
 * packet_stream_trim() - Drop the incomplete packet at the end
 * @s: stream
 *
 * Return: true if there was one
 */
bool packet_stream_trim(PacketStream *s);

/**
 * packet_stream_peek() - Look at packets, first one first
 * @s: stream
 * @hdr_len: length of the vnet headers where frames don't tell it, bytes
 * @frames: result; valid until the stream changes
 * @max: room in @frames
 *
 * A packet shorter than @hdr_len comes as a frame of length 0.
 *
 * Return: number of frames
 */
unsigned packet_stream_peek(const PacketStream *s, size_t hdr_len,
                            PacketFrame *frames, unsigned max);

/* Does a stream have the vnet header's length in its frames, or not? */
typedef enum PacketStreamMatch {
    PACKET_STREAM_MATCH,        /* as expected */
    PACKET_STREAM_MISMATCH,     /* the other way */
    PACKET_STREAM_UNCLEAR,      /* the next bytes will tell */
} PacketStreamMatch;

/**
 * packet_stream_match() - Look at the first packet of a connection
 * @s: stream with at least this packet
 * @hdr_len: length of the vnet headers where frames don't tell it, bytes
 *
 * The format has nothing that says which one it is.  But read the wrong way, a
 * frame has where its vnet header or its destination address should be what
 * hardly any has, and is not followed by a length.
 */
PacketStreamMatch packet_stream_match(const PacketStream *s, size_t hdr_len);

/**
 * packet_stream_drop() - Take packets out
 * @s: stream
 * @n: number of packets, at most @s->packets
 */
void packet_stream_drop(PacketStream *s, unsigned n);

/**
 * packet_stream_drop_all() - Take all complete packets out
 * @s: stream
 */
void packet_stream_drop_all(PacketStream *s);

/**
 * packet_stream_truncate() - Take the last packets out
 * @s: stream, without an incomplete packet at its end
 * @n: number of packets to leave
 *
 * Return: number of packets taken out
 */
unsigned packet_stream_truncate(PacketStream *s, unsigned n);

/**
 * packet_stream_data() - The bytes of all complete packets
 * @s: stream
 * @len: result: how many
 */
const uint8_t *packet_stream_data(const PacketStream *s, size_t *len);

/**
 * packet_stream_front() - Measure the first packet
 * @s: stream with at least one complete packet
 * @len: result: length of the packet, with its vnet header, bytes
 *
 * Return: length of its frame, bytes
 */
size_t packet_stream_front(const PacketStream *s, size_t *len);

#endif /* QEMU_NET_PACKET_STREAM_H */
