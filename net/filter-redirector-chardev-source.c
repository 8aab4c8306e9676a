/*
 * filter-redirector: packets from a peer at a chardev
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "chardev/char-fe.h"
#include "chardev/char-socket.h"
#include "filter-redirector-chardev.h"
#include "trace.h"

/* Bytes of the queue: takes some of the longest packets, or many short. */
#define QUEUE_SIZE (512 * KiB)

typedef struct ChardevSource {
    RedirectorSource parent;
    CharFrontend chr;
    PacketStream rx;
    bool fresh;                 /* the peer's first packet has not passed */
    bool damaged;               /* waits for the connection to be closed */
    bool refused;               /* the chardev was told not to read */
    bool mute;                  /* the peer did not take all that was said */
} ChardevSource;

#define CHARDEV_SOURCE(s) container_of(s, ChardevSource, parent)

static NetClientState *source_netdev(ChardevSource *s)
{
    return s->parent.owner->nf->netdev;
}

static bool source_reads(ChardevSource *s)
{
    return s->parent.on && s->parent.gate == SWITCHOVER_OPEN && !s->damaged &&
           packet_stream_room(&s->rx);
}

static int source_can_read(void *opaque)
{
    ChardevSource *s = opaque;

    s->refused = !source_reads(s);
    return s->refused ? 0 : packet_stream_room(&s->rx);
}

/*
 * A peer with vnet_hdr_support set otherwise is noticed by its first packet.
 * @bad: nothing that makes sense follows what the stream has
 * Return: false if it is one
 */
static bool source_match(ChardevSource *s, bool bad)
{
    PacketStreamMatch match;

    if (!s->fresh || !s->rx.packets) {
        return true;
    }
    match = packet_stream_match(&s->rx, source_netdev(s)->vnet_hdr_len);
    s->fresh = match == PACKET_STREAM_UNCLEAR && !bad;
    if (match == PACKET_STREAM_MATCH || s->fresh) {
        return true;
    }
    packet_stream_trim(&s->rx);
    packet_stream_drop_all(&s->rx);
    warn_report("filter-redirector '%s': packets from '%s' do not look like "
                "those of a peer with vnet_hdr_support=%s",
                s->parent.owner->id, s->chr.chr->label,
                s->rx.vnet_hdr ? "on" : "off");
    return false;
}

static void source_receive(void *opaque, const uint8_t *buf, int size)
{
    ChardevSource *s = opaque;
    bool bad = packet_stream_add(&s->rx, buf, size) < 0;

    if (!source_match(s, bad) || bad) {
        s->parent.stats.errors++;
        s->damaged = true;
        trace_redirector_damaged(s->parent.owner->id);
    }
    /* Later: several small reads make one batch. */
    s->parent.owner->run_later(s->parent.owner);
}

static void source_event(void *opaque, QEMUChrEvent event)
{
    ChardevSource *s = opaque;

    if (event == CHR_EVENT_CLOSED && packet_stream_trim(&s->rx)) {
        s->parent.stats.errors++;
    }
    if (event == CHR_EVENT_CLOSED || event == CHR_EVENT_OPENED) {
        s->damaged = false;
        s->mute = false;
        /* If a packet waits for what follows, nothing does. */
        s->fresh = !s->rx.packets;
        redirector_chardev_no_delay(&s->chr);
        s->parent.owner->peer(s->parent.owner, event == CHR_EVENT_OPENED);
        s->parent.owner->run_later(s->parent.owner);
    }
}

static void source_update(RedirectorSource *parent)
{
    ChardevSource *s = CHARDEV_SOURCE(parent);

    if (s->damaged) {
        qemu_chr_fe_disconnect(&s->chr);
    } else if (s->refused && source_reads(s)) {
        s->refused = false;
        qemu_chr_fe_accept_input(&s->chr);
    }
}

