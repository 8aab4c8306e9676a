# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""A scenario of "make libvirt", with two real libvirtd and KVM, where hosts have vhost-net."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

PARAMETERS = {"which": "command-capture-vhost"}
PARTS = ("libvirt",)
REPO = Path("/lab/repo")
SLOW = "5"              # times as long as elsewhere is waited
TRIES = 2               # see started_anew()


def started_anew(result):
    """Now and then (2 of some 60 runs) a guest of the emulated processor's KVM is reset before
    anything is done with it. Nothing can be said about such a run."""
    events = [name for _, name, _, _ in result["events"]]
    return "RESET" in events and "MIGRATION" not in events[:events.index("RESET")]


def run(lab):
    # libvirt uses vhost-net for KVM's guests only. An emulated processor has what AMD's have for it.
    for module in sorted((REPO / "modules").iterdir()):
        subprocess.run(["insmod", module], check=False, capture_output=True)
    Path("/dev/kvm").chmod(0o666)
    command = [sys.executable, str(REPO / "tests/libvirt/check.py"), "--build", str(REPO / "build"),
               "--qemu", "/usr/bin/qemu", "--made", "run", lab.which]
    folder = REPO / "build/libvirt" / lab.which
    for left in reversed(range(TRIES)):
        status = show(command)
        result = json.loads((folder / "result.json").read_text())
        if not started_anew(result) or not left:
            break
        print("lab: the guest was reset before its migration: once more", flush=True)
    shutil.copytree(folder, "/results/libvirt")
    lab.note("libvirt", result)
    lab.note("status", status)


def show(command):
    """Runs it, and shows what it says; returns its exit status."""
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "LIBVIRT_RIG_SLOW": SLOW}) as process:
        for line in process.stdout:
            print(f"lab: {line.rstrip()}", flush=True)
    return process.returncode


def judge(result):
    notes = result["notes"]
    return [(f"exit status {notes['status']}", notes["status"] == 0),
            *((text, good) for text, good in notes["libvirt"]["checks"])]
