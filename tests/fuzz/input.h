/*
 * A fuzzer's input, taken piece by piece
 *
 * Copyright (c) 2026 the project's authors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

/* What has not been taken yet; once it is used up all values are 0. */
typedef struct FuzzInput {
    const uint8_t *data;
    size_t len;
} FuzzInput;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static inline unsigned take8(FuzzInput *in)
{
    if (!in->len) {
        return 0;
    }
    in->len--;
    return *in->data++;
}

static inline unsigned take16(FuzzInput *in)
{
    unsigned high = take8(in);

    return high << 8 | take8(in);
}

/* Longest run of bytes of one pattern */
#define PATTERN_MAX (72 * 1024)

/* PATTERN_MAX bytes that depend on the low byte of @seed and their place. */
static inline const uint8_t *pattern_from(unsigned seed)
{
    static uint8_t pattern[PATTERN_MAX + 256];
    size_t i;

    if (!pattern[1]) {
        for (i = 0; i < sizeof(pattern); i++) {
            pattern[i] = i * 7 + (i >> 8);
        }
    }
    return pattern + (seed & 255);
}

static inline void fill_pattern(uint8_t *buf, size_t len, unsigned seed)
{
    g_assert(len <= PATTERN_MAX);
    memcpy(buf, pattern_from(seed), len);
}

#endif /* FUZZ_INPUT_H */
