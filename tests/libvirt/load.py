# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Numbered packets for the guest while it migrates, and what became of them.

Words beyond those of the lab's analyse.py:
  stale   arrivals in a guest that was moved, of packets sent well before it was stopped: what its
          new host had heard while it waited
  untaken the guest did not take them: the TAP was full while it simply ran there, or its own stack
          dropped them (see counters.py). These are not among the "lost"
  own     frames the guest got though their source was its own address
  delay   of packets sent around a move (or a stop): AROUND_S before it until AROUND_S after it
  beyond  how much more than the guest stood still in a move the slowest of these took
"""

import signal
import subprocess
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import counters
import rig
from analyse import MS, GuestClock, figures, percentiles
from counters import Drop, GuestCounters
from domain import Domain
from packets import Arrival, read_packets

BACK = 20                   # packets a second from the guest
SIZE = 200                  # bytes of UDP payload
BROADCAST_PORT = 7050       # these four: see guest-init
MULTICAST_PORT = 7052
FIRST_PORT, PORTS_PER_CARD = 7000, 100
OWN_PORT, OWN_PER_CARD = 7060, 10
STALE_NS = 100 * MS
AROUND_NS = 1000 * MS
START_S = 120 * rig.SLOW
END_S = 90 * rig.SLOW

Move = tuple[int, int]      # when the guest stopped, when it went on


@dataclass
class Stream:
    """Packets of one kind, to one address."""
    name: str
    address: str
    port: int
    folder: Path
    rate: int
    flows: int = 1
    back: int = 0               # packets a second that the guest answers with
    process: Any = field(default=None, repr=False)

    def command(self, program: Path) -> list[str]:
        words: list[Any] = [program]
        if self.back:
            words += ["run", self.address, self.port, self.rate, self.back, SIZE, self.flows]
        else:
            words += ["send", self.address, self.port, self.rate, SIZE]
        return rig.netns(rig.CLIENT, *map(str, words), str(self.folder))


class Load:
    def __init__(self, program: Path, folder: Path, domain: Domain, rate: int,
                 broadcasts: int) -> None:
        self.program = program
        self.folder = folder
        self.domain = domain
        self._guest = GuestCounters()
        self.streams = [
            Stream(f"unicast{card or ''}", f"10.0.{card}.2", FIRST_PORT + PORTS_PER_CARD * card,
                   folder / f"unicast{card or ''}", rate, domain.flows, BACK)
            for card in range(domain.cards)]
        self.streams.append(Stream("broadcast", "10.0.0.255", BROADCAST_PORT,
                                   folder / "broadcast", broadcasts))
        if domain.group:
            self.streams.append(Stream("multicast", domain.group, MULTICAST_PORT,
                                       folder / "multicast", broadcasts))

    def start(self) -> None:
        """Returns when packets flow in both directions."""
        for stream in self.streams:
            stream.folder.mkdir(parents=True)
            log = (stream.folder / "output").open("w")
            stream.process = subprocess.Popen(stream.command(self.program), stdout=log,
                                              stderr=log, stdin=subprocess.DEVNULL)
        for stream in self.streams:
            rig.wait_until(f"{stream.name} packets flow", partial(self._running, stream), START_S)

    @staticmethod
    def _running(stream: Stream) -> bool:
        said = (stream.folder / "output").read_text()
        if stream.process.poll() is not None:
            raise rig.RigError(f"{stream.name}: {said.strip()}")
        return "traffic: running" in said

    def stop(self) -> None:
        """Stops the packets and gets the guest's records."""
        for stream in reversed(self.streams):
            stream.process.send_signal(signal.SIGTERM)
        for stream in reversed(self.streams):
            if stream.process.wait(END_S):
                raise rig.RigError(f"{stream.name}: "
                                   f"{(stream.folder / 'output').read_text().strip()}")
        for stream in self.streams:
            if not stream.back:
                self._fetch("10.0.0.2", stream.port, stream.folder)
        for card in range(self.domain.cards):
            for place in range(1 + bool(self.domain.behind)):
                self._fetch(f"10.0.{card}.2", OWN_PORT + OWN_PER_CARD * card + place,
                            self.folder / f"own{card}{place}")
        said = rig.run(*rig.netns(rig.CLIENT, str(self.program), "counters", "10.0.0.2",
                                  str(FIRST_PORT)))
        (self.folder / "guest-counters").write_text(said)
        self._guest = counters.parse_guest(said)

    def kill(self) -> None:
        for stream in self.streams:
            if stream.process and stream.process.poll() is None:
                stream.process.kill()
                stream.process.wait()

    def _fetch(self, address: str, port: int, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        rig.run(*rig.netns(rig.CLIENT, str(self.program), "fetch", address, str(port),
                           str(folder)))

    # ---- what became of them

    def figures(self, moves: list[Move], drops: list[Drop]) -> dict[str, Any]:
        """Of each stream; "moves" are all times in which the guest stood still."""
        arrived = [read_packets(stream.folder, "to-guest.arrived") for stream in self.streams]
        clock = GuestClock(arrived[0], moves)
        for arrivals in arrived:
            for arrival in arrivals:
                arrival.arrived_ns = clock.lab_ns(arrival.arrived_ns)
        sent = [read_packets(stream.folder, "to-guest.sent") for stream in self.streams]
        result = {stream.name: stream_figures(stream, went, came, moves)
                  for stream, went, came in zip(self.streams, sent, arrived)}
        untaken = self._blame(result, drops)
        for stream, went, came in zip(self.streams, sent, arrived):
            result[stream.name]["moves"] = each_move(stream, went, came, moves,
                                                     untaken[stream.name])
            result[stream.name]["beyond_ms"] = max(
                (figures_["beyond_ms"] for figures_ in result[stream.name]["moves"]), default=0.0)
        own = [packet for folder in self.folder.glob("own*")
               for packet in read_packets(folder, "to-guest.arrived")]
        result["own"] = {"frames": len(own), "types": sorted({hex(p.number) for p in own})}
        return result

    def _blame(self, result: dict[str, Any], drops: list[Drop]) -> dict[str, set[int]]:
        """Who dropped what is missing; returns what was not taken from a TAP."""
        untaken = {}
        at_taps = counters.match({(name, number): ns for name, figures_ in result.items()
                                  for number, ns in figures_["missing"].items()}, drops)
        for stream in self.streams:
            figures_ = result[stream.name]
            missing = figures_.pop("missing")
            end = figures_.pop("end_ns")
            states = {state: {number for name, number in keys if name == stream.name}
                      for state, keys in at_taps.items()}
            untaken[stream.name] = states[counters.RUNNING]
            rest = set(missing).difference(*states.values())
            in_guest = min(len(rest), self._guest.dropped(stream.port, stream.flows))
            figures_["dropped"] = {**{state: len(numbers) for state, numbers in states.items()},
                                   "guest": in_guest, "nowhere": len(rest) - in_guest}
            figures_["untaken"] = len(states[counters.RUNNING]) + in_guest
            figures_["lost"] -= figures_["untaken"]
            # Whether it still gets packets at the end: those of the last second.
            late = sum(ns > end for number, ns in missing.items()
                       if number not in states[counters.RUNNING])
            figures_["lost_at_end"] = max(0, late - in_guest)
        return untaken


def counts(sent: list[Arrival], arrivals: list[Arrival], flows: int,
           moves: list[Move]) -> dict[str, Any]:
    """The lab's, without the sets that only its diagnosis reads."""
    found = figures(sent, arrivals, flows, moves)
    del found["suspects"]
    return found


def tell_delays(found: dict[str, Any], arrivals: list[Arrival], moves: list[Move]) -> None:
    around = [a for a in first_copies(arrivals)
              if any(stop - AROUND_NS <= a.sent_ns <= resume + AROUND_NS
                     for stop, resume in moves)]
    found["stale"] = sum(is_stale(arrival, moves) for arrival in arrivals)
    found["delay_ms"] = {"p50": 0.0, "p99": 0.0, "p100": 0.0, **percentiles(around, (50, 99, 100))}


def each_move(stream: Stream, sent: list[Arrival], arrivals: list[Arrival], moves: list[Move],
              untaken: set[int]) -> list[dict[str, Any]]:
    """Of each move by itself: what was sent nearer to it than to another."""
    turns = [(resume + stop) // 2 for (_, resume), (stop, _) in zip(moves, moves[1:])]
    found = []
    for move, start, end in zip(moves, [0, *turns], [*turns, 1 << 63]):
        ours, came = ([p for p in packets if start <= p.sent_ns < end]
                      for packets in (sent, arrivals))
        figures_ = counts(ours, came, stream.flows, [move])
        tell_delays(figures_, came, [move])
        figures_["beyond_ms"] = round(figures_["delay_ms"]["p100"] - (move[1] - move[0]) / MS, 1)
        figures_["untaken"] = sum(packet.number in untaken for packet in ours)
        figures_["lost"] -= figures_["untaken"]
        found.append(figures_)
    return found


def stream_figures(stream: Stream, sent: list[Arrival], arrivals: list[Arrival],
                   moves: list[Move]) -> dict[str, Any]:
    found = counts(sent, arrivals, stream.flows, moves)
    tell_delays(found, arrivals, moves)
    if stream.back:
        answers = counts(read_packets(stream.folder, "from-guest.sent"),
                         read_packets(stream.folder, "from-guest.arrived"), stream.flows, moves)
        found["from_guest"] = {key: answers[key] for key in
                               ("sent", "lost", "duplicated", "reordered", "damaged")}
    seen = {arrival.number for arrival in arrivals}
    found["missing"] = {packet.number: packet.sent_ns for packet in sent
                        if packet.number not in seen}
    found["end_ns"] = max((packet.sent_ns for packet in sent), default=0) - AROUND_NS
    return found


def first_copies(arrivals: list[Arrival]) -> list[Arrival]:
    seen: dict[int, Arrival] = {}
    for arrival in arrivals:
        seen.setdefault(arrival.number, arrival)
    return list(seen.values())


def is_stale(arrival: Arrival, moves: list[Move]) -> bool:
    return any(arrival.sent_ns < stop - STALE_NS and arrival.arrived_ns > stop
               for stop, _ in moves)
