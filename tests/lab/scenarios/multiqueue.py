# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Capture and inject on a netdev with several queues, several flows at once."""

PARAMETERS = {"queues": 4, "rate": 2000, "injected": 4000, "flooded": 0}


def run(lab):
    lab.network(("src0",))
    source = lab.source()
    stream = lab.capture_and_inject(source, lab.injected)
    lab.stop_traffic()
    stream.settle()


def queues_used(result, direction, name):
    from pathlib import Path

    from packets import read_packets    # of tests/lab: only on the outside

    return len({p.queue for p in read_packets(Path(result["folder"]), f"{direction}.{name}")})


def judge(result):
    from stream import Capture, capture_checks      # of tests/lab: only on the outside

    redirectors = {r["id"]: r for r in result["notes"]["src_redirectors"]}
    capture = Capture(result["folder"], result["parameters"]["queues"])
    received = queues_used(result, "to-guest", "arrived")
    sent = queues_used(result, "from-guest", "sent")
    return [(f"the guest received on {received} queues and sent on {sent}",
             received == sent == result["parameters"]["queues"]),
            *capture_checks(capture, result, redirectors["capture"]),
            ("each flow to the guest is in order", result["reordered"] == 0),
            ("each flow from the guest is in order", result["from_guest"]["reordered"] == 0),
            (f"{result['injected']} packets were injected",
             result["injected"] == result["parameters"]["injected"]
             == redirectors["inject"]["output"]["stats"]["packets"])]
