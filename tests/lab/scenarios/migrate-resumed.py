# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The migration has completed, but the destination never runs: the source's guest goes on.

What the source had handed over by then comes back to its guest first, in order.
"""

import time

PARAMETERS = {"late": False, "pause": 0.5}      # seconds in which the source hands over


def run(lab):
    source, destination = lab.handover_pair(destination_extra=("-S",))
    started = lab.start_migration(source, destination)
    lab.migration_end(source)
    time.sleep(lab.pause)
    lab.note("handed_over", source.redirector("handover")["output"]["stats"]["packets"])
    lab.end(destination)
    lab.go_on(source, started)
    lab.check_vhost_carries(source)


def judge(result):
    from verdict import every_packet_once   # of tests/lab: only on the outside

    return [(f"{result['notes']['handed_over']} packets had been handed over",
             result["notes"]["handed_over"] > 0), *every_packet_once(result)]
