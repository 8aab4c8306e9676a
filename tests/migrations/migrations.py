#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Many live migrations in a row with the hand-over, under traffic; every packet is accounted for.

usage: migrations.py [--qemu FILE] [--other FILE] [--python DIR] [--count N] [--seed N]
                     [--hand-over]

Each round starts a second QEMU, migrates to it, or lets the migration come to nothing, and goes on
with the side that survives. Rate, size of packets, capabilities (multifd, postcopy-ram,
pause-before-switchover, auto-converge) and the way a round ends (completed, cancelled, destination
or source killed) are drawn from the seed. With --other, QEMUs take turns with that program: one
that does not have our properties takes part without redirectors: what is lost then is not judged.

Real TAPs on a real bridge, in a network namespace of their own, vhost off: the guest is a socket on
a hub, which takes packets while the VM runs, as a guest does, and costs no emulation. A fixed
entry of the bridge's table says which TAP the guest is behind.

Exit status 0: nothing was lost, doubled or damaged; 1: something was, or a step failed. Writes
build/check/migrations.tap.
"""

import argparse
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOP = Path(os.environ.get("SERIES_TOP") or Path(__file__).resolve().parent.parent.parent)
sys.path.insert(0, str(TOP / "scripts"))
from tap import Group  # noqa: E402
GUEST = bytes.fromhex("020000000001")
SENDER = bytes.fromhex("020000000002")
ETHERTYPE = 0x88B5      # IEEE 802: for local experiments
MIN_BYTES, MAX_BYTES = 60, 1514
QUEUE = 20000           # txqueuelen of the TAPs
BRIDGE, WIRE = "br0", "wire0"
ENDINGS = ("complete",) * 6 + ("cancel", "cancel", "kill", "kill source", "kill source")
# Bytes a second: until postcopy begins, so that it is not over before; so that what ends a
# migration early falls into all of its phases; QEMU's default.
PRECOPY_RATE, SLOW_RATE, DEFAULT_RATE = 100000, 4 << 20, 128 << 20
WAIT_S = 60
SETTLE_S = 10   # a packet that has not come by then is lost


class Failed(Exception):
    """An invariant does not hold, or something never happened."""


def run(*command: str) -> None:
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")


def wait_until(what: str, test: Callable[[], Any]) -> Any:
    end = time.monotonic() + WAIT_S
    while not (value := test()):
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {WAIT_S} s")
        time.sleep(0.002)
    return value


class Network:
    """A bridge with two TAPs and a wire to the sender."""

    TAPS = ("tap-a", "tap-b")

    def __init__(self) -> None:
        run("ip", "link", "set", "lo", "up")
        run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        run("ip", "link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0")
        run("ip", "link", "add", WIRE, "type", "veth", "peer", "name", "wire1")
        run("ip", "link", "set", "wire1", "master", BRIDGE, "up")
        run("ip", "link", "set", WIRE, "up")
        for tap in self.TAPS:
            run("ip", "tuntap", "add", tap, "mode", "tap")
            run("ip", "link", "set", tap, "master", BRIDGE, "txqueuelen", str(QUEUE), "up")
            run("bridge", "link", "set", "dev", tap, "learning", "off", "flood", "off")
        run("ip", "link", "set", BRIDGE, "up")

    @staticmethod
    def point_to(tap: str) -> None:
        """From now on the bridge sends the guest's packets to this TAP."""
        run("bridge", "fdb", "replace", GUEST.hex(":"), "dev", tap, "master", "static")


