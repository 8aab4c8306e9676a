# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""A scenario of "make libvirt", with two real libvirtd and KVM, where hosts have vhost-net."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# apparmor: as where Debian's packages of libvirt are installed, see tests/libvirt/host.py
PARAMETERS = {"which": "command-capture-vhost", "apparmor": False}
PARTS = ("libvirt",)
REPO = Path("/lab/repo")
TIME_LIMIT_S = 600
SLOW = "5"              # times as long as elsewhere is waited
TRIES = 2               # see started_anew()


def started_anew(result):
    """Now and then (3 of some 70 runs) a guest of the emulated processor's KVM is reset before
    anything is done with it, or the lab's own kernel fails, in which case lab.py begins anew: QEMU's
    emulation of AMD's virtualization is not as good as the real one. Nothing can be said about
    such a run."""
    events = [name for _, name, _, _ in result["events"]]
    return "RESET" in events and "MIGRATION" not in events[:events.index("RESET")]


def run(lab):
    # libvirt uses vhost-net for KVM's guests only. An emulated processor has what AMD's have for it.
    # What it has for machines in machines would be migrated, too, and is refused now and then.
    for module in sorted((REPO / "modules").iterdir()):
        options = ["nested=0"] if module.stem.endswith(("kvm-amd", "kvm-intel")) else []
        subprocess.run(["insmod", module, *options], check=False, capture_output=True)
    Path("/dev/kvm").chmod(0o666)
    command = [sys.executable, str(REPO / "tests/libvirt/check.py"), "--build", str(REPO / "build"),
               "--qemu", "/usr/bin/qemu", "--made", "run", lab.which]
    folder = REPO / "build/libvirt" / lab.which
    for left in reversed(range(TRIES)):
        status = show(command, lab.apparmor)
        result = json.loads((folder / "result.json").read_text())
        if not started_anew(result) or not left:
            break
        print("lab: the guest was reset before its migration: once more", flush=True)
    shutil.copytree(folder, "/results/libvirt")
    lab.note("libvirt", result)
    lab.note("status", status)


def show(command, apparmor):
    """Runs it, and shows what it says; returns its exit status."""
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "LIBVIRT_RIG_SLOW": SLOW,
                               "LIBVIRT_RIG_APPARMOR": "1" if apparmor else ""}) as process:
        for line in process.stdout:
            print(f"lab: {line.rstrip()}", flush=True)
    return process.returncode


def judge(result):
    notes = result["notes"]
    return [(f"exit status {notes['status']}", notes["status"] == 0),
            *((text, good) for text, good in notes["libvirt"]["checks"])]
