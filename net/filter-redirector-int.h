/*
 * filter-redirector: its parts, for each other
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_INT_H
#define NET_FILTER_REDIRECTOR_INT_H

#include "qemu/main-loop.h"
#include "qemu/notify.h"
#include "qemu/timer.h"
#include "net/filter-redirector.h"
#include "system/runstate.h"
#include "filter-redirector-hold.h"
#include "filter-redirector-lend.h"
#include "filter-redirector-pump.h"

struct Redirector {
    RedirectorOwner owner;      /* its filter is NULL until set-up */

    /* properties */
    char *in_netdev;
    char *out_netdev;
    char *in_netdev_fd;
    char *out_netdev_fd;
    bool enable_when_stopped;
    bool enable_when_running;
    bool ring_size_given;
    uint64_t ring_size;
    uint32_t snaplen;
    char *filter;

    /*
     * At most two ways of packets: from the input, if it isn't the chain, to
     * the output; and from the chain to the output.  With two chardevs, from
     * each of them to the chain and from it to the other.
     */
    RedirectorSource *input;
    RedirectorSource *chain;
    RedirectorSink *output;
    RedirectorSink *into_chain;
    RedirectorLend *lend;       /* between the chain and the output, or NULL */
    RedirectorHold *hold;       /* between the input and the chain, or NULL */
    RedirectorPump pumps[2];
    unsigned n_pumps;
    bool running;               /* the pumps are at work */
    QEMUBH *bh;

    SwitchoverPhase phase;
    bool migrating;             /* to another host */
    QEMUTimer *leaving;         /* to ask whether the guest has left */
    VMChangeStateEntry *vm_change;
    NotifierWithReturn migration;
    NotifierWithReturn local_migration;
    Notifier quit;
    Notifier netdev_removed;
};

/**
 * redirector_id() - The id of a filter, for messages
 * @nf: filter
 */
const char *redirector_id(NetFilterState *nf);

/**
 * redirector_takes_when_stopped() - Is the filter chain what a stopped guest's
 *                                   packets are taken from?
 * @r: redirector, its properties are set
 * @nf: the filter
 * @outdev: id of the output chardev, or NULL
 */
bool redirector_takes_when_stopped(Redirector *r, NetFilterState *nf,
                                   const char *outdev);

/**
 * redirector_holds() - Is it a hand-over's destination, whose guest gets first
 *                      what the source did not?
 * @r: redirector, its properties are set
 * @nf: the filter
 * @indev: id of the input chardev, or NULL
 * @outdev: id of the output chardev, or NULL
 */
bool redirector_holds(Redirector *r, NetFilterState *nf, const char *indev,
                      const char *outdev);

/**
 * redirector_follow() - Begin to follow the machine and its migrations
 * @r: redirector, its ends are joined
 */
void redirector_follow(Redirector *r);

/**
 * redirector_unfollow() - End that
 * @r: redirector
 */
void redirector_unfollow(Redirector *r);

/**
 * redirector_look() - Notice a change of the run state that nobody tells
 * @r: redirector
 */
void redirector_look(Redirector *r);

#endif /* NET_FILTER_REDIRECTOR_INT_H */
