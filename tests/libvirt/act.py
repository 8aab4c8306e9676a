# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What a scenario does with its guest: migrations, and what goes wrong in them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import domain
import handover
import rig
from domain import NAME, Domain
from load import Move
from rig import Event, Host, Rig, RigError, ip, wait_until

MIGRATION_S = 60 * rig.SLOW
SETTLE_S = 1.5
DISK_BYTES = 1 << 20
GREETING = """\
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10) as connection:
    print(connection.recv(12).decode())
"""


class Act:
    """A guest that runs `here`, the other host being `there`."""

    def __init__(self, the_rig: Rig, what: Domain, with_handover: bool, log: Path) -> None:
        self.rig = the_rig
        self.domain = what
        self.handover = with_handover
        self.here: Host = the_rig.hosts[0]
        self.wanted = 1         # moves, where a scenario leaves that open
        self.spares = True      # a running guest keeps its packets
        self.notes: dict[str, Any] = {}
        self._log = log
        self._armed = False
        self._virsh: Any = None
        self._started_ns = time.time_ns()
        self._migration_ns = 0

    @property
    def there(self) -> Host:
        return self.rig.other(self.here)

    # ---- the guest

    def disk(self, host: Host) -> Path:
        owner = self.rig.hosts[0] if self.domain.installed else host
        return self.rig.folder / f"disk-{owner.name}"

    def _xml(self, host: Host, arguments: list[str]) -> str:
        """In a file, whose name is returned."""
        disk = self.disk(host) if self.domain.disk or self.domain.installed else None
        if disk and not disk.exists():
            disk.write_bytes(bytes(DISK_BYTES))
        path = self.rig.folder / f"{host.name}.xml"
        path.write_text(self.domain.xml(host, self.rig.folder, arguments, disk))
        return str(path)

    def boot(self) -> None:
        (self.rig.folder / "serial").unlink(missing_ok=True)
        for card in range(self.domain.cards):
            rig.know_guest(card, self.domain.mac(card))
        rig.snoop(self.domain.group)
        self.here.virsh("create", self._xml(self.here, []))
        domain.await_boot(self.domain, self.rig.folder)
        if self.domain.group:
            rig.await_member(self.here, self.domain.group)

    def destroy(self) -> None:
        if self._virsh and self._virsh.poll() is None:
            self._virsh.kill()
            self._virsh.wait()
        for host in self.rig.hosts:
            if host.state(NAME) != "none":
                host.virsh("destroy", NAME)

    def need_screen(self) -> None:
        """A VNC client would be welcome."""
        port = 5900 + int(self.here.virsh("vncdisplay", NAME).split(":")[1])
        greeting = rig.run(*rig.netns(self.here.name, sys.executable, "-c", GREETING, str(port)))
        if not greeting.startswith("RFB "):
            raise RigError(f"the guest's screen says {greeting!r}")

    def settle(self) -> None:
        """Until the guest has what came in the meantime, and the source is gone."""
        time.sleep(SETTLE_S)

    def lengthen_queues(self, packets: int) -> None:
        """Of the TAPs on the guest's host."""
        for line in self.here.virsh("domiflist", NAME).splitlines():
            ip(f"-n {self.here.name} link set {line.split()[0]} txqueuelen {packets}")

    # ---- the hand-over

    def _tell(self, host: Host, commands: list[dict[str, Any]]) -> None:
        for command in commands:
            host.qmp(NAME, command)

    def _arm(self) -> list[str]:
        """Sets the source up; returns what the destination's QEMU is given."""
        cards = range(self.domain.cards)
        if not self.handover:
            return []
        self.spares = handover.spares_running(self.here.qmp(NAME, handover.query_properties()))
        if self._armed:     # this was the last migration's destination
            for card in cards:
                self._tell(self.here, handover.removal_commands(card))
        for card in cards:
            self._tell(self.here, handover.source_commands(card, self.there.address,
                                                              self.spares))
        self._armed = True
        return [word for card in cards for word in handover.destination_arguments(card)]

    def _note_redirectors(self) -> None:
        if self.handover:
            self.notes.setdefault("redirectors", []).append(
                self.here.qmp(NAME, {"execute": "query-filter-redirectors"}))

    # ---- migrations

    def start_migration(self, *options: str) -> None:
        arguments = self._arm()
        self._migration_ns = time.time_ns()
        with self._log.open("a") as log:
            self._virsh = subprocess.Popen(
                self.here.virsh_command(
                    "migrate", "--live", *options, NAME, self.there.uri,
                    "--migrateuri", f"tcp://{self.there.address}",
                    "--xml", self._xml(self.there, arguments)),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end_migration(self, stays: bool = False) -> None:
        """Waits for virsh; the guest has moved, or `stays` here because the migration failed."""
        try:
            status = self._virsh.wait(MIGRATION_S)
        except subprocess.TimeoutExpired:
            raise RigError(f"virsh migrate did not end within {MIGRATION_S} s") from None
        said = self._log.read_text().strip().replace("\n", "; ")
        if stays and not status:
            raise RigError("the migration was to fail, and did not")
        if status and not stays:
            raise RigError(f"virsh migrate failed: {said}")
        if not stays:
            self.here = self.there
        self.notes.setdefault("virsh", []).append(said)
        self._note_redirectors()

    def migrate(self, *options: str) -> None:
        self.start_migration(*options)
        self.end_migration()

    def await_migration(self, status: str) -> None:
        self.here.await_event("MIGRATION", self._migration_ns, MIGRATION_S, status=status)

    def await_stop(self) -> None:
        self.here.await_event("STOP", self._migration_ns, MIGRATION_S)

    def hold_manager_at(self, status: str) -> None:
        """virsh leads the migration: what it doesn't ask for, neither libvirtd does."""
        self.await_migration("active")
        self._virsh.send_signal(signal.SIGSTOP)
        self.await_migration(status)

    def release_manager(self) -> None:
        self._virsh.send_signal(signal.SIGCONT)

    def kill_destination(self) -> None:
        os.kill(self.there.qemu_pid(NAME), signal.SIGKILL)

    # ---- afterwards

    def events(self) -> list[Event]:
        """In the order of their times."""
        return [event for event in self.rig.events() if event.ns >= self._started_ns]

    def moves(self) -> list[Move]:
        """The times in which the guest stood still, on whatever host it was."""
        moves: list[Move] = []
        stopped = 0
        for event in self.events():
            if event.name == "STOP" and not stopped:
                stopped = event.ns
            elif event.name == "RESUME" and stopped:
                moves.append((stopped, event.ns))
                stopped = 0
        return moves

    def need_confined(self) -> None:
        """By AppArmor."""
        label = Path(f"/proc/{self.here.qemu_pid(NAME)}/attr/current").read_text()
        if f"libvirt-{domain.UUID} (enforce)" not in label:
            raise RigError(f"the guest's QEMU is not confined: {label}")

    def await_running(self) -> None:
        wait_until(f"the guest runs on {self.here.name}",
                   lambda: self.here.state(NAME) == "running")
