# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Migrate with the hand-over: what the source's guest never got goes to the destination's.

With late=off nobody does anything but migrate: no bridge command, no announce parameter, no wait.
"""

import time


def run(lab):
    source, destination = lab.handover_pair()
    lab.migrate(source, destination)
    if lab.late:
        lab.announce(source, destination)
    time.sleep(lab.after)
    lab.check_vhost_carries(destination)
    lab.stop_traffic()


def judge(result):
    from verdict import every_packet_once, handed_over  # of tests/lab: only on the outside

    return handed_over(result) if result["parameters"]["late"] else every_packet_once(result)
