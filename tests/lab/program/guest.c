/*
 * Lab program, role "guest": a guest that needs no processor
 *
 *   lab-net guest
 *
 * It is the guest of QEMU processes that run with "-accel qtest", on one of
 * them at a time. It takes orders on its standard input, one a line, and
 * answers each with a line, "ok" or what was asked for:
 *
 *   machine NAME QTEST QMP MEMORY   know a QEMU by two sockets and a file
 *   boot NAME QUEUES                begin to run there
 *   send RATE SIZE                  send packets, RATE a second (0: none)
 *   touch on|off                    fetch the memory after a move (postcopy)
 *   count                           what came: packets, own, other, and how
 *                                   many sent
 *   save DIR                        write the lists of packets, begin new ones
 *   forget NAME                     this QEMU ends
 *
 * When QEMU says that it stops, nothing is done any more; when one says that
 * it goes on, the guest goes on there. If that is another one than before, it
 * goes on with what stands in that one's memory. What it did after the copy
 * was made is struck from the lists: it has not happened.
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "packet.h"
#include "port.h"
#include "roles.h"

#define SLOT            4           /* addr= of the network card */
#define MACHINES        256
#define TAKE_LIMIT      256         /* packets of a queue in one turn */
#define NAP_NS          400000
/*
 * Each order to QEMU costs some 100 us where QEMU is emulated: emptied buffers
 * are given back when so much time has passed or so many wait.
 */
#define FLUSH_NS        (8 * NS_PER_MS)
#define FLUSH_BUFFERS   384

typedef struct Program {
    Guest guest;
    Port *machines[MACHINES];       /* NULL: forgotten */
    unsigned count;
    unsigned current;               /* the guest runs there */
    bool booted;
    bool running;
    bool touch;
    Log arrived;
    Log sent;
    uint64_t own;                   /* frames from the guest's own address */
    uint64_t other;                 /* frames that are not numbered packets */
    uint64_t flushed_ns;
    unsigned rate;                  /* to send; 0: nothing */
    unsigned size;
    uint64_t send_start_ns;
    uint64_t send_count;            /* since then */
    Route route;
} Program;

static Program program;

/*
 * Receiving
 */

static void take_packet(void *opaque, const GuestPacket *packet)
{
    Program *p = opaque;
    Record found = { 0 }, *record;

    if (!packet_peek(packet->data, packet->size, &found)) {
        p->own += !memcmp(packet->data + 6, from_guest.from, 6);
        p->other++;
        return;
    }
    p->own += !memcmp(packet->data + 6, from_guest.from, 6);
    record = log_add(&p->arrived);
    *record = found;
    record->seen_ns = now_ns(CLOCK_REALTIME);
    record->position = packet->position;
    record->queue = packet->queue;
    record->machine = p->current;
    record->damaged = !packet_whole(packet->header, packet->data, packet->size);
}

/* Strikes what was done at or behind the positions that the rings have now. */
static void strike(Log *log, const GuestRing *rings, bool receive)
{
    size_t kept = 0;

    for (size_t i = 0; i < log->count; i++) {
        const Record *r = &log->records[i];
        const GuestRing *ring = &rings[r->queue];

        if (r->position < (receive ? ring->taken : ring->posted)) {
            log->records[kept++] = *r;
        }
    }
    log->count = kept;
}

/*
 * Sending: the packet's number is its place in the ring, times queues, plus
 * the queue. So it needs no memory either.
 */

static unsigned next_queue(const Guest *g)
{
    unsigned best = 0;

    for (unsigned i = 1; i < g->queues; i++) {
        if (g->tx[i].posted < g->tx[best].posted) {
            best = i;
        }
    }
    return best;
}

static bool send_one(Program *p)
{
    uint8_t vnet[VNET_MAX], frame[GUEST_BUFFER];
    unsigned queue = next_queue(&p->guest);
    uint64_t position = p->guest.tx[queue].posted;
    uint64_t number = position * p->guest.queues + queue;
    uint64_t sent_ns;
    size_t size = packet_fill(&p->route, number, false, p->size, vnet, frame,
                              &sent_ns);
    Record *record;

    if (!guest_send(&p->guest, queue, vnet, frame, size)) {
        return false;
    }
    record = log_add(&p->sent);
    record->number = number;
    record->sent_ns = sent_ns;
    record->position = position;
    record->queue = queue;
    record->machine = p->current;
    return true;
}

/* Sends what is due, a few of them at once. */
static bool send_due(Program *p)
{
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    unsigned sent = 0;

    while (p->rate && sent < 32 &&
           now >= p->send_start_ns + p->send_count * NS_PER_S / p->rate &&
           send_one(p)) {
        p->send_count++;
        sent++;
    }
    return sent;
}

/*
 * Moving
 */

static unsigned machine_of(Program *p, const char *name)
{
    for (unsigned i = 0; i < p->count; i++) {
        if (p->machines[i] && !strcmp(p->machines[i]->name, name)) {
            return i;
        }
    }
    die("there is no machine '%s'", name);
}

static void go_on_at(Program *p, unsigned machine)
{
    Port *port = p->machines[machine];

    if (machine != p->current) {
        if (p->touch) {
            port->patient = true;
            port_touch(port, GUEST_USED, GUEST_USED_SIZE(p->guest.queues));
        }
        p->current = machine;
        guest_move(&p->guest, port, port->memory);
        strike(&p->arrived, p->guest.rx, true);
        strike(&p->sent, p->guest.tx, false);
    }
    port->patient = false;
    p->send_start_ns = now_ns(CLOCK_MONOTONIC);
    p->send_count = 0;
    p->running = true;
}

