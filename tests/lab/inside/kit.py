# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What a scenario works with, inside the lab: the network, QEMU processes, traffic, marks.

All times written here are CLOCK_REALTIME of the lab, in nanoseconds, like QMP's event times and the
traffic program's, so that everything can be put on one line afterwards.
"""

import json
import os
import re
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import guest
import program
from machine import NOBODY, RESULTS, ReadWatch, UnprivilegedVm, Vm
from qmp import ScenarioError, run, say, wait_until
from switch import SWITCHES

HANDOVER = "/run/handover.sock"
NEARLY_NONE = 64        # packets
PROGRAM_SENDS = 1400    # bytes of payload, at most
# What makes an "outdev" redirector the source's half of the hand-over.
HANDOVER_OPTIONS = {"enable_when_stopped": True, "enable_when_running": False}


def cpu_seconds() -> dict[str, float]:
    """The processors' time that each thread has used."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/task/*/stat"):
        try:
            number, _, rest = path.read_text().partition(" (")
        except OSError:
            continue    # it has just ended
        name, _, rest = rest.rpartition(") ")
        fields = rest.split()
        found[f"{name} {number}"] = (int(fields[11]) + int(fields[12])) / 100
    return found


def one_processor(interface: str, *where: str) -> None:
    """What comes in at an interface goes through one processor's queue."""
    run(*where, "sh", "-c", f"echo 1 >/sys/class/net/{interface}/queues/rx-0/rps_cpus")


