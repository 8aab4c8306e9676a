# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The two ends of a hand-over: what QEMU is told for them stands here and only here.

The source listens and the destination connects to it: so no port is opened through which packets
get to a guest, and the source's port is one that is free. Both show certificates and check names.
Without certificates it is not QEMU that listens: see door.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .door import Doors
from .machine import Failure, Machine

PREFIX = "handover-"
CREDENTIALS = PREFIX + "tls"
AUTHORIZATION = PREFIX + "authz"
# libvirt's own range for migrations: where there is a firewall, it lets these in.
FIRST_PORT, LAST_PORT = 49152, 49215
RECONNECT_MS = 200
TAKEN, HANDED = "FILTER_REDIRECTOR_TAKEN_OVER", "FILTER_REDIRECTOR_HANDED_OVER"
# A hold lasts 2 s at most, and 10 s more where the guest is slow to take what was held back.
CONFIRM_S = 15.0
# Where libvirt's documentation has certificates for QEMU; libvirtd's own are for root alone.
PKI = ("/etc/pki/libvirt-migrate", "/etc/pki/qemu")
SERVER_FILES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")


def ours(ident: str) -> bool:
    return ident.startswith(PREFIX)


@dataclass(frozen=True)
class Link:
    """How the two get together."""
    source: str                     # the host's name; where TLS is used, the certificate's
    peers: tuple[str, ...] = ()     # names of the destination that its certificate may have
    tls: str = ""                   # folder with certificates, on both hosts; without: none
    path: str = ""                  # of a Unix socket instead

    @property
    def open(self) -> bool:
        """Whoever gets there gets in."""
        return not (self.tls or self.path)


def find_pki() -> str:
    """A folder with certificates for QEMU; empty where there is none."""
    return next((folder for folder in PKI
                 if all(Path(folder, name).exists() for name in SERVER_FILES)), "")


def _authorize(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rules for a certificate's distinguished name: its common name is one of these."""
    return [{"match": match, "policy": "allow", "format": "glob"}
            for name in names
            for match in (f"CN={name}", f"CN={name},*", f"*,CN={name}", f"*,CN={name},*")]


@dataclass(frozen=True)
class Wire:
    """One interface's connection; `address` is where the source listens."""
    name: str               # of the interface
    ident: str
    netdev: str             # at the destination
    address: dict[str, Any]
    source_netdev: str

    @property
    def place(self) -> str:
        """Where the source listens, for people."""
        data = self.address["data"]
        return str(data.get("path") or f"{data['host']}, port {data['port']}")


def _inet(host: str, port: str, **more: Any) -> dict[str, Any]:
    return {"type": "inet", "data": {"host": host, "port": port, **more}}


def add_source(machine: Machine, name: str, netdev: str, to_netdev: str, link: Link,
               doors: Doors) -> Wire:
    """Makes one interface's source listen. What it adds, clean(ours) removes."""
    ident = PREFIX + name
    if link.open:
        port = doors.add(ident, range(FIRST_PORT, LAST_PORT + 1))
        return Wire(name, ident, to_netdev, _inet(link.source, str(port)), netdev)
    secure: dict[str, Any] = {}
    if link.tls:
        if CREDENTIALS not in machine.ours(ours):
            machine.qmp("object-add", **{"qom-type": "tls-creds-x509", "id": CREDENTIALS,
                                         "dir": link.tls, "endpoint": "server",
                                         "verify-peer": True})
            machine.qmp("object-add", **{"qom-type": "authz-list", "id": AUTHORIZATION,
                                         "policy": "deny", "rules": _authorize(link.peers)})
        secure = {"tls-creds": CREDENTIALS, "tls-authz": AUTHORIZATION}
    where: dict[str, Any] = \
        {"type": "unix", "data": {"path": f"{link.path}-{name}"}} if link.path else \
        _inet("", str(FIRST_PORT), to=LAST_PORT)
    _add_chardev(machine, ident, where, server=True, wait=False, **secure)
    if not link.path:
        where = _inet(link.source, _port(machine, ident))
    wire = Wire(name, ident, to_netdev, where, netdev)
    _add_giver(machine, wire)
    return wire


def let_in(machine: Machine, wires: list[Wire], doors: Doors, limit_s: float) -> None:
    """Waits so long at the doors, and gives the source who has come."""
    for ident, connection in doors.wait(limit_s):
        with connection:
            machine.pass_file(connection.fileno(), "getfd", fdname=ident)
        _add_chardev(machine, ident, {"type": "fd", "data": {"str": ident}}, server=False)
        _add_giver(machine, next(wire for wire in wires if wire.ident == ident))


def _add_chardev(machine: Machine, ident: str, where: dict[str, Any], **options: Any) -> None:
    machine.qmp("chardev-add", id=ident, backend={
        "type": "socket", "data": {"addr": where, **options}})


def _add_giver(machine: Machine, wire: Wire) -> None:
    machine.qmp("object-add", **{
        "qom-type": "filter-redirector", "id": wire.ident, "netdev": wire.source_netdev,
        "queue": "tx", "outdev": wire.ident, "vnet_hdr_support": True,
        "enable_when_stopped": True, "enable_when_running": False})


def _port(machine: Machine, ident: str) -> str:
    """On which it listens: the end of "disconnected:tcp:0.0.0.0:49152,server=on"."""
    name = next(item["filename"] for item in machine.qmp("query-chardev")
                if item["label"] == ident)
    port = name.split(",")[0].rpartition(":")[2]
    if not port.isdigit():
        raise Failure(f"{machine.name}: QEMU does not say where it listens: {name}")
    return str(port)


def destination_arguments(wires: list[Wire], link: Link) -> list[str]:
    """What a destination's QEMU is started with."""
    words = []
    if link.tls:
        words += ["-object", f"tls-creds-x509,id={CREDENTIALS},dir={link.tls},endpoint=client,"
                             "verify-peer=on"]
    for wire in wires:
        data = wire.address["data"]
        where = f"path={data['path']}" if link.path else \
            f"host={data['host']},port={data['port']}"
        secure = f",tls-creds={CREDENTIALS}" if link.tls else ""
        words += ["-chardev", f"socket,id={wire.ident},{where},reconnect-ms={RECONNECT_MS}"
                              + secure,
                  "-object", f"filter-redirector,id={wire.ident},netdev={wire.netdev},queue=tx,"
                             f"indev={wire.ident},vnet_hdr_support=on,enable_when_stopped=on"]
    return words


def add_destination(machine: Machine, wires: list[Wire], link: Link) -> None:
    """The same on one that waits for its migration."""
    if link.tls:
        machine.qmp("object-add", **{"qom-type": "tls-creds-x509", "id": CREDENTIALS,
                                     "dir": link.tls, "endpoint": "client", "verify-peer": True})
    for wire in wires:
        _add_chardev(machine, wire.ident, wire.address, server=False,
                     **{"reconnect-ms": RECONNECT_MS},
                     **({"tls-creds": CREDENTIALS} if link.tls else {}))
        machine.qmp("object-add", **{
            "qom-type": "filter-redirector", "id": wire.ident, "netdev": wire.netdev,
            "queue": "tx", "indev": wire.ident, "vnet_hdr_support": True,
            "enable_when_stopped": True})
