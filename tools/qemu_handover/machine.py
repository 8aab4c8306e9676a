# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""A running QEMU that takes QMP commands: through libvirt, or by a socket of its own."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

POLL_S = 0.05
Event = dict[str, Any]


class Failure(Exception):
    """Something did not work; the message says what, and what to do."""


class Refused(Failure):
    """QEMU, or libvirt, did not take a command."""


class Machine:
    """What all kinds have. `name` is for messages."""

    name: str

    def qmp(self, execute: str, **arguments: Any) -> Any:
        raise NotImplementedError

    def pass_file(self, number: int, execute: str, **arguments: Any) -> Any:
        """A command that takes a file with it: only on this host."""
        raise NotImplementedError

    def redirectors(self) -> list[dict[str, Any]]:
        try:
            answer: list[dict[str, Any]] = self.qmp("query-filter-redirectors")
        except Refused as error:
            if "has not been found" in str(error):
                raise Failure(f"{self.name}: its QEMU knows no hand-over; "
                              "it has to be one with this patch series") from None
            raise
        return answer

    def ours(self, belongs: Callable[[str], bool]) -> list[str]:
        """Ids of objects and chardevs that the tool has added, those in use last."""
        return [ident for _, ident in self._found(belongs)]

    def _found(self, belongs: Callable[[str], bool]) -> list[tuple[str, str]]:
        objects = [(item["type"], item["name"])
                   for item in self.qmp("qom-list", path="/objects") if belongs(item["name"])]
        filters = [("object-del", name) for kind, name in objects if "<filter-dump>" in kind] + \
            [("object-del", name) for kind, name in objects if "<filter-redirector>" in kind]
        hubs = [("netdev_del", name) for name in self._netdevs() if belongs(name)]
        chardevs = [("chardev-remove", item["label"])
                    for item in self.qmp("query-chardev") if belongs(item["label"])]
        others = [("object-del", name) for kind, name in objects if "<filter-" not in kind]
        return filters + hubs + chardevs + sorted(others, reverse=True)

    def _netdevs(self) -> list[str]:
        """Ports of hubs. No QMP command lists them; each is a line of its own."""
        text = self.qmp("human-monitor-command", **{"command-line": "info network"})
        return re.findall(r"^ \\ (\S+?)(?::.*)?\r?$", text, re.MULTILINE)

    def connected(self, belongs: Callable[[str], bool]) -> bool:
        """Whether all of our chardevs have got a peer, and believe him."""
        found = [item["filename"] for item in self.qmp("query-chardev") if belongs(item["label"])]
        return bool(found) and not any(name.startswith("disconnected:") for name in found)

    def clean(self, belongs: Callable[[str], bool]) -> list[str]:
        """Removes them; returns what there was."""
        found = self._found(belongs)
        for command, ident in found:
            self.qmp(command, id=ident)
        return [ident for _, ident in found]


def load_libvirt() -> tuple[Any, Any]:
    """The module and its part for QEMU; an event loop runs from then on."""
    try:
        import libvirt              # pylint: disable=import-outside-toplevel
        import libvirt_qemu         # pylint: disable=import-outside-toplevel
    except ImportError:
        raise Failure("needs libvirt's Python module: apt-get install python3-libvirt") from None
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def turn() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    # Or nothing would wake the loop once for what is added to it from here.
    libvirt.virEventAddTimeout(100, lambda *_: None, None)
    threading.Thread(target=turn, daemon=True).start()
    return libvirt, libvirt_qemu


class Libvirt:
    """A host's libvirt."""

    def __init__(self, uri: str | None) -> None:
        self.api, self.qemu = load_libvirt()
        try:
            self.conn = self.api.open(uri)
        except self.api.libvirtError as error:
            raise Failure(f"cannot connect to libvirt at {uri or 'its default'}: {error}") \
                from None

    def events(self, names: Iterable[str]) -> "Events":
        """Of all the host's domains, also of those to come."""
        found = Events()
        for name in names:
            self.qemu.qemuMonitorEventRegister(self.conn, None, name, found.add, name)
        return found

    def machine(self, domain: str) -> "LibvirtMachine":
        try:
            return LibvirtMachine(self, self.conn.lookupByName(domain))
        except self.api.libvirtError as error:
            raise Failure(f"no domain '{domain}': {error}") from None

    def state(self, domain: str) -> str:
        """In a word; "absent" where there is none, "unknown" if libvirt does not answer."""
        try:
            state, _ = self.conn.lookupByName(domain).state()
        except self.api.libvirtError as error:
            gone = self.api.VIR_ERR_NO_DOMAIN
            return "absent" if error.get_error_code() == gone else "unknown"
        return {self.api.VIR_DOMAIN_RUNNING: "running", self.api.VIR_DOMAIN_PAUSED: "paused",
                self.api.VIR_DOMAIN_SHUTOFF: "shut off"}.get(state, "not running")


