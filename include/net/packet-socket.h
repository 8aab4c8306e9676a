/*
 * Packet sockets: capture from and injection into a TAP's interface
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_NET_PACKET_SOCKET_H
#define QEMU_NET_PACKET_SOCKET_H

#include "qemu/units.h"
#include "net/packet-frame.h"

/*
 * With vhost-net the kernel moves packets between a TAP device and the guest,
 * past QEMU.  A packet socket (packet(7), Linux only) bound to the TAP's
 * interface still reaches them.  This module owns these sockets:
 *
 *  - packet_socket_open() and packet_socket_take() give a socket in the TAP's
 *    network namespace, and PacketInterface says which interface that is.
 *  - PacketCapture reads copies of the packets that cross it, out of a
 *    memory-mapped ring (TPACKET_V3).
 *  - PacketInject sends packets towards the guest, in batches.
 *
 * It knows nothing of netfilters.  Nothing here blocks, and nothing allocates
 * once an object exists.  All functions belong to the main loop's thread.
 * The user polls the file descriptors; packet(7) sockets become readable
 * when a block of the ring is full or PACKET_CAPTURE_LATENCY_MS have passed.
 */

/* The interface of a TAP. */
typedef struct PacketInterface {
    char name[16];      /* at set-up time; renaming does no harm afterwards */
    int ifindex;
    uint64_t netns;     /* inode number of its network namespace, 0: unknown */
    bool macvtap;       /* directions are turned round: see below */
} PacketInterface;

/* Bounds of a capture ring, bytes. */
#define PACKET_RING_SIZE_MIN     (512 * KiB)
#define PACKET_RING_SIZE_MAX     (1 * GiB)
#define PACKET_RING_SIZE_DEFAULT (16 * MiB)

/*
 * A captured packet waits at most about this long to be seen.  A ring lasts at
 * least eight times as long for each MiB while nobody reads it: by default two
 * seconds, several times what the last phase of a migration may take.
 */
#define PACKET_CAPTURE_LATENCY_MS 16

/**
 * packet_socket_open() - Open a packet socket for the interface of a TAP
 * @nc: net client of a TAP, any of its queues
 * @iface: result: the TAP's interface
 * @errp: set if the TAP has no interface any more, if the caller lacks
 *        CAP_NET_RAW, or may not enter the TAP's network namespace; set, too,
 *        if where the kernel does not tell the TAP's namespace, the caller's
 *        own has no interface that looks the same
 *
 * The socket is opened in the network namespace that the TAP lives in; another
 * one than the caller's takes CAP_SYS_ADMIN there.  It receives nothing yet.
 *
 * Return: file descriptor, to be given to packet_capture_new() or
 *         packet_inject_new(); or -1
 */
int packet_socket_open(NetClientState *nc, PacketInterface *iface,
                       Error **errp);

/**
 * packet_socket_take() - Use a packet socket that somebody else has opened
 * @nc: net client of a TAP, any of its queues
 * @fd: what should be a packet socket (AF_PACKET, SOCK_RAW) that is bound to
 *      the TAP's interface, whatever its protocol
 * @iface: result: the TAP's interface
 * @errp: set if it is anything else; @fd is as before then
 *
 * Needs no privilege.
 *
 * Return: true if @fd can be given to packet_capture_new() or
 *         packet_inject_new()
 */
bool packet_socket_take(NetClientState *nc, int fd, PacketInterface *iface,
                        Error **errp);

/**
 * packet_interface_backlogged() - Is a packet waiting to be read from a TAP?
 * @nc: net client of a TAP, any of its queues
 *
 * Return: true if at least one of the TAP's queues is not empty
 */
bool packet_interface_backlogged(NetClientState *nc);

typedef struct PacketCapture PacketCapture;

/**
 * packet_capture_new() - Begin a capture; it is paused
 * @fd: packet socket, the capture's from now on and closed with it
 * @iface: its interface
 * @dir: directions to capture
 * @ring_size: bytes, PACKET_RING_SIZE_MIN to PACKET_RING_SIZE_MAX, rounded up
 *             to whole blocks of the ring
 * @errp: set if memory is short, the interface is gone, or the socket's owner
 *        has set it up in a way that does not go with a capture
 *
 * Return: the capture; or NULL, and @fd has been closed
 */