class Sender(threading.Thread):
    """Sends numbered packets to the guest; rate and size can change at any time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.rate, self.size, self.sent = 500, 200, 0
        self.ended = threading.Event()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((WIRE, 0))

    def run(self) -> None:
        due = time.monotonic()
        while not self.ended.is_set():
            packet = GUEST + SENDER + struct.pack("!HQ", ETHERTYPE, self.sent)
            self._socket.send(packet.ljust(self.size, bytes([self.sent & 0xFF])))
            self.sent += 1
            due += 1 / self.rate
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - 0.1)      # never more than 0.1 s in a burst

    def stop(self) -> None:
        self.ended.set()
        self.join()


class Guest(threading.Thread):
    """Takes the packets that all QEMUs, one after the other, deliver."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.seen: set[int] = set()
        self.doubled: list[int] = []
        self.reordered = self.damaged = 0
        self._highest = -1
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind(str(path))

    def run(self) -> None:
        while True:
            self._take(self._socket.recv(1 << 16))

    def _take(self, packet: bytes) -> None:
        number, = struct.unpack_from("!Q", packet, 14)
        if packet[22:].strip(bytes([number & 0xFF])) or not MIN_BYTES <= len(packet) <= MAX_BYTES:
            self.damaged += 1
        if number in self.seen:
            self.doubled.append(number)
            return
        self.seen.add(number)
        self.reordered += number < self._highest
        self._highest = max(self._highest, number)


class Qemu:
    """One side."""

    def __init__(self, lab: "Lab", program: Path, tap: str, incoming: bool) -> None:
        from qemu.machine import QEMUMachine     # of QEMU's own tree
        self.tap = tap
        self.name = f"vm{next(lab.numbers)}"
        self.path = lab.folder / f"{self.name}.handover"
        own = lab.folder / f"{self.name}.guest"
        self.vm = QEMUMachine(str(program), name=self.name, base_temp_dir=str(lab.folder))
        self.vm.add_args(
            "-M", "pc", "-accel", "qtest", "-m", "64", "-nodefaults",
            "-netdev", f"tap,id=net0,ifname={tap},script=,downscript=,vhost=off",
            "-netdev", "hubport,id=hub0,hubid=0,netdev=net0",
            "-netdev", f"dgram,id=guest,local.type=unix,local.path={own},"
                       f"remote.type=unix,remote.path={lab.folder / 'guest'}",
            "-netdev", "hubport,id=hub1,hubid=0,netdev=guest")
        if incoming:
            self.vm.add_args("-incoming", "defer")
        self.vm.launch()
        self.ours = "in_netdev" in str(self("qom-list-properties", typename="filter-redirector"))

    def __call__(self, command: str, **arguments: Any) -> Any:
        return self.vm.cmd(command, {key.replace("_", "-"): value
                                     for key, value in arguments.items()})

    def redirector(self, qom: dict[str, Any]) -> None:
        self.vm.cmd("object-add", {"qom-type": "filter-redirector", "id": "handover",
                                   "netdev": "net0", "vnet_hdr_support": True, **qom})

    def chardev(self, path: Path, server: bool) -> None:
        data = {"addr": {"type": "unix", "data": {"path": str(path)}}, "server": server}
        if server:
            data["wait"] = False
        self("chardev-add", id="handover", backend={"type": "socket", "data": data})

    def accept(self) -> None:
        """This side takes what the other hands over."""
        if self.ours:
            self.chardev(self.path, True)
            self.redirector({"indev": "handover", "out_netdev": "net0"})

    def give(self, other: "Qemu", mode: str) -> None:
        """This side hands over."""
        if self.ours and other.ours:
            self.chardev(other.path, False)
            self.redirector({"queue": "tx", "outdev": "handover", "enable_when_stopped": True,
                             **({"in_netdev": "net0"} if mode == "capture"
                                else {"enable_when_running": False})})

    def clean(self) -> None:
        """Takes this side's redirector away, if it has one."""
        for command, listing, key in (("object-del", "qom-list", "name"),
                                      ("chardev-remove", "query-chardev", "label")):
            there = self(listing, **({"path": "/objects"} if listing == "qom-list" else {}))
            if any(entry[key] == "handover" for entry in there):
                self(command, id="handover")

    def stats(self, end: str) -> dict[str, int]:
        info, = self("query-filter-redirectors")
        return dict(info[end]["stats"])

    def peer_gone(self) -> bool:
        """The character device has come to the end of what the other side sent."""
        return any(entry["label"] == "handover" and entry["filename"].startswith("disconnected")
                   for entry in self("query-chardev"))

    def set(self, capabilities: dict[str, bool]) -> None:
        self("migrate-set-capabilities", capabilities=[
            {"capability": name, "state": state} for name, state in capabilities.items()])

    def migration(self) -> str:
        return str(self("query-migrate").get("status", "none"))

    def running(self) -> bool:
        return bool(self("query-status")["running"])

    def go_on(self) -> None:
        """After a migration. QEMU tells of its end before it leaves the run state in which it
        refuses to go on."""
        wait_until("the source leaves the migration",
                   lambda: self("query-status")["status"] != "finish-migrate")
        if not self.running():
            self("cont")

    def decided(self) -> bool:
        """Incoming: it has the guest, or has given up, which ends it."""
        try:
            return self.running()
        except Exception as error:
            wait_until("who does not answer has ended", lambda: not self.vm.is_running())
            if (self.vm.exitcode() or 0) < 0:
                raise Failed(f"{self.name}: ended by signal {-self.vm.exitcode()}") from error
            kill(self)
            return True

    def end(self) -> None:
        self.vm.shutdown(hard=True)