class Stream:
    """Listens on a Unix socket and writes what a redirector's chardev sends into a file, timed.

    The file: for each piece read, its time (u64 ns), its length (u32), then the bytes.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._file = (folder / f"{name}.stream").open("wb")
        self.path = f"/run/{folder.name}-{name}.stream"
        self.bytes = 0
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.path)
        os.chmod(self.path, 0o666)      # some scenarios' QEMU is not root
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


class Injector:
    """Sends numbered packets, like the traffic program's, into a redirector's chardev; a list of
    them is in injected.sent.csv."""

    def __init__(self, folder: Path, path: str, flows: int) -> None:
        self._folder = folder
        self._flows = flows
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        # A stopped guest takes nothing: the sender must not stand still for that.
        self._socket.setblocking(True)
        self._thread: threading.Thread | None = None
        self._sent: list[tuple[int, int]] = []
        self._number = guest.FIRST_INJECTED

    def send(self, count: int, rate: int) -> None:
        """Sends in the background, after what was to be sent before."""
        self._join()
        say(f"injecting {count} packets")
        self._thread = threading.Thread(target=self._work, args=(count, rate), daemon=True)
        self._thread.start()

    def _join(self) -> None:
        if self._thread:
            self._thread.join(60)
            if self._thread.is_alive():
                raise ScenarioError("the injected packets are not taken: stuck for 60 s")

    def _work(self, count: int, rate: int) -> None:
        for _ in range(count):
            now = time.time_ns()
            self._socket.sendall(guest.injected_packet(self._number, now,
                                                       self._number % self._flows))
            self._sent.append((self._number, now))
            self._number += 1
            time.sleep(1 / rate)

    def finish(self) -> None:
        self._join()
        with (self._folder / "injected.sent.csv").open("w") as out:
            out.write("number,sent_ns,arrived_ns,damaged\n")
            out.writelines(f"{number},{sent},0,0\n" for number, sent in self._sent)


class Lab:
    """The network and everything in it; close() ends all processes and writes the record."""

    def __init__(self, scenario: str, parameters: dict[str, Any]) -> None:
        self.scenario = scenario
        self.parameters = parameters
        self.commands: list[dict[str, Any]] = []
        self.marks: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}
        self.vms: list[Vm] = []
        self.folder = RESULTS       # for the traffic's records
        self._parts: list[str] = []
        self._switch: Any = None
        self._taps: tuple[str, ...] = ()
        self._ports: dict[str, str] = {}    # what of each TAP is at the switch
        self._linux_traffic: subprocess.Popen[str] | None = None
        self._guest = program.Guest() if parameters["guest"] == "program" else None
        self._client: program.Process | None = None
        self._watches: list[program.Watch] = []
        self._streams = 0
        self._cpu_before: dict[str, float] = {}

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

    def part(self, name: str) -> None:
        """Begins a part of the scenario that has traffic of its own, judged by itself."""
        self._parts.append(name)
        self.folder = RESULTS / name
        self.folder.mkdir()

    def close(self) -> None:
        if self._linux_traffic and self._linux_traffic.poll() is None:
            self._linux_traffic.kill()
        for vm in self.vms:
            try:
                if vm.process.poll() is None:
                    self.end(vm)
            except ScenarioError as error:
                self.note("error", str(error))
        for process in (*self._watches, self._client, self._guest):
            if process:
                process.kill()
        events = [{"vm": vm.name, "event": event["event"], "ns": event["ns"],
                   "data": event.get("data")} for vm in self.vms for event in vm.qmp.events]
        record = {"scenario": self.scenario, "parameters": self.parameters,
                  "commands": self.commands, "marks": self.marks, "notes": self.notes,
                  "parts": self._parts,
                  "events": sorted(events, key=lambda event: event["ns"])}
        (RESULTS / "record.json").write_text(json.dumps(record, indent=1))

    def _note_end(self, vm: Vm) -> None:
        try:
            vm.qmp.poll_events()
            redirectors = vm.qmp.try_command("query-filter-redirectors").get("return")
            if redirectors:
                self.note(f"{vm.name}_redirectors", redirectors)
            self.note(f"{vm.name}_tap_dropped", vm.tap_counter("tx_dropped"))
        except (ScenarioError, OSError):
            pass        # dead: what it can't tell is not noted

    # ---- network ----

    def network(self, taps: tuple[str, ...]) -> None:
        """A switch, the client behind a veth pair in a namespace of its own, and TAPs."""
        self._taps = taps
        # Nothing but our packets: no IPv6 neighbour discovery, no multicast queries.
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        self._switch = SWITCHES[self.switch]()
        run("ip", "netns", "add", "client")
        run("ip", "link", "add", "client0", "type", "veth", "peer", "name", "eth0",
            "netns", "client", "address", guest.CLIENT_MAC)
        self._switch.plug("client0")
        run("ip", "link", "set", "client0", "up")
        for tap in taps:
            port = self._make_tap(tap)
            self._switch.plug(port)
            self._ports[tap] = port
            run("ip", "link", "set", tap, "txqueuelen", str(self.queue), "up")
        run("ip", "-n", "client", "link", "set", "eth0", "up")
        if self._guest:
            # No kernel shall answer the program's packets. A burst must not be lost on the way.
            Path("/proc/sys/net/core/netdev_max_backlog").write_text("20000")
            # Packets from the guest go through one processor's queue: vhost's thread changes its
            # processor, and they would pass each other.
            one_processor("eth0", *self.client())
            return
        run("ip", "-n", "client", "addr", "add", f"{guest.CLIENT_IP}/24", "dev", "eth0")
        run("ip", "-n", "client", "neigh", "add", guest.GUEST_IP, "lladdr", guest.GUEST_MAC,
            "dev", "eth0", "nud", "permanent")

    def _make_tap(self, tap: str) -> str:
        """Makes it; returns what is plugged into the switch: itself, or what is below it."""
        if self.tap == "tap":
            several = ["multi_queue"] if self.queues > 1 else []
            run("ip", "tuntap", "add", tap, "mode", "tap", *several)
            return tap
        port, below = f"{tap}-port", f"{tap}-below"
        run("ip", "link", "add", port, "type", "veth", "peer", "name", below)
        run("ip", "link", "add", "link", below, "name", tap, "address", guest.GUEST_MAC,
            "type", "macvtap", "mode", "bridge")
        for name in (port, below):
            run("ip", "link", "set", name, "up")
        # A macvlan's broadcasts are a worker's, which changes its processor: they would pass each
        # other.
        one_processor(tap)
        return port

    def delay_data(self, tap: str, ms: float) -> None:
        """What the host gives to a TAP gets there later; announcements don't, and overtake it."""
        run("tc", "qdisc", "add", "dev", tap, "root", "handle", "1:", "prio", "bands", "3",
            "priomap", *["2"] * 16)
        run("tc", "qdisc", "add", "dev", tap, "parent", "1:3", "netem", "delay", f"{ms}ms",
            "limit", "100000")
        run("tc", "filter", "add", "dev", tap, "parent", "1:", "protocol", "rarp",
            "u32", "match", "u32", "0", "0", "flowid", "1:1")

    def isolate(self, on: bool) -> None:
        """The TAPs see nothing of each other, only of the client."""
        for tap in self._taps:
            self._switch.isolate(self._ports[tap], on)

    @staticmethod
    def command(*command: str) -> None:
        """Runs a command of the host, that is, of the lab."""
        run(*command)

    def client(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", "client", *command]

    # ---- machines ----

    def source(self, *extra: str) -> Vm:
        """The source, its guest running, vhost checked."""
        if not self._guest:
            say("source: starting the guest from its snapshot")
            vm = Vm(self, "src", "src0", "file:/guest/snapshot", extra)
            self._await_guest(vm)
            return vm
        vm = Vm(self, "src", "src0", "", extra)
        self._boot(vm)
        return vm

    def _boot(self, vm: Vm) -> None:
        assert self._guest
        self.vms.append(vm)
        self._guest.know(vm)
        self._guest.boot(vm, self.queues)
        vm.check_vhost()
        say("the guest runs")

    def _await_guest(self, vm: Vm) -> None:
        self.vms.append(vm)
        wait_until("the guest runs", lambda: vm.status() == "running", 60)
        vm.check_vhost()
        self.warm_up()

    def unprivileged(self, name: str, netns: str = "") -> UnprivilegedVm:
        """A machine at TAP src0, its guest running, vhost checked, its QEMU without privileges."""
        say(f"{name}: starting the guest, as user {NOBODY}")
        if self._guest:
            vm = UnprivilegedVm(self, name, "src0", "", netns)
            self._boot(vm)
        else:
            vm = UnprivilegedVm(self, name, "src0", "file:/guest/snapshot", netns)
            self._await_guest(vm)
        self.note(f"{name}_privileges", vm.privileges())
        return vm

    def warm_up(self, good_ms: float = 100) -> None:
        """Pings the guest until it answers quickly: what it runs is translated only once met. The
        program needs none of that."""
        if self._guest:
            return
        command = self.client("ping", "-c", "3", "-i", "0.2", "-W", "2", "-q", guest.GUEST_IP)

        def quick() -> bool:
            out = subprocess.run(command, text=True, capture_output=True, check=False).stdout
            times = re.search(r"= ([\d.]+)/([\d.]+)/", out)
            return bool(times) and float(times[2]) < good_ms

        wait_until("the guest answers pings quickly", quick, 60)
        say("the guest runs and answers")

    def destination(self, name: str = "dst", tap: str = "dst0",
                    extra: tuple[str, ...] = ()) -> Vm:
        vm = Vm(self, name, tap, "defer", extra)
        self.vms.append(vm)
        if self._guest:
            self._guest.know(vm)
        return vm

    # ---- redirectors ----

    @staticmethod
    def socket_chardev(vm: Vm, name: str, path: str, server: bool) -> None:
        """chardev-add of a Unix socket."""
        data = {"addr": {"type": "unix", "data": {"path": path}}, "server": server}
        if server:
            data["wait"] = False
        vm.qmp("chardev-add", id=name, backend={"type": "socket", "data": data})

    def inject_end(self, vm: Vm, path: str = HANDOVER, name: str = "handover") -> None:
        """What comes in at a socket goes into this machine's TAP, once its guest runs."""
        self.socket_chardev(vm, name, path, server=True)
        vm.qmp("object-add", qom_type="filter-redirector", id=name, netdev="net0",
               indev=name, out_netdev="net0", vnet_hdr_support=True,
               **vm.passed_socket("out_netdev"))

    def hold_end(self, vm: Vm, path: str = HANDOVER) -> None:
        """What comes in at a socket goes to this machine's guest first, before what its TAP gets."""
        self.socket_chardev(vm, "handover", path, server=True)
        vm.qmp("object-add", qom_type="filter-redirector", id="handover", netdev="net0",
               queue="tx", indev="handover", enable_when_stopped=True, vnet_hdr_support=True)

    def handover_end(self, vm: Vm, path: str = HANDOVER) -> None:
        """What the stopped guest did not get goes out at a socket."""
        self.socket_chardev(vm, "handover", self._watched(path), server=False)
        vm.qmp("object-add", qom_type="filter-redirector", id="handover", netdev="net0",
               queue="tx", outdev="handover", vnet_hdr_support=True, **HANDOVER_OPTIONS)

    def _watched(self, path: str) -> str:
        """Where to connect to in place of a socket, for what passes to be noted."""
        name = f"in-stream{self._streams or ''}"
        self._streams += 1
        self._watches.append(program.StreamWatch(self.folder, name, f"{path}.watched", path,
                                                   str(self.spoil)))
        return f"{path}.watched"

    def capture_end(self, vm: Vm, path: str = HANDOVER, queue: str = "tx", stopped: bool = True,
                    name: str = "handover") -> None:
        """A copy of what passes the TAP goes out at a socket."""
        self.socket_chardev(vm, name, self._watched(path) if path == HANDOVER else path,
                            server=False)
        vm.qmp("object-add", qom_type="filter-redirector", id=name, netdev="net0",
               queue=queue, in_netdev="net0", outdev=name, enable_when_stopped=stopped,
               vnet_hdr_support=True, **vm.passed_socket("in_netdev"))

    def capture_and_inject(self, vm: Vm, injected: int) -> Stream:
        """Starts traffic in both directions, all of it captured, and injects packets into it.
        Returns the capture, to be settled when the traffic has been stopped."""
        stream = self.stream("capture")
        self.capture_end(vm, stream.path, "all", False, "capture")
        self.inject_end(vm, f"{vm.folder}/inject", "inject")
        injector = self.injector(f"{vm.folder}/inject")
        self.start_traffic()
        self.check_vhost_carries(vm)
        injector.send(injected, self.rate)
        time.sleep(self.after)
        injector.finish()
        return stream

    def hold_announcement(self, destination: Vm) -> None:
        """Keeps the network sending to the source until announce(): the destination announces
        nothing by itself, and its port learns no addresses from what the guest sends."""
        destination.qmp("migrate-set-parameters", announce_rounds=0)
        self._learning(destination, "off")

    def _learning(self, vm: Vm, value: str) -> None:
        command = self._switch.learning_command(self._ports[vm.tap], value)
        self.commands.append({"vm": vm.name, "ns": time.time_ns(), "shell": " ".join(command)})
        run(*command)

    def fetch_memory(self) -> None:
        """To be called before a postcopy migration: the guest's program has QEMU fetch the pages
        that it uses, before it looks at them itself."""
        if self._guest:
            self._guest.order("touch on")

    def wait_handed_over(self, source: Vm, destination: Vm, name: str = "handover") -> None:
        """Waits until the destination has injected what the source has taken over."""
        good = 0

        def drained() -> bool:
            """The destination has by now passed on what the source had a moment ago, with nearly
            nothing queued, several times in a row: what still comes is new."""
            nonlocal good
            ends = [vm.redirector(name) for vm in (source, destination)]
            queued = sum(end[side]["stats"]["queued"] for end in ends
                         for side in ("input", "output") if "stats" in end[side])
            handed = [end["output"]["stats"]["packets"] for end in ends]
            good = good + 1 if queued <= NEARLY_NONE and handed[1] >= handed[0] else 0
            return good >= 5

        try:
            wait_until("the backlog is handed over", drained, 30, 0.1)
        except ScenarioError as error:      # costs order, not packets: go on
            self.note("announced_early", str(error))
            say(f"announcing nevertheless: {error}")

    def announce(self, source: Vm, destination: Vm) -> None:
        """Waits until the backlog has been handed over, then lets the destination announce."""
        self.wait_handed_over(source, destination)
        self.announce_now(destination)

    def announce_now(self, destination: Vm) -> None:
        self.learn(destination)
        destination.qmp("announce-self", initial=50, max=500, rounds=5, step=50)
        self.mark("announced")

    def learn(self, vm: Vm) -> None:
        """Has the bridge learn again who is behind this machine's port."""
        self._learning(vm, "on")

    def handover_pair(self, capture: bool = False,
                      destination_extra: tuple[str, ...] = (),
                      overtaken: float = 0) -> tuple[Vm, Vm]:
        """Source and destination, their guest's traffic flowing, ready to migrate with the
        hand-over; with `capture`, the source's redirector is for the caller to add. Unless it is to
        be announced `late`, the destination holds back what comes directly. `overtaken`: see
        delay_data()."""
        self.network(("src0", "dst0"))
        if overtaken:
            self.delay_data("src0", overtaken)
        source = self.source()
        destination = self.destination(extra=destination_extra)
        if self.late:
            self.inject_end(destination)
            self.hold_announcement(destination)
        else:
            self.hold_end(destination)
        if not capture:
            self.handover_end(source)
        self.start_traffic()
        self.check_vhost_carries(source)
        time.sleep(self.before)
        return source, destination

    def hold_switchover(self, source: Vm, destination: Vm) -> int:
        """Migrates as far as the switchover and holds it there: the source has stopped and waits
        for the word to go on, the worst moment for anything to go wrong. Returns the start."""
        source.qmp("migrate-set-capabilities",
                   capabilities=[{"capability": "pause-before-switchover", "state": True}])
        started = self.start_migration(source, destination)
        source.qmp.event("STOP", after_ns=started)
        time.sleep(0.5)
        return started

    def go_on(self, source: Vm, started: int) -> None:
        """After a migration that came to nothing: the source's guest runs again, and traffic ends
        some time later."""
        self.guest_stays(source, started)
        time.sleep(self.after)
        self.stop_traffic()

    def guest_stays(self, source: Vm, started: int) -> None:
        """After a migration that came to nothing: the source's guest runs again."""
        self.note("migration_status", self.migration_end(source)["status"])
        # QEMU tells of the end before it leaves the run state, in which it refuses to go on.
        wait_until("the source leaves the migration",
                   lambda: source.status() != "finish-migrate")
        if source.status() != "running":
            source.qmp("cont")
        source.qmp.event("RESUME", after_ns=started)

    def end(self, vm: Vm) -> None:
        """Ends one QEMU; its events stay on record."""
        self._note_end(vm)
        try:
            if self._guest:
                self._guest.order(f"forget {vm.name}")
        finally:
            vm.kill()

    def terminate(self, vm: Vm) -> None:
        """Ends one QEMU by SIGTERM, as libvirt does, and awaits that."""
        self._note_end(vm)
        vm.process.terminate()
        vm.process.wait(10)
        self.mark(f"{vm.name} ended")

    def check_vhost_carries(self, vm: Vm, by_trace: bool = False) -> None:
        """vhost's workers exist, and QEMU says that it has started them.

        With `by_trace`, and always with Linux: QEMU's own netdev reads nothing while packets flow.
        That is the proof, but it takes seconds.
        """
        vm.check_vhost()
        vm.check_vhost_started()
        if self._guest and not by_trace:
            return
        watch = ReadWatch(vm)
        time.sleep(0.5 if self._guest else 1.5)
        count = watch.stop()
        self.note(f"{vm.name}_own_reads", count)
        if count:
            raise ScenarioError(f"{vm.name}: QEMU itself read its TAP {count} times while the "
                                "guest ran: vhost does not carry the packets")

    # ---- traffic ----

    def let_guest_speak(self) -> None:
        """Has the guest send a little, for the network to learn where it is."""
        assert self._guest
        self._guest.order("send 50 100")
        time.sleep(0.2)
        self._guest.order("send 0 100")

    def start_traffic(self) -> None:
        say(f"traffic: {self.rate} packets/s of {self.size} bytes to the guest, {self.back} back")
        self._watches.append(program.Watch(self.folder, self._taps))
        if self._guest:
            self._client = program.Process(
                *self.client(program.PROGRAM, "client", "eth0", str(self.rate), str(self.size),
                             str(guest.flows(self.queues)), str(self.flooded), str(self.folder)),
                ready="ready")
            self._guest.order(f"send {self.back} {min(self.size, PROGRAM_SENDS)}")
            self._client.expect("running")
        else:
            self._start_linux_traffic()
        self._cpu_before = cpu_seconds()
        self.mark("traffic started")

    def change_rate(self, rate: int) -> None:
        assert self._client
        if self._client.order(f"rate {rate}") != "ok":
            raise ScenarioError("the client does not change its rate")

    def stop_traffic(self) -> None:
        self.mark("traffic stops")
        used = {name: round(seconds - self._cpu_before.get(name, 0), 2)
                for name, seconds in cpu_seconds().items()}
        self.note("cpu_seconds", dict(sorted(used.items(), key=lambda item: -item[1])[:10]))
        say("traffic: stopping, waiting for stragglers")
        if self._guest:
            self._stop_program_traffic()
        else:
            self._stop_linux_traffic()
        for watch in self._watches:
            said = watch.finish()
            if said:
                self.note("watch", said)
        self._watches = []

    def _stop_program_traffic(self) -> None:
        assert self._guest and self._client
        self._guest.order(f"send 0 {self.size}")
        say(self._client.finish())
        self._client = None
        counts = self._guest.counts()
        self.note("guest_counts", counts)
        say(f"the guest got {counts['arrived']} packets and sent {counts['sent']}")
        self._guest.order(f"save {self.folder}")

    def _start_linux_traffic(self) -> None:
        self._linux_traffic = subprocess.Popen(
            self.client("/usr/bin/traffic", "run", guest.GUEST_IP, str(guest.TRAFFIC_PORT),
                        str(self.rate), str(self.back), str(self.size),
                        str(guest.flows(self.queues)), str(self.folder)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._linux_traffic.stdout
        line = self._linux_traffic.stdout.readline()
        if "running" not in line:
            raise ScenarioError(f"traffic did not start: {line.strip()}")

    def _stop_linux_traffic(self) -> None:
        assert self._linux_traffic
        self._linux_traffic.terminate()
        out, _ = self._linux_traffic.communicate(timeout=90)
        say(out.strip().replace("\n", "; ").replace("traffic: ", ""))
        if self._linux_traffic.returncode:
            raise ScenarioError(f"traffic program failed: {out.strip()}")

    def bulk(self) -> None:
        """A TCP transfer to the guest, then one from it."""
        say(f"TCP: {self.parameters['bulk']} bytes each way")
        run(*self.client("/usr/bin/traffic", "bulk", guest.GUEST_IP, str(guest.TRAFFIC_PORT),
                         str(self.parameters["bulk"])))

    def fetch(self) -> None:
        """Brings the guest's records home, where no traffic program ran on the client."""
        if self._guest:
            self._guest.order(f"save {self.folder}")
            return
        run(*self.client("/usr/bin/traffic", "fetch", guest.GUEST_IP, str(guest.TRAFFIC_PORT),
                         str(self.folder)))

    def packets_of_queues(self) -> dict[str, list[int]]:
        """How many packets each queue of the guest's network card has received and sent."""
        text = run(*self.client("/usr/bin/traffic", "queues", guest.GUEST_IP,
                                str(guest.TRAFFIC_PORT)))
        found = {way: [int(count) for count in re.findall(
            rf"^{way}_?(?:queue_)?\d+_packets (\d+)$", text, re.M)] for way in ("rx", "tx")}
        if any(len(counts) < self.queues for counts in found.values()):
            raise ScenarioError(f"the guest does not count the packets of its queues: {text}")
        return found

    def stream(self, name: str) -> Stream:
        return Stream(self.folder, name)

    def injector(self, path: str) -> Injector | program.Injector:
        kind = program.Injector if self._guest else Injector
        return kind(self.folder, path, guest.flows(self.queues))

    # ---- migration ----

    def start_migration(self, source: Vm, destination: Vm, port: int = 4444) -> int:
        """Starts a live migration over TCP; returns the time of that."""
        say(f"migrating {source.name} to {destination.name}")
        uri = f"tcp:127.0.0.1:{port}"
        started = time.time_ns()
        destination.qmp("migrate-incoming", uri=uri)
        source.qmp("migrate", uri=uri)
        return started

    def finish_migration(self, source: Vm, destination: Vm, started: int) -> None:
        """Waits until the destination's guest runs and the source has finished."""
        stop = source.qmp.event("STOP", 60, started)
        resume = destination.qmp.event("RESUME", 60, started)
        self.mark(f"{source.name} stopped", stop["ns"])
        self.mark(f"{destination.name} resumed", resume["ns"])
        result = self.migration_end(source)
        if result["status"] != "completed":
            raise ScenarioError(f"migration {result['status']}: {result.get('error-desc')}")
        self.note("downtime_by_qemu_ms", result.get("downtime"))
        say(f"guest stopped for {(resume['ns'] - stop['ns']) / 1e6:.0f} ms")

    def migrate(self, source: Vm, destination: Vm) -> None:
        self.finish_migration(source, destination, self.start_migration(source, destination))

    @staticmethod
    def migration_end(vm: Vm) -> dict[str, Any]:
        """Waits until the source's migration is over, one way or the other."""
        def over() -> dict[str, Any] | None:
            info = vm.qmp("query-migrate")
            return info if info.get("status") in ("completed", "failed", "cancelled") else None

        return dict(wait_until("the migration is over", over, 60))