PacketCapture *packet_capture_new(int fd, const PacketInterface *iface,
                                  NetFilterDirection dir, uint64_t ring_size,
                                  Error **errp);

/**
 * packet_capture_free() - Close a capture
 * @c: capture, or NULL; the caller has removed the fd's handlers
 */
void packet_capture_free(PacketCapture *c);

/**
 * packet_capture_fd() - The descriptor to poll for reading
 * @c: capture
 */
int packet_capture_fd(PacketCapture *c);

/**
 * packet_capture_enable() - Start or pause capturing
 * @c: capture
 * @on: what passes while it is paused is not captured at all; what had been
 *      captured before can still be read
 *
 * Return: 0, or -errno: then the capture goes on as it was
 */
int packet_capture_enable(PacketCapture *c, bool on);

/**
 * packet_capture_read() - Look at the next captured packets
 * @c: capture
 * @frames: result; valid until packet_capture_release()
 * @max: room in @frames
 *
 * Starts at the first packet that has not been released, so that reading
 * twice gives the same packets.  Packets that the ring had to truncate or
 * that are longer than PACKET_LEN_MAX are counted as errors and left out.
 *
 * Return: number of frames; 0 if there are none for now
 */
unsigned packet_capture_read(PacketCapture *c, PacketFrame *frames,
                             unsigned max);

/**
 * packet_capture_release() - Give packets back to the kernel
 * @c: capture
 * @n: number of frames, out of those of the last packet_capture_read()
 */
void packet_capture_release(PacketCapture *c, unsigned n);

/**
 * packet_capture_losses() - Count what did not come through
 * @c: capture
 * @lost: result: packets the kernel dropped because the ring was full
 * @errors: result: packets left out by packet_capture_read()
 *
 * Both count from the capture's start.
 */
void packet_capture_losses(PacketCapture *c, uint64_t *lost,
                           uint64_t *errors);

/**
 * packet_capture_state() - See to the interface
 * @c: capture
 * @name: result: the interface's present name, or the one it had at set-up;
 *        16 bytes, may be NULL
 *
 * Also clears a pending error of the socket, which would keep waking the
 * poller.
 *
 * Return: 0, -ENETDOWN if the interface is down (capturing goes on by itself
 *         once it is up), or -ENODEV if it was removed
 */
int packet_capture_state(PacketCapture *c, char *name);

typedef struct PacketInject PacketInject;

/* Most frames in one call of packet_inject_send(). */
#define PACKET_INJECT_BATCH 64

/**
 * packet_inject_new() - Begin injecting
 * @fd: packet socket, the injector's from now on and closed with it
 * @iface: its interface; not a macvtap, where sending goes to the network
 *         instead of the guest
 * @errp: set if the interface is gone, or the socket's owner has set it up in
 *        a way that does not go with injecting
 *
 * Return: the injector; or NULL, and @fd has been closed
 */
PacketInject *packet_inject_new(int fd, const PacketInterface *iface,
                                Error **errp);

/**
 * packet_inject_free() - Close an injector
 * @inj: injector, or NULL
 */
void packet_inject_free(PacketInject *inj);

/**
 * packet_inject_state() - See to the interface
 * @inj: injector
 * @name: as for packet_capture_state()
 *
 * Return: as packet_capture_state()
 */
int packet_inject_state(PacketInject *inj, char *name);

/**
 * packet_inject_send() - Send packets, in order, as far as there is room
 * @inj: injector
 * @frames: packets, each with a vnet header of any known length, or bare
 * @n: number of @frames, at most PACKET_INJECT_BATCH
 * @err: result: why the first unsent frame was not sent; 0 if all were:
 *       -ENOBUFS  the TAP's queue is full, or the packet is a super-packet
 *                 and the TAP's offloads are off; the kernel does not tell
 *                 which (seen on Linux 6.1 and 6.18)
 *       -ENETDOWN the interface is down
 *       -ENODEV   the interface was removed
 *       other     the kernel refuses this packet (-EINVAL: bad vnet header,
 *                 -EMSGSIZE: longer than the MTU)
 *
 * Return: number of frames sent; less than @n if and only if @err is not 0
 */
unsigned packet_inject_send(PacketInject *inj, const PacketFrame *frames,
                            unsigned n, int *err);

#endif /* QEMU_NET_PACKET_SOCKET_H */
