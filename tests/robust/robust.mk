# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
#
# The build with sanitizers, fuzzers, faults and chaos; included by the top Makefile.
# TIME: seconds for each fuzzer, or of chaos; FUZZ: only this fuzzer; SEED: of what is random.

TIME ?= 60
FUZZ ?=
SEED ?= 1

SANITIZED := $(TREE)/build-sanitize/qemu-system-x86_64

.PHONY: sanitize-build check-sanitize fuzz check-fuzz check-qmp check-faults chaos check-chaos

sanitize-build: $(STAMP)/tree
	@scripts/configure-sanitize.sh
	@ninja --quiet -C $(TREE)/build-sanitize build.ninja

$(SANITIZED): sanitize-build
	@ninja --quiet -C $(TREE)/build-sanitize qemu-system-x86_64

check-sanitize: sanitize-build
	@$(PYTHON) scripts/run_tests.py sanitize $(MTESTFLAGS)

fuzz: sanitize-build
	@$(PYTHON) tests/fuzz/fuzz.py build
	@$(PYTHON) tests/fuzz/fuzz.py run $(TIME) $(FUZZ)

check-fuzz: sanitize-build
	@$(PYTHON) tests/fuzz/fuzz.py build
	@$(PYTHON) tests/fuzz/fuzz.py check $(TIME)

check-qmp: $(SANITIZED)
	@$(PYTHON) tests/robust/qmp.py $(TIME) $(SEED) $(SANITIZED)

check-faults: all
	@$(PYTHON) tests/robust/faults.py $(QEMU)

chaos check-chaos: all $(SANITIZED)
	@$(PYTHON) tests/robust/chaos.py $(TIME) $(SEED) $(QEMU) $(SANITIZED)
