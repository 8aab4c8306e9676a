# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The same hosts and guest without libvirt: QEMUs that are started by hand, each with a QMP socket.
qemu-handover migrates the guest between the two."""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import domain
import rig
from command import ADDED, Command
from rig import Event, Host, RigError, wait_until

MIB = 1 << 20
PORT = 4444         # where the destination takes the migration
ANSWER_S = 10.0
TAP = "tap{}"


class Monitor:
    """A QMP connection of the test's own; all events are kept."""

    def __init__(self, path: Path, host: str) -> None:
        self.events: list[Event] = []
        self._host = host
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_S)
        self._rest = b""
        wait_until(f"{path} is there", path.exists)
        self._socket.connect(str(path))
        self._read()
        self.ask("qmp_capabilities")

    def _read(self) -> dict[str, Any]:
        """The next that is no event."""
        while True:
            while b"\n" not in self._rest:
                data = self._socket.recv(1 << 16)
                if not data:
                    raise RigError(f"{self._host}: QEMU has gone")
                self._rest += data
            line, self._rest = self._rest.split(b"\n", 1)
            found: dict[str, Any] = json.loads(line)
            if "event" not in found:
                return found
            stamp = found["timestamp"]
            self.events.append(Event(self._host, found["event"], stamp["seconds"] * 10**9 +
                                     stamp["microseconds"] * 1000, found.get("data", {})))

    def ask(self, execute: str, **arguments: Any) -> Any:
        self._socket.sendall(json.dumps({"execute": execute, "arguments": arguments}).encode())
        answer = self._read()
        if "error" in answer:
            raise RigError(f"{self._host}: {execute}: {answer['error']['desc']}")
        return answer["return"]

    def catch_up(self) -> None:
        """Reads the events until now, or until QEMU went."""
        try:
            self.ask("query-name")
        except (OSError, RigError):
            pass


class Direct(Command):
    """`here` and `there` each have a QEMU."""

    def __init__(self, *common: Any) -> None:
        super().__init__(*common)
        self._qemu: dict[str, subprocess.Popen[bytes]] = {}
        self._monitors: dict[str, Monitor] = {}
        self._past: list[Event] = []        # of QEMUs that have ended

    def boot(self) -> None:
        for host in self.rig.hosts:
            self.equip(host)
            for card in range(self.domain.cards):
                tap = TAP.format(card)
                rig.ip(f"-n {host.name} tuntap add {tap} mode tap vnet_hdr")
                rig.ip(f"-n {host.name} link set {tap} master br{card} up")
        for card in range(self.domain.cards):
            rig.know_guest(card, self.domain.mac(card))
        self._start(self.here)
        domain.await_boot(self.domain, self.rig.folder)

    def _path(self, host: Host, what: str) -> Path:
        return self.rig.folder / f"{host.name}-{what}"

    def _start(self, host: Host, *more: str) -> None:
        for what in ("qmp", "test"):
            self._path(host, what).unlink(missing_ok=True)
        serial = self.rig.folder / "serial" if host is self.here and not more else \
            self._path(host, "serial")
        words = [str(rig.emulator(self.rig.folder)), "-nodefaults", "-display", "none",
                 "-machine", "pc", "-accel", "tcg", "-cpu", "qemu64",
                 "-m", str(domain.MEMORY_MIB), "-kernel", str(self.rig.folder / "vmlinuz"),
                 "-initrd", str(self.rig.folder / "initrd"),
                 "-append", self.domain.kernel_line, "-serial", f"file:{serial}",
                 *(word for what in ("qmp", "test")
                   for word in ("-qmp", f"unix:{self._path(host, what)},server=on,wait=off"))]
        for card in range(self.domain.cards):
            words += ["-netdev", f"tap,id=lan{card},ifname={TAP.format(card)},script=,downscript=",
                      "-device", f"virtio-net-pci,netdev=lan{card},romfile=,"
                                 f"mac={rig.guest_mac(card)}"]
        with self._log.with_name(f"{host.name}-qemu.log").open("a") as log:
            self._qemu[host.name] = subprocess.Popen(
                [*host.enter(), *words, *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._monitors[host.name] = Monitor(self._path(host, "test"), host.name)

    def qmp(self, host: Host, execute: str, **arguments: Any) -> Any:
        return self._monitors[host.name].ask(execute, **arguments)

    def destroy(self) -> None:
        if self._virsh and self._virsh.poll() is None:
            self._virsh.kill()
            self._virsh.wait()
        for name in list(self._qemu):
            self._end(name)
        for host in self.rig.hosts:
            for card in range(self.domain.cards):
                rig.ip(f"-n {host.name} link del {TAP.format(card)}")

    def _end(self, name: str) -> None:
        process = self._qemu.pop(name)
        monitor = self._monitors.pop(name)
        monitor.catch_up()
        self._past += monitor.events
        process.kill()
        process.wait()

    # ---- migrations

    def start_migration(self, *options: str, bandwidth_mib: int = 0,
                        paused: bool = False) -> None:
        self._start(self.there, "-incoming", "defer", *(["-S"] if paused else []))
        if bandwidth_mib:
            self.qmp(self.here, "migrate-set-parameters",
                     **{"max-bandwidth": bandwidth_mib * MIB})
        self._output = self._log.with_suffix(".json")
        with self._log.open("a") as log, self._output.open("w") as output:
            self._virsh = subprocess.Popen(
                self.tool("--json", "migrate", "--qmp", str(self._path(self.here, "qmp")),
                          "--dest-qmp", str(self._path(self.there, "qmp")),
                          "--uri", f"tcp:{self.there.address}:{PORT}", *self.options, *options),
                stdin=subprocess.DEVNULL, stdout=output, stderr=log)

    def end_migration(self, stays: bool = False, status: int | None = None) -> None:
        super().end_migration(stays, status)
        if not stays:
            self._end(self.there.name)      # which was the source

    def await_migration(self, status: str) -> None:
        wait_until(f"the migration is {status}", lambda: self.qmp(
            self.here, "query-migrate").get("status") == status, poll_s=rig.POLL_S)

    def kill_destination(self) -> None:
        self._end(self.there.name)

    def need_nothing_left(self) -> None:
        for host in self.rig.hosts:
            if host.name not in self._qemu or self._qemu[host.name].poll() is not None:
                continue
            if self.qmp(host, "query-status")["running"] != (host is self.here):
                raise RigError(f"the guest does not run on {self.here.name} alone")
            names = [item["name"] for item in self.qmp(host, "qom-list", path="/objects")] + \
                [item["label"] for item in self.qmp(host, "query-chardev")]
            if left := [name for name in names if name.startswith(ADDED)]:
                raise RigError(f"left over on {host.name}: {left}")

    def await_running(self) -> None:
        wait_until(f"the guest runs on {self.here.name}",
                   lambda: self.qmp(self.here, "query-status")["running"])

    def events(self) -> list[Event]:
        """The monitors have them."""
        events = list(self._past)
        for monitor in self._monitors.values():
            monitor.catch_up()
            events += monitor.events
        return sorted(events, key=lambda event: event.ns)
