/*
 * Lab program: a stream that loses packets, or mixes them up
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef LAB_SPOIL_H
#define LAB_SPOIL_H

#include "common.h"

/* To see that a fault is found: of every .every packets one is spoilt. */
typedef struct Spoiler {
    bool swap;              /* with the next one; else it is dropped */
    unsigned every;         /* 0: all is well */
    uint64_t count;         /* of packets that have passed */
    uint8_t *data;          /* of the packet that is passing */
    size_t size;
    uint8_t *held;          /* that waits for the next one */
    size_t held_size;
} Spoiler;

/**
 * spoil_parse() - Understand "drop=N" or "swap=N"
 */
void spoil_parse(Spoiler *s, const char *text);

/**
 * spoil_pass() - Pass a piece of the stream on
 * @to: socket
 * Return: false if that is closed
 */
bool spoil_pass(Spoiler *s, const uint8_t *data, size_t size, int to);

/* Sends all of it; false if the socket is closed. */
bool send_all(int fd, const uint8_t *data, size_t size);

#endif
