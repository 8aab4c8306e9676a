/*
 * Measures how long QEMU's main loop takes to answer: round trips of a QMP
 * command
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "bench.h"
#include <getopt.h>
#include <sched.h>

#define TRIPS_MAX 1000000

static const char usage[] =
"usage: roundtrip -u PATH [-t SECONDS] [-i MICROSECONDS]\n"
"  -u PATH   QMP's unix socket\n"
"  -t S      for how long (default 5)\n"
"  -i US     time between two commands (default 1000)\n"
"Prints {\"trips\", \"p50_us\", \"p99_us\", \"max_us\"}.\n";

static char buf[65536];

/* Reads until the answer; events that come before it don't count. */
static void expect(int fd, const char *text)
{
    size_t have = 0;
    ssize_t ret;

    for (;;) {
        ret = read(fd, buf + have, sizeof(buf) - 1 - have);
        if (ret <= 0) {
            fail("QMP");
        }
        have += ret;
        buf[have] = 0;
        if (buf[have - 1] == '\n' && strstr(buf, text)) {
            return;
        }
        if (have == sizeof(buf) - 1) {
            fail("QMP says too much");
        }
    }
}

static void say(int fd, const char *text)
{
    write_all(fd, (const void *)text, strlen(text));
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    static uint64_t trips[TRIPS_MAX];
    const char *path = NULL;
    uint64_t seconds = 5, interval = 1000, end, begin;
    struct sched_param prio = { .sched_priority = 1 };
    unsigned n = 0;
    int opt, fd;

    program_init();
    while ((opt = getopt(argc, argv, "u:t:i:")) != -1) {
        switch (opt) {
        case 'u': path = optarg; break;
        case 't': seconds = number(optarg); break;
        case 'i': interval = number(optarg); break;
        default: fputs(usage, stderr); return 2;
        }
    }
    if (!path || optind < argc) {
        fputs(usage, stderr);
        return 2;
    }
    /* The wait for a processor of its own is not what is to be measured. */
    if (sched_setscheduler(0, SCHED_FIFO, &prio)) {
        fail("SCHED_FIFO");
    }
    fd = socket_connect(path);
    expect(fd, "QMP");
    say(fd, "{'execute':'qmp_capabilities'}\n");
    expect(fd, "return");
    end = now_ns() + seconds * NS_PER_S;
    while ((begin = now_ns()) < end && n < TRIPS_MAX) {
        say(fd, "{'execute':'query-status'}\n");
        expect(fd, "return");
        trips[n++] = now_ns() - begin;
        usleep(interval);
    }
    qsort(trips, n, sizeof(trips[0]), compare);
    printf("{\"trips\": %u, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"max_us\": %.1f}\n", n, trips[n / 2] / 1e3,
           trips[(uint64_t)n * 99 / 100] / 1e3, trips[n - 1] / 1e3);
    return 0;
}
