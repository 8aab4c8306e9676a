# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Three round trips with the hand-over: there and back again, six migrations."""

import time

PARAMETERS = {"rate": 100, "trips": 3, "before": 1.0, "after": 2.0}
TIME_LIMIT_S = 600


def run(lab):
    lab.network(("src0", "dst0"))
    here = lab.source()
    lab.start_traffic()
    lab.check_vhost_carries(here)
    for number in range(1, 2 * lab.trips + 1):
        tap = "dst0" if here.tap == "src0" else "src0"
        path = f"/run/handover{number}.sock"
        there = lab.destination(f"vm{number}", tap)
        lab.inject_end(there, path)
        lab.handover_end(here, path)
        lab.hold_announcement(there)
        time.sleep(lab.before)
        lab.migrate(here, there)
        lab.announce(here, there)
        time.sleep(lab.after)
        # The old process has handed over all it had; its TAP is free for the way back.
        lab.end(here)
        there.qmp("object-del", id="handover")
        there.qmp("chardev-remove", id="handover")
        here = there
    lab.check_vhost_carries(here)
    lab.stop_traffic()


def judge(result):
    from verdict import handed_over     # of tests/lab: only on the outside

    moves = 2 * result["parameters"]["trips"]
    return [(f"moved {moves} times", len(result["moves"]) == moves), *handed_over(result)]
