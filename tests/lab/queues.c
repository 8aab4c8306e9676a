/*
 * Lab traffic: the queues of a network card, as its driver has them
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <inttypes.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "queues.h"

static void __attribute__((noreturn)) die(const char *interface,
                                          const char *what)
{
    fprintf(stderr, "traffic: %s: %s: %s\n", interface, what, strerror(errno));
    exit(1);
}

static void ethtool(const char *interface, const char *what, void *command)
{
    struct ifreq request = { .ifr_data = command };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, SIOCETHTOOL, &request) < 0) {
        die(interface, what);
    }
    close(fd);
}

void queues_set(const char *interface, unsigned count)
{
    struct ethtool_channels channels = { .cmd = ETHTOOL_GCHANNELS };

    ethtool(interface, "asking for its queues", &channels);
    channels.cmd = ETHTOOL_SCHANNELS;
    channels.combined_count = count;
    ethtool(interface, "setting the number of queues", &channels);
}

static uint32_t count_counters(const char *interface)
{
    struct {
        struct ethtool_sset_info info;
        uint32_t count;
    } query = {
        .info = { .cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1 << ETH_SS_STATS },
    };

    ethtool(interface, "counting its counters", &query);
    return query.info.sset_mask ? query.count : 0;
}

void queues_show(const char *interface, FILE *out)
{
    uint32_t count = count_counters(interface);
    struct ethtool_gstrings *names = calloc(1, sizeof(*names) +
                                            count * ETH_GSTRING_LEN);
    struct ethtool_stats *values = calloc(1, sizeof(*values) +
                                          count * sizeof(uint64_t));

    if (!names || !values) {
        die(interface, "its counters");
    }
    names->cmd = ETHTOOL_GSTRINGS;
    names->string_set = ETH_SS_STATS;
    names->len = count;
    ethtool(interface, "the names of its counters", names);
    values->cmd = ETHTOOL_GSTATS;
    values->n_stats = count;
    ethtool(interface, "its counters", values);
    for (uint32_t i = 0; i < count; i++) {
        fprintf(out, "%.*s %" PRIu64 "\n", ETH_GSTRING_LEN,
                (char *)names->data + i * ETH_GSTRING_LEN,
                (uint64_t)values->data[i]);
    }
    free(names);
    free(values);
}
