/*
 * Packet capture from a TAP's interface
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_NET_PACKET_CAPTURE_H
#define QEMU_NET_PACKET_CAPTURE_H

#include "qemu/units.h"
#include "net/packet-socket.h"

/* Bounds of a capture ring, bytes. */
#define PACKET_RING_SIZE_MIN     (512 * KiB)
#define PACKET_RING_SIZE_MAX     (1 * GiB)
#define PACKET_RING_SIZE_DEFAULT (16 * MiB)

/*
 * A captured packet waits at most about this long to be seen.  A ring that
 * nobody reads lasts at least eight times as long for each MiB; see
 * packet_capture_keep() for what lasts as long as there is room.
 */
#define PACKET_CAPTURE_LATENCY_MS 16

/* Says which packets are captured, and how much of each. */
typedef struct PacketFilter PacketFilter;

/**
 * packet_filter_parse() - Read a classic BPF program
 * @text: the number of instructions, and each as four numbers (code, jt, jf,
 *        k), separated by commas or ends of lines: what `tcpdump -ddd` prints
 * @errp: set if it is none; what only the kernel finds out is told by
 *        packet_capture_open()
 *
 * It runs in the kernel, for packets of the captured directions: their Ethernet
 * headers first, the outermost VLAN tag beside them.  It returns how many bytes
 * of a packet are captured, 0 for none.
 *
 * Return: the filter, to be freed with g_free(); or NULL
 */
PacketFilter *packet_filter_parse(const char *text, Error **errp);

typedef struct PacketCapture PacketCapture;

typedef struct PacketCaptureOptions {
    NetFilterDirection dir;         /* directions to capture */
    /*
     * PACKET_RING_SIZE_MIN to PACKET_RING_SIZE_MAX bytes, rounded up to whole
     * blocks of the ring
     */
    uint64_t ring_size;
    uint32_t snaplen;               /* bytes of a packet at most; 0: all */
    const PacketFilter *filter;     /* or NULL; must outlive the capture */
    /*
     * If not NULL, a ring that takes more than some milliseconds to be made is
     * made in a thread.  Until this function is called, with NULL if it is
     * ready and with an error to be freed if there is none, nothing is
     * captured.  For a smaller ring it is never called.
     */
    void (*ready)(void *opaque, Error *err);
    void *opaque;
} PacketCaptureOptions;

/**
 * packet_capture_open() - Begin a capture; it is paused
 * @fd: packet socket, the capture's from now on and closed with it
 * @iface: its interface
 * @options: what to capture
 * @errp: set if memory is short, the interface is gone, the kernel refuses the
 *        filter, or the socket's owner has set it up in a way that does not go
 *        with a capture
 *
 * Return: the capture; or NULL, and @fd has been closed, but if it was
 *         inherited
 */
PacketCapture *packet_capture_open(int fd, const PacketInterface *iface,
                                   const PacketCaptureOptions *options,
                                   Error **errp);

/**
 * packet_capture_new() - packet_capture_open() with the least options
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
 * twice gives the same packets.  Packets that the ring had to truncate without
 * being told to, or that are longer than PACKET_LEN_MAX, are counted as errors
 * and left out.  One that was cut as wanted has an empty vnet header.
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
 * packet_capture_keep() - Make room in the ring without reading
 * @c: capture
 *
 * For a capture whose packets have to wait: to be called at least each
 * packet_capture_keep_ms().  Without that, the ring is full after a time,
 * however few packets come.  If more than half of it is used, packets are
 * moved to memory, of which they get as much as the ring has.  What has been
 * read and not released must be read again.
 *
 * Return: false if there is no more memory to be had
 */
bool packet_capture_keep(PacketCapture *c);

/**
 * packet_capture_keep_ms() - How often packet_capture_keep() is to be called
 * @c: capture
 *
 * Return: milliseconds
 */
int packet_capture_keep_ms(PacketCapture *c);

/**
 * packet_capture_discard() - Throw away all packets captured before this call
 * @c: capture
 *
 * None of them is read any more.  packet_capture_discarded() counts them; those
 * of the last PACKET_CAPTURE_LATENCY_MS only after that time.
 */
void packet_capture_discard(PacketCapture *c);

/**
 * packet_capture_discarded() - Count the packets that were thrown away
 * @c: capture
 */
uint64_t packet_capture_discarded(PacketCapture *c);

/**
 * packet_capture_losses() - Count what did not come through
 * @c: capture
 * @lost: result: packets the kernel dropped: because the ring was full, or
 *        because it can't describe them
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
 * Return: 0, -ENETDOWN if the interface is down or has no carrier (capturing
 *         goes on by itself once it is up), -ENODEV if it was removed,
 *         -EINPROGRESS while the ring is made, or -ENOMEM if there is none
 */
int packet_capture_state(PacketCapture *c, char *name);

#endif /* QEMU_NET_PACKET_CAPTURE_H */
