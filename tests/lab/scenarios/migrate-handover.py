# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Migrate with the hand-over: what the source's guest never got goes to the destination's."""

import time

PARAMETERS = {"late": True}     # announce only after the backlog was handed over


def run(lab):
    lab.network(("src0", "dst0"))
    source = lab.source()
    destination = lab.destination()
    lab.inject_end(destination, "/run/handover.sock")
    lab.handover_end(source, "/run/handover.sock")
    if lab.late:
        lab.hold_announcement(destination)
    lab.start_traffic()
    lab.check_vhost_carries(source)
    time.sleep(lab.before)
    lab.migrate(source, destination)
    if lab.late:
        lab.announce(source, destination)
    time.sleep(lab.after)
    lab.check_vhost_carries(destination)
    lab.stop_traffic()


def judge(result):
    return [("no packet lost", result["lost"] == 0),
            ("no packet doubled", result["duplicated"] == 0),
            ("no packet damaged", result["damaged"] == 0),
            ("no packet from the guest lost or doubled",
             result["from_guest"]["lost"] == 0 and result["from_guest"]["duplicated"] == 0)]
