/*
 * Lab program: its roles
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef LAB_ROLES_H
#define LAB_ROLES_H

int guest_main(void);
int client_main(char **argv);
int inject_main(char **argv);
int watch_main(int argc, char **argv);

#endif
