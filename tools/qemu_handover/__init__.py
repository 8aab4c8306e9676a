# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What qemu-handover is made of: cli (options, exit codes), migrate and capture (what it does),
ends (what QEMU is told for a hand-over), domain (libvirt's XML), machine (who takes QMP)."""
