# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What became of the packets that were lost, doubled or out of order: where each was seen, when.

The lab's program notes the numbered packets that pass a place: each TAP (what the host gives to
it), each redirector's stream from source to destination, the guest. (What a redirector injects
into a TAP is not seen there, only in the guest.)
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from packets import Arrival, read_packets

MS = 1_000_000
GROUPS_SHOWN = 12       # of each kind
PACKETS_SHOWN = 5       # of each group


class Traces:
    """Where packets were seen: for each, a list of (place, time)."""

    def __init__(self, folder: Path, arrivals: list[Arrival], start_ns: int,
                 wanted: set[int]) -> None:
        self._start_ns = start_ns
        self._seen: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for path in sorted(folder.glob("at-*.packets")) + sorted(folder.glob("in-*.packets")):
            for packet in read_packets(folder, path.stem, wanted):
                self._seen[packet.number].append((packet.arrived_ns, path.stem))
        for packet in arrivals:
            if packet.number not in wanted:
                continue
            place = f"guest on machine {packet.machine + 1}"
            self._seen[packet.number].append((packet.arrived_ns, place))

    def path(self, number: int) -> str:
        places = [place for _, place in sorted(self._seen.get(number, []))]
        return " > ".join(places) or "nowhere"

    def line(self, packet: Arrival) -> str:
        steps = [f"sent {self._when(packet.sent_ns)}"]
        steps += [f"{place} {self._when(ns)}" for ns, place in sorted(self._seen[packet.number])]
        return f"{packet.number}: " + ", ".join(steps)

    def _when(self, ns: int) -> str:
        return f"{(ns - self._start_ns) / MS:+.2f}"

    def section(self, title: str, packets: list[Arrival]) -> list[str]:
        """The packets grouped by where they have been, the largest group first."""
        if not packets:
            return []
        groups: dict[str, list[Arrival]] = defaultdict(list)
        for packet in packets:
            groups[self.path(packet.number)].append(packet)
        lines = [f"{title}: {len(packets)}"]
        largest = sorted(groups.items(), key=lambda group: -len(group[1]))
        for path, members in largest[:GROUPS_SHOWN]:
            lines.append(f"  {len(members)} seen: {path}")
            lines += [f"    {self.line(packet)}" for packet in members[:PACKETS_SHOWN]]
        if len(largest) > GROUPS_SHOWN:
            lines.append(f"  and {len(largest) - GROUPS_SHOWN} more ways")
        return lines


def diagnosis(folder: Path, sent: list[Arrival], arrivals: list[Arrival],
              suspects: dict[str, set[int]], moves: list[tuple[int, int]]) -> str:
    """A text; `suspects` are numbers by what is wrong with them."""
    if not any(suspects.values()):
        return ""
    start = moves[0][0] if moves else (sent[0].sent_ns if sent else 0)
    wanted = set().union(*suspects.values())
    traces = Traces(folder, arrivals, start, wanted)
    by_number = {p.number: p for p in (*arrivals, *sent) if p.number in wanted}
    lines = ["Times in ms since " + ("the guest first stopped" if moves else "the first packet")]
    lines += [f"  guest stopped {(stop - start) / MS:+.2f}, went on {(go - start) / MS:+.2f}"
              for stop, go in moves]
    for title, numbers in suspects.items():
        lines += traces.section(title, [by_number[number] for number in sorted(numbers)])
    return "\n".join(lines) + "\n"


def suspects_of(figures: dict[str, Any], kind: str) -> dict[str, set[int]]:
    """The numbers that figures() has found, by title."""
    return {f"{kind}, {what}": figures["suspects"][what]
            for what in ("lost", "duplicated", "reordered", "damaged")}
