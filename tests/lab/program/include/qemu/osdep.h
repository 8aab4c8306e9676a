/*
 * What QEMU's file of this name gives to the lab's program
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest's driver (tests/qtest/filter-redirector-guest.c) is a file of
 * QEMU's tests, and the lab's program is built without QEMU.
 */

#ifndef LAB_OSDEP_H
#define LAB_OSDEP_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#endif