class Events:
    """QMP events of a host's domains, as they come."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Event]] = []    # domain, name, data

    def add(self, _conn: Any, dom: Any, event: str, _s: int, _us: int, details: str,
            _opaque: Any) -> None:
        self.seen.append((dom.name(), event, json.loads(details or "{}")))

    def last(self, domain: str, event: str, ident: str) -> Event | None:
        return next((data for where, name, data in reversed(self.seen)
                     if (where, name, data.get("id")) == (domain, event, ident)), None)


class LibvirtMachine(Machine):
    """A running domain."""

    def __init__(self, host: Libvirt, dom: Any) -> None:
        self.host = host
        self.dom = dom
        self.name = dom.name()

    def _refused(self, execute: str, why: object) -> Refused:
        hint = ". AppArmor? docs/libvirt.md has the lines that it needs" \
            if "Permission denied" in str(why) else ""
        return Refused(f"{self.name}: {execute}: {why}{hint}")

    def _answer(self, text: str, execute: str) -> Any:
        answer = json.loads(text)
        if "error" in answer:
            raise self._refused(execute, answer["error"]["desc"])
        return answer["return"]

    def qmp(self, execute: str, **arguments: Any) -> Any:
        command = json.dumps({"execute": execute, "arguments": arguments})
        try:
            return self._answer(self.host.qemu.qemuMonitorCommand(self.dom, command, 0), execute)
        except self.host.api.libvirtError as error:
            raise self._refused(execute, error) from None

    def pass_file(self, number: int, execute: str, **arguments: Any) -> Any:
        command = json.dumps({"execute": execute, "arguments": arguments})
        try:
            text, _ = self.host.qemu.qemuMonitorCommandWithFiles(self.dom, command, [number], 0)
        except self.host.api.libvirtError as error:
            raise self._refused(execute, error) from None
        return self._answer(text, execute)

    @property
    def is_active(self) -> bool:
        try:
            return bool(self.dom.isActive())
        except self.host.api.libvirtError:
            return False


class QmpMachine(Machine):
    """A QEMU without libvirt; `path` is its QMP socket."""

    def __init__(self, path: str) -> None:
        try:
            # pylint: disable=import-outside-toplevel
            from qemu.qmp.legacy import QEMUMonitorProtocol
        except ImportError:
            raise Failure("needs QEMU's Python module qemu.qmp: pip install qemu.qmp") from None
        self.name = path
        self._events: list[Event] = []
        self._monitor = QEMUMonitorProtocol(path)
        try:
            self._monitor.connect()
        except Exception as error:
            raise Failure(f"{path}: no QMP there: {error}") from None

    def qmp(self, execute: str, **arguments: Any) -> Any:
        try:
            answer: Any = self._monitor.cmd_raw(execute, arguments)
        except Exception as error:
            raise Refused(f"{self.name}: {execute}: {error or type(error).__name__}") from None
        if "error" in answer:
            raise Refused(f"{self.name}: {execute}: {answer['error']['desc']}")
        return answer["return"]

    def pass_file(self, number: int, execute: str, **arguments: Any) -> Any:
        try:
            self._monitor.send_fd_scm(number)
        except Exception as error:
            raise Refused(f"{self.name}: {execute}: {error or type(error).__name__}") from None
        return self.qmp(execute, **arguments)

    def close(self) -> None:
        try:
            self._monitor.close()
        except Exception:   # pylint: disable=broad-exception-caught  # it has gone with QEMU
            pass

    def last(self, event: str, ident: str) -> Event | None:
        self._events += self._monitor.get_events()
        return next((seen["data"] for seen in reversed(self._events) if seen["event"] == event
                     and seen.get("data", {}).get("id") == ident), None)


def wait_for(test: Callable[[], Any], limit_s: float) -> Any:
    """What the test returns at last: something true, or not, if it takes too long."""
    end = time.monotonic() + limit_s
    while not (value := test()) and time.monotonic() < end:
        time.sleep(POLL_S)
    return value
