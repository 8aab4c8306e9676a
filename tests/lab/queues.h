/*
 * Lab traffic: the queues of a network card, as its driver has them
 *
 * Both end the program with a message when the driver refuses.
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef LAB_QUEUES_H
#define LAB_QUEUES_H

#include <stdio.h>

/* Has the card use @count queue pairs ("ethtool -L ... combined"). */
void queues_set(const char *interface, unsigned count);

/*
 * Writes the driver's counters, a name and a number a line ("ethtool -S"); a
 * virtio card's tell the packets of each queue.
 */
void queues_show(const char *interface, FILE *out);

#endif
