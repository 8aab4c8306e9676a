# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""QEMU's own test with vhost-net, filter-redirector-vhost-test, where that exists: in here."""

import os
import subprocess

PROGRAMS = ("tests/qtest/filter-redirector-vhost-test",)
LIMIT_S = 200


def run(lab):
    # Its name tells the test what machines it has; firmware is where QEMU looks by itself.
    os.symlink("/usr/bin/qemu", "/tmp/qemu-system-x86_64")
    if not os.path.exists("/usr/share/qemu"):
        os.symlink("/usr/share/lab-firmware", "/usr/share/qemu")
    done = subprocess.run(["/lab/filter-redirector-vhost-test", "--tap"], text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S,
                          env={**os.environ, "QTEST_QEMU_BINARY": "/tmp/qemu-system-x86_64"})
    lab.note("status", done.returncode)
    lab.note("output", done.stdout.splitlines())


def judge(result):
    notes = result["notes"]
    told = [line for line in notes["output"] if line.startswith(("ok ", "not ok "))]
    plan = sum(line.startswith("1..") for line in notes["output"])
    return [(f"exit status {notes['status']}", notes["status"] == 0),
            (f"{len(told)} cases", plan == 1 and len(told) > 0),
            *((line.split(" ", 2 if line.startswith("ok") else 3)[-1],
               line.startswith("ok ") and "# SKIP" not in line) for line in told)]
