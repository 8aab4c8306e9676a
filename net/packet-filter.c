/*
 * Filters of packet sockets: classic BPF programs
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/filter.h>
#include <linux/if_packet.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "packet-filter.h"

/* What is put around a program: see packet_filter_join(). */
#define PROLOGUE_MAX 4
#define EPILOGUE_MAX 3

struct PacketFilter {
    unsigned n;
    struct sock_filter insns[BPF_MAXINSNS - PROLOGUE_MAX - EPILOGUE_MAX];
};

/* Reading a program */

/* Return: whether a number up to @max was read; @text is moved behind it */
static bool take_number(const char **text, uint64_t max, uint64_t *value)
{
    const char *end;

    *text += strspn(*text, " \t\r");
    /* qemu_strtou64() takes a sign, too. */
    if (!g_ascii_isdigit(**text) ||
        qemu_strtou64(*text, &end, 10, value) < 0 || *value > max) {
        return false;
    }
    *text = end;
    return true;
}

static bool take_insn(const char **text, struct sock_filter *insn)
{
    uint64_t code, jt, jf, k;

    if (!take_number(text, UINT16_MAX, &code) ||
        !take_number(text, UINT8_MAX, &jt) ||
        !take_number(text, UINT8_MAX, &jf) ||
        !take_number(text, UINT32_MAX, &k)) {
        return false;
    }
    *insn = (struct sock_filter) { code, jt, jf, k };
    return true;
}

static bool at_end_of_line(const char **text)
{
    *text += strspn(*text, " \t\r");
    return !**text || **text == '\n' || **text == ',';
}

/* Return: true if there is another line, with something in it */
static bool next_line(const char **text)
{
    *text += strspn(*text, " \t\r\n,");
    return **text;
}

/* What can be said more clearly than the kernel's EINVAL. */
static bool check_program(const PacketFilter *f, Error **errp)
{
    unsigned i;

    for (i = 0; i < f->n; i++) {
        const struct sock_filter *insn = &f->insns[i];
        uint64_t behind = f->n - i - 1;

        if (BPF_CLASS(insn->code) == BPF_JMP &&
            (BPF_OP(insn->code) == BPF_JA
             ? insn->k >= behind
             : insn->jt >= behind || insn->jf >= behind)) {
            error_setg(errp, "filter: instruction %u jumps out of the "
                       "program", i + 1);
            return false;
        }
    }
    if (BPF_CLASS(f->insns[f->n - 1].code) != BPF_RET) {
        error_setg(errp, "filter: the last instruction is no 'ret'");
        return false;
    }
    return true;
}

PacketFilter *packet_filter_parse(const char *text, Error **errp)
{
    g_autofree PacketFilter *f = g_new0(PacketFilter, 1);
    uint64_t n;

    if (!next_line(&text) || !take_number(&text, UINT32_MAX, &n) ||
        !at_end_of_line(&text)) {
        error_setg(errp, "filter: does not begin with the number of "
                   "instructions, as 'tcpdump -ddd' prints it");
        return NULL;
    }
    if (!n || n > ARRAY_SIZE(f->insns)) {
        error_setg(errp, "filter: has %" PRIu64 " instructions, not 1 to %zu",
                   n, ARRAY_SIZE(f->insns));
        return NULL;
    }
    while (next_line(&text)) {
        if (f->n == n) {
            error_setg(errp, "filter: there is more behind the %" PRIu64
                       " instructions", n);
            return NULL;
        }
        if (!take_insn(&text, &f->insns[f->n]) || !at_end_of_line(&text)) {
            error_setg(errp, "filter: instruction %u is not four numbers "
                       "('CODE JT JF K')", f->n + 1);
            return NULL;
        }
        f->n++;
    }
    if (f->n < n) {
        error_setg(errp, "filter: has %u instructions, but says %" PRIu64,
                   f->n, n);
        return NULL;
    }
    return check_program(f, errp) ? g_steal_pointer(&f) : NULL;
}

/* Putting one together */

/* Out with the packets of the wrong direction. */
static unsigned put_prologue(struct sock_filter *to, PacketFilterPass pass)
{
    const struct sock_filter prologue[PROLOGUE_MAX] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING,
                 pass == PACKET_FILTER_PASS_OUTGOING,
                 pass != PACKET_FILTER_PASS_OUTGOING),
        BPF_STMT(BPF_RET | BPF_K, 0),
        /* A program may count on it. */
        BPF_STMT(BPF_LD | BPF_IMM, 0),
    };

    if (pass == PACKET_FILTER_PASS_ALL) {
        return 0;
    }
    memcpy(to, prologue, sizeof(prologue));
    return PROLOGUE_MAX;
}

/* Where a program returns a number that it has computed: not more than that. */
static unsigned put_epilogue(struct sock_filter *to, uint32_t max)
{
    const struct sock_filter epilogue[EPILOGUE_MAX] = {
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, max, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, max),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };

    memcpy(to, epilogue, sizeof(epilogue));
    return EPILOGUE_MAX;
}

size_t packet_filter_size(const PacketFilter *f)
{
    return PROLOGUE_MAX + EPILOGUE_MAX + (f ? f->n : 1);
}

unsigned packet_filter_join(struct sock_filter *to, PacketFilterPass pass,
                            const PacketFilter *f, uint32_t snaplen)
{
    const uint32_t max = snaplen ?: UINT32_MAX;
    unsigned n = 0, i;

    if (pass == PACKET_FILTER_PASS_NONE) {
        to[n++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, 0);
        return n;
    }
    n += put_prologue(to, pass);
    if (!f) {
        to[n++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, max);
        return n;
    }
    for (i = 0; i < f->n; i++) {
        struct sock_filter insn = f->insns[i];

        if (insn.code == (BPF_RET | BPF_K)) {
            insn.k = MIN(insn.k, max);
        } else if (insn.code == (BPF_RET | BPF_A)) {
            insn = (struct sock_filter) BPF_STMT(BPF_JMP | BPF_JA,
                                                 f->n - i - 1);
        }
        to[n++] = insn;
    }
    return n + put_epilogue(to + n, max);
}
