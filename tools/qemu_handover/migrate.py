# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""A migration by libvirt, in which the packets of the switchover are handed over."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

from . import ends
from .domain import interfaces, with_arguments
from .door import Doors
from .ends import CONFIRM_S, HANDED, TAKEN, Link, Wire, ours
from .machine import Failure, Libvirt, LibvirtMachine, Refused, wait_for
from .report import DONE, FAILED, LOST_GUEST, UNCONFIRMED, HandedOver, Report

CONNECT_S = 1.0         # the destination connects when it starts, before anything is sent
CANCEL_S = 30.0
POLL_S = 0.1


@dataclass
class Order:
    """What the user wants."""
    domain: str
    destination: str
    connect: str | None = None
    virsh: list[str] = field(default_factory=list)      # options for virsh migrate
    xml: str = ""                                       # file: the destination's domain
    name: str = ""                                      # there
    link: Link = Link("")
    show_progress: bool = True


class Migration:
    """One of them, from the first look to the last. run() never leaves anything half set up."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.name_there = order.name or order.domain
        self.source = Libvirt(order.connect)
        self.there = Libvirt(order.destination)
        self.machine: LibvirtMachine = self.source.machine(order.domain)
        self.report = Report(order.domain, order.connect or "", order.destination,
                             tls=bool(order.link.tls))
        self.link = self._named(order.link)
        self.doors = Doors(self.link.peers if self.link.open else ())
        self.wires: list[Wire] = []
        self.events = self.there.events([TAKEN])
        self.sent_events = self.source.events([HANDED])
        self._virsh: subprocess.Popen[bytes] | None = None

    # ---- before

    def _look(self) -> None:
        """Whether it can begin."""
        if self.source.state(self.order.domain) != "running":
            raise Failure(f"'{self.order.domain}' does not run here: virsh migrate does what can "
                          "be done")
        if self.machine.dom.jobInfo()[0] != self.source.api.VIR_DOMAIN_JOB_NONE:
            raise Failure(f"'{self.order.domain}' is busy; see: virsh domjobinfo "
                          f"{self.order.domain}")
        if self.link.open and urlparse(self.source.conn.getURI()).hostname:
            raise Failure("--insecure works on the source's host only")
        if self.there.state(self.name_there) not in ("absent", "shut off"):
            raise Failure(f"a domain '{self.name_there}' runs at the destination already")
        self.machine.redirectors()

    def _set_up(self, folder: str) -> list[str]:
        """The source's ends, and virsh's command."""
        self.machine.clean(ours)        # of a former migration, whose tool was killed
        for card in interfaces(self.machine.dom.XMLDesc(0)):
            self.wires.append(ends.add_source(self.machine, card.alias, card.netdev,
                                              card.destination_netdev, self.link,
                                              self.doors))
            self.report.interfaces.append(HandedOver(card.alias, card.device))
        flags = self.source.api.VIR_DOMAIN_XML_MIGRATABLE | self.source.api.VIR_DOMAIN_XML_SECURE
        xml = Path(self.order.xml).read_text(encoding="utf-8") if self.order.xml else \
            self.machine.dom.XMLDesc(flags)
        path = Path(folder, "destination.xml")
        path.write_text(with_arguments(xml, ends.destination_arguments(self.wires,
                                                                  self.link)), encoding="utf-8")
        # Should this program be killed, virsh is not to go on alone.
        command = ["setpriv", "--pdeathsig", "KILL", "virsh", "-q"]
        if self.order.connect:
            command += ["-c", self.order.connect]
        live = [] if "--live" in self.order.virsh else ["--live"]
        verbose = ["--verbose"] if self.order.show_progress else []
        return [*command, "migrate", *live, *verbose, "--domain", self.order.domain, "--desturi",
                self.order.destination, "--xml", str(path), *self.order.virsh]

    def _named(self, link: Link) -> Link:
        names = {self.there.conn.getHostname(), urlparse(self.order.destination).hostname or ""}
        return Link(link.source or self.source.conn.getHostname(),
                    link.peers or tuple(sorted(names - {""})), link.tls, link.path)

    # ---- meanwhile

    def _migrate(self, command: list[str], said: int) -> int:
        """virsh's exit status. It is a process group of its own: a signal is ours to pass on."""
        errors = None if self.order.show_progress else said
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                              start_new_session=True) as self._virsh:
            try:
                self._watch(self._virsh)
            except BaseException:
                self._cancel(self._virsh)
                raise
        if self.order.show_progress and not self._virsh.returncode:
            print(file=sys.stderr)      # virsh, being quiet, leaves its line open
        return self._virsh.returncode

    def _watch(self, virsh: "subprocess.Popen[bytes]") -> None:
        begun = 0.0
        while virsh.poll() is None:
            if self._is_sending_alone():
                begun = begun or time.monotonic()
                if time.monotonic() > begun + CONNECT_S:
                    raise Failure("the destination's QEMU does not connect to the source "
                                  f"({self.wires[0].place}): the migration was cancelled."
                                  f"{self.doors.complaint} Is there a firewall, and do the "
                                  "certificates fit? See the destination's "
                                  f"/var/log/libvirt/qemu/{self.name_there}.log")
            ends.let_in(self.machine, self.wires, self.doors, POLL_S)

    def _is_sending_alone(self) -> bool:
        """The migration has begun, and somebody is not connected."""
        try:
            return bool(self.wires) and \
                (self.doors.waits or not self.machine.connected(ours)) and \
                bool(self.machine.qmp("query-migrate").get("status") == "active")
        except Refused:
            return False        # it has gone, or libvirt is busy with it

    def _cancel(self, virsh: "subprocess.Popen[bytes]") -> None:
        """virsh, without a terminal, takes no signal for that. It may be complete by now, too."""
        try:
            self.machine.dom.abortJob()
        except self.source.api.libvirtError:
            virsh.send_signal(signal.SIGINT)
        try:
            virsh.wait(CANCEL_S)
        except subprocess.TimeoutExpired:
            virsh.kill()
            virsh.wait()

    # ---- afterwards

    def _conclude(self, status: int, said: str) -> None:
        """Where the guest is; what it got; what has to be removed."""
        report = self.report
        here, there = (self.source.state(self.order.domain), self.there.state(self.name_there))
        if status == 0 and there in ("running", "paused"):
            report.runs_at, report.status = "destination", DONE
        elif here in ("running", "paused"):
            report.runs_at, report.status = "source", FAILED
            report.error = report.error or said or "virsh migrate failed; it says why above"
        else:
            report.runs_at = "destination" if there == "running" else "unknown"
            report.status = UNCONFIRMED if there == "running" else LOST_GUEST
            report.error = report.error or said or "virsh migrate failed; it says why above"

    def _confirm(self) -> None:
        machine = self.there.machine(self.name_there)
        paused = self.there.state(self.name_there) == "paused"
        if not paused:
            wait_for(lambda: all(self.events.last(self.name_there, TAKEN, wire.ident)
                                 for wire in self.wires), CONFIRM_S)
            wait_for(lambda: all(item["input"]["state"] == "disconnected"
                                 for item in machine.redirectors() if ours(item["id"])), CONFIRM_S)
        now = {item["id"]: item["output"]["stats"] for item in machine.redirectors()}
        for wire, item in zip(self.wires, self.report.interfaces):
            item.take(self.events.last(self.name_there, TAKEN, wire.ident),
                      self.sent_events.last(self.order.domain, HANDED, wire.ident))
            if item.packets is not None and wire.ident in now:
                item.packets = max(item.packets, now[wire.ident]["packets"])
        if paused:
            self.report.status = UNCONFIRMED
            self.report.error = ("the guest is paused; what was handed over waits for it. Once "
                                 f"it runs: qemu-handover -c {self.order.destination} clean "
                                 f"{self.name_there}")
        else:
            self.report.need_complete()
            self._clean(machine)

    def _clean(self, machine: LibvirtMachine) -> None:
        try:
            machine.clean(ours)
        except Failure as error:
            if machine.is_active:
                self.report.left_over.append(f"at {machine.name}: {error}")

    def run(self) -> Report:
        """All of it. A Failure or a signal ends in a report, too."""
        began = time.monotonic()
        self._look()
        with tempfile.TemporaryDirectory(prefix="qemu-handover-") as folder, \
                tempfile.TemporaryFile() as said:
            status = -1
            try:
                status = self._migrate(self._set_up(folder), said.fileno())
            except Failure as error:
                self.report.error = str(error)
            except KeyboardInterrupt:
                self.report.error = "interrupted"
            finally:
                self.doors.close()
            self._conclude(status if not self.report.error or not self._virsh
                           else self._virsh.returncode, _text(said.fileno()))
        if self.report.runs_at == "destination":
            self._confirm()
        elif self.machine.is_active:
            self._clean(self.machine)
        self.report.seconds = round(time.monotonic() - began, 3)
        return self.report


def _text(number: int) -> str:
    os.lseek(number, 0, os.SEEK_SET)
    lines = os.read(number, 1 << 16).decode(errors="replace").strip().splitlines()
    return "; ".join(line for line in lines if line.strip())
