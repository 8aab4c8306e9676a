# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What a scenario works with, inside the lab: the network, QEMU processes, traffic, marks.

All times written here are CLOCK_REALTIME of the lab, in nanoseconds, like QMP's event times and the
traffic program's, so that everything can be put on one line afterwards.
"""

import json
import re
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import guest

RESULTS = Path("/results")
BRIDGE = "br0"
TRACING = Path("/sys/kernel/tracing/instances")


class ScenarioError(Exception):
    """The scenario cannot go on; the message says why."""


def say(text: str) -> None:
    print(f"lab: {text}", flush=True)


def run(*command: str) -> str:
    result = subprocess.run(command, text=True, capture_output=True, check=False, timeout=60)
    if result.returncode:
        raise ScenarioError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def wait_until(what: str, test: Callable[[], Any], limit_s: float = 30, every_s: float = 0.05) -> Any:
    """Returns the first true value of test(); an error that names `what` when the time is over."""
    end = time.monotonic() + limit_s
    while True:
        value = test()
        if value:
            return value
        if time.monotonic() > end:
            raise ScenarioError(f"{what}: not within {limit_s} s")
        time.sleep(every_s)


class Qmp:
    """A QMP connection. Every command goes into the lab's record; events are kept with their times."""

    def __init__(self, path: str, record: Callable[[dict[str, Any]], None]) -> None:
        self._record = record
        self._socket = socket.socket(socket.AF_UNIX)
        self._buffer = b""
        self.events: list[dict[str, Any]] = []
        wait_until(f"QMP socket {path}", lambda: self._connect(path))
        self._message(30)       # the greeting
        self._call("qmp_capabilities", {})

    def _connect(self, path: str) -> bool:
        try:
            self._socket.connect(path)
        except OSError:
            return False
        return True

    def _message(self, limit_s: float) -> dict[str, Any] | None:
        """The next message of any kind, None when the time is over."""
        end = time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            left = max(0.0, end - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                return None
            data = self._socket.recv(65536)
            if not data:
                raise ScenarioError("QEMU closed its QMP connection: it is dead")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message = json.loads(line)
        if "event" in message:
            stamp = message["timestamp"]
            message["ns"] = stamp["seconds"] * 10**9 + stamp["microseconds"] * 1000
            self.events.append(message)
        return message

    def _call(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self._message(60)
            if message is None:
                raise ScenarioError(f"QMP {command}: no answer within 60 s")
            if "return" in message or "error" in message:
                return message

    def try_command(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Runs a command and gives back QEMU's whole answer, be it an error."""
        arguments = {name.replace("_", "-") if command != "object-add" else name: value
                     for name, value in arguments.items()}
        started = time.time_ns()
        answer = self._call(command, arguments)
        if not command.startswith("query-"):
            self._record({"ns": started, "execute": command, "arguments": arguments,
                          "error": answer.get("error", {}).get("desc")})
        return answer

    def __call__(self, command: str, **arguments: Any) -> Any:
        answer = self.try_command(command, **arguments)
        if "error" in answer:
            raise ScenarioError(f"QMP {command}: {answer['error']['desc']}")
        return answer["return"]

    def event(self, name: str, limit_s: float = 60, after_ns: int = 0) -> dict[str, Any]:
        """The first event of that name (and not before after_ns), awaited if need be."""
        end = time.monotonic() + limit_s
        while True:
            for event in self.events:
                if event["event"] == name and event["ns"] >= after_ns:
                    return event
            left = end - time.monotonic()
            if left <= 0 or self._message(left) is None:
                raise ScenarioError(f"QMP event {name}: not within {limit_s} s")

    def poll_events(self) -> None:
        while self._message(0):
            pass


class Vm:
    """One QEMU process with one TAP, vhost on."""

    def __init__(self, lab: "Lab", name: str, incoming: str, vhost: bool = True,
                 extra: tuple[str, ...] = ()) -> None:
        self.name = name
        self.tap = f"{name}0"
        self._lab = lab
        self._log = (RESULTS / f"qemu-{name}.log").open("w")
        netdev = f"tap,id=net0,ifname={self.tap},script=no,downscript=no"
        self.process = subprocess.Popen(
            ["/usr/bin/qemu", "-name", name, "-L", "/usr/share/lab-firmware",
             *guest.machine("/guest/vmlinuz", "/guest/initrd"),
             "-netdev", netdev + (",vhost=on" if vhost else ""),
             *guest.network_card(),
             "-serial", f"file:/results/guest-{name}.log",
             "-qmp", f"unix:/run/{name}.qmp,server=on,wait=off",
             "-incoming", incoming, *extra],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        self.qmp = Qmp(f"/run/{name}.qmp", self._record)

    def _record(self, entry: dict[str, Any]) -> None:
        self._lab.commands.append({"vm": self.name, **entry})

    def status(self) -> str:
        return str(self.qmp("query-status")["status"])

    def redirector(self, name: str) -> dict[str, Any]:
        """What query-filter-redirectors tells of one object."""
        for entry in self.qmp("query-filter-redirectors"):
            if entry["id"] == name:
                return dict(entry)
        raise ScenarioError(f"{self.name} has no filter-redirector '{name}'")

    def tap_counter(self, name: str) -> int:
        return int(Path(f"/sys/class/net/{self.tap}/statistics/{name}").read_text())

    def tap_fd(self) -> int:
        for info in Path(f"/proc/{self.process.pid}/fdinfo").iterdir():
            if f"iff:\t{self.tap}\n" in info.read_text():
                return int(info.name)
        raise ScenarioError(f"{self.name} has no open TAP {self.tap}")

    def check_vhost(self) -> None:
        """The kernel's vhost worker of this QEMU exists."""
        want = f"vhost-{self.process.pid}"
        names = {path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm")}
        if want not in names:
            raise ScenarioError(f"{self.name}: no kernel thread [{want}]: vhost is not running")
        self._lab.note(f"{self.name}_vhost_thread", want)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class ReadWatch:
    """Counts what QEMU itself reads from its TAP, by the kernel's syscall trace events.

    While vhost carries the packets this must be 0: it is the proof that QEMU's net layer saw none.
    """

    def __init__(self, vm: Vm) -> None:
        self._folder = TRACING / vm.name
        self._folder.mkdir(exist_ok=True)
        tasks = [path.name for path in Path(f"/proc/{vm.process.pid}/task").iterdir()]
        (self._folder / "set_event_pid").write_text(" ".join(tasks))
        for call in ("read", "readv"):
            event = self._folder / f"events/syscalls/sys_enter_{call}"
            (event / "filter").write_text(f"fd == {vm.tap_fd()}")
            (event / "enable").write_text("1")
        self.reset()

    def reset(self) -> None:
        (self._folder / "trace").write_text("")

    def count(self) -> int:
        lines = (self._folder / "trace").read_text().splitlines()
        return sum(1 for line in lines if not line.startswith("#"))


class Stream:
    """Listens on a Unix socket and writes what a redirector's chardev sends into a file, timed.

    The file: for each piece read, its time (u64 ns), its length (u32), then the bytes.
    """

    def __init__(self, name: str) -> None:
        self.path = f"/run/{name}.stream"
        self.bytes = 0
        self._file = (RESULTS / f"{name}.stream").open("wb")
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.path)
        self._server.listen(1)
        threading.Thread(target=self._copy, daemon=True).start()

    def _copy(self) -> None:
        connection, _ = self._server.accept()
        while data := connection.recv(1 << 20):
            self._file.write(struct.pack("<QI", time.time_ns(), len(data)) + data)
            self._file.flush()
            self.bytes += len(data)

    def settle(self, quiet_s: float = 1.5) -> None:
        """Waits until nothing came for a while."""
        seen = -1
        while seen != self.bytes:
            seen = self.bytes
            time.sleep(quiet_s)


class Lab:
    """The network and everything in it; close() ends all processes and writes the record."""

    def __init__(self, scenario: str, parameters: dict[str, Any]) -> None:
        self.scenario = scenario
        self.parameters = parameters
        self.commands: list[dict[str, Any]] = []
        self.marks: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}
        self.vms: list[Vm] = []
        self._traffic: subprocess.Popen[str] | None = None

    def __getattr__(self, name: str) -> Any:
        """lab.rate and the like: the run's parameters."""
        try:
            return self.__dict__["parameters"][name]
        except KeyError:
            raise AttributeError(f"no parameter '{name}'") from None

    # ---- record ----

    def mark(self, name: str, ns: int | None = None) -> None:
        self.marks.append({"name": name, "ns": ns or time.time_ns()})

    def note(self, name: str, value: Any) -> None:
        self.notes[name] = value

    def close(self) -> None:
        if self._traffic and self._traffic.poll() is None:
            self._traffic.kill()
        for vm in self.vms:
            try:
                vm.qmp.poll_events()
                self.note(f"{vm.name}_tap_dropped", vm.tap_counter("tx_dropped"))
            except (ScenarioError, OSError):
                pass
            vm.kill()
        events = [{"vm": vm.name, "event": event["event"], "ns": event["ns"],
                   "data": event.get("data")} for vm in self.vms for event in vm.qmp.events]
        record = {"scenario": self.scenario, "parameters": self.parameters,
                  "commands": self.commands, "marks": self.marks, "notes": self.notes,
                  "events": sorted(events, key=lambda event: event["ns"])}
        (RESULTS / "record.json").write_text(json.dumps(record, indent=1))

    # ---- network ----

    def network(self, taps: tuple[str, ...]) -> None:
        """A bridge, the client behind a veth pair in a namespace of its own, and TAPs."""
        # Nothing but our packets: no IPv6 neighbour discovery, no multicast queries.
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        run("ip", "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0",
            "mcast_snooping", "0")
        run("ip", "netns", "add", "client")
        run("ip", "link", "add", "client0", "type", "veth", "peer", "name", "eth0",
            "netns", "client", "address", guest.CLIENT_MAC)
        run("ip", "link", "set", "client0", "master", BRIDGE, "up")
        for tap in taps:
            run("ip", "tuntap", "add", tap, "mode", "tap")
            run("ip", "link", "set", tap, "master", BRIDGE, "txqueuelen", str(self.queue), "up")
        run("ip", "link", "set", BRIDGE, "up")
        run("ip", "-n", "client", "addr", "add", f"{guest.CLIENT_IP}/24", "dev", "eth0")
        run("ip", "-n", "client", "link", "set", "eth0", "up")
        run("ip", "-n", "client", "neigh", "add", guest.GUEST_IP, "lladdr", guest.GUEST_MAC,
            "dev", "eth0", "nud", "permanent")

    def client(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", "client", *command]

    # ---- machines ----

    def source(self, *extra: str) -> Vm:
        """The source, its guest running, vhost checked."""
        say("source: starting the guest from its snapshot")
        vm = Vm(self, "src", "file:/guest/snapshot", self.vhost, extra)
        self.vms.append(vm)
        wait_until("the guest runs", lambda: vm.status() == "running", 60)
        vm.check_vhost()
        self.warm_up()
        return vm

    def warm_up(self, good_ms: float = 100) -> None:
        """Pings the guest until it answers quickly: what it runs is translated only once met."""
        command = self.client("ping", "-c", "3", "-i", "0.2", "-W", "2", "-q", guest.GUEST_IP)

        def quick() -> bool:
            out = subprocess.run(command, text=True, capture_output=True, check=False).stdout
            times = re.search(r"= ([\d.]+)/([\d.]+)/", out)
            return bool(times) and float(times[2]) < good_ms

        wait_until("the guest answers pings quickly", quick, 60)
        say("the guest runs and answers")

    def destination(self, *extra: str, name: str = "dst") -> Vm:
        vm = Vm(self, name, "defer", self.vhost, extra)
        self.vms.append(vm)
        return vm

    @staticmethod
    def watch_reads(vm: Vm) -> ReadWatch:
        return ReadWatch(vm)

    def expect_no_reads(self, vm: Vm, watch: ReadWatch) -> None:
        """QEMU's own netdev read nothing since the watch began (or was reset)."""
        count = watch.count()
        self.note(f"{vm.name}_own_reads", count)
        if count:
            raise ScenarioError(f"{vm.name}: QEMU itself read its TAP {count} times while the "
                                "guest ran: vhost does not carry the packets")

    # ---- traffic ----

    def start_traffic(self) -> None:
        say(f"traffic: {self.rate} packets/s of {self.size} bytes to the guest, {self.back} back")
        self._traffic = subprocess.Popen(
            self.client("/usr/bin/traffic", "run", guest.GUEST_IP, str(guest.TRAFFIC_PORT),
                        str(self.rate), str(self.back), str(self.size), str(RESULTS)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._traffic.stdout
        line = self._traffic.stdout.readline()
        if "running" not in line:
            raise ScenarioError(f"traffic did not start: {line.strip()}")
        self.mark("traffic started")

    def stop_traffic(self) -> None:
        assert self._traffic
        self.mark("traffic stops")
        say("traffic: stopping, waiting for stragglers")
        self._traffic.terminate()
        out, _ = self._traffic.communicate(timeout=90)
        say(out.strip().replace("\n", "; ").replace("traffic: ", ""))
        if self._traffic.returncode:
            raise ScenarioError(f"traffic program failed: {out.strip()}")

    # ---- migration ----

    def migrate(self, source: Vm, destination: Vm, port: int = 4444) -> None:
        """A live migration over TCP, until the destination's guest runs."""
        say(f"migrating {source.name} to {destination.name}")
        uri = f"tcp:127.0.0.1:{port}"
        started = time.time_ns()
        destination.qmp("migrate-incoming", uri=uri)
        source.qmp("migrate", uri=uri)
        stop = source.qmp.event("STOP", 60, started)
        resume = destination.qmp.event("RESUME", 60, started)
        self.mark(f"{source.name} stopped", stop["ns"])
        self.mark(f"{destination.name} resumed", resume["ns"])
        result = wait_until("migration completed", lambda: self._migration_end(source), 60)
        if result["status"] != "completed":
            raise ScenarioError(f"migration {result['status']}: {result.get('error-desc')}")
        self.note("downtime_by_qemu_ms", result.get("downtime"))
        say(f"guest stopped for {(resume['ns'] - stop['ns']) / 1e6:.0f} ms")

    @staticmethod
    def _migration_end(vm: Vm) -> dict[str, Any] | None:
        info = vm.qmp("query-migrate")
        return info if info.get("status") in ("completed", "failed", "cancelled") else None
