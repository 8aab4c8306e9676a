# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Turn a run's files into figures. Runs outside the lab, on what came back.

Words, the same everywhere (per direction):
  sent        packets the sender's socket took
  delivered   different packets that arrived, each counted once
  lost        sent - delivered
  duplicated  arrivals of a packet that had arrived before
  stale       those of them that came on one machine and before on another
  reordered   arrivals of a packet after one of its flow with a higher number (first arrivals only)
  same way    how many of those were passed by one that went the same way: both handed over (seen in
              a redirector's stream), or both not
  gap         time between one arrival and the next
  latency     from sending to the first arrival, on the lab's clock; around the switchover: of
              packets sent from when the guest stopped until a second after it went on

Flooded (broadcast) packets are counted by themselves, under "flooded"; all other figures are of the
others.
"""

import importlib.util
import json
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image import guest
from packets import Arrival, read_packets
from trace import diagnosis, suspects_of

MS = 1_000_000
AROUND_NS = 1_000 * MS
STOPPING_NS = 20 * MS       # until then QEMU may tell of a stop


@dataclass
class Segment:
    """A stretch during which the guest's clock runs steadily: it stands still while moved."""
    guest_start_ns: int
    offset_ns: int      # add to guest time to get the lab's


class GuestClock:
    """Maps the guest's clock to the lab's.

    In the first segment the quickest packet to the guest is taken to have needed no time at all, so
    latencies are counted from that one (and those from the guest include its real time). QEMU stops
    and starts the guest's clock together with the guest, so each later segment's offset is that of
    the one before plus the time the guest stood still. That is longer than from event to event:
    QEMU tells of the stop when all devices have stopped, some tenths of a millisecond later. So
    where a packet seems to arrive before it was sent, the offset is raised until it doesn't.
    """

    def __init__(self, to_guest: list[Arrival], moves: list[tuple[int, int]]) -> None:
        stops = [stop for stop, _ in moves] + [1 << 63]
        offset = -quickest(to_guest, 0, stops[0])
        self._segments = [Segment(0, offset)]
        for (stopped, resumed), next_stop in zip(moves, stops[1:]):
            guest_start = stopped - offset
            offset += resumed - stopped
            offset = max(offset, -quickest(to_guest, resumed, next_stop, -offset))
            self._segments.append(Segment(guest_start, offset))

    def lab_ns(self, guest_ns: int) -> int:
        for segment in reversed(self._segments):
            if guest_ns >= segment.guest_start_ns:
                return guest_ns + segment.offset_ns
        return guest_ns


def quickest(arrivals: list[Arrival], start: int, stop: int, default: int = 0) -> int:
    """From sending, while the guest ran, to arrival, by two clocks."""
    return min((a.arrived_ns - a.sent_ns for a in arrivals
                if start <= a.sent_ns < stop - STOPPING_NS), default=default)


class Order:
    """Counts the numbers that come after a higher one of their flow."""

    def __init__(self, flows: int) -> None:
        self._flows = flows
        self._highest: dict[tuple[int, int], int] = {}
        self.reordered: list[int] = []

    def add(self, number: int) -> None:
        flow = (number >> 32, number % self._flows)     # injected and flooded: a kind each
        highest = self._highest.get(flow, -1)
        if number < highest:
            self.reordered.append(number)
        self._highest[flow] = max(highest, number)


def figures(sent: list[Arrival], arrivals: list[Arrival], flows: int,
            moves: list[tuple[int, int]], handed: Set[int] = frozenset()) -> dict[str, Any]:
    """The counts and times of one direction; `arrivals` in the order they came, `handed` the
    numbers of those handed over. The suspects are sets of numbers, for a diagnosis."""
    first: dict[int, Arrival] = {}
    order = Order(flows)
    ways = {True: Order(flows), False: Order(flows)}
    doubled: list[int] = []
    stale = 0
    for arrival in arrivals:
        before = first.get(arrival.number)
        if before:
            doubled.append(arrival.number)
            stale += before.machine != arrival.machine
            continue
        first[arrival.number] = arrival
        order.add(arrival.number)
        ways[arrival.number in handed].add(arrival.number)
    times = sorted(arrival.arrived_ns for arrival in arrivals)
    gaps = [(later - earlier, earlier) for earlier, later in zip(times, times[1:])]
    longest, at = max(gaps, default=(0, 0))
    missing = [packet.number for packet in sent if packet.number not in first]
    damaged = [arrival.number for arrival in arrivals if arrival.damaged]
    return {
        "sent": len(sent), "delivered": len(first), "lost": len(missing),
        "duplicated": len(doubled), "stale": stale, "reordered": len(order.reordered),
        "reordered_same_way": sum(len(way.reordered) for way in ways.values()),
        "damaged": len(damaged),
        "longest_gap_ms": round(longest / MS, 1), "longest_gap_at_ns": at,
        "latency_ms": percentiles(first.values(), (50, 90, 99, 100)),
        "switchover_latency_ms": percentiles(
            (a for a in first.values()
             if any(stop <= a.sent_ns < go + AROUND_NS for stop, go in moves)), (50, 99)),
        "lost_numbers": ranges(missing),
        "suspects": {"lost": set(missing), "duplicated": set(doubled),
                     "reordered": set(order.reordered), "damaged": set(damaged)},
    }


def percentiles(arrivals: Iterable[Arrival], wanted: tuple[int, ...]) -> dict[str, float]:
    values = sorted((a.arrived_ns - a.sent_ns) / MS for a in arrivals)
    return {f"p{p}": round(values[min(len(values) - 1, len(values) * p // 100)], 2)
            for p in wanted if values}


def ranges(numbers: list[int]) -> list[list[int]]:
    """[1, 2, 3, 7] as [[1, 3], [7, 7]]."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def moves_of(record: dict[str, Any]) -> list[tuple[int, int]]:
    """For each time the guest stood still: when it stopped and when it went on (lab time)."""
    moves: list[tuple[int, int]] = []
    stopped = None
    for event in record["events"]:
        if event["event"] == "STOP" and stopped is None:
            stopped = event["ns"]
        elif event["event"] == "RESUME" and stopped is not None:
            moves.append((stopped, event["ns"]))
            stopped = None
    return moves


def traffic_result(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Figures of both directions, all times on the lab's clock; writes arrivals.csv as well."""
    to_sent, to_arrived, from_sent, from_arrived, injected = (
        read_packets(folder, name) for name in ("to-guest.sent", "to-guest.arrived",
                                                "from-guest.sent", "from-guest.arrived",
                                                "injected.sent"))
    to_sent += injected
    flows = guest.flows(record["parameters"]["queues"])
    moves = moves_of(record)
    if record["parameters"]["guest"] == "linux":    # the program has the lab's clock
        clock = GuestClock(to_arrived, moves)
        for arrival in to_arrived:
            arrival.arrived_ns = clock.lab_ns(arrival.arrived_ns)
        for packet in from_sent + from_arrived:
            packet.sent_ns = clock.lab_ns(packet.sent_ns)
    with (folder / "to-guest.aligned.csv").open("w") as out:
        out.write("number,sent_ns,arrived_ns\n")
        out.writelines(f"{a.number},{a.sent_ns},{a.arrived_ns}\n" for a in to_arrived)
    handed = {packet.number for path in folder.glob("in-*.packets")
              for packet in read_packets(folder, path.stem)}
    to_guest = figures(unicast(to_sent), unicast(to_arrived), flows, moves, handed)
    flooded = figures(flooded_only(to_sent), flooded_only(to_arrived), flows, moves, handed)
    from_guest = figures(from_sent, from_arrived, flows, moves)
    text = diagnosis(folder, to_sent, to_arrived,
                     {**suspects_of(to_guest, "to the guest"), **suspects_of(flooded, "flooded")},
                     moves)
    text += diagnosis(folder, from_sent, [], suspects_of(from_guest, "from the guest"), moves)
    if text:
        (folder / "diagnosis.txt").write_text(text)
    for side in (to_guest, flooded, from_guest):
        del side["suspects"]
    times = {packet.number: packet.sent_ns for packet in to_sent}
    to_guest["lost_sent_ns"] = [[times[first], times[last]]
                                for first, last in to_guest["lost_numbers"]]
    # The guest is what migrates, so the figures at the top are the ones towards it.
    keys = ("sent", "delivered", "lost", "duplicated", "stale", "reordered", "damaged",
            "longest_gap_ms", "switchover_latency_ms")
    return {**{key: to_guest[key] for key in keys},
            "rate_achieved": rate_of(to_sent),
            "downtime_ms": round(max((end - start for start, end in moves), default=0) / MS, 1),
            "moves": moves, "to_guest": to_guest, "flooded": flooded,
            "from_guest": from_guest, "injected": len(injected)}


def unicast(packets: list[Arrival]) -> list[Arrival]:
    return [p for p in packets if p.number < guest.FIRST_FLOODED]


def flooded_only(packets: list[Arrival]) -> list[Arrival]:
    return [p for p in packets if p.number >= guest.FIRST_FLOODED]


def rate_of(sent: list[Arrival]) -> int:
    """Packets a second that were really sent: the lab may be slower than it was told to be."""
    if len(sent) < 2:
        return 0
    times = [packet.sent_ns for packet in sent]
    return round((len(sent) - 1) * 1e9 / max(1, max(times) - min(times)))


def has_traffic(folder: Path) -> bool:
    return any(folder.glob("to-guest.arrived.*"))


def judge(scenario: Path, folder: Path) -> dict[str, Any]:
    """The result of a run, with the scenario's own checks."""
    record = json.loads((folder / "record.json").read_text())
    result: dict[str, Any] = {key: record[key] for key in ("scenario", "parameters", "notes")}
    result["rate"] = record["parameters"]["rate"]
    error = record["notes"].get("error")
    if has_traffic(folder):
        result.update(traffic_result(folder, record))
    result["parts"] = {part: {"folder": str(folder / part), **traffic_result(folder / part, record)}
                       for part in record["parts"]
                       if has_traffic(folder / part)}
    result["folder"] = str(folder)
    if error:
        result["checks"] = [(f"ran to its end: {error}", False)]
        return result
    spec = importlib.util.spec_from_file_location("scenario", scenario)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result["checks"] = [("ran to its end", True), *module.judge(result)]
    return result


def one_line(result: dict[str, Any]) -> str:
    if result.get("parts"):
        return "; ".join(f"{name}: {one_line(part)}" for name, part in result["parts"].items())
    if "sent" not in result:
        return "no traffic"
    return (f"sent {result['sent']}, delivered {result['delivered']}, lost {result['lost']}, "
            f"duplicated {result['duplicated']}, reordered {result['reordered']}, "
            f"longest gap {result['longest_gap_ms']} ms, downtime {result['downtime_ms']} ms")


def report(result: dict[str, Any]) -> str:
    lines = [f"{result['scenario']} at {result['rate']} packets/s: {one_line(result)}"]
    if "sent" in result:
        lines.append(f"  {result['rate_achieved']} packets/s were really sent")
        for title, key in (("to the guest", "to_guest"), ("flooded", "flooded"),
                           ("from the guest", "from_guest")):
            side = result[key]
            if not side["sent"]:
                continue
            latency = ", ".join(f"{name} {value}" for name, value in side["latency_ms"].items())
            around = ", ".join(f"{name} {value}"
                               for name, value in side["switchover_latency_ms"].items())
            lines.append(f"  {title}: sent {side['sent']}, lost {side['lost']}, "
                         f"duplicated {side['duplicated']} ({side['stale']} stale), "
                         f"reordered {side['reordered']} "
                         f"({side['reordered_same_way']} the same way), latency in ms: {latency}"
                         + (f"; around the switchover: {around}" if around else ""))
    lines += [f"  {'ok    ' if good else 'NOT OK'} {text}" for text, good in result["checks"]]
    return "\n".join(lines)
