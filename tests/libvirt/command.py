# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Scenarios' migrations by the one command that users have, qemu-handover, instead of virsh."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import rig
from act import MIGRATION_S, Act
from domain import NAME
from pki import Authority
from rig import Host, RigError, wait_until

TOOL = rig.HERE.parent.parent / "tools/qemu-handover"
DONE, FAILED, USAGE, UNCONFIRMED, LOST_GUEST = 0, 1, 2, 3, 4
# What only the tool adds, by the beginnings of its ids.
ADDED = ("handover-", "capture-")
QEMU_USER = 64055       # host.py's
CAPTURES = "var/lib/libvirt/captures"   # where the manual lets QEMU write, below a host's root
AUTHORITIES: dict[Path, Authority] = {}


class Command(Act):
    """As a user types it, on the host where the guest runs."""

    options: tuple[str, ...] = ()
    secure = True

    # ---- certificates

    def authority(self) -> Authority:
        """Whom both hosts trust; made once."""
        folder = self.rig.folder / "authority"
        if folder not in AUTHORITIES:
            AUTHORITIES[folder] = Authority(folder)
        return AUTHORITIES[folder]

    @staticmethod
    def pki(host: Host) -> Path:
        """Where libvirt's documentation has them for QEMU."""
        return host.folder / "etc/pki/qemu"

    def equip(self, host: Host, authority: Authority | None = None, name: str = "") -> None:
        (authority or self.authority()).equip(self.pki(host), name or host.name, host.address,
                                              QEMU_USER)

    def boot(self) -> None:
        for host in self.rig.hosts:
            if self.secure:
                self.equip(host)
            else:
                shutil.rmtree(self.pki(host), ignore_errors=True)
        super().boot()

    def capture_file(self) -> tuple[Path, str]:
        """As seen from everywhere, and by its name on the guest's host."""
        path = Path(CAPTURES, f"{NAME}.pcap")
        ours = self.here.folder / path
        ours.parent.mkdir(parents=True, exist_ok=True)
        return ours, f"/{path}"

    # ---- the command

    def tool(self, *words: str, host: Host | None = None) -> list[str]:
        host = host or self.here
        return [*host.enter(), str(TOOL), *words]

    def start_migration(self, *options: str) -> None:
        # Its XML is the domain's, but for the file of a disk that is each host's own.
        xml = ["--xml", self._xml(self.there, [])] if self.domain.disk else []
        self._migration_ns = time.time_ns()
        self._output = self._log.with_suffix(".json")
        with self._log.open("a") as log, self._output.open("w") as output:
            self._virsh = subprocess.Popen(
                self.tool("--json", "migrate", NAME, self.there.uri, *xml, *self.options,
                          *options), stdin=subprocess.DEVNULL, stdout=output, stderr=log)

    def end_migration(self, stays: bool = False, status: int | None = None) -> None:
        """What it says has to be true."""
        self.need_report(status if status is not None else FAILED if stays else DONE,
                         "source" if stays else "destination")
        if not stays:
            self.here = self.there
        self.need_nothing_left()

    def need_report(self, wanted: int, place: str) -> None:
        """Exit status, and where it says that the guest is."""
        try:
            ended = self._virsh.wait(MIGRATION_S)
        except subprocess.TimeoutExpired:
            raise RigError(f"qemu-handover did not end within {MIGRATION_S} s") from None
        report = json.loads(self._output.read_text())
        self.notes.setdefault("reports", []).append(report)
        said = f"{json.dumps(report)} {self._log.read_text()[-1000:]}"
        if ended != wanted:
            raise RigError(f"exit status {ended}, not {wanted}: {said}")
        if report.get("runs_at", "source") != place:
            raise RigError(f"it does not know where the guest is: {said}")

    def need_nothing_left(self) -> None:
        """In the QEMU that runs the guest; the other one is gone."""
        state = self.here.state(NAME)
        if state != "running":
            raise RigError(f"the guest on {self.here.name} is {state}")
        if (other := self.there.state(NAME)) not in ("none", "shut off"):
            raise RigError(f"there is a guest on {self.there.name}, too: {other}")
        if left := self.added():
            raise RigError(f"left over: {left}")

    def added(self) -> list[str]:
        """What the tool has added there."""
        objects = self.here.qmp(NAME, {"execute": "qom-list",
                                       "arguments": {"path": "/objects"}})
        names = [item["name"] for item in objects] + \
            [item["label"] for item in self.here.qmp(NAME, {"execute": "query-chardev"})]
        network = self.here.virsh("qemu-monitor-command", NAME, "--hmp", "info network")
        hubs = ["a hub"] if "capture-" in network else []
        return [name for name in names if name.startswith(ADDED)] + hubs

    # ---- who leads the migration

    def _leader(self) -> int:
        """virsh's process, which the tool has started."""
        def found() -> int:
            for path in Path("/proc").glob("[0-9]*/stat"):
                try:
                    words = path.read_text().rpartition(")")[2].split()
                    name = path.with_name("comm").read_text().strip()
                except OSError:
                    continue
                if name == "virsh" and int(words[1]) == self._virsh.pid:
                    return int(path.parent.name)
            return 0
        return int(wait_until("qemu-handover starts virsh", found))

    def hold_manager_at(self, status: str) -> None:
        self.await_migration("active")
        self._held = self._leader()
        os.kill(self._held, signal.SIGSTOP)
        self.await_migration(status)

    def release_manager(self) -> None:
        os.kill(self._held, signal.SIGCONT)

    def kill_leader(self) -> None:
        os.kill(self._leader(), signal.SIGKILL)

    def signal_tool(self, number: int) -> None:
        self._virsh.send_signal(number)

    def await_idle(self) -> None:
        """libvirt has cancelled it."""
        self._virsh.wait(MIGRATION_S)
        wait_until("the destination has given up", lambda: self.there.state(NAME) == "none")
        wait_until("the source has no job",
                   lambda: "None" in self.here.virsh("domjobinfo", NAME))

    def run_tool(self, *words: str, host: Host | None = None) -> tuple[int, str, str]:
        """To its end: exit status, what it printed, and what it complained of."""
        done = subprocess.run(self.tool(*words, host=host), text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=MIGRATION_S, check=False)
        return done.returncode, done.stdout, done.stderr

    def status(self) -> dict[str, Any]:
        code, out, err = self.run_tool("--json", "status", NAME)
        if code:
            raise RigError(f"qemu-handover status: {err}")
        answer: dict[str, Any] = json.loads(out)
        return answer


class Unequipped(Command):
    """Without certificates."""
    secure = False


class Insecure(Unequipped):
    """As who says that it may be."""
    options = ("--insecure",)
