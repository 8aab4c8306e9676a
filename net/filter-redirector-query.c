/*
 * filter-redirector with netdev endpoints: QMP and HMP
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-commands-filter-redirector.h"
#include "qapi/qapi-types-common.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qemu/cutils.h"
#include "filter-redirector-int.h"

#define END_STATE(state) FILTER_REDIRECTOR_ENDPOINT_STATE_##state

/* Query */

static EndState chardev_state(CharFrontend *fe, bool held, bool room)
{
    return !qemu_chr_fe_backend_open(fe) ? END_STATE(DISCONNECTED) :
           held ? END_STATE(HELD) :
           room ? END_STATE(ACTIVE) : END_STATE(STALLED);
}

static EndState packet_state(int iface, bool held, bool room)
{
    return iface == -ENODEV ? END_STATE(GONE) :
           held ? END_STATE(HELD) :
           iface ? END_STATE(DOWN) :
           room ? END_STATE(ACTIVE) : END_STATE(STALLED);
}

static EndState input_state(Redirector *r, int iface)
{
    bool room = redirector_has_room(r, r->sink);
    bool held = redirector_waits_for_vm(r, r->sink);

    if (!r->nf->on) {
        return END_STATE(OFF);
    }
    switch (r->in_type) {
    case END_CHARDEV:
        return chardev_state(&r->chr_in, held, room);
    case END_PACKET:
        return packet_state(iface, held || !r->capturing ||
                            redirector_undecided(r), room);
    default:
        return !redirector_vm_runs() && !redirector_hands_over_now(r)
               ? END_STATE(HELD) :
               redirector_has_room(r, r->out_type)
               ? END_STATE(ACTIVE) : END_STATE(STALLED);
    }
}

static EndState output_state(Redirector *r, int iface)
{
    bool room = redirector_has_room(r, r->out_type);
    bool held = redirector_waits_for_vm(r, r->out_type);

    if (!r->nf->on) {
        return END_STATE(OFF);
    }
    return r->out_type == END_CHARDEV
           ? chardev_state(&r->chr_out, held, room)
           : packet_state(iface, held, room);
}

static FilterRedirectorEndpoint *query_end(EndType type, const char *name,
                                           const EndStats *stats)
{
    FilterRedirectorEndpoint *end = g_new0(FilterRedirectorEndpoint, 1);

    end->type = type;
    end->name = g_strdup(name);
    if (stats) {
        end->stats = g_memdup2(stats, sizeof(*stats));
    }
    return end;
}

static void query_interface(FilterRedirectorEndpoint *end,
                            const PacketEnd *pe, const char *ifname)
{
    end->ifname = g_strdup(ifname);
    end->has_ifindex = true;
    end->ifindex = pe->iface.ifindex;
    end->has_netns = pe->iface.netns != 0;
    end->netns = pe->iface.netns;
}

static FilterRedirectorEndpoint *query_input(Redirector *r)
{
    FilterRedirectorEndpoint *end;
    EndStats stats = r->in_stats;
    char ifname[sizeof_field(PacketInterface, name)];
    int state = -ENODEV;

    stats.queued = r->rx.packets;
    if (r->capture) {
        packet_capture_losses(r->capture, &stats.lost, &stats.errors);
        state = packet_capture_state(r->capture, ifname);
    } else {
        pstrcpy(ifname, sizeof(ifname), r->in.iface.name);
    }
    end = query_end(r->in_type, r->in_name, &stats);
    end->state = input_state(r, state);
    if (r->in_netdev) {
        query_interface(end, &r->in, ifname);
    }
    return end;
}

static FilterRedirectorEndpoint *query_output(Redirector *r)
{
    FilterRedirectorEndpoint *end;
    EndStats stats = r->out_stats;
    char ifname[sizeof_field(PacketInterface, name)];
    int state = r->out_netdev ? -ENODEV : 0;

    stats.queued = r->tx.packets + r->cut.packets + r->pending.packets;
    if (r->inject) {
        state = packet_inject_state(r->inject, ifname);
    } else {
        pstrcpy(ifname, sizeof(ifname), r->out.iface.name);
    }
    end = query_end(r->out_type, r->out_name, &stats);
    end->state = output_state(r, state);
    if (r->out_netdev) {
        query_interface(end, &r->out, ifname);
    }
    return end;
}

