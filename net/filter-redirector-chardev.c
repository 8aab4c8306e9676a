/*
 * filter-redirector: chardevs
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "chardev/char-socket.h"
#include "filter-redirector-chardev.h"

/*
 * Those that carry all bytes, as they are, in their order.  Others lose some
 * (udp, ringbuf), mix those of several peers (hub), or take some for commands
 * (mux, console).
 */
static const char *const stream_types[] = {
    TYPE_CHARDEV_SOCKET, TYPE_CHARDEV_PIPE, TYPE_CHARDEV_FILE,
    TYPE_CHARDEV_PTY, TYPE_CHARDEV_STDIO, TYPE_CHARDEV_SERIAL,
    TYPE_CHARDEV_NULL,
};

static bool is_stream(Chardev *chr)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(stream_types); i++) {
        if (object_dynamic_cast(OBJECT(chr), stream_types[i])) {
            return true;
        }
    }
    return false;
}

/* In telnet's protocol a byte of 0xff is the beginning of a command. */
static bool is_telnet(Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)
        object_dynamic_cast(OBJECT(chr), TYPE_CHARDEV_SOCKET);

    return s && (s->is_telnet || s->is_tn3270);
}

/* The type's name, as -chardev has it. */
static const char *chardev_type(Chardev *chr)
{
    const char *type = object_get_typename(OBJECT(chr));

    return g_str_has_prefix(type, "chardev-") ? type + strlen("chardev-")
                                              : type;
}

Chardev *redirector_find_chardev(const char *property, const char *id,
                                 Error **errp)
{
    Chardev *chr = qemu_chr_find(id);

    if (!chr) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "%s '%s': there is no "
                  "chardev of this id", property, id);
    } else if (!is_stream(chr)) {
        error_setg(errp, "%s '%s' is a chardev of type '%s', which does not "
                   "carry a stream of packets: use a socket, pipe, file, pty, "
                   "stdio, serial or null", property, id, chardev_type(chr));
    } else if (is_telnet(chr)) {
        error_setg(errp, "%s '%s' speaks telnet, which does not carry all "
                   "bytes as they are: leave 'telnet' and 'tn3270' off",
                   property, id);
    } else {
        return chr;
    }
    return NULL;
}

void redirector_chardev_no_delay(CharFrontend *fe)
{
    SocketChardev *s = (SocketChardev *)
        object_dynamic_cast(OBJECT(fe->chr), TYPE_CHARDEV_SOCKET);

    if (s && s->ioc) {
        qio_channel_set_delay(s->ioc, false);
    }
}

void redirector_chardev_put_mark(PacketStream *stream,
                                 const NetClientState *nc, HandoverMark mark)
{
    uint8_t hdr[VNET_HDR_LEN_MAX] = {};
    uint8_t frame[HANDOVER_MARK_LEN];
    struct iovec iov = { frame, sizeof(frame) };

    handover_mark_fill(frame, mark);
    packet_stream_put(stream, hdr, nc->vnet_hdr_len, &iov, 1);
}
