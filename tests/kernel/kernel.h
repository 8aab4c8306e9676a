/*
 * Programs that check what the code relies on in Linux: a TAP in a network
 * namespace of its own, packet sockets, and results as TAP lines
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_KERNEL_H
#define TESTS_KERNEL_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define VNET_LEN 10
#define TAP_NAME "tap-k"

/* What may be missing in the headers of the machine that builds this. */
#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

/* A case's first broken expectation ends it. */
#define expect(what) \
    do { \
        if (!(what)) { \
            broken(#what, __LINE__); \
        } \
    } while (0)

/* Something that has nothing to do with the fact in question went wrong. */
#define need(what) \
    do { \
        if (!(what)) { \
            failed(#what, __LINE__); \
        } \
    } while (0)

_Noreturn void broken(const char *what, int line);
_Noreturn void failed(const char *what, int line);

/* Ends a case that can't be tried here. */
_Noreturn void skip(const char *why);

typedef struct Fact {
    const char *text;       /* what has to hold */
    void (*check)(void);
} Fact;

/**
 * check_facts() - Check facts, each in a process and network of its own
 *
 * Return: exit status
 */
int check_facts(const Fact *facts, unsigned n);

/* The TAP: queue, an end for the guest */
int tap_new(void);
void if_flags(int set, int clear);
void if_number(unsigned long request, int value);
int if_index(void);

/**
 * guest_send() - Write a packet into the TAP
 * @hdr: its vnet header, or NULL
 */
void guest_send(int tap, const struct virtio_net_hdr *hdr, const void *packet,
                size_t len);

/* A private EtherType, all other bytes @fill */
void make_packet(uint8_t *packet, size_t len, uint8_t fill);

/* A UDP packet that the kernel takes for one to be cut into fragments */
size_t make_ufo(struct virtio_net_hdr *hdr, uint8_t *packet);
size_t make_tso(struct virtio_net_hdr *hdr, uint8_t *packet);

/* Packet sockets: protocol in host byte order */
int packet_socket(int protocol);
void bind_to(int fd, int protocol);
void set_option(int fd, int name, int value);
bool readable(int fd, int ms);

/* A capture ring of TPACKET_V3, as net/packet-ring.c makes it */
#define BLOCK_SIZE (128 * 1024)
#define BLOCKS 4
#define LATENCY_MS 16

uint8_t *ring_new(int fd);
struct tpacket_hdr_v1 *ring_block(uint8_t *ring, unsigned n);
struct tpacket3_hdr *ring_packet(uint8_t *ring, unsigned block, unsigned n);
void ring_release(uint8_t *ring, unsigned n);
bool ring_wait(uint8_t *ring, unsigned n);      /* until it is handed over */
unsigned drops(int fd);

#endif /* TESTS_KERNEL_H */
