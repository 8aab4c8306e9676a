# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Migrate with a packet capture on the source, added while the migration runs.

The capture sees a packet when the network hands it to the TAP, not when the guest takes it: packets
that the source's guest still got after the capture began reach the destination's guest again.
"""

import time


def run(lab):
    source, destination = lab.handover_pair(capture=True)
    # What waits in the TAP's queue when the capture begins is not captured: have the guest keep up.
    lab.warm_up()
    # The lab's guest is small: without a brake the migration is over before the capture begins.
    source.qmp("migrate-set-parameters", max_bandwidth=1 << 20)
    started = lab.start_migration(source, destination)
    lab.capture_end(source)
    lab.mark("capture began")
    lab.note("running_at_capture", source.status() == "running")
    source.qmp("migrate-set-parameters", max_bandwidth=1 << 40)
    lab.finish_migration(source, destination, started)
    if lab.late:
        lab.announce(source, destination)
    time.sleep(lab.after)
    lab.check_vhost_carries(destination)
    lab.stop_traffic()


def judge(result):
    return [("the capture began before the guest stopped", result["notes"]["running_at_capture"]),
            ("no packet lost", result["lost"] == 0),
            ("no packet damaged", result["damaged"] == 0)]