static void event_seen(Port *port, const char *line)
{
    Program *p = &program;
    unsigned machine;

    if (!p->booted || !strstr(line, "\"event\": \"")) {
        return;
    }
    machine = machine_of(p, port->name);
    if (strstr(line, "\"event\": \"STOP\"") && machine == p->current) {
        p->running = false;
    } else if (strstr(line, "\"event\": \"RESUME\"")) {
        go_on_at(p, machine);
    }
}

static void look_for_events(Program *p)
{
    for (unsigned i = 0; i < p->count; i++) {
        if (p->machines[i] && !p->machines[i]->dead) {
            port_events(p->machines[i], event_seen);
        }
    }
}

/*
 * Orders
 */

static void order_boot(Program *p, const char *name, unsigned queues)
{
    Port *port;

    p->current = machine_of(p, name);
    port = p->machines[p->current];
    /* Another guest is born: nothing of one before is left. */
    memset(&p->guest, 0, sizeof(p->guest));
    p->route = from_guest;
    p->route.flows = queues;
    guest_boot(&p->guest, &port_ops, port, port->memory, SLOT, queues);
    p->booted = true;
    go_on_at(p, p->current);
}

static void order_save(Program *p, const char *dir)
{
    log_save(&p->arrived, dir, "to-guest.arrived");
    log_save(&p->sent, dir, "from-guest.sent");
    p->own = p->other = 0;
}

static void order_machine(Program *p, const char *name, const char *qtest,
                          const char *qmp, const char *memory)
{
    Port *port = calloc(1, sizeof(*port));

    if (p->count == MACHINES || !port) {
        die("too many machines");
    }
    port_open(port, name, qtest, qmp, memory);
    p->machines[p->count++] = port;
}

static void order_forget(Program *p, const char *name)
{
    unsigned machine = machine_of(p, name);
    Port *port = p->machines[machine];

    if (machine == p->current) {
        p->booted = p->running = false;
    }
    close(port->qtest);
    close(port->qmp);
    munmap((void *)port->memory, GUEST_MEMORY);
    free(port->out);
    free(port);
    p->machines[machine] = NULL;
}

static void obey(Program *p, const char *line)
{
    char a[256], b[256], c[256], d[256];
    unsigned rate, size;

    if (sscanf(line, "machine %31s %255s %255s %255s", a, b, c, d) == 4) {
        order_machine(p, a, b, c, d);
    } else if (sscanf(line, "boot %31s %u", a, &rate) == 2) {
        order_boot(p, a, rate);
    } else if (sscanf(line, "send %u %u", &rate, &size) == 2) {
        p->rate = rate;
        p->size = size;
        p->send_start_ns = now_ns(CLOCK_MONOTONIC);
        p->send_count = 0;
    } else if (sscanf(line, "touch %3s", a) == 1) {
        p->touch = !strcmp(a, "on");
    } else if (!strcmp(line, "count")) {
        printf("%zu %" PRIu64 " %" PRIu64 " %zu\n", p->arrived.count, p->own,
               p->other, p->sent.count);
        fflush(stdout);
        return;
    } else if (sscanf(line, "save %255s", a) == 1) {
        order_save(p, a);
    } else if (sscanf(line, "forget %31s", a) == 1) {
        order_forget(p, a);
    } else {
        die("no such order: %s", line);
    }
    puts("ok");
    fflush(stdout);
}

/* False when there will be no more orders. */
static bool look_for_orders(Program *p)
{
    static char line[2048];
    static size_t size;
    struct pollfd pfd = { .fd = STDIN_FILENO, .events = POLLIN };

    while (poll(&pfd, 1, 0) > 0) {
        if (size + 1 == sizeof(line) || read(STDIN_FILENO, line + size, 1) < 1) {
            return false;
        }
        if (line[size] != '\n') {
            size++;
            continue;
        }
        line[size] = 0;
        size = 0;
        obey(p, line);
    }
    return true;
}

static unsigned buffers_waiting(const Guest *g)
{
    unsigned most = 0;

    for (unsigned i = 0; i < g->queues; i++) {
        unsigned waiting = g->rx[i].posted - g->rx[i].given;

        most = waiting > most ? waiting : most;
    }
    return most;
}

/* One turn of a guest that runs; false if there was nothing to do. */
static bool turn(Program *p)
{
    Port *port = p->machines[p->current];
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    bool busy;

    if (port->dead || port_busy(port)) {
        return false;
    }
    /* QEMU has carried out what was given last, so what is asked is true. */
    guest_kick(&p->guest);
    busy = guest_receive(&p->guest, take_packet, p, TAKE_LIMIT);
    if (send_due(p) || now > p->flushed_ns + FLUSH_NS ||
        buffers_waiting(&p->guest) > FLUSH_BUFFERS) {
        guest_flush(&p->guest);
        p->flushed_ns = now;
    }
    port_flush(port);
    return busy;
}

int guest_main(void)
{
    Program *p = &program;

    while (look_for_orders(p)) {
        look_for_events(p);
        if (!p->running || !turn(p)) {
            nap_ns(NAP_NS);
        }
    }
    return 0;
}
