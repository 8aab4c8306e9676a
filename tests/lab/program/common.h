/*
 * Lab program: errors, clocks, logs of packets
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef LAB_COMMON_H
#define LAB_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_S    1000000000ULL
#define NS_PER_MS   1000000ULL

/* Says what is wrong, and ends the program. */
void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *format, ...);

uint64_t now_ns(clockid_t clock);
void nap_ns(uint64_t ns);
unsigned parse_number(const char *what, const char *text, unsigned min,
                      unsigned max);

/**
 * connect_unix() - Connect to a Unix socket, once it is there
 * Return: its file descriptor
 */
int connect_unix(const char *path);

void set_nonblocking(int fd);

/*
 * One packet at one place.  The files have these structs, one after the
 * other, in the byte order of the machine; tests/lab/packets.py reads them.
 * Times are CLOCK_REALTIME.
 */
typedef struct Record {
    uint64_t number;
    uint64_t sent_ns;
    uint64_t seen_ns;       /* 0 where it was sent */
    uint64_t position;      /* in the guest's ring */
    uint8_t queue;
    uint8_t machine;        /* the guest was on the how-manieth */
    uint8_t damaged;        /* not what was sent */
    uint8_t spare[5];
} Record;

typedef struct Log {
    Record *records;
    size_t count;
    size_t room;
} Log;

Record *log_add(Log *log);

/**
 * log_save() - Write a log to DIR/NAME.packets, and empty it
 */
void log_save(Log *log, const char *dir, const char *name);

#endif
