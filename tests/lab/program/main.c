/*
 * Lab program: a guest that needs no processor, its client, and their watch
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "packet.h"
#include "roles.h"

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    packet_init();
    if (argc == 2 && !strcmp(argv[1], "guest")) {
        return guest_main();
    }
    if (argc == 8 && !strcmp(argv[1], "client")) {
        return client_main(argv + 2);
    }
    if (argc == 4 && !strcmp(argv[1], "inject")) {
        return inject_main(argv + 2);
    }
    if (argc > 3 && !strcmp(argv[1], "watch")) {
        return watch_main(argc - 2, argv + 2);
    }
    fputs("usage: lab-net guest\n"
          "       lab-net client IFACE RATE SIZE FLOWS FLOODED DIR\n"
          "       lab-net inject PATH FLOWS\n"
          "       lab-net watch DIR NAME=KIND...\n", stderr);
    return 2;
}
