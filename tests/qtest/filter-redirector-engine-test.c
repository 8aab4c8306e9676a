/*
 * QTest of filter-redirector between chardevs and the filter chain
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "filter-redirector-helpers.h"

int main(int argc, char **argv)
{
    sandbox_enter(argv);
    g_test_init(&argc, &argv, NULL);
    return g_test_run();
}
