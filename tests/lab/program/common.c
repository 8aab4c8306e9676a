/*
 * Lab program: errors, clocks, logs of packets
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "common.h"

#define CONNECT_LIMIT_S 30

_Static_assert(sizeof(Record) == 40, "packets.py knows this size");

void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("lab-net: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

uint64_t now_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

void nap_ns(uint64_t ns)
{
    struct timespec t = { ns / NS_PER_S, ns % NS_PER_S };

    nanosleep(&t, NULL);
}

unsigned parse_number(const char *what, const char *text, unsigned min,
                      unsigned max)
{
    char *end;
    unsigned long value;

    errno = 0;
    value = strtoul(text, &end, 10);
    if (errno || end == text || *end || value < min || value > max) {
        die("%s '%s' is not a number from %u to %u", what, text, min, max);
    }
    return value;
}

int connect_unix(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    uint64_t end = now_ns(CLOCK_MONOTONIC) + CONNECT_LIMIT_S * NS_PER_S;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        if (now_ns(CLOCK_MONOTONIC) > end) {
            die("%s: %s", path, strerror(errno));
        }
        nap_ns(10 * NS_PER_MS);
    }
    return fd;
}

void set_nonblocking(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

Record *log_add(Log *log)
{
    if (log->count == log->room) {
        log->room = log->room ? log->room * 2 : 16384;
        log->records = realloc(log->records, log->room * sizeof(Record));
        if (!log->records) {
            die("out of memory for %zu records", log->room);
        }
    }
    return memset(&log->records[log->count++], 0, sizeof(Record));
}

void log_save(Log *log, const char *dir, const char *name)
{
    char path[4096];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s.packets", dir, name);
    file = fopen(path, "w");
    if (!file ||
        fwrite(log->records, sizeof(Record), log->count, file) != log->count ||
        fclose(file)) {
        die("%s: %s", path, strerror(errno));
    }
    log->count = 0;
}
