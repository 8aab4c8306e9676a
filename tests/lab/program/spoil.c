/*
 * Lab program: a stream that loses packets, or mixes them up
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "spoil.h"

#define HEAD        8                   /* two lengths */
#define LARGEST     (HEAD + (1 << 17))

void spoil_parse(Spoiler *s, const char *text)
{
    s->swap = !strncmp(text, "swap=", 5);
    if (!s->swap && strncmp(text, "drop=", 5)) {
        die("'%s' is neither drop= nor swap=", text);
    }
    s->every = parse_number("N", text + 5, 1, 1000000);
    s->data = malloc(LARGEST);
    s->held = malloc(LARGEST);
    if (!s->data || !s->held) {
        die("out of memory");
    }
}

bool send_all(int fd, const uint8_t *data, size_t size)
{
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

        if (n < 0) {
            return false;
        }
        data += n;
        size -= n;
    }
    return true;
}

static bool pass_packet(Spoiler *s, int to)
{
    bool good = true;

    if (++s->count % s->every == 0) {
        if (s->swap) {
            memcpy(s->held, s->data, s->size);
            s->held_size = s->size;
        }
        return true;
    }
    good = send_all(to, s->data, s->size);
    if (good && s->held_size) {
        good = send_all(to, s->held, s->held_size);
        s->held_size = 0;
    }
    return good;
}

/* Bytes of the whole packet, as far as is known yet. */
static size_t whole_size(const Spoiler *s)
{
    const uint8_t *p = s->data;
    size_t length;

    if (s->size < HEAD) {
        return HEAD;
    }
    length = (size_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
    if (length > LARGEST - HEAD) {
        die("a packet of %zu bytes in the stream", length);
    }
    return HEAD + length;
}

bool spoil_pass(Spoiler *s, const uint8_t *data, size_t size, int to)
{
    while (size) {
        size_t want = whole_size(s) - s->size;
        size_t n = want < size ? want : size;

        memcpy(s->data + s->size, data, n);
        s->size += n;
        data += n;
        size -= n;
        if (s->size > HEAD && s->size == whole_size(s)) {
            if (!pass_packet(s, to)) {
                return false;
            }
            s->size = 0;
        }
    }
    return true;
}
