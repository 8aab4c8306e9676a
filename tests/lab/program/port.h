/*
 * Lab program: a QEMU process, by its qtest and QMP sockets
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef LAB_PORT_H
#define LAB_PORT_H

#include "common.h"
#include "../../qtest/filter-redirector-guest.h"

#define PORT_NAME_MAX 32

/*
 * With .patient, each write waits for QEMU's answer; else it is only sent, and
 * port_busy() says when the answers have come: QEMU may be in the last phase
 * of a migration, in which it does nothing else.
 */
typedef struct Port {
    char name[PORT_NAME_MAX];
    int qtest;
    int qmp;
    const uint8_t *memory;
    bool patient;
    bool dead;              /* QEMU has gone */
    unsigned pending;       /* answers */
    char answer[64];        /* the one being read */
    size_t answer_size;
    char *out;              /* commands to send */
    size_t out_size;
    size_t out_room;
    char line[4096];        /* of QMP, being read */
    size_t line_size;
} Port;

extern const GuestOps port_ops;     /* opaque: the Port */

void port_open(Port *port, const char *name, const char *qtest, const char *qmp,
               const char *memory);

/* Sends what the driver wrote. */
void port_flush(Port *port);

/* Takes the answers that have come; true while more are to come. */
bool port_busy(Port *port);

/**
 * port_touch() - Have QEMU read a byte of each page
 *
 * In postcopy a page comes when QEMU touches it, not when others do.
 */
void port_touch(Port *port, uint64_t address, size_t size);

/**
 * port_events() - Look for QMP events
 * @seen: called with the event's line
 */
void port_events(Port *port, void (*seen)(Port *port, const char *line));

#endif
