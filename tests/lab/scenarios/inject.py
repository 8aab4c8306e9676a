# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Inject packets into a running guest, and into a stopped one: they wait, none is lost."""

import time

PARAMETERS = {"running": 4000, "stopped": 4000}   # packets


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
    time.sleep(1)
    lab.fetch()


def judge(result):
    from verdict import none     # of tests/lab: only on the outside

    return none(result, "to_guest", "lost", "duplicated", "damaged", "reordered")
