/*
 * Helpers of the filter-redirector qtests: a machine that is migrated
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FILTER_REDIRECTOR_MACHINE_H
#define FILTER_REDIRECTOR_MACHINE_H

#include "filter-redirector-nic.h"

/*
 * A machine with a virtio-net device on TAP x, whose driver is the test, and
 * a redirector f0.  All packets are numbered, and at each point it is known
 * who has to have got which: the guest, the chardev, or nobody yet.
 */

#define SIZE 200            /* bytes of each packet */
#define STEP 10             /* packets sent in each step */
#define VNET_LEN 12         /* the NIC's vnet header on the chardev */

#define NIC_PROPS "disable-legacy=on"

#define HAND_OVER "id=f0,netdev=x,queue=tx,outdev=co,vnet_hdr_support=on," \
                  "enable_when_stopped=on,enable_when_running=off"

typedef struct Machine {
    Pc pc;
    Rig *r;
    Port *x;
    int co;
    int stream;             /* the migration's other end; -1: none */
    Drain *drain;           /* reads it */
    bool asleep;            /* the guest is in S3, its NIC is not */
    bool was_reset;         /* ... with a packet in the NIC's queue, perhaps */
    uint32_t sent;          /* packets sent into the TAP */
    uint32_t seen;          /* of them, somebody got */
} Machine;

/**
 * machine_new() - Make a machine without a NIC, not started yet
 * @args: QEMU's, besides
 * @tap_bits: of rig_tap()
 */
Machine *machine_new(const char *args, unsigned tap_bits);

/**
 * machine_start() - Start a machine whose guest takes packets
 * @props: of its redirector
 */
Machine *machine_start(const char *args, const char *props);
void machine_free(Machine *m);

/* Packets into the TAP: some at once, or now and then for a while. */
void send_step(Machine *m);
void send_paced(Machine *m);

/**
 * guest_takes() - Take what a sleeping guest finds when it wakes up
 */
void guest_takes(Machine *m);

/* All that nobody has seen yet goes to one, and nothing to the other. */
void guest_gets_all(Machine *m);
void outdev_gets_all(Machine *m);
void outdev_expect(Machine *m, uint32_t first, uint32_t n);
void expect_nothing_more(Machine *m);
void guest_lost_nothing(Machine *m);

/**
 * check_guest_goes_on() - The guest gets all, and what comes now
 */
void check_guest_goes_on(Machine *m);

/* ... once the machine runs. */
void expect_going_on(Machine *m);

/**
 * check_handed_over() - The chardev gets all, and what comes now
 */
void check_handed_over(Machine *m);

/**
 * send_announcement() - The guest is announced elsewhere, by QEMU
 */
void send_announcement(Machine *m);

/* ... and its redirector has seen it. */
void wait_announced(Machine *m);

/*
 * Migration, into a stream that the test reads or doesn't
 */

/* Where a migration waits for the test. */
typedef enum Place {
    PLACE_ACTIVE,           /* nobody reads the stream */
    PLACE_SWITCHOVER,       /* all but the last is sent, the machine stopped */
    PLACE_NONE,             /* it doesn't wait */
} Place;

void migrate_begin(Machine *m, Place place);
void migrate_arrive(Machine *m, Place place);

/* The stream is read from now on; a waiting migration goes on. */
void migrate_let_go(Machine *m);
void migrate_continue(Machine *m, Place place);

/* The three ends. */
void migrate_cancel(Machine *m);
void migrate_break(Machine *m, Place place);
void migrate_complete(Machine *m, Place place);

/* What query-migrate says; free with g_free(). */
char *migration_status(Machine *m);
void wait_migration(Machine *m, const char *status);
void set_capability(Machine *m, const char *name, bool on);
void set_mode(Rig *r, const char *mode);

/**
 * try_capability() - Set a capability
 * @why: result: the error's text, to be freed with g_free(); may be NULL
 * Return: true if it is set
 */
bool try_capability(Rig *r, const char *name, char **why);

/**
 * enable_capability() - Set a capability that not every host or build has
 * Return: false if it can't be set, and the case has been skipped
 */
bool enable_capability(Rig *r, const char *name);

/* More than a stream holds while nobody reads it. */
void fill_memory(Machine *m);
void stream_close(Machine *m);

#endif /* FILTER_REDIRECTOR_MACHINE_H */
