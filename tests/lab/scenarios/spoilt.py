# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""A hand-over whose stream loses or swaps packets: the test of the tests, that must see it."""

import time

PARAMETERS = {"spoil": "drop=997", "flooded": 0, "before": 0.5}


def run(lab):
    source, destination = lab.handover_pair()
    lab.migrate(source, destination)
    time.sleep(lab.after)   # all goes through the stream as long as nothing is announced
    lab.stop_traffic()


def judge(result):
    from verdict import handed_over     # of tests/lab: only on the outside

    way = "lost" if result["parameters"]["spoil"].startswith("drop") else "reordered_same_way"
    trace = open(f"{result['folder']}/diagnosis.txt").read()
    failed = [text for text, good in handed_over(result) if not good]
    return [(f"the hand-over's checks fail, for this and nothing else: {failed}",
             len(failed) == 1 and way.replace("_", " ") in failed[0]),
            ("the diagnosis says that the stream had them", "in-stream" in trace)]
