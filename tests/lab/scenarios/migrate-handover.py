# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Migrate with the hand-over: what the source's guest never got goes to the destination's."""

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
    return [("no packet lost", result["lost"] == 0),
            ("no packet doubled", result["duplicated"] == 0),
            ("no packet damaged", result["damaged"] == 0),
            ("no packet from the guest lost or doubled",
             result["from_guest"]["lost"] == 0 and result["from_guest"]["duplicated"] == 0)]
