# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Numbered packets for the guest while it migrates, and what became of them.

Words beyond those of the lab's analyse.py:
  stale   arrivals in a guest that was moved, of packets sent well before it was stopped: what its
          new host had heard while it waited
  own     frames the guest got though their source was its own address
  delay   of packets sent around a move (or a stop): AROUND_S before it until AROUND_S after it
"""

import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rig
from analyse import MS, GuestClock, figures, percentiles
from domain import Domain
from packets import Arrival, read_packets

BACK = 20                   # packets a second from the guest
SIZE = 200                  # bytes of UDP payload
BROADCAST_PORT = 7050       # these three: see guest-init
FIRST_PORT, PORTS_PER_CARD = 7000, 20
OWN_PORT, OWN_PER_CARD = 7060, 10
STALE_NS = 100 * MS
AROUND_NS = 1000 * MS
START_S = 120
END_S = 90

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
        self.streams = [
            Stream(f"unicast{card or ''}", f"10.0.{card}.2", FIRST_PORT + PORTS_PER_CARD * card,
                   folder / f"unicast{card or ''}", rate, domain.flows, BACK)
            for card in range(domain.cards)]
        self.streams.append(Stream("broadcast", "10.0.0.255", BROADCAST_PORT,
                                   folder / "broadcast", broadcasts))

    def start(self) -> None:
        """Returns when packets flow in both directions."""
        for stream in self.streams:
            stream.folder.mkdir(parents=True)
            log = (stream.folder / "output").open("w")
            stream.process = subprocess.Popen(stream.command(self.program), stdout=log,
                                              stderr=log, stdin=subprocess.DEVNULL)
        for stream in self.streams:
            rig.wait_until(f"{stream.name} packets flow", lambda s=stream: self._running(s),
                           START_S)

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
        broadcast = self.streams[-1]
        self._fetch("10.0.0.2", broadcast.port, broadcast.folder)
        for card in range(self.domain.cards):
            for place in range(1 + self.domain.bridge):
                self._fetch(f"10.0.{card}.2", OWN_PORT + OWN_PER_CARD * card + place,
                            self.folder / f"own{card}{place}")

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

    def figures(self, moves: list[Move]) -> dict[str, Any]:
        """Of each stream; "moves" are all times in which the guest stood still."""
        arrived = [read_packets(stream.folder, "to-guest.arrived") for stream in self.streams]
        clock = GuestClock(arrived[0], moves)
        result = {}
        for stream, arrivals in zip(self.streams, arrived):
            for arrival in arrivals:
                arrival.arrived_ns = clock.lab_ns(arrival.arrived_ns)
            result[stream.name] = stream_figures(stream, arrivals, moves)
        own = [packet for folder in self.folder.glob("own*")
               for packet in read_packets(folder, "to-guest.arrived")]
        result["own"] = {"frames": len(own), "types": sorted({hex(p.number) for p in own})}
        return result


def counts(sent: list[Arrival], arrivals: list[Arrival], flows: int,
           moves: list[Move]) -> dict[str, Any]:
    """The lab's, without the sets that only its diagnosis reads."""
    found = figures(sent, arrivals, flows, moves)
    del found["suspects"]
    return found


def stream_figures(stream: Stream, arrivals: list[Arrival], moves: list[Move]) -> dict[str, Any]:
    sent = read_packets(stream.folder, "to-guest.sent")
    found = counts(sent, arrivals, stream.flows, moves)
    around = [a for a in first_copies(arrivals)
              if any(stop - AROUND_NS <= a.sent_ns <= resume + AROUND_NS
                     for stop, resume in moves)]
    found["stale"] = sum(is_stale(arrival, moves) for arrival in arrivals)
    found["delay_ms"] = {"p50": 0.0, "p99": 0.0, "p100": 0.0, **percentiles(around, (50, 99, 100))}
    if stream.back:
        answers = counts(read_packets(stream.folder, "from-guest.sent"),
                         read_packets(stream.folder, "from-guest.arrived"), stream.flows, moves)
        found["from_guest"] = {key: answers[key] for key in
                               ("sent", "lost", "duplicated", "reordered", "damaged")}
    # Whether it still gets packets at the end: those of the last second.
    end = max((packet.sent_ns for packet in sent), default=0) - AROUND_NS
    seen = {arrival.number for arrival in arrivals}
    found["lost_at_end"] = sum(packet.number not in seen for packet in sent
                               if packet.sent_ns > end)
    return found


def first_copies(arrivals: list[Arrival]) -> list[Arrival]:
    seen: dict[int, Arrival] = {}
    for arrival in arrivals:
        seen.setdefault(arrival.number, arrival)
    return list(seen.values())


def is_stale(arrival: Arrival, moves: list[Move]) -> bool:
    return any(arrival.sent_ns < stop - STALE_NS and arrival.arrived_ns > stop
               for stop, _ in moves)
