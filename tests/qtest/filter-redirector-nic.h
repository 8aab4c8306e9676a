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
 * A PC with virtio-net devices whose driver is the test.  It gives a device
 * no buffers, so its guest takes no packets: QEMU reads one from the TAP, and
 * the rest stays there for the test to read.
 */
#define NICS_MAX 2

typedef struct Pc {
    Rig *r;
    QGuestAllocator alloc;
    QPCIBus *bus;
    QVirtioPCIDevice *nics[NICS_MAX];
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
