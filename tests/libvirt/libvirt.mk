# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
#
# Migrations by real libvirt; included by the top Makefile.
# SCENARIO="stock-move handover-move-10000" chooses, COUNT=20 repeats each; MOVES=20 are those of
# a guest that goes there and back.

LIBVIRT = $(PYTHON) tests/libvirt/check.py --build build --qemu $(QEMU)

.PHONY: check-libvirt libvirt libvirt-list libvirt-shell libvirt-sweep demo

check-libvirt: all
	@$(LIBVIRT) check

libvirt: all
	@$(LIBVIRT) run --count $(if $(filter command line,$(origin COUNT)),$(COUNT),1) \
		$(if $(MOVES),--moves $(MOVES)) $(SCENARIO)

# What users of libvirt get; then, with vhost, what the lab shows.
demo: all
	@$(LIBVIRT) demo $(if $(filter command line,$(origin COUNT)),--count $(COUNT))
	@$(MAKE) lab-demo

libvirt-shell: all
	@$(LIBVIRT) shell

libvirt-list:
	@$(LIBVIRT) list

libvirt-sweep: all
	@$(LIBVIRT) sweep
