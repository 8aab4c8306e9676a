/*
 * filter-redirector: the hand-over's source lends what its guest may still need
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_FILTER_REDIRECTOR_LEND_H
#define NET_FILTER_REDIRECTOR_LEND_H

#include "filter-redirector-end.h"

/*
 * What the source of a hand-over sends from its chain to its output is lent: it
 * is kept as well until the guest can't go on here any more.  If that is run
 * here again, it gets all of it first, in order.
 */
typedef struct RedirectorLend RedirectorLend;

/**
 * redirector_lend_new() - Make a loan, off
 * @owner: owner
 * @chain: where packets come from; a source of redirector_chain_source()
 * @output: where they go to
 * @guest: where they are given back; a sink of redirector_chain_sink()
 */
RedirectorLend *redirector_lend_new(RedirectorOwner *owner,
                                    RedirectorSource *chain,
                                    RedirectorSink *output,
                                    RedirectorSink *guest);
void redirector_lend_free(RedirectorLend *l);

/* Its parts; they are the loan's. */
RedirectorSource *redirector_lend_source(RedirectorLend *l);
RedirectorSink *redirector_lend_sink(RedirectorLend *l);

/**
 * redirector_lend_collect() - The guest is stopped and about to leave
 *
 * What comes from now on is collected in memory, by a thread, for a TAP's
 * queue is short and the main loop may stand still.  It is the guest's until
 * that has left.  If the destination will tell when its guest runs, the thread
 * goes on until then.
 *
 * redirector_lend_wait() - It does not leave, but is still stopped
 */
void redirector_lend_collect(RedirectorLend *l);
void redirector_lend_wait(RedirectorLend *l);

/**
 * redirector_lend_receive() - The chain brings a packet that QEMU had read
 *
 * Return: false if it is not to be collected
 */
bool redirector_lend_receive(RedirectorLend *l, unsigned flags,
                             const struct iovec *iov, int iovcnt);

/**
 * redirector_lend_queued() - How many packets have been collected and wait
 */
unsigned redirector_lend_queued(const RedirectorLend *l);

/**
 * redirector_lend_begin() - The guest has left
 * @lends: it may be run here again: only what it gets then may be taken
 *
 * redirector_lend_return() - It is about to run here
 * redirector_lend_give_up() - It is gone
 */
void redirector_lend_begin(RedirectorLend *l, bool lends);
void redirector_lend_return(RedirectorLend *l);
void redirector_lend_give_up(RedirectorLend *l);

/* redirector_lend_said() - The destination says something */
void redirector_lend_said(RedirectorLend *l, HandoverMark mark);

/**
 * redirector_lend_quit() - QEMU is told to quit
 * redirector_lend_lingers() - Has it to wait for what is handed over?
 */
void redirector_lend_quit(RedirectorLend *l);
bool redirector_lend_lingers(const RedirectorLend *l);

/* Does a thread, instead of QEMU, read the netdev of a guest that has left? */
bool redirector_lend_collects(const RedirectorLend *l);

/* Is it being given back?  The netdev and its vhost have to wait then. */
bool redirector_lend_returns(const RedirectorLend *l);

#endif /* NET_FILTER_REDIRECTOR_LEND_H */