static unsigned source_read(RedirectorSource *parent, PacketFrame *frames,
                            unsigned max)
{
    ChardevSource *s = CHARDEV_SOURCE(parent);
    NetClientState *nc = source_netdev(s);
    unsigned i, n;

    if (!parent->on || parent->gate != SWITCHOVER_OPEN ||
        (s->fresh && s->rx.packets)) {
        return 0;
    }
    n = packet_stream_peek(&s->rx, nc->vnet_hdr_len, frames, max);
    for (i = 0; i < n; i++) {
        redirector_hdr_read(nc, &frames[i]);
        frames[i].dir = NET_FILTER_DIRECTION_TX;
    }
    return n;
}

static void source_release(RedirectorSource *parent,
                           const PacketFrame *frames, unsigned n)
{
    ChardevSource *s = CHARDEV_SOURCE(parent);

    redirector_source_count(parent, frames, n);
    packet_stream_drop(&s->rx, n);
    source_update(parent);
}

static EndState source_state(RedirectorSource *parent)
{
    ChardevSource *s = CHARDEV_SOURCE(parent);

    return s->damaged || !qemu_chr_fe_backend_open(&s->chr)
           ? END_STATE(DISCONNECTED) : END_STATE(ACTIVE);
}

static void source_describe(RedirectorSource *parent,
                            FilterRedirectorEndpoint *end)
{
    ChardevSource *s = CHARDEV_SOURCE(parent);

    end->name = g_strdup(s->chr.chr ? s->chr.chr->label : NULL);
    end->stats->queued = s->rx.packets;
}

unsigned redirector_chardev_queued(RedirectorSource *parent)
{
    return CHARDEV_SOURCE(parent)->rx.packets;
}

void redirector_chardev_forget(RedirectorSource *parent, const PacketFrame *f)
{
    parent->stats.packets--;
    parent->stats.bytes -= f->len;
}

/* Nobody else gets what is written where packets are read. */
static bool can_speak(ChardevSource *s)
{
    return !s->mute && source_state(&s->parent) == END_STATE(ACTIVE) &&
           object_dynamic_cast(OBJECT(s->chr.chr), TYPE_CHARDEV_SOCKET);
}

void redirector_chardev_say(RedirectorSource *parent, HandoverMark mark)
{
    ChardevSource *s = CHARDEV_SOURCE(parent);
    PacketStream stream;
    const uint8_t *data;
    size_t len;

    if (can_speak(s)) {
        packet_stream_init(&stream, 4 * PACKET_STREAM_FRAME_MAX,
                           s->rx.vnet_hdr);
        redirector_chardev_put_mark(&stream, source_netdev(s), mark);
        data = packet_stream_data(&stream, &len);
        s->mute = qemu_chr_fe_write(&s->chr, data, len) != (int)len;
        packet_stream_destroy(&stream);
        trace_redirector_say(parent->owner->id, mark, !s->mute);
    }
}

static void source_free(RedirectorSource *parent)
{
    ChardevSource *s = CHARDEV_SOURCE(parent);

    qemu_chr_fe_deinit(&s->chr, false);
    packet_stream_destroy(&s->rx);
    g_free(s);
}

static const RedirectorSourceOps chardev_source_ops = {
    .type = FILTER_REDIRECTOR_ENDPOINT_TYPE_CHARDEV,
    .read = source_read,
    .release = source_release,
    .update = source_update,
    .state = source_state,
    .describe = source_describe,
    .free = source_free,
};

RedirectorSource *redirector_chardev_source(RedirectorOwner *owner,
                                            Chardev *chr, bool vnet_hdr,
                                            Error **errp)
{
    ChardevSource *s = g_new0(ChardevSource, 1);

    if (!qemu_chr_fe_init(&s->chr, chr, errp)) {
        g_free(s);
        return NULL;
    }
    s->parent.ops = &chardev_source_ops;
    s->parent.owner = owner;
    s->parent.role = SWITCHOVER_FEED;
    s->fresh = true;
    packet_stream_init(&s->rx, QUEUE_SIZE, vnet_hdr);
    qemu_chr_fe_set_handlers(&s->chr, source_can_read, source_receive,
                             source_event, NULL, s, NULL, true);
    return &s->parent;
}
