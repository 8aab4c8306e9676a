# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Migrate with no redirector: the baseline, which loses the packets of the switchover."""

import time


def run(lab):
    lab.network(("src0", "dst0"))
    source = lab.source()
    destination = lab.destination()
    lab.start_traffic()
    lab.check_vhost_carries(source)
    time.sleep(lab.before)
    lab.migrate(source, destination)
    time.sleep(lab.after)
    lab.check_vhost_carries(destination)
    lab.stop_traffic()


def judge(result):
    """The loss must show, or this run proves nothing about the others."""
    return [("loses packets at the switchover", result["lost"] > 0),
            ("guest kept sending", result["from_guest"]["delivered"] > 0)]