def kill(qemu: Qemu) -> None:
    if pid := qemu.vm.get_pid():        # else it has ended by itself
        os.kill(pid, 9)
    try:
        qemu.vm.shutdown(hard=True)
    except Exception:       # its word for "it was killed": that is what we wanted
        pass


class Lab:
    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args = args
        self.folder = folder
        self.random = random.Random(args.seed)
        self.numbers = iter(range(1, 1 << 30))
        self.network = Network()
        self.guest = Guest(folder / "guest")
        self.guest.start()
        self.sender = Sender()
        self.rounds: list[dict[str, Any]] = []
        self.excused: set[int] = set()      # packets of rounds that could not hand over

    def program(self) -> Path:
        other = self.args.other
        return Path(other if other and len(self.rounds) % 2 == 0 else self.args.qemu)

    def settle(self, target: int) -> None:
        """Waits until the guest has all packets up to `target`; not for ever, if some are lost."""
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end and any(n not in self.guest.seen and n not in self.excused
                                             for n in range(max(0, target - QUEUE), target)):
            time.sleep(0.05)

    # ---- a round ----

    def draw(self) -> dict[str, Any]:
        choose = self.random
        ending = choose.choice(ENDINGS)
        capabilities = {name: choose.random() < 0.3 for name in
                        ("multifd", "postcopy-ram", "pause-before-switchover", "auto-converge")}
        plan = {"rate": choose.choice((100, 300, 1000, 3000)),
                "size": choose.randint(MIN_BYTES, MAX_BYTES),
                "capabilities": capabilities, "delay": choose.uniform(0, 0.15),
                # What runs on two sides when one is killed can't be gone on with.
                "ending": "complete" if capabilities["postcopy-ram"] else ending,
                "mode": choose.choice(("hand-over", "capture"))}
        if plan["ending"] != "complete":
            plan["mode"] = "capture"
        if self.args.hand_over:
            plan.update(ending="complete", mode="hand-over")
        return plan

    def migrate(self, source: Qemu, destination: Qemu, plan: dict[str, Any]) -> str:
        """Runs the migration to its end, whatever that is; returns its status."""
        for side in (source, destination):
            side.set(plan["capabilities"])
        uri = "tcp:127.0.0.1:4444"
        destination("migrate-incoming", uri=uri)
        postcopy = plan["capabilities"]["postcopy-ram"]
        source("migrate-set-parameters", max_bandwidth=PRECOPY_RATE if postcopy else
               DEFAULT_RATE if plan["ending"] == "complete" else SLOW_RATE)
        source("migrate", uri=uri)
        start = time.monotonic()
        if postcopy:
            wait_until("the migration begins", lambda: source.migration() != "setup")
            time.sleep(plan["delay"])
            source("migrate-start-postcopy")
        acted = False

        def over() -> str | None:
            nonlocal acted
            plan["status"] = status = source.migration()
            if status in ("completed", "failed", "cancelled", "postcopy-paused"):
                return status
            if not acted and time.monotonic() - start >= plan["delay"]:
                acted = True
                if plan["ending"] == "cancel":
                    source("migrate_cancel")
                elif plan["ending"] == "kill":
                    kill(destination)
                elif plan["ending"] == "kill source":
                    kill(source)
                    return "source killed"
            elif acted and status == "pre-switchover" and not plan.get("continued"):
                plan["continued"] = True
                source("migrate-continue", state="pre-switchover")
            return None

        status = str(wait_until("the migration is over", over))
        plan["error"] = None if status == "source killed" else \
            source("query-migrate").get("error-desc")
        return status

    def hand_over(self, source: Qemu, destination: Qemu, plan: dict[str, Any]) -> None:
        """After a migration: the backlog, then the network, then the rest."""
        wait_until("the destination runs", destination.running)
        both = source.ours and destination.ours
        if both:
            self.drain(source, destination)
        self.network.point_to(destination.tap)
        if both:
            time.sleep(0.05)
            self.drain(source, destination)
            ends = source.stats("output"), destination.stats("output")
            if any(end[key] for end in ends for key in ("lost", "errors")):
                raise Failed(f"packets were lost on the way: {ends}")
            plan["handed"] = ends[0]["packets"]

    @staticmethod
    def drain(source: Qemu, destination: Qemu) -> None:
        """Until the destination has injected what the source has taken."""
        calm = 0

        def drained() -> bool:
            nonlocal calm
            ends = source.stats("output"), destination.stats("output")
            calm = calm + 1 if not any(end["queued"] for end in ends) and \
                abs(ends[0]["packets"] - ends[1]["packets"]) <= 2 else 0
            return calm >= 3

        wait_until("the backlog is handed over", drained)

    def lose_source(self, source: Qemu, destination: Qemu, plan: dict[str, Any]) -> Qemu:
        """Returns who goes on: the destination, if it got the guest, with all that it was given."""
        if plan["status"] == "completed":       # over before its time: while it hands over
            wait_until("the destination runs", destination.running)
            time.sleep(plan["delay"])
            kill(source)
            plan["status"] = "source killed after completion"
        wait_until("the destination has the guest, or gives up", destination.decided)
        if not destination.vm.is_running():
            return Qemu(self, self.program(), source.tap, False)
        if source.ours and destination.ours:
            wait_until("the source's last bytes are read", destination.peer_gone)
            wait_until("all is injected", lambda: not destination.stats("output")["queued"] and
                       destination.stats("input")["packets"] ==
                       destination.stats("output")["packets"])
            end = destination.stats("output")
            if end["lost"]:
                raise Failed(f"packets were lost on the way: {end}")
            plan["handed"] = end["packets"]
        self.network.point_to(destination.tap)
        return destination

    def round(self, source: Qemu) -> Qemu:
        plan = self.draw()
        plan["from"] = self.sender.sent
        plan["doubled_before"] = len(self.guest.doubled)
        self.rounds.append(plan)
        self.sender.rate, self.sender.size = plan["rate"], plan["size"]
        tap = self.network.TAPS[source.tap == self.network.TAPS[0]]
        destination = Qemu(self, self.program(), tap, True)
        destination.accept()
        source.clean()
        source.give(destination, plan["mode"])
        both = source.ours and destination.ours
        plan["status"] = status = self.migrate(source, destination, plan)
        if plan["ending"] == "kill source" and status in ("completed", "source killed"):
            # What the source had not sent yet nobody can get. From now on all arrives.
            survivor, gone = self.lose_source(source, destination, plan), source
            both = False
        elif status == "completed" and plan["ending"] != "kill":
            self.hand_over(source, destination, plan)
            survivor, gone = destination, source
        elif status == "postcopy-paused":
            # Half of the guest is on either side: begin with a new one.
            both = False
            source.end()
            survivor, gone = Qemu(self, self.program(), source.tap, False), destination
        elif status == "completed":
            # The destination had it all when it was killed: nobody has the guest any more.
            plan["status"] = "destination killed after completion"
            both = False
            source.go_on()
            survivor, gone = source, destination
        else:
            source.go_on()
            survivor, gone = source, destination
        target = self.sender.sent
        self.settle(target)
        gone.end()
        survivor.set(dict.fromkeys(plan["capabilities"], False))
        doubled = len(self.guest.doubled)
        if both and (plan["mode"] == "hand-over" or status != "completed"):
            plan["doubled"] = doubled - plan["doubled_before"]
        missing = {n for n in range(plan["from"], target) if n not in self.guest.seen}
        if both:
            plan["lost"] = len(missing)
        else:
            self.excused |= missing
        return survivor

    def work(self) -> int:
        vm = Qemu(self, Path(self.args.qemu), self.network.TAPS[0], False)
        self.network.point_to(vm.tap)
        self.sender.start()
        try:
            for number in range(self.args.count):
                vm = self.round(vm)
                self.tell(number)
        finally:
            self.sender.stop()
        self.settle(self.sender.sent)
        alive = vm.running()
        vm.end()
        return self.judge(alive)

    def tell(self, number: int) -> None:
        plan = self.rounds[-1]
        used = ",".join(name for name, on in plan["capabilities"].items() if on) or "-"
        print(f"# {number + 1}: {plan['mode']}, {plan['status']} ({plan['error'] or plan['ending']}), {plan['rate']}/s of {plan['size']} bytes, {used}, "
              f"handed over {plan.get('handed', 0)}, "
              f"lost {plan.get('lost', '-')}, doubled {plan.get('doubled', '-')}", flush=True)

    def judge(self, alive: bool) -> int:
        guest = self.guest
        lost = [n for n in range(self.sender.sent) if n not in guest.seen and n not in self.excused]
        ends = [plan["status"] for plan in self.rounds]
        doubled = sum(plan.get("doubled", 0) for plan in self.rounds)
        summary = {"seed": self.args.seed, "rounds": len(ends),
                   "ends": {end: ends.count(end) for end in sorted(set(ends))},
                   "sent": self.sender.sent, "lost": len(lost), "doubled": doubled,
                   "doubled_by_capture": len(guest.doubled) - doubled,
                   "reordered": guest.reordered, "damaged": guest.damaged,
                   "excused": len(self.excused),
                   "handed_over": sum(plan.get("handed", 0) for plan in self.rounds)}
        print(json.dumps(summary))
        group = Group("migrations")
        what = f"{len(ends)} migrations, seed {self.args.seed}: "
        group.add(what + "the guest runs at the end", alive)
        group.add(what + "no packet lost", not lost, f"{len(lost)}, the first ones {lost[:10]}")
        group.add(what + "none doubled", not doubled, str(doubled))
        group.add(what + "none damaged", not guest.damaged, str(guest.damaged))
        return group.write()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qemu", default=str(TOP / "build/qemu-system-x86_64"))
    parser.add_argument("--other", help="a second program that takes turns")
    parser.add_argument("--python", default=str(TOP / "build/qemu/python"),
                        help="folder of QEMU's Python packages")
    parser.add_argument("--count", type=int, default=10, help="rounds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hand-over", action="store_true",
                        help="only migrations that complete, by hand-over")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    if not os.environ.get("MIGRATIONS_NETNS"):
        os.environ["MIGRATIONS_NETNS"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount-proc", "--fork", "--pid",
                              "--kill-child", sys.executable, *sys.argv])
    sys.path.insert(0, args.python)
    folder = Path(tempfile.mkdtemp(prefix="migrations-"))
    lab = None
    try:
        lab = Lab(args, folder)
        return lab.work()
    except Failed as error:
        plan = json.dumps(lab.rounds[-1]) if lab and lab.rounds else ""
        print(f"FAILED in round {len(lab.rounds) if lab else 0}: {error}\n{plan}")
        group = Group("migrations")
        group.add(f"{args.count} migrations, seed {args.seed}", False, f"{error}\n{plan}")
        return group.write()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
