# SPDX-License-Identifier: GPL-2.0-or-later
#
# The patched QEMU: `make help` lists what can be made. The build proper is
# QEMU's (ninja in build/qemu/build); this file sees to its order.

PREFIX ?= /usr/local
DESTDIR ?=
NINJAFLAGS ?=
# Passed to `meson test`; slow machines: MTESTFLAGS='-t 10'
MTESTFLAGS ?=

PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)

# For the Python programs: build/ is here, though this may be a link (make bases).
export SERIES_TOP := $(CURDIR)

TREE := build/qemu
OBJ := $(TREE)/build
STAMP := build/stamp
PATCHES := patches patches/bases $(wildcard patches/*.patch patches/*/ patches/*/*.patch)

# The groups of tests that `make check` runs, in this order. Each has a target
# check-GROUP that writes build/check/GROUP.tap; scripts/tally.py sums them up.
CHECK_GROUPS := lint kernel series qemu sanitize fuzz qmp faults migrations chaos lab libvirt

MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:

.PHONY: all
all: $(STAMP)/tree
	@ninja -C $(OBJ) $(NINJAFLAGS) $$(cat $(STAMP)/targets)
	@for f in $(OBJ)/qemu-system-*; do \
	    ! [ -f "$$f" ] || ln -sfn "qemu/build/$${f##*/}" "build/$${f##*/}"; \
	done

$(STAMP)/configured: configure
	@./configure --again

# Patches that came with a `git pull` get into the tree; `make refresh` is the
# way back.
$(STAMP)/tree: $(STAMP)/configured $(PATCHES)
	@$(PYTHON) scripts/tree.py prepare
	@touch $@

.PHONY: refresh
refresh:
	@$(PYTHON) scripts/tree.py refresh
	@touch $(STAMP)/tree

# ---- tests

.PHONY: check
check: all
	@rm -rf build/check && mkdir -p build/check
	@-for g in $(CHECK_GROUPS); do $(MAKE) check-$$g || :; done
	@$(PYTHON) scripts/tally.py $(CHECK_GROUPS)

.PHONY: check-lint
check-lint: $(STAMP)/tree
	@$(PYTHON) scripts/lint.py

.PHONY: check-kernel
check-kernel:
	@$(PYTHON) tests/kernel/kernel.py

.PHONY: check-qemu
check-qemu: all
	@scripts/with-working-kvm $(PYTHON) scripts/run_tests.py qemu $(MTESTFLAGS)

# How many in a row, and what the random choices start from.
COUNT ?= 8

.PHONY: check-migrations
check-migrations: all
	@$(PYTHON) tests/migrations/migrations.py --count $(COUNT) --seed $(SEED) $(MIGRATIONS)

.PHONY: check-upstream
check-upstream: all
	@mkdir -p build/check
	@scripts/with-working-kvm $(PYTHON) scripts/upstream.py $(MTESTFLAGS)

# The series on each version of QEMU whose source is there, in build/bases/VERSION:
# sources named here and those in build/dl. BASES_ONLY="10.2 10.0": only these.
BASES_SRC ?=

.PHONY: bases check-bases
bases:
	@$(PYTHON) scripts/bases.py prepare $(BASES_SRC)

check-bases:
	@$(PYTHON) scripts/bases.py check $(BASES_SRC)

# ---- the lab: check-lab, lab, lab-shell, lab-demo

QEMU := build/qemu-system-x86_64
LAB_PYTHON := $(PYTHON)
include tests/lab/lab.mk

# ---- migrations by real libvirt: check-libvirt, libvirt, libvirt-sweep, demo

include tests/libvirt/libvirt.mk

# ---- robustness: check-sanitize, check-fuzz, check-qmp, check-faults, check-chaos, fuzz, chaos

include tests/robust/robust.mk

# ---- bench

include bench/bench.mk

# ---- the mailable series

.PHONY: series check-series
series check-series: $(STAMP)/tree
	@$(PYTHON) scripts/series.py check

.PHONY: check-series-build
check-series-build: $(STAMP)/tree
	@$(PYTHON) scripts/series.py build

# ---- install, clean

.PHONY: install
install: all
	@scripts/install.sh "$(PREFIX)" "$(DESTDIR)"

.PHONY: distclean
distclean:
	@rm -rf build

.PHONY: help
help:
	@echo 'make                     build; then run build/qemu-system-x86_64'
	@echo 'make check               build and run all tests; ends with their numbers'
	@echo 'make check-GROUP         one group of tests: $(CHECK_GROUPS)'
	@echo 'make fuzz TIME=60        run each fuzzer that many seconds; FUZZ=NAME: only that one'
	@echo 'make chaos TIME=60 SEED=1  random events under traffic, that many seconds'
	@echo 'make demo                the main job: guests migrated by libvirt, as QEMU does it and lossless'
	@echo 'make lab SCENARIO=NAME   run one scenario in the lab; make lab-list names them'
	@echo 'make lab-sweep           a table: migrations over rates and TAP queue lengths (long)'
	@echo 'make libvirt SCENARIO=NAME  migrate by real libvirt; make libvirt-list names scenarios'
	@echo 'make libvirt-sweep       all of them, and several packet rates: a table (long)'
	@echo 'make lab-demo            the same with vhost-net, in the lab (follows make demo)'
	@echo 'make lab-shell           a prompt in the lab'
	@echo 'make bench               measure (BENCH="capture inject": some of it; QUICK=1: shorter)'
	@echo 'make series              write the mailable series to build/series, and check it'
	@echo 'make check-series-build  build every commit of the series (slow)'
	@echo 'make check-migrations    COUNT=$(COUNT) SEED=$(SEED): migrations in a row under traffic'
	@echo 'make check-upstream      all tests of QEMU, on QEMU as it came and patched (slow)'
	@echo 'make check-bases         build and test on all versions of QEMU whose source is there:'
	@echo '                         in build/dl, or BASES_SRC="PATH..." (long); make bases: prepare'
	@echo 'make refresh             write the commits of build/qemu back to patches/'
	@echo 'make install             install (PREFIX=$(PREFIX), DESTDIR=$(DESTDIR))'
	@echo 'make distclean           remove all that was made (build/)'
	@echo './configure --help       versions, own source, options for QEMU'
