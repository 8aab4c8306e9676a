# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Inject packets into a running guest, and into a stopped one: they wait, none is lost."""

import time

PARAMETERS = {"guest": "linux", "running": 400, "stopped": 400}   # packets


def run(lab):
    lab.network(("src0",))
    source = lab.source()
    lab.inject_end(source, "/run/inject.sock")
    injector = lab.injector("/run/inject.sock")
    injector.send(lab.running, lab.rate)
    time.sleep(2)
    source.qmp("stop")
    injector.send(lab.stopped, lab.rate)
    time.sleep(1)
    source.qmp("cont")
    time.sleep(lab.after)
    injector.finish()
    lab.fetch()


def judge(result):
    return [("all injected packets arrived", result["sent"] > 0 and result["lost"] == 0),
            ("none doubled", result["duplicated"] == 0),
            ("none damaged", result["damaged"] == 0),
            ("none out of order", result["reordered"] == 0)]
