/*
 * Lab program, role "inject": sends numbered packets into a redirector
 *
 *   lab-net inject PATH FLOWS
 *
 * Connects to the Unix socket of a redirector's chardev and takes orders on
 * its standard input, one a line; answers each with "ok" when it is done:
 *
 *   send COUNT RATE     send packets for the guest, RATE a second
 *   save DIR            write the list of all that were sent
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <stdio.h>
#include <string.h>
#include "packet.h"
#include "roles.h"
#include "spoil.h"

#define SIZE        200                 /* of the payload */
#define NAP_NS      (NS_PER_MS / 2)
#define HEAD        8

static void put32(uint8_t *p, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        p[i] = value >> 8 * (3 - i);
    }
}

static void send_packet(int fd, const Route *route, uint64_t number, Log *sent)
{
    uint8_t data[HEAD + VNET_MAX + PACKET_HEADERS + SIZE];
    uint8_t *vnet = data + HEAD;
    Record *record = log_add(sent);
    size_t size = packet_fill(route, number, false, SIZE, vnet,
                              vnet + VNET_MAX, &record->sent_ns);

    record->number = number;
    put32(data, VNET_MAX + size);
    put32(data + 4, VNET_MAX);
    if (!send_all(fd, data, HEAD + VNET_MAX + size)) {
        die("the redirector has closed its connection");
    }
}

static void send_packets(int fd, const Route *route, unsigned count,
                         unsigned rate, Log *sent)
{
    uint64_t start = now_ns(CLOCK_MONOTONIC);

    for (unsigned i = 0; i < count; i++) {
        while (now_ns(CLOCK_MONOTONIC) < start + i * NS_PER_S / rate) {
            nap_ns(NAP_NS);
        }
        send_packet(fd, route, FIRST_INJECTED + sent->count, sent);
    }
}

int inject_main(char **argv)
{
    Route route = to_guest;
    Log sent = { 0 };
    char line[512], dir[256];
    unsigned count, rate;
    int fd = connect_unix(argv[0]);

    route.flows = parse_number("FLOWS", argv[1], 1, 64);
    while (fgets(line, sizeof(line), stdin)) {
        if (sscanf(line, "send %u %u", &count, &rate) == 2 && rate) {
            send_packets(fd, &route, count, rate, &sent);
        } else if (sscanf(line, "save %255s", dir) == 1) {
            log_save(&sent, dir, "injected.sent");
        } else {
            die("no such order: %s", line);
        }
        puts("ok");
        fflush(stdout);
    }
    return 0;
}
