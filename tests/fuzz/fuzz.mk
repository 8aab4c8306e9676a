# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
#
# The build with sanitizers, and the fuzzers; included by the top Makefile.
# TIME: seconds for each fuzzer; FUZZ: only this one.

TIME ?= 60
FUZZ ?=

.PHONY: sanitize-build check-sanitize fuzz check-fuzz

sanitize-build: $(STAMP)/tree
	@scripts/configure-sanitize.sh

check-sanitize: sanitize-build
	@$(PYTHON) scripts/run_tests.py sanitize $(MTESTFLAGS)

fuzz: sanitize-build
	@$(PYTHON) tests/fuzz/fuzz.py build
	@$(PYTHON) tests/fuzz/fuzz.py run $(TIME) $(FUZZ)

check-fuzz: sanitize-build
	@$(PYTHON) tests/fuzz/fuzz.py build
	@$(PYTHON) tests/fuzz/fuzz.py check $(TIME)
