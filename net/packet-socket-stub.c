/*
 * Packet sockets on hosts that have none
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "net/packet-socket.h"

int packet_socket_open(NetClientState *nc, PacketInterface *iface,
                       Error **errp)
{
    error_setg(errp, "packet sockets ('in_netdev', 'out_netdev') need a Linux "
               "host");
    return -1;
}

bool packet_socket_take(NetClientState *nc, int fd, PacketInterface *iface,
                        Error **errp)
{
    return packet_socket_open(nc, iface, errp) >= 0;
}

int packet_socket_get(NetClientState *nc, const char *name,
                      PacketInterface *iface, Error **errp)
{
    return packet_socket_open(nc, iface, errp);
}

PacketFilter *packet_filter_parse(const char *text, Error **errp)
{
    error_setg(errp, "filter: needs a Linux host");
    return NULL;
}

/* Nothing below is reached: there is no socket. */

bool packet_interface_backlogged(NetClientState *nc)
{
    g_assert_not_reached();
}

PacketCapture *packet_capture_open(int fd, const PacketInterface *iface,
                                   const PacketCaptureOptions *options,
                                   Error **errp)
{
    g_assert_not_reached();
}

PacketCapture *packet_capture_new(int fd, const PacketInterface *iface,
                                  NetFilterDirection dir, uint64_t ring_size,
                                  Error **errp)
{
    g_assert_not_reached();
}

void packet_capture_free(PacketCapture *c)
{
    g_assert(!c);
}

int packet_capture_fd(PacketCapture *c)
{
    g_assert_not_reached();
}

int packet_capture_enable(PacketCapture *c, bool on)
{
    g_assert_not_reached();
}

unsigned packet_capture_read(PacketCapture *c, PacketFrame *frames,
                             unsigned max)
{
    g_assert_not_reached();
}

void packet_capture_release(PacketCapture *c, unsigned n)
{
    g_assert_not_reached();
}

bool packet_capture_keep(PacketCapture *c)
{
    g_assert_not_reached();
}

int packet_capture_keep_ms(PacketCapture *c)
{
    g_assert_not_reached();
}

void packet_capture_discard(PacketCapture *c)
{
    g_assert_not_reached();
}

uint64_t packet_capture_discarded(PacketCapture *c)
{
    g_assert_not_reached();
}

void packet_capture_losses(PacketCapture *c, uint64_t *lost,
                           uint64_t *errors)
{
    g_assert_not_reached();
}

int packet_capture_state(PacketCapture *c, char *name)
{
    g_assert_not_reached();
}

PacketInject *packet_inject_new(int fd, const PacketInterface *iface,
                                Error **errp)
{
    g_assert_not_reached();
}

void packet_inject_free(PacketInject *inj)
{
    g_assert(!inj);
}

int packet_inject_state(PacketInject *inj, char *name)
{
    g_assert_not_reached();
}

void packet_inject_set_netdev(PacketInject *inj, NetClientState *nc)
{
    g_assert_not_reached();
}

unsigned packet_inject_send(PacketInject *inj, const PacketFrame *frames,
                            unsigned n, int *err)
{
    g_assert_not_reached();
}
