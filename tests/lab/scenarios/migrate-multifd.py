# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Migrate with the hand-over and multifd."""

import time

MULTIFD = [{"capability": "multifd", "state": True}]


def run(lab):
    source, destination = lab.handover_pair()
    for vm in (source, destination):
        vm.qmp("migrate-set-capabilities", capabilities=MULTIFD)
    lab.migrate(source, destination)
    if lab.late:
        lab.announce(source, destination)
    time.sleep(lab.after)
    lab.check_vhost_carries(destination)
    lab.stop_traffic()


def judge(result):
    from verdict import handed_over     # of tests/lab: only on the outside

    return handed_over(result)
