# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
#
# Benchmarks; included by the top Makefile. docs/benchmarks.md tells what they measure.
# BENCH="capture inject" runs these groups only, QUICK=1 takes a few minutes.

BENCH ?=
QUICK ?=
BENCH_CFLAGS := -O2 -g -Wall -Wextra -Werror -D_GNU_SOURCE
BENCH_BIN := $(patsubst bench/%.c,build/bench/bin/%,$(wildcard bench/*.c))

build/bench/bin/%: bench/%.c bench/bench.h
	@mkdir -p $(@D)
	@$(CC) $(BENCH_CFLAGS) -o $@ $<

.PHONY: bench bench-packages
bench-packages: $(STAMP)/configured
	@./configure --bench-packages

bench: all bench-packages $(BENCH_BIN)
	@$(PYTHON) bench/bench.py --build build --qemu $(QEMU) $(if $(QUICK),--quick) $(BENCH)
