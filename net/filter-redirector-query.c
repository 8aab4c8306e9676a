/*
 * filter-redirector with netdev endpoints: QMP and HMP
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-commands-net.h"
#include "qapi/qapi-types-common.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qemu/cutils.h"
#include "filter-redirector-chain.h"
#include "filter-redirector-int.h"

/* Query */

static FilterRedirectorEndpoint *new_end(FilterRedirectorEndpointType type,
                                         const FilterRedirectorStats *stats)
{
    FilterRedirectorEndpoint *end = g_new0(FilterRedirectorEndpoint, 1);

    end->type = type;
    end->stats = stats ? g_memdup2(stats, sizeof(*stats))
                       : g_new0(FilterRedirectorStats, 1);
    return end;
}

static EndState input_state(RedirectorSource *s, RedirectorSink *sink)
{
    EndState state = s->ops->state(s), out = sink->ops->state(sink);

    if (!s->on) {
        return END_STATE(OFF);
    }
    if (state == END_STATE(GONE) || state == END_STATE(DISCONNECTED)) {
        return state;
    }
    if (s->gate != SWITCHOVER_OPEN || out == END_STATE(HELD)) {
        return END_STATE(HELD);
    }
    return state != END_STATE(ACTIVE) ? state :
           out != END_STATE(ACTIVE) ? END_STATE(STALLED) : END_STATE(ACTIVE);
}

static FilterRedirectorEndpoint *query_input(Redirector *r)
{
    RedirectorSource *s = r->input ?: r->chain;
    FilterRedirectorEndpoint *end;

    if (!s) {
        end = new_end(FILTER_REDIRECTOR_ENDPOINT_TYPE_NONE, NULL);
        end->state = r->owner.nf->on ? END_STATE(ACTIVE) : END_STATE(OFF);
        return end;
    }
    end = new_end(s->ops->type, &s->stats);
    end->state = input_state(s, r->pumps[0].sink);
    if (s->ops->describe) {
        s->ops->describe(s, end);
    }
    return end;
}

static FilterRedirectorEndpoint *query_output(Redirector *r)
{
    RedirectorSink *s = r->output ?: r->into_chain;
    FilterRedirectorEndpoint *end = new_end(s->ops->type, &s->stats);

    end->state = r->owner.nf->on ? s->ops->state(s) : END_STATE(OFF);
    if (s->ops->describe) {
        s->ops->describe(s, end);
    }
    if (r->chain) {
        end->stats->queued += redirector_chain_queued(r->chain);
    }
    if (r->lend) {
        end->stats->queued += redirector_lend_queued(r->lend);
    }
    return end;
}

static FilterRedirectorInfo *query_one(NetFilterState *nf)
{
    Redirector *r = filter_redirector_get(OBJECT(nf));
    FilterRedirectorInfo *info = g_new0(FilterRedirectorInfo, 1);

    redirector_look(r);
    info->id = g_strdup(r->owner.id);
    info->netdev = g_strdup(nf->netdev->name);
    info->queue = nf->direction;
    info->enable_when_stopped = r->enable_when_stopped;
    info->enable_when_running = r->enable_when_running;
    info->phase = r->phase;
    info->input = query_input(r);
    info->output = query_output(r);
    info->chain_packets = r->input && r->chain ? r->chain->stats.packets : 0;
    return info;
}

static int collect(Object *obj, void *opaque)
{
    if (object_dynamic_cast(obj, TYPE_FILTER_REDIRECTOR) &&
        filter_redirector_get(obj)->owner.nf) {
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
    const FilterRedirectorStats *s = end->stats;

    monitor_printf(mon, "  %s: %s", what,
                   FilterRedirectorEndpointType_str(end->type));
    if (end->name) {
        monitor_printf(mon, " %s", end->name);
    }
#ifdef CONFIG_LINUX
    if (end->ifname) {
        monitor_printf(mon, " (%s, index %" PRIi64, end->ifname,
                       end->ifindex);
        if (end->has_netns) {
            monitor_printf(mon, ", netns %" PRIu64, end->netns);
        }
        monitor_printf(mon, ")");
    }
#endif
    monitor_printf(mon, ": %s", FilterRedirectorEndpointState_str(end->state));
    monitor_printf(mon, ", packets=%" PRIu64 ",bytes=%" PRIu64
                   ",lost=%" PRIu64 ",errors=%" PRIu64 ",discarded=%" PRIu64
                   ",stalls=%" PRIu64 ",queued=%" PRIu64 "\n", s->packets,
                   s->bytes, s->lost, s->errors, s->discarded, s->stalls,
                   s->queued);
}

void hmp_info_filter_redirectors(Monitor *mon, const QDict *qdict)
{
    FilterRedirectorInfoList *list = qmp_query_filter_redirectors(NULL);
    FilterRedirectorInfoList *i;

    for (i = list; i; i = i->next) {
        const FilterRedirectorInfo *info = i->value;

        monitor_printf(mon, "%s: netdev=%s,queue=%s,enable_when_stopped=%s,"
                       "enable_when_running=%s,phase=%s,"
                       "chain-packets=%" PRIu64 "\n", info->id, info->netdev,
                       NetFilterDirection_str(info->queue),
                       info->enable_when_stopped ? "on" : "off",
                       info->enable_when_running ? "on" : "off",
                       FilterRedirectorPhase_str(info->phase),
                       info->chain_packets);
        print_end(mon, "input", info->input);
        print_end(mon, "output", info->output);
    }
    qapi_free_FilterRedirectorInfoList(list);
}
