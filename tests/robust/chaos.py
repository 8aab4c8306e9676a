#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Random events under traffic: everything that can happen to a redirector, at any time.

usage: chaos.py SECONDS SEED PROGRAM...     writes build/check/chaos.tap

Each program, one after the other, gets its share of the time. A run is a series of episodes: a
redirector is created, things happen to it, it is deleted. At every look the packets add up: what
came in is what went out, was counted as lost or refused, or waits. Where this program knows both
ends, it compares with what was sent, to the packet. At the end of a run QEMU holds as many file
descriptors and about as much memory as at its beginning, and exits without a sanitizer's report.
The same seed makes the same events; what they meet is up to the machine.
"""
import random
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import kit
from kit import Failed, Qemu, Stream, need, wait_until
from tap import Group

MEMORY_KIB = 48 * 1024      # how much more QEMU may hold in the end
EPISODES = 25               # in the life of one QEMU
SUMS = ("happened", "episodes", "compared", "packets", "lost")
KEEP = 12                   # events that a failure shows


class Flood:
    """A thread that sends numbered packets to the TAP's reader while it is not paused."""

    def __init__(self) -> None:
        self.sent = 0
        self.going = threading.Event()
        self.idle = threading.Event()
        self.over = False
        self.rate_s = 0.0002
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        sock = None
        while not self.over:
            if not self.going.is_set():
                self.idle.set()
                self.going.wait(0.1)
                continue
            try:
                sock = sock or kit.open_interface("tapx")
                sock.send(kit.packet(self.sent, 60 + self.sent % 900))
                self.sent += 1
            except OSError:     # down, deleted, or its queue is full
                if sock:
                    sock.close()
                sock = None
                time.sleep(0.001)
            time.sleep(self.rate_s)

    def pause(self) -> int:
        """Stop sending. Return: packets sent since the thread began."""
        self.going.clear()
        self.idle.clear()
        need(self.idle.wait(10), "the sender does not stop")
        return self.sent

    def go_on(self) -> None:
        self.going.set()

    def end(self) -> None:
        self.over = True
        self.thread.join()


