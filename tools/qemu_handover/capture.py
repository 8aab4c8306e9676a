# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""A pcap of a guest's packets, by a QEMU without privileges: it gets an open packet socket, which
it reads, and an open file, which it writes. So nothing of ours is in the packets' way, and a
program that reads the file slowly doesn't stop QEMU."""

import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from .domain import Interface, choose, interfaces
from .machine import Failure, Libvirt, LibvirtMachine, Refused

PREFIX = "capture-"
POLL_S = 0.1
LOOK_EVERY = 10
LAST_PACKETS_S = 0.05       # a captured packet is passed on after 16 ms at most


@dataclass
class Order:
    """What the user wants."""
    domain: str
    interface: str | None
    file: str               # "-": standard output
    connect: str | None = None
    snaplen: int = 0
    expression: str = ""    # as tcpdump has it
    seconds: float = 0.0    # 0: until interrupted


def abandoned(ident: str) -> bool:
    """Whether it was added by a tool that has been killed."""
    if not ident.startswith(PREFIX):
        return False
    process = ident.rpartition("-")[2]
    return not (process.isdigit() and os.path.exists(f"/proc/{process}"))


def _program(expression: str) -> str:
    """A filter in the kernel's language."""
    try:
        done = subprocess.run(["tcpdump", "-ddd", "-y", "EN10MB", expression], text=True,
                              capture_output=True, check=False)
    except FileNotFoundError:
        raise Failure("--filter needs tcpdump, which compiles it") from None
    if done.returncode:
        raise Failure(f"--filter: {done.stderr.strip()}")
    return ",".join(done.stdout.split("\n")).strip(",")


def _packet_socket(device: str) -> socket.socket:
    try:
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise Failure("opening a packet socket needs root (CAP_NET_RAW)") from None
    try:
        found.bind((device, 0))
    except OSError as error:
        found.close()
        raise Failure(f"{device}: {error.strerror}; this has to run on the guest's host") from None
    return found


class Capture:
    """One of them; end() removes what begin() has added."""

    def __init__(self, machine: LibvirtMachine, card: Interface) -> None:
        self.machine = machine
        self.card = card
        self._filter = f"{PREFIX}{card.alias}-{os.getpid()}"
        self._dump = f"{PREFIX}dump-{card.alias}-{os.getpid()}"
        self._hub = f"{PREFIX}hub-{card.alias}-{os.getpid()}"
        self._netdev = card.netdev

    def begin(self, output: int, order: Order) -> None:
        """QEMU writes to that file from now on."""
        limits: dict[str, Any] = {"snaplen": order.snaplen} if order.snaplen else {}
        if order.expression:
            limits["filter"] = _program(order.expression)
        if not self._uses_vhost():
            # There, filter-dump would be shown the guest's own packets besides the copies.
            self.machine.qmp("netdev_add", type="hubport", id=self._hub, hubid=os.getpid())
            self._netdev = self._hub
        with _packet_socket(self.card.device) as packets:
            self.machine.pass_file(packets.fileno(), "getfd", fdname=self._filter)
        self.machine.qmp("object-add", **{
            "qom-type": "filter-redirector", "id": self._filter, "netdev": self._netdev,
            "in_netdev": self.card.netdev, "in_netdev_fd": self._filter, **limits})
        passed = self.machine.pass_file(output, "add-fd")["fdset-id"]
        try:
            self.machine.qmp("object-add", **{
                "qom-type": "filter-dump", "id": self._dump, "netdev": self._netdev,
                "file": f"/dev/fdset/{passed}"})
        finally:
            self.machine.qmp("remove-fd", **{"fdset-id": passed})

    def _uses_vhost(self) -> bool:
        """A netdev with vhost refuses filters that don't sit behind a capture."""
        try:
            self.machine.qmp("object-add", **{
                "qom-type": "filter-dump", "id": self._dump, "netdev": self.card.netdev,
                "file": os.devnull})
        except Refused:
            return True
        self.machine.qmp("object-del", id=self._dump)
        return False

    def counts(self) -> dict[str, int]:
        """Packets, and those lost."""
        stats = next((item["input"]["stats"] for item in self.machine.redirectors()
                      if item["id"] == self._filter), {"packets": 0, "lost": 0})
        return {"packets": stats["packets"], "lost": stats["lost"]}

    def end(self) -> dict[str, int] | None:
        """None where the guest has gone."""
        counts = None
        try:
            counts = self.counts()
            self.machine.clean(lambda ident: ident in (self._filter, self._dump, self._hub))
        except Failure:
            if self.machine.is_active:
                raise
        return counts


def _follow(source: int, target: int, wait_s: float = 0.0) -> bool:
    """All that has been written since, or what the reader takes; returns whether it was all."""
    while select.select([], [target], [], wait_s)[1]:
        # A pipe that is ready takes that much at once: no signal gets in between.
        data = os.read(source, select.PIPE_BUF)
        if not data:
            return True
        os.write(target, data)
    return False


def run(order: Order) -> dict[str, Any]:
    """Until the time is over, somebody interrupts it, the guest goes, or nobody reads."""
    machine = Libvirt(order.connect).machine(order.domain)
    if not machine.is_active:
        raise Failure(f"'{order.domain}' does not run")
    card = choose(interfaces(machine.dom.XMLDesc(0)), order.interface)
    machine.clean(abandoned)
    follows = order.file == "-"
    if follows:
        output, path = tempfile.mkstemp(prefix="qemu-handover-")
        reader = os.open(path, os.O_RDONLY)
        os.unlink(path)
        # QEMU's side has to be as QEMU opens it: for writing alone.
        writer = os.open(f"/proc/self/fd/{output}", os.O_WRONLY)
        os.close(output)
    else:
        try:
            writer = os.open(order.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError as error:
            raise Failure(f"{order.file}: {error.strerror}") from None
        reader = -1
    capture = Capture(machine, card)
    result: dict[str, Any] = {"domain": order.domain, "interface": card.device, "packets": None,
                              "lost": None}
    try:
        capture.begin(writer, order)
        print(f"qemu-handover: capturing {order.domain}'s {card.device}; Ctrl-C ends it",
              file=sys.stderr, flush=True)
        _wait(machine, order, reader)
    except (KeyboardInterrupt, BrokenPipeError):
        time.sleep(LAST_PACKETS_S)
    finally:
        result |= capture.end() or {}
    if follows and sys.stdout:
        try:
            while not _follow(reader, sys.stdout.fileno(), POLL_S):
                pass
        except BrokenPipeError:
            pass
    return result


def _wait(machine: LibvirtMachine, order: Order, reader: int) -> None:
    end = time.monotonic() + order.seconds if order.seconds else float("inf")
    turn = 0
    while time.monotonic() < end:
        time.sleep(POLL_S)
        if reader >= 0:
            _follow(reader, sys.stdout.fileno())
        turn += 1
        if turn % LOOK_EVERY == 0 and not machine.is_active:
            return
