# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Lists of packets, as the lab's programs write them: what was sent, arrived, or passed by."""

import csv
import struct
from dataclasses import dataclass
from pathlib import Path

RECORD = struct.Struct("<QQQQBBB5x")    # Record of tests/lab/program/common.h


@dataclass(slots=True)
class Arrival:
    number: int
    sent_ns: int
    arrived_ns: int     # or seen; 0 where it was sent
    damaged: bool
    machine: int = 0    # the guest was on the how-manieth
    queue: int = 0


def read_packets(folder: Path, name: str, wanted: set[int] | None = None) -> list[Arrival]:
    """The list NAME.packets (of the program) or NAME.csv (of Linux); empty if there is none.
    With `wanted`, only these numbers of the program's."""
    path = folder / f"{name}.packets"
    if path.exists():
        return [Arrival(number, sent, seen, bool(damaged), machine, queue)
                for number, sent, seen, _, queue, machine, damaged in
                RECORD.iter_unpack(path.read_bytes())
                if wanted is None or number in wanted]
    path = folder / f"{name}.csv"
    if not path.exists():       # a scenario without traffic in that direction
        return []
    with path.open() as file:
        return [Arrival(int(row["number"]), int(row["sent_ns"]), int(row["arrived_ns"]),
                        row["damaged"] != "0") for row in csv.DictReader(file)]
