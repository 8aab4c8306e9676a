# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Traffic to a guest that stays where it is: what the lab itself carries without loss."""

import time


def run(lab):
    lab.network(("src0",))
    source = lab.source()
    lab.start_traffic()
    lab.check_vhost_carries(source, by_trace=True)
    time.sleep(lab.after)
    lab.stop_traffic()


def judge(result):
    return [(f"{way}: no packet lost, doubled, damaged or out of order",
             result[way]["sent"] > 0 and not any(result[way][what] for what in
                                                 ("lost", "duplicated", "damaged", "reordered")))
            for way in ("to_guest", "from_guest")]
