/*
 * Lab program: a QEMU process, by its qtest and QMP sockets
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "port.h"

#define ANSWER_LIMIT_MS 30000
#define PAGE            4096
#define TOUCH_BATCH     64

static void add_text(Port *port, const char *text, size_t size)
{
    if (port->out_size + size > port->out_room) {
        port->out_room = 2 * (port->out_size + size);
        port->out = realloc(port->out, port->out_room);
        if (!port->out) {
            die("out of memory");
        }
    }
    memcpy(port->out + port->out_size, text, size);
    port->out_size += size;
}

/* One byte of answers; true if it ends one. */
static bool answer_byte(Port *port, char byte)
{
    if (byte != '\n') {
        if (port->answer_size + 1 < sizeof(port->answer)) {
            port->answer[port->answer_size++] = byte;
        }
        return false;
    }
    port->answer[port->answer_size] = 0;
    port->answer_size = 0;
    if (strncmp(port->answer, "OK", 2)) {
        die("%s: qtest answers '%s'", port->name, port->answer);
    }
    port->pending--;
    return true;
}

static void take_answers(Port *port)
{
    char data[1024];
    ssize_t n = 0;

    while (port->pending && !port->dead &&
           (n = recv(port->qtest, data, sizeof(data), MSG_DONTWAIT)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            answer_byte(port, data[i]);
        }
    }
    if (n == 0 && port->pending) {
        port->dead = true;
    }
    if (n < 0 && errno != EAGAIN) {
        port->dead = true;
    }
}

bool port_busy(Port *port)
{
    take_answers(port);
    return port->pending && !port->dead;
}

void port_flush(Port *port)
{
    size_t done = 0;

    while (done < port->out_size && !port->dead) {
        ssize_t n = send(port->qtest, port->out + done, port->out_size - done,
                         MSG_NOSIGNAL);

        if (n < 0) {
            port->dead = true;
        }
        done += n;
    }
    port->out_size = 0;
}

static void await_answers(Port *port)
{
    struct pollfd pfd = { .fd = port->qtest, .events = POLLIN };

    port_flush(port);
    while (port_busy(port)) {
        if (!poll(&pfd, 1, ANSWER_LIMIT_MS)) {
            die("%s: qtest gives no answer", port->name);
        }
    }
}

static void command(Port *port, const char *text)
{
    add_text(port, text, strlen(text));
    port->pending++;
    if (port->patient) {
        await_answers(port);
    }
}

static uint32_t ask(Port *port, const char *text)
{
    command(port, text);
    await_answers(port);
    return strtoul(port->answer + strlen("OK"), NULL, 0);
}

/*
 * GuestOps
 */

static uint32_t op_in(void *opaque, uint16_t address)
{
    char text[64];

    snprintf(text, sizeof(text), "inl 0x%x\n", address);
    return ask(opaque, text);
}

static void op_out(void *opaque, uint16_t address, uint32_t value)
{
    char text[64];

    snprintf(text, sizeof(text), "outl 0x%x 0x%x\n", address, value);
    command(opaque, text);
}

static char width(unsigned size)
{
    return size == 1 ? 'b' : size == 2 ? 'w' : 'l';
}

static uint32_t op_read(void *opaque, uint64_t address, unsigned size)
{
    char text[64];

    snprintf(text, sizeof(text), "read%c 0x%" PRIx64 "\n", width(size),
             address);
    return ask(opaque, text);
}

static void op_write(void *opaque, uint64_t address, unsigned size,
                     uint32_t value)
{
    char text[64];

    snprintf(text, sizeof(text), "write%c 0x%" PRIx64 " 0x%x\n", width(size),
             address, value);
    command(opaque, text);
}

static void base64(const uint8_t *data, size_t size, char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < size; i += 3) {
        uint32_t bits = data[i] << 16;

        bits |= i + 1 < size ? data[i + 1] << 8 : 0;
        bits |= i + 2 < size ? data[i + 2] : 0;
        *text++ = digits[bits >> 18];
        *text++ = digits[bits >> 12 & 63];
        *text++ = i + 1 < size ? digits[bits >> 6 & 63] : '=';
        *text++ = i + 2 < size ? digits[bits & 63] : '=';
    }
    *text++ = '\n';
    *text = 0;
}

static void op_copy(void *opaque, uint64_t address, const void *data,
                    size_t size)
{
    char *text = malloc(64 + 4 * (size / 3 + 2));
    int n;

    if (!text) {
        die("out of memory");
    }
    n = snprintf(text, 64, "b64write 0x%" PRIx64 " 0x%zx ", address, size);
    base64(data, size, text + n);
    command(opaque, text);
    free(text);
}

const GuestOps port_ops = {
    .in = op_in,
    .out = op_out,
    .read = op_read,
    .write = op_write,
    .copy = op_copy,
};

/*
 * The process
 */

static const uint8_t *map_memory(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *memory = mmap(NULL, GUEST_MEMORY, PROT_READ, MAP_SHARED, fd, 0);

    if (fd < 0 || memory == MAP_FAILED) {
        die("%s: %s", path, strerror(errno));
    }
    close(fd);
    return memory;
}

void port_open(Port *port, const char *name, const char *qtest, const char *qmp,
               const char *memory)
{
    static const char hello[] = "{\"execute\": \"qmp_capabilities\"}\n";

    *port = (Port) { .patient = true };
    snprintf(port->name, sizeof(port->name), "%s", name);
    port->qtest = connect_unix(qtest);
    port->qmp = connect_unix(qmp);
    port->memory = map_memory(memory);
    if (send(port->qmp, hello, strlen(hello), MSG_NOSIGNAL) < 0) {
        die("%s: QMP: %s", name, strerror(errno));
    }
}

void port_touch(Port *port, uint64_t address, size_t size)
{
    unsigned count = 0;

    for (uint64_t at = address; at < address + size; at += PAGE) {
        char text[64];

        snprintf(text, sizeof(text), "readb 0x%" PRIx64 "\n", at);
        add_text(port, text, strlen(text));
        port->pending++;
        if (++count % TOUCH_BATCH == 0) {
            await_answers(port);
        }
    }
    await_answers(port);
}

void port_events(Port *port, void (*seen)(Port *port, const char *line))
{
    char data[4096];
    ssize_t n;

    while ((n = recv(port->qmp, data, sizeof(data), MSG_DONTWAIT)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (data[i] != '\n') {
                if (port->line_size + 1 < sizeof(port->line)) {
                    port->line[port->line_size++] = data[i];
                }
                continue;
            }
            port->line[port->line_size] = 0;
            port->line_size = 0;
            seen(port, port->line);
        }
    }
    if (n == 0) {
        port->dead = true;
    }
}
