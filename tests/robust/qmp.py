#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Random QMP commands about redirectors, sense and nonsense, with packets in between.

usage: qmp.py SECONDS SEED PROGRAM      writes build/check/qmp.tap

QEMU answers each command, whatever it says, with a result or an error; in the end it holds as many
file descriptors as at first, and exits without a sanitizer's report. The same seed makes the
same commands; the last of them are shown where QEMU fails.
"""
import random
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import kit
from kit import Failed, Qemu, need, wait_until
from tap import Group

COMMANDS = 4000     # in the life of one QEMU
KEEP = 15           # commands that a failure shows

IDS = ["f0", "f0", "f1", "f1", "f2", "x", "n", "", "1", "a" * 300]
NETDEVS = ["n", "n", "n", "x", "x", "h", "nope", ""]
CHARDEVS = ["ci", "co", "c2", "nope", "", "ci", "co"]
NONSENSE: list[Any] = [None, 1, -1, 2**63, True, "", "on", [], {}, "x", 1.5]
VALUES: dict[str, list[Any]] = {
    "netdev": NETDEVS,
    "indev": CHARDEVS,
    "outdev": CHARDEVS,
    "in_netdev": NETDEVS,
    "out_netdev": NETDEVS,
    "in_netdev_fd": ["0", "1", "-1", "nope", "/dev/fdset/1", "99999999999"],
    "out_netdev_fd": ["0", "1", "-1", "nope", ""],
    "queue": ["tx", "rx", "all", "all", "none"],
    "status": ["on", "off", "on", "maybe"],
    "position": ["head", "tail", "id=f0", "id=nope", ""],
    "insert": ["before", "behind", "between"],
    "vnet_hdr_support": [True, False, True, "on"],
    "enable_when_stopped": [True, False, True, 1],
    "enable_when_running": [True, False, True, "off"],
    "snaplen": [0, 60, 65535, -1, 2**32, "60"],
    "filter": ["1,6 0 0 65535", "1,6 0 0 0", "", "2,6 0 0 0", "nonsense", 1],
    "ring_size": [512 << 10, 1 << 20, 16 << 20, 0, 1, -1, 2**63, 2**64 - 1, "1M", (1 << 30) + 1],
}


class Fuzz:
    def __init__(self, program: Path, rng: random.Random) -> None:
        self.rng = rng
        self.q = Qemu(program)
        kit.run("ip", "link", "set", "tapx", "up")
        self.last: list[str] = []
        self.commands = self.good = 0
        self.peers: list[kit.Stream] = []
        self.over = False
        self.reader = threading.Thread(target=self._read_peers, daemon=True)
        self.reader.start()

    def ask(self, command: str, arguments: dict[str, Any] | None = None) -> bool:
        self.last = [*self.last[-KEEP:], f"{command} {arguments or ''}"]
        self.commands += 1
        answer = self.q.ask(command, arguments)
        need(("return" in answer) != ("error" in answer), f"not an answer: {answer}")
        self.good += "return" in answer
        return "return" in answer

    def value(self, name: str) -> Any:
        return self.rng.choice(NONSENSE if self.rng.random() < 0.02 else VALUES[name])

    def object_add(self) -> None:
        rng = self.rng
        props: dict[str, Any] = {"netdev": self.value("netdev")}
        # Half of them begin with ends that go together.
        if rng.random() < 0.5:
            props.update(rng.choice([
                {"in_netdev": "x", "outdev": "co"}, {"indev": "ci", "out_netdev": "x"},
                {"in_netdev": "x"}, {"out_netdev": "x"}, {"indev": "ci", "outdev": "co"},
                {"outdev": "co", "enable_when_stopped": True}]))
            props["netdev"] = rng.choice(["n", "x"])
        for name in rng.sample(sorted(VALUES), rng.randrange(4)):
            props[name] = self.value(name)
        self.ask("object-add", {"qom-type": "filter-redirector", "id": rng.choice(IDS), **props})

    def object_del(self) -> None:
        self.ask("object-del", {"id": self.rng.choice(IDS)})

    def qom_set(self) -> None:
        name = self.rng.choice([*VALUES, "status", "status", "status"])
        self.ask("qom-set", {"path": "/objects/" + self.rng.choice(IDS), "property": name,
                             "value": self.value(name)})

    def qom_get(self) -> None:
        self.ask("qom-get", {"path": "/objects/" + self.rng.choice(IDS),
                             "property": self.rng.choice(sorted(VALUES))})

    def query(self) -> None:
        need(self.ask("query-filter-redirectors"), "query-filter-redirectors failed")

    def monitor(self) -> None:
        self.ask("human-monitor-command", {"command-line": self.rng.choice(
            ["info filter-redirectors", "info network", "info chardev"])})

    def run_state(self) -> None:
        self.ask(self.rng.choice(["stop", "cont", "cont"]))

    def set_link(self) -> None:
        self.ask("set_link", {"name": self.rng.choice(NETDEVS), "up": self.rng.random() < 0.6})

    def netdev(self) -> None:
        if self.rng.random() < 0.1:
            self.ask("netdev_del", {"id": "x"})
            if self.rng.random() < 0.3:
                self.object_add()
            self.add_tap()

    def add_tap(self) -> None:
        if self.ask("netdev_add", {"type": "tap", "id": "x", "ifname": "tapx", "script": "no",
                                   "downscript": "no", "vhost": False}):
            kit.run("ip", "link", "set", "tapx", "up")

    def chardev(self) -> None:
        if self.rng.random() < 0.5:
            self.ask("chardev-add", {"id": "c2", "backend": {"type": "null", "data": {}}})
        else:
            self.ask("chardev-remove", {"id": self.rng.choice(["c2", "c2", "c2", "nope"])})

    def link(self) -> None:
        if self.rng.random() < 0.1:
            for state in ("down", "up"):
                kit.run("ip", "link", "set", "tapx", state)
                self.query()

    def peer(self) -> None:
        if len(self.peers) > 1:
            self.peers.pop(0).sock.close()
        stream = kit.Stream(socket.socket(socket.AF_UNIX))
        stream.sock.setblocking(False)
        try:
            stream.sock.connect(str(self.q.dir / self.rng.choice(["ci", "co"])))
            self.peers.append(stream)
        except OSError:
            stream.sock.close()

    def packets(self) -> None:
        """From everywhere; it does not matter here what becomes of them."""
        for number in range(self.rng.choice([1, 30])):
            data = kit.packet(number, self.rng.choice([60, 60, 1500]))
            for send in (lambda: self.q.chain.send(data, socket.MSG_DONTWAIT),
                         lambda: self.net_send(data),
                         lambda: self.peers and self.peers[-1].sock.send(
                             len(data).to_bytes(4, "big") + data)):
                try:
                    send()
                except OSError:
                    pass

    def _read_peers(self) -> None:
        """QEMU's own redirector, between chardevs, waits for a peer that does not read, with all
        of QEMU."""
        while not self.over:
            for stream in list(self.peers):
                try:
                    stream.sock.recv(1 << 20)
                except OSError:
                    pass
            time.sleep(0.01)

    @staticmethod
    def net_send(data: bytes) -> None:
        with kit.open_interface("tapx") as sock:
            sock.send(data)

    def life(self, until: float) -> None:
        kinds = [*[self.object_add] * 6, *[self.object_del] * 4, *[self.qom_set] * 3, self.qom_get,
                 self.query, self.monitor, self.run_state, self.set_link, self.netdev,
                 self.chardev, self.link, self.peer, *[self.packets] * 3]
        try:
            fds = self.q.fds()
            while self.commands < COMMANDS and time.monotonic() < until:
                self.rng.choice(kinds)()
            self.end(fds)
        except Failed as e:
            raise Failed(f"{e}\ncommands before:\n" + "\n".join(self.last)) from e
        finally:
            self.over = True
            self.reader.join()
            self.q.close()

    def end(self, fds: list[str]) -> None:
        for name in set(IDS):
            self.ask("object-del", {"id": name})
        need(self.q("query-filter-redirectors") == [], "a redirector is left")
        self.ask("chardev-remove", {"id": "c2"})
        self.ask("cont")
        if not any("tapx" in str(n) for n in [self.q.ask("human-monitor-command", {
                "command-line": "info network"})]):
            self.add_tap()
        for stream in self.peers:
            stream.sock.close()
        wait_until(f"as many descriptors as at first: {fds}, now {self.q.fds()}",
                   lambda: self.q.fds() == fds, 10)
        need(self.q.rings() == 0, "a ring is left mapped")
        self.q.quit()


def main(args: list[str]) -> int:
    if len(args) != 3:
        print(__doc__)
        return 2
    kit.enter_sandbox("qmp")
    seconds, seed, program = int(args[0]), int(args[1]), Path(args[2]).resolve()
    until = time.monotonic() + seconds
    commands = good = life = 0
    failure = ""
    while not failure and time.monotonic() < until:
        fuzz = Fuzz(program, random.Random(f"{seed} {life}"))
        try:
            fuzz.life(until)
        except Failed as e:
            failure = f"life {life}: {e}"
        life += 1
        commands += fuzz.commands
        good += fuzz.good
    group = Group("qmp")
    text = f"seed {seed}: {commands} commands, {good} of them accepted, {life} QEMUs"
    print(f"* qmp: {text}{': FAILED ' + failure if failure else ''}", flush=True)
    group.add(text, not failure, failure)
    return group.write()


sys.exit(main(sys.argv[1:]))
