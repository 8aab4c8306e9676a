/*
 * filter-redirector: the pump
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "filter-redirector-pump.h"
#include "trace.h"

/*
 * Packets, and bytes, moved before the main loop gets its turn.  To copy them
 * for a chardev takes a tenth of the time that it takes to send them: a whole
 * block of the ring can be one write.
 */
#define BUDGET_COPY (16 * REDIRECTOR_BATCH)
#define BUDGET_SEND (2 * REDIRECTOR_BATCH)
#define BUDGET_BYTES (1 * MiB)

static unsigned budget_of(RedirectorPump *p)
{
    return p->sink->role == SWITCHOVER_SEND ? BUDGET_COPY : BUDGET_SEND;
}

static void flush(RedirectorSink *s, unsigned budget)
{
    if (s->ops->flush) {
        s->ops->flush(s, budget);
    }
}

static void set_blocked(RedirectorSource *s, bool blocked)
{
    s->stats.stalls += blocked && !s->blocked;
    if (s->blocked != blocked) {
        s->blocked = blocked;
        redirector_source_update(s);
    }
}

bool redirector_pump_run(RedirectorPump *p)
{
    PacketFrame frames[REDIRECTOR_BATCH];
    RedirectorSource *source = p->source;
    RedirectorSink *sink = p->sink;
    unsigned budget = budget_of(p), packets = 0, n = 0, done = 0, i;
    size_t bytes = 0;

    flush(sink, budget);
    while (packets < budget && bytes < BUDGET_BYTES) {
        n = source->ops->read(source, frames, MIN(REDIRECTOR_BATCH,
                                                  budget - packets));
        done = n ? sink->ops->put(sink, frames, n) : 0;
        for (i = 0; i < done; i++) {
            bytes += frames[i].len;
        }
        source->ops->release(source, frames, done);
        packets += done;
        if (!n || done < n) {
            break;
        }
    }
    flush(sink, budget);
    set_blocked(source, done < n && !sink->ops->room(sink));
    trace_redirector_move(source->owner->id, packets, bytes);
    return n && !source->blocked;
}

bool redirector_pump_offer(RedirectorPump *p, PacketFrame *f)
{
    return p->sink->ops->put(p->sink, f, 1);
}
