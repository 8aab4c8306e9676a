/*
 * What the measuring programs share
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ETH_P_BENCH 0x88b5      /* IEEE 802: for local experiments */
#define ETH_LEN 14
#define SEQ_OFFSET ETH_LEN      /* the packet's number, 64 bits, host order */
#define PACKET_MAX (68 * 1024)  /* longest packet with all that precedes it */
#define NS_PER_S 1000000000ull

/*
 * Each program counts in a file that the driver has mapped, too: no protocol,
 * and nothing to wait for.  rig.py knows this layout.
 */
typedef struct Counters {
    uint64_t packets;
    uint64_t bytes;             /* of the packets, without what frames them */
    uint64_t calls;             /* system calls that moved packets */
    uint64_t retries;           /* of a sender: the receiver was full */
    uint64_t missing;           /* numbers not seen yet, up to the highest */
    uint64_t repeated;          /* numbers seen before */
    uint64_t first_ns;          /* CLOCK_MONOTONIC */
    uint64_t last_ns;
    uint64_t done;              /* the program has done all it was told to */
} Counters;

static inline void __attribute__((format(printf, 1, 2), noreturn))
fail(const char *format, ...)
{
    int err = errno;
    va_list args;

    va_start(args, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, args);
    fprintf(stderr, err ? ": %s\n" : "\n", strerror(err));
    exit(1);
}

static inline uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static inline uint64_t number(const char *text)
{
    char *end;
    double value = strtod(text, &end);

    errno = 0;
    if (end == text || *end || value < 0) {
        fail("'%s' is not a number", text);
    }
    return value;
}

/* @path NULL: nobody else looks. */
static inline Counters *counters_open(const char *path)
{
    int fd = path ? open(path, O_RDWR | O_CREAT, 0600) : -1;
    void *page;

    if (path && (fd < 0 || ftruncate(fd, sizeof(Counters)))) {
        fail("%s", path);
    }
    page = mmap(NULL, sizeof(Counters), PROT_READ | PROT_WRITE,
                MAP_SHARED | (path ? 0 : MAP_ANONYMOUS), fd, 0);
    if (page == MAP_FAILED) {
        fail("mmap");
    }
    if (fd >= 0) {
        close(fd);
    }
    return page;
}

static inline int socket_connect(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
        fail("%s", path);
    }
    return fd;
}

static inline int socket_accept(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), peer;

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
        listen(fd, 1)) {
        fail("%s", path);
    }
    peer = accept(fd, NULL, NULL);
    if (peer < 0) {
        fail("%s", path);
    }
    close(fd);
    return peer;
}

/* No program outlives the driver; sleeps end on time. */
static inline void program_init(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1);
    signal(SIGPIPE, SIG_IGN);
}

static inline void write_all(int fd, const uint8_t *data, size_t len)
{
    while (len) {
        ssize_t ret = write(fd, data, len);

        if (ret < 0 && errno == EINTR) {
            continue;
        }
        if (ret < 0) {
            fail("write");
        }
        data += ret;
        len -= ret;
    }
}

#endif /* BENCH_H */