class Drain:
    """A thread that reads a peer's end of a chardev, unless it is stalled."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.received = 0
        self.stalled = False
        self.over = False
        self.problem = ""
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        last = -1
        while not self.over:
            if self.stalled:
                time.sleep(0.002)
                continue
            try:
                number = self.stream.receive(0.05)
            except Failed as e:
                self.problem = str(e)
                return
            if number is None:
                continue
            # Each flow is in order; those of the chain have numbers of their own.
            if number < CHAIN_FIRST:
                if number <= last:
                    self.problem = f"packet {number} came after {last}"
                last = number
            self.received += 1

    def end(self) -> None:
        self.over = True
        self.thread.join()
        self.stream.sock.close()


CHAIN_FIRST = 1 << 31


def total(info: dict[str, Any], end: str) -> int:
    s = info[end]["stats"]
    return s["packets"] + s["errors"] + s["lost"] + s["queued"]


class Chaos:
    def __init__(self, program: Path, rng: random.Random) -> None:
        self.rng = rng
        self.events: list[str] = []
        self.q = Qemu(program)
        self.flood = Flood()
        self.drain: Drain | None = None
        self.sender: Stream | None = None
        self.running = True
        self.chain_number = CHAIN_FIRST
        kit.run("ip", "link", "set", "tapx", "up")
        self.episodes = self.happened = self.compared = self.packets = self.lost = 0

    def note(self, text: str) -> None:
        self.happened += 1
        self.events = [*self.events[-KEEP:], text]

    # ---- what an episode remembers

    def begin(self) -> None:
        rng = self.rng
        self.kind = rng.choice(["capture", "capture", "inject"])
        self.exact = True           # both ends are known
        self.gentle = rng.random() < 0.5    # and stay so
        self.on = True
        self.captured = 0           # sent while the capture was on
        self.since = self.flood.pause()
        self.reset_peers()
        props: dict[str, Any] = {}
        if self.kind == "capture":
            props = {"in_netdev": "x", "outdev": "co", "queue": "tx",
                     "ring_size": rng.choice([512, 640, 1024, 4096, 16384, 65536]) * 1024}
        else:
            props = {"indev": "ci", "out_netdev": "x"}
        if rng.random() < 0.3:
            props["enable_when_stopped"] = True
        self.props = props
        self.note(f"object-add {props}")
        self.connect()
        self.q.add(**props)
        if self.kind == "capture":      # a large ring is made in a thread
            wait_until("the ring", lambda: self.q.state("input") != "held", 20)
        self.injected = 0
        self.flood.rate_s = rng.choice([0.0, 0.0, 0.0002])
        if self.kind == "capture" or rng.random() < 0.3:
            self.flood.go_on()

    def reset_peers(self) -> None:
        if self.drain:
            self.drain.end()
            need(not self.drain.problem, self.drain.problem)
        if self.sender:
            self.sender.sock.close()
        self.drain = self.sender = None

    def connect(self) -> None:
        if self.kind == "capture" and not self.drain:
            self.drain = Drain(self.q.peer("co"))
        elif self.kind == "inject" and not self.sender:
            self.sender = self.q.peer("ci")
            self.sender.sock.setblocking(False)

    def capturing(self) -> bool:
        return self.on and (self.running or bool(self.props.get("enable_when_stopped")))

    def toggle(self, change: Any) -> None:
        """Change whether packets are captured, while none is on its way, or just so."""
        if not self.gentle and self.rng.random() < 0.5:
            self.exact = False
            change()
            return
        going = self.flood.going.is_set()
        sent = self.flood.pause()
        if self.capturing():
            self.captured += sent - self.since
        change()
        self.since = sent
        if going:
            self.flood.go_on()

    # ---- events

    def set_status(self) -> None:
        def change() -> None:
            self.on = not self.on
            self.q("qom-set", {"path": "/objects/f0", "property": "status",
                               "value": "on" if self.on else "off"})
        self.toggle(change)

    def stop_or_cont(self) -> None:
        def change() -> None:
            self.running = not self.running
            self.q("cont" if self.running else "stop")
        self.toggle(change)

    def link(self) -> None:
        """Packets that are just then on their way to the interface, the kernel may drop."""
        going = self.flood.going.is_set()
        if self.gentle:
            self.flood.pause()
        else:
            self.exact = False
        kit.run("ip", "link", "set", "tapx", "down")
        self.look()
        kit.run("ip", "link", "set", "tapx", "up")
        if going:
            self.flood.go_on()

    def set_link(self) -> None:
        name = self.rng.choice(["x", "n"])
        self.q.ask("set_link", {"name": name, "up": False})
        self.look()
        self.q.ask("set_link", {"name": name, "up": True})

    def kill_peer(self) -> None:
        self.exact = False
        if self.drain and self.rng.random() < 0.6:      # with as much as possible on its way
            self.drain.stalled = True
            self.flood.rate_s = 0
            time.sleep(0.15)
        self.reset_peers()
        self.look()
        if self.rng.random() < 0.8:
            self.connect()

    def stall_peer(self) -> None:
        if self.drain:
            self.drain.stalled = not self.drain.stalled

    def queue_length(self) -> None:
        going = self.flood.going.is_set()
        self.flood.pause()      # the same
        kit.run("ip", "link", "set", "tapx", "txqueuelen",
                str(self.rng.choice([1, 10, 100, 1000])))
        if going:
            self.flood.go_on()

    def send_chain(self) -> None:
        for _ in range(self.rng.choice([1, 10, 60])):
            try:
                self.q.chain.send(kit.packet(self.chain_number), socket.MSG_DONTWAIT)
                self.chain_number += 1
            except BlockingIOError:
                break

    def send_stream(self) -> None:
        for _ in range(self.rng.choice([1, 10, 200])):
            size = self.rng.choice([60, 1000, 1500])
            if self.sender:
                self.send_frame(size)

    def send_frame(self, size: int) -> None:
        """A frame as a whole: a peer that is stalled on is asked again."""
        assert self.sender
        data = len(kit.packet(0, size)).to_bytes(4, "big") + kit.packet(self.injected, size)
        end = time.monotonic() + 5
        while data:
            try:
                data = data[self.sender.sock.send(data):]
            except BlockingIOError:
                if not self.running or not self.on or time.monotonic() > end:
                    self.exact = False      # the rest would be read as something else
                    self.reset_peers()
                    self.connect()
                    return
                time.sleep(0.001)
            except (BrokenPipeError, ConnectionResetError):
                self.exact = False
                self.reset_peers()
                return
        self.injected += 1

    def send_garbage(self) -> None:
        if self.sender and self.rng.random() < 0.2:
            self.exact = False
            try:
                self.sender.sock.send(bytes(self.rng.randrange(256) for _ in range(100)))
            except OSError:
                pass

    def delete_tap(self) -> None:
        """The interface goes away, then the netdev; a new one takes its place."""
        if self.rng.random() < 0.5:
            self.exact = False
            if self.rng.random() < 0.5:
                kit.run("ip", "link", "del", "tapx")
                self.look()
            self.q("netdev_del", {"id": "x"})
            self.look()
            self.q("netdev_add", {"type": "tap", "id": "x", "ifname": "tapx", "script": "no",
                                  "downscript": "no", "vhost": False})
            kit.run("ip", "link", "set", "tapx", "up")

    def second(self) -> None:
        """Another redirector beside it, for a moment."""
        answer = self.q.ask("object-add", {
            "qom-type": "filter-redirector", "id": "f1", "netdev": "n",
            **self.rng.choice([{"in_netdev": "x"}, {"out_netdev": "x"},
                               {"in_netdev": "x", "ring_size": 1}])})
        if "return" in answer:
            self.look()
            self.q.delete("f1")
        # Its packets into n's chain, or its share of n's, are in nobody's account.
        self.exact = False

    def wait(self) -> None:
        time.sleep(self.rng.choice([0.001, 0.05, 0.3]))

    # ---- invariants

    def look(self) -> None:
        info = self.q.info()
        came = info["input"]["stats"]["packets"] + info["chain-packets"]
        need(total(info, "output") == came, f"packets do not add up: {info}")

    def settle(self) -> None:
        """Let all that waits go its way, and compare both ends."""
        sent = self.flood.pause()
        if self.capturing():
            self.captured += sent - self.since
        if self.drain:
            self.drain.stalled = False
        if not self.running:
            self.running = True
            self.q("cont")
        if not self.on:
            self.set_on()
        self.look()
        if self.exact:
            wait_until("the packets' arrival", self.settled, 20)

    def set_on(self) -> None:
        self.on = True
        self.q("qom-set", {"path": "/objects/f0", "property": "status", "value": "on"})

    def settled(self) -> bool:
        info = self.q.info()
        stats = info["input"]["stats"]
        if self.kind == "inject":
            return stats["packets"] == self.injected and info["output"]["stats"]["queued"] == 0
        assert self.drain
        need(not self.drain.problem, self.drain.problem)
        came = stats["packets"] + stats["lost"] + stats["errors"] + stats["discarded"]
        self.why = f"sent {self.captured}, peer got {self.drain.received}: {info}"
        return came == self.captured and \
            info["output"]["stats"]["packets"] == self.drain.received

    def episode(self) -> None:
        self.why = ""
        self.begin()
        events = [self.set_status, self.stop_or_cont, self.link, self.set_link, self.stall_peer,
                  self.queue_length, self.send_chain, self.send_stream, self.send_stream,
                  self.wait, self.wait]
        if not self.gentle:
            events += [self.kill_peer, self.send_garbage, self.delete_tap, self.second]
        for _ in range(self.rng.randrange(3, 25)):
            event = self.rng.choice(events)
            self.note(event.__name__)
            event()
            self.look()
        try:
            self.settle()
        except Failed as e:
            raise Failed(f"{e}; {self.why}") from e
        info = self.q.info()
        self.packets += info["input"]["stats"]["packets"]
        self.lost += sum(info[end]["stats"]["lost"] for end in ("input", "output"))
        self.compared += self.exact
        self.note("object-del")
        self.q.delete()
        self.episodes += 1

    def life(self, until: float) -> None:
        """Some episodes of one QEMU."""
        try:
            self.episode()      # what only the first one allocates
            self.rest()
            fds, rss = self.q.fds(), self.q.rss_kib()
            for _ in range(EPISODES):
                if time.monotonic() > until:
                    break
                self.episode()
            self.rest()
            wait_until(f"as many descriptors as at first: {fds}", lambda: self.q.fds() == fds, 10)
            need(self.q.rings() == 0, "a ring is left mapped")
            more = self.q.rss_kib() - rss
            need(more < MEMORY_KIB, f"QEMU holds {more} KiB more than at first")
            self.q.quit()
        except Failed as e:
            raise Failed(f"{e}\nevents before: {'; '.join(self.events)}") from e
        finally:
            self.flood.end()
            self.q.close()

    def rest(self) -> None:
        self.flood.pause()
        self.reset_peers()
        if not self.running:
            self.running = True
            self.q("cont")
        wait_until("the end of connections", lambda: all(
            c["filename"].startswith("disconnected") for c in self.q("query-chardev")
            if c["label"] in ("ci", "co")))


def main(args: list[str]) -> int:
    if len(args) < 3:
        print(__doc__)
        return 2
    kit.enter_sandbox("chaos")
    seconds, seed = int(args[0]), int(args[1])
    group = Group("chaos")
    for number, name in enumerate(args[2:]):
        program = Path(name).resolve()
        until = time.monotonic() + seconds / len(args[2:])
        life = 0
        sums = dict.fromkeys(SUMS, 0)
        failure = ""
        while not failure and time.monotonic() < until:
            chaos = Chaos(program, random.Random(f"{seed} {number} {life}"))
            try:
                chaos.life(until)
            except Failed as e:
                failure = f"life {life}: {e}"
            life += 1
            for what in SUMS:
                sums[what] += getattr(chaos, what)
        text = f"seed {seed}: {life} QEMUs of {program.parent.name}, {sums['happened']} events," \
               f" {sums['episodes']} redirectors ({sums['compared']} compared with both ends)," \
               f" {sums['packets']} packets, {sums['lost']} counted as lost"
        print(f"* chaos: {text}{': FAILED ' + failure if failure else ''}", flush=True)
        group.add(text, not failure, failure)
    return group.write()


sys.exit(main(sys.argv[1:]))