/* A redirector between chardevs and the chain has no counters. */
static FilterRedirectorEndpoint *query_plain(NetFilterState *nf,
                                             const char *property)
{
    g_autofree char *id = object_property_get_str(OBJECT(nf), property, NULL);
    Chardev *chr = id && *id ? qemu_chr_find(id) : NULL;
    FilterRedirectorEndpoint *end = query_end(chr ? END_CHARDEV : END_CHAIN,
                                              chr ? id : NULL, NULL);

    end->state = !nf->on ? END_STATE(OFF) :
                 chr && !chr->be_open ?
                 END_STATE(DISCONNECTED) :
                 END_STATE(ACTIVE);
    return end;
}

static FilterRedirectorInfo *query_one(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));
    FilterRedirectorInfo *info = g_new0(FilterRedirectorInfo, 1);

    info->id = g_strdup(object_get_canonical_path_component(OBJECT(nf)));
    info->netdev = g_strdup(nf->netdev_id);
    info->queue = nf->direction;
    info->enable_when_stopped = r->enable_when_stopped;
    if (r->nf) {
        info->input = query_input(r);
        info->output = query_output(r);
        info->chain_packets = r->chain_packets;
    } else {
        info->input = query_plain(nf, "indev");
        info->output = query_plain(nf, "outdev");
    }
    return info;
}

static int collect(Object *obj, void *opaque)
{
    if (object_dynamic_cast(obj, TYPE_FILTER_REDIRECTOR) &&
        NETFILTER(obj)->netdev) {
        g_ptr_array_add(opaque, obj);
    }
    return 0;
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(object_get_canonical_path_component(*(Object **)a),
                  object_get_canonical_path_component(*(Object **)b));
}

FilterRedirectorInfoList *qmp_query_filter_redirectors(Error **errp)
{
    g_autoptr(GPtrArray) filters = g_ptr_array_new();
    FilterRedirectorInfoList *list = NULL, **tail = &list;
    unsigned i;

    object_child_foreach(object_get_objects_root(), collect, filters);
    g_ptr_array_sort(filters, compare_ids);
    for (i = 0; i < filters->len; i++) {
        QAPI_LIST_APPEND(tail, query_one(NETFILTER(filters->pdata[i])));
    }
    return list;
}

static void print_end(Monitor *mon, const char *what,
                      const FilterRedirectorEndpoint *end)
{
    const EndStats *s = end->stats;

    monitor_printf(mon, "  %s: %s", what,
                   FilterRedirectorEndpointType_str(end->type));
    if (end->name) {
        monitor_printf(mon, " %s", end->name);
    }
    if (end->ifname) {
        monitor_printf(mon, " (%s, index %" PRIi64, end->ifname,
                       end->ifindex);
        if (end->has_netns) {
            monitor_printf(mon, ", netns %" PRIu64, end->netns);
        }
        monitor_printf(mon, ")");
    }
    monitor_printf(mon, ": %s", FilterRedirectorEndpointState_str(end->state));
    if (s) {
        monitor_printf(mon, ", packets=%" PRIu64 ",bytes=%" PRIu64
                       ",lost=%" PRIu64 ",errors=%" PRIu64
                       ",discarded=%" PRIu64 ",stalls=%" PRIu64
                       ",queued=%" PRIu64, s->packets, s->bytes, s->lost,
                       s->errors, s->discarded, s->stalls, s->queued);
    }
    monitor_printf(mon, "\n");
}

void hmp_info_filter_redirectors(Monitor *mon, const QDict *qdict)
{
    FilterRedirectorInfoList *list = qmp_query_filter_redirectors(NULL);
    FilterRedirectorInfoList *i;

    for (i = list; i; i = i->next) {
        const FilterRedirectorInfo *info = i->value;

        monitor_printf(mon, "%s: netdev=%s,queue=%s,enable_when_stopped=%s,"
                       "chain-packets=%" PRIu64 "\n", info->id, info->netdev,
                       NetFilterDirection_str(info->queue),
                       info->enable_when_stopped ? "on" : "off",
                       info->chain_packets);
        print_end(mon, "input", info->input);
        print_end(mon, "output", info->output);
    }
    qapi_free_FilterRedirectorInfoList(list);
}
