# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
#
# The vhost-net lab; included by the top Makefile. Uses BUILD (folder of what was built) and QEMU
# (the patched program). LAB_ARGS: a scenario's parameters, for example LAB_ARGS="rate=500 queue=20000". COUNT=20
# has a sweep do each run so often.

BUILD ?= build
QEMU ?= $(BUILD)/qemu-system-x86_64
LAB_PYTHON ?= /usr/bin/python3
LAB = $(LAB_PYTHON) tests/lab/lab.py --build $(BUILD) --qemu $(QEMU)

# A test of QEMU's that runs inside the lab, too.
LAB_QTEST = tests/qtest/filter-redirector-vhost-test

.PHONY: lab lab-shell lab-list lab-sweep lab-demo check-lab

lab: all
	@$(LAB) run $(SCENARIO) $(LAB_ARGS)

lab-shell: all
	@$(LAB) shell

lab-list:
	@$(LAB) list

lab-sweep: all
	@$(LAB) $(if $(filter command line,$(origin COUNT)),--count $(COUNT)) sweep $(SCENARIO) $(LAB_ARGS)

lab-demo: all
	@$(LAB) demo $(LAB_ARGS)

check-lab: all
	@ninja -C $(OBJ) $(NINJAFLAGS) $(LAB_QTEST)
	@$(LAB) check $(LAB_ARGS)
