# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Migrate with no redirector: the baseline, which loses the packets of the switchover."""

import time


def run(lab):
    lab.network(("src0", "dst0"))
    source = lab.source()
    destination = lab.destination()
    reads = lab.watch_reads(source)
    lab.start_traffic()
    time.sleep(lab.before)
    lab.expect_no_reads(source, reads)
    lab.migrate(source, destination)
    time.sleep(lab.after)
    destination.check_vhost()
    lab.stop_traffic()


def judge(result):
    """The loss must show, or this run proves nothing about the others."""
    return [("loses packets at the switchover", result["lost"] > 0),
            ("guest kept sending", result["from_guest"]["delivered"] > 0)]
