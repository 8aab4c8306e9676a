/*
 * Packets with offloads for the fuzzers, and what is right about them
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Nothing here uses the code under test, nor QEMU's checksum helpers that it
 * uses: this is the other opinion.
 */

#ifndef FUZZ_PACKET_H
#define FUZZ_PACKET_H

#include "net/vnet-gso.h"
#include "input.h"

/* Room for a packet: more than the longest one that is built. */
#define FUZZ_PACKET_MAX (72 * 1024)

typedef struct FuzzPacket {
    uint8_t hdr[VNET_HDR_LEN_MAX];
    size_t hdr_len;
    uint8_t data[FUZZ_PACKET_MAX];
    size_t len;
    bool mutated;       /* else it is right, and must be accepted */
} FuzzPacket;

/* Where things are in a packet that can be a super-packet. */
typedef struct FuzzLayers {
    bool ip6;
    bool tcp;
    unsigned tags;
    size_t l3;
    size_t l4;
    size_t payload;
} FuzzLayers;

/**
 * fuzz_packet() - Make a packet and its vnet header of a fuzzer's input
 * @in: input
 * @p: result; uninitialized behind its length
 */
void fuzz_packet(FuzzInput *in, FuzzPacket *p);

/**
 * fuzz_layers() - Find the layers of an IP packet
 * @data: packet
 * @len: its length, bytes
 * @l: result
 *
 * Return: false if there is no whole TCP or UDP header in it
 */
bool fuzz_layers(const uint8_t *data, size_t len, FuzzLayers *l);

/**
 * fuzz_sum() - Add up big-endian 16-bit words, the last byte padded
 *
 * Return: sum, folded to 16 bits; 0xffff if it is 0 in the ones' complement and
 *         not all words are 0
 */
uint16_t fuzz_sum(const uint8_t *data, size_t len, uint64_t start);

/**
 * fuzz_pseudo() - The pseudo header's sum without the length
 * @data: packet
 * @l: its layers
 */
uint32_t fuzz_pseudo(const uint8_t *data, const FuzzLayers *l);

/* Fields of the vnet header, host byte order */
unsigned fuzz_hdr_gso_type(const FuzzPacket *p);
unsigned fuzz_hdr_gso_size(const FuzzPacket *p);
unsigned fuzz_hdr_csum_start(const FuzzPacket *p);
unsigned fuzz_hdr_csum_offset(const FuzzPacket *p);
bool fuzz_hdr_needs_csum(const FuzzPacket *p);

#endif /* FUZZ_PACKET_H */
