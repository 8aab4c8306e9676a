#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Check what the code relies on in Linux; writes build/check/kernel.tap.

usage: kernel.py [PROGRAM...]

Each program here, capture.c and inject.c, is a list of facts about packet sockets and TAPs
that net/packet-*.c builds on. One that no longer holds on the running kernel is a failure.
"""
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
sys.path.insert(0, str(TOP / "scripts"))
from tap import Group, parse  # noqa: E402

WORK = TOP / "build" / "kernel"
PROGRAMS = ("capture", "inject")
FLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]


def build(name: str) -> Path:
    WORK.mkdir(parents=True, exist_ok=True)
    subprocess.run([os.environ.get("CC", "cc"), *FLAGS, "-o", WORK / name,
                    HERE / f"{name}.c", HERE / "kernel.c"], check=True)
    return WORK / name


def main(names: list[str]) -> int:
    group = Group("kernel")
    release = os.uname().release
    for name in names or PROGRAMS:
        done = subprocess.run([build(name)], text=True, check=False, stdout=subprocess.PIPE)
        # A case says what went wrong before its result.
        notes: list[str] = []
        lines = []
        for line in done.stdout.splitlines():
            if line.startswith("# "):
                notes.append(line[2:])
                continue
            lines.append(line)
            if line.startswith(("not ok", "ok")):
                results, _ = parse(line)
                why = f"Linux {release}: {'; '.join(notes)}" if notes else ""
                for r in results:
                    group.add(f"{name}: {r.name}", r.ok, why, r.skipped)
                notes = []
        _, complete = parse("\n".join(lines))
        if not complete:
            group.add(f"{name}: all", False, "the program did not finish")
    for r in group.results:
        if not r.ok:
            print(f"not ok - {r.name}\n  {r.why}")
    return group.write()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
