# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Capture all that a running vhost-net guest sends and receives, then a TCP bulk transfer."""

import time

PARAMETERS = {"guest": "linux", "bulk": 1000000}  # bytes over TCP, each way


def run(lab):
    lab.network(("src0",))
    stream = lab.stream("capture")
    source = lab.source()
    lab.capture_end(source, stream.path, queue="all", stopped=False)
    lab.start_traffic()
    lab.check_vhost_carries(source)
    time.sleep(lab.after)
    lab.stop_traffic()
    lab.bulk()
    stream.settle()


def judge(result):
    from stream import Capture, capture_checks      # of tests/lab: only on the outside

    capture = Capture(result["folder"], result["parameters"]["queues"])
    return [*capture_checks(capture, result, result["notes"]["src_redirectors"][0]),
            (f"TCP super-packets seen: {capture.super_packets}", capture.super_packets > 0)]
