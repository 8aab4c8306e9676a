# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Migrate with the hand-over and postcopy: the destination runs before its memory is there."""

import time

POSTCOPY = [{"capability": "postcopy-ram", "state": True}]


def run(lab):
    source, destination = lab.handover_pair()
    lab.fetch_memory()
    for vm in (source, destination):
        vm.qmp("migrate-set-capabilities", capabilities=POSTCOPY)
    # Not over before postcopy begins.
    source.qmp("migrate-set-parameters", max_bandwidth=1 << 20)
    started = lab.start_migration(source, destination)
    time.sleep(0.5)
    source.qmp("migrate-start-postcopy")
    lab.finish_migration(source, destination, started)
    if lab.late:
        lab.announce(source, destination)
    time.sleep(lab.after)
    lab.check_vhost_carries(destination)
    lab.stop_traffic()


def judge(result):
    from verdict import handed_over     # of tests/lab: only on the outside

    return handed_over(result)
