# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""A migration between two QEMUs without libvirt, each with a QMP socket."""

import re
import socket
import sys
import time

from . import ends
from .door import Doors
from .ends import CONFIRM_S, HANDED, TAKEN, Link, ours
from .machine import Failure, QmpMachine, wait_for
from .report import DONE, FAILED, LOST_GUEST, UNCONFIRMED, HandedOver, Report

CONNECT_S = 5.0
CANCEL_S = 5.0
POLL_S = 0.1
OVER = ("completed", "failed", "cancelled")
HOST = re.compile(r"tcp:\[?([^]]+?)\]?:\d+$")         # in a migration's URI
SETTLE_S = 2.0          # one that fails may tell so before its guest runs again


def taps(machine: QmpMachine) -> list[str]:
    """Ids of its TAP netdevs. No QMP command lists them; a queue is a line of its own."""
    text = machine.qmp("human-monitor-command", **{"command-line": "info network"})
    found = re.findall(r"^[ \\]*(\S+): index=0,type=tap,", text, re.MULTILINE)
    return list(dict.fromkeys(found))


class Migration:
    """One of them."""

    def __init__(self, source: str, there: str, uri: str, link: Link, progress: bool) -> None:
        self.source, self.there = QmpMachine(source), QmpMachine(there)
        self.uri, self.progress = uri, progress
        host = HOST.match(uri)
        peers = link.peers or ((host[1],) if host and link.open else ())
        self.link = Link(link.source or socket.gethostname(), peers, link.tls, link.path)
        self.doors = Doors(peers if link.open else ())
        self.report = Report("the guest", source, there, tls=bool(link.tls))
        self.wires: list[ends.Wire] = []

    def _set_up(self) -> None:
        if self.link.tls and not self.link.peers:
            raise Failure("say --peer NAME: whom the destination's certificate is for")
        if not self.source.qmp("query-status")["running"]:
            raise Failure(f"{self.source.name}: its guest does not run")
        for machine in (self.source, self.there):
            machine.redirectors()
            machine.clean(ours)
        for netdev in taps(self.source):
            self.wires.append(ends.add_source(self.source, netdev, netdev, netdev, self.link,
                                              self.doors))
            self.report.interfaces.append(HandedOver(netdev, ""))
        ends.add_destination(self.there, self.wires, self.link)
        if self.wires and not wait_for(self._is_connected, CONNECT_S):
            raise Failure("the destination's QEMU does not connect to the source "
                          f"({self.wires[0].place}): nothing was migrated."
                          f"{self.doors.complaint} Is there a firewall, and do the "
                          "certificates and --peer fit?")

    def _is_connected(self) -> bool:
        ends.let_in(self.source, self.wires, self.doors, 0)
        return not self.doors.waits and self.source.connected(ours)

    def _migrate(self) -> None:
        self.there.qmp("migrate-incoming", uri=self.uri)
        self.source.qmp("migrate", uri=self.uri)
        while (status := self.source.qmp("query-migrate"))["status"] not in OVER:
            ram = status.get("ram")
            if ram and self.progress:
                done = 100 - 100 * ram["remaining"] // max(ram["total"], 1)
                print(f"\rMigration: [{done:3d} %]", end="", file=sys.stderr, flush=True)
            time.sleep(POLL_S)
        if self.progress:
            print(file=sys.stderr)
        if status["status"] != "completed":
            raise Failure(f"the migration {status['status']}: "
                          f"{status.get('error-desc', 'QEMU does not say why')}")
        wait_for(lambda: self.there.qmp("query-status")["status"] != "inmigrate", SETTLE_S)
        if self.there.qmp("query-status")["status"] == "paused":
            self.there.qmp("cont")      # it was started with -S

    def _confirm(self) -> None:
        """The source stays until both have told what they know."""
        wait_for(lambda: all(self.source.last(HANDED, wire.ident) and
                             self.there.last(TAKEN, wire.ident) for wire in self.wires), CONFIRM_S)
        for wire, item in zip(self.wires, self.report.interfaces):
            item.take(self.there.last(TAKEN, wire.ident), self.source.last(HANDED, wire.ident))
        self.report.status = DONE
        self.report.need_complete()

    def _place(self) -> str:
        """Where the guest runs; empty if nowhere."""
        for place, machine in (("source", self.source), ("destination", self.there)):
            try:
                if machine.qmp("query-status")["running"]:
                    return place
            except Failure:
                pass            # it has gone
        return ""

    def _stop(self) -> None:
        try:
            self.source.qmp("migrate_cancel")
            wait_for(lambda: self.source.qmp("query-migrate").get("status") in (None, *OVER),
                     CANCEL_S)
        except Failure:
            pass

    def run(self) -> Report:
        """A Failure or a signal ends in a report, too."""
        began = time.monotonic()
        try:
            self._set_up()
            self._migrate()
            self._confirm()
        except Failure as error:
            self.report.error = str(error)
        except KeyboardInterrupt:
            self.report.error = "interrupted"
            self._stop()
        finally:
            self.doors.close()
        self._conclude()
        self.report.seconds = round(time.monotonic() - began, 3)
        for machine in (self.source, self.there):
            machine.close()
        return self.report

    def _conclude(self) -> None:
        report = self.report
        report.runs_at = wait_for(self._place, SETTLE_S) or "unknown"
        if report.runs_at == "unknown":
            # What the source has for its guest it only gives if it is run again.
            report.status = LOST_GUEST
            report.error += ". If the destination's QEMU has gone, say 'cont' to the source's: " \
                            "its guest then gets what was kept for it"
            return
        if report.runs_at == "destination" and report.status == FAILED:
            report.status = UNCONFIRMED
        for machine in (self.source, self.there):
            try:
                machine.clean(ours)
            except Failure as error:
                if report.error == "":
                    report.left_over.append(str(error))


def migrate(source: str, there: str, uri: str, link: Link, progress: bool) -> Report:
    """By QMP alone."""
    return Migration(source, there, uri, link, progress).run()
