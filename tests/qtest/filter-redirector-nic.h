/*
 * Helpers of the filter-redirector qtests: virtio-net devices, and packets
 * with offloads
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FILTER_REDIRECTOR_NIC_H
#define FILTER_REDIRECTOR_NIC_H

#include "libqos/malloc-pc.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_net.h"
#include "filter-redirector-helpers.h"

/*
 * A PC with virtio-net devices whose driver is the test.
 *
 * With pc_nic_enable() it gives a device no buffers, so its guest takes no
 * packets: QEMU reads one from the TAP, and the rest stays there for the test
 * to read.  With pc_nic_drive() the guest takes what comes, and the test reads
 * it from the guest's memory.
 */
#define NICS_MAX 2
#define NIC_QUEUES_MAX 4
#define NIC_BUFFER_LEN 2048

typedef struct NicQueue {
    QVirtQueue *vq;
    uint64_t buffers;       /* guest address: one behind the other */
} NicQueue;

typedef struct Pc {
    Rig *r;
    QGuestAllocator alloc;
    QPCIBus *bus;
    QVirtioPCIDevice *nics[NICS_MAX];
    NicQueue rx[NICS_MAX][NIC_QUEUES_MAX];
    unsigned nnics;
} Pc;

/**
 * pc_add_nic() - Put a virtio-net device on a netdev, before the start
 * @props: more properties of the device, or ""
 */
void pc_add_nic(Pc *pc, Rig *r, const char *netdev, const char *props);
void pc_start(Pc *pc);

/**
 * pc_make_firmware() - Make a file for -bios
 * Return: its path, to be unlinked once QEMU runs, and freed
 *
 * No firmware runs, but a PC wants a file, and QEMU's own is not always built.
 */
char *pc_make_firmware(void);

/**
 * pc_nic_offers() - Ask what a device can do
 * @bit: number of a feature
 */
bool pc_nic_offers(Pc *pc, unsigned nic, unsigned bit);

/**
 * pc_nic_enable() - Choose features, and let the device work
 * @nic: number of the device, in the order of adding them
 * @features: bits 0 to 63
 * @more: bits 64 to 95
 */
void pc_nic_enable(Pc *pc, unsigned nic, uint64_t features, uint32_t more);

/**
 * pc_nic_set_up() - Choose features, let the device work, without buffers yet
 */
void pc_nic_set_up(Pc *pc, unsigned nic, uint64_t features, unsigned queues);
void pc_nic_give_buffers(Pc *pc, unsigned nic);

/**
 * pc_nic_drive() - Choose features, let the device work, give it buffers
 * @queues: number of receive queues; more than one needs VIRTIO_NET_F_MQ and
 *          VIRTIO_NET_F_CTRL_VQ
 *
 * VIRTIO_F_VERSION_1 is chosen in any case.
 */
void pc_nic_drive(Pc *pc, unsigned nic, uint64_t features, unsigned queues);

/**
 * pc_nic_redrive() - Do it again after the machine has been reset
 */
void pc_nic_redrive(Pc *pc, unsigned nic, uint64_t features, unsigned queues);

/**
 * pc_nic_poll() - Take a packet out of a receive queue, if there is one
 * @packet: PACKET_MAX bytes; without the vnet header
 * Return: its size, 0: there is none
 */
size_t pc_nic_poll(Pc *pc, unsigned nic, unsigned queue, uint8_t *packet);

/**
 * pc_nic_take() - Wait for the next packet of the first receive queue
 * @packet: room for PACKET_MAX bytes
 * Return: its length
 */
size_t pc_nic_take(Pc *pc, unsigned nic, uint8_t *packet);
void pc_nic_expect(Pc *pc, unsigned nic, size_t size, uint32_t first,
                   unsigned n);
void pc_nic_expect_silence(Pc *pc, unsigned nic);

#define SLEEP_S3 1
#define SLEEP_S5 0

/**
 * pc_sleep() - Do what a guest does to sleep, or to power off
 * @type: as the power management's register names it
 */
void pc_sleep(Pc *pc, unsigned type);

/* Ends the rig, too. */
void pc_end(Pc *pc);

/* The kernel's vnet header on packet sockets: native byte order. */
#define VNET_LEN_KERNEL 10

/* A packet for which something is left to do. */
typedef struct Offload {
    const char *name;
    uint8_t gso_type;       /* VIRTIO_NET_HDR_GSO_ */
    bool ip6;
    bool tcp;
    bool ip6_header;        /* an extension header in front */
    uint16_t tags[2];       /* TPIDs */
    uint16_t gso_size;
    size_t payload;         /* bytes behind the TCP or UDP header */
} Offload;

/**
 * offload_fill() - Make the packet
 * @hdr: its vnet header, VNET_LEN_KERNEL bytes
 * Return: its length, at most PACKET_MAX
 */
size_t offload_fill(const Offload *o, uint8_t *hdr, uint8_t *packet);

/**
 * offload_complete() - Fill a packet's checksum in, if its header asks for it
 */
void offload_complete(const uint8_t *hdr, uint8_t *packet, size_t size);

/* Let a packet socket of the test take vnet headers, see send_offload(). */
void set_vnet_hdr(int fd);
void send_offload(int fd, const uint8_t *hdr, const uint8_t *packet,
                  size_t size);

#endif /* FILTER_REDIRECTOR_NIC_H */
