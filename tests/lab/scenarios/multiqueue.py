# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Capture and inject on a netdev with several queues, several flows at once."""

PARAMETERS = {"guest": "linux", "queues": 4, "rate": 80, "back": 40, "injected": 300}
ASKING = 20     # packets, or fewer, that asking the guest for its counters adds to a queue


def run(lab):
    lab.network(("src0",))
    source = lab.source()
    before = lab.packets_of_queues()
    stream = lab.capture_and_inject(source, lab.injected)
    after = lab.packets_of_queues()
    lab.note("queues", {way: [b - a for a, b in zip(before[way], after[way])] for way in after})
    lab.stop_traffic()
    stream.settle()


def judge(result):
    from stream import Capture, capture_checks      # of tests/lab: only on the outside

    redirectors = {r["id"]: r for r in result["notes"]["src_redirectors"]}
    capture = Capture(result["folder"], result["parameters"]["queues"])
    queues = result["notes"]["queues"]
    checks = [(f"the guest {what} packets on several queues: {queues[way]}",
               sum(queues[way]) - max(queues[way]) > ASKING)
              for what, way in (("received", "rx"), ("sent", "tx"))]
    return [*checks, *capture_checks(capture, result, redirectors["capture"]),
            ("each flow to the guest is in order", result["reordered"] == 0),
            ("each flow from the guest is in order", result["from_guest"]["reordered"] == 0),
            (f"{result['injected']} packets were injected",
             result["injected"] == result["parameters"]["injected"]
             == redirectors["inject"]["output"]["stats"]["packets"])]
