# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Counts of runs, as text."""

from typing import Any

from analyse import MS

COLUMNS = (("sent", "sent"), ("delivered", "delivered"), ("lost", "lost"),
           ("untaken", "untaken"), ("doubled", "duplicated"), ("disorder", "reordered"),
           ("stale", "stale"), ("gap ms", "longest_gap_ms"))
HEAD = ("scenario", "packets", *(title for title, _ in COLUMNS), "p50 ms", "p99 ms", "max ms",
        "beyond", "own", "stop ms")


def stopped_ms(result: dict[str, Any]) -> float:
    """The longest time that the guest stood still."""
    return round(max((end - start for start, end in result["moves"]), default=0) / MS, 1)


def one_line(result: dict[str, Any]) -> str:
    if "streams" not in result:
        return "no counts"
    parts = []
    for name, stream in result["streams"].items():
        if name != "own":
            parts.append(f"{name}: " + ", ".join(f"{title} {stream[key]}"
                                                 for title, key in COLUMNS))
    return "; ".join([*parts, f"own frames back {result['streams']['own']['frames']}, "
                              f"stood still {stopped_ms(result)} ms"])


def cells(stream: dict[str, Any]) -> list[Any]:
    return [*(stream[key] for _, key in COLUMNS), *stream["delay_ms"].values(),
            stream["beyond_ms"]]


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    if "streams" not in result:
        return [(result["scenario"], "no counts")]
    found: list[tuple[str, ...]] = []
    for name, stream in result["streams"].items():
        if name == "own":
            continue
        first = not found
        found.append(tuple(map(str, (
            result["scenario"] if first else "", name, *cells(stream),
            result["streams"]["own"]["frames"] if first else "",
            stopped_ms(result) if first else ""))))
    return found


def laid_out(lines: list[tuple[str, ...]]) -> str:
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) if i < 2 else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(line, widths))).rstrip()
                     for line in lines)


def table(results: list[dict[str, Any]]) -> str:
    return laid_out([HEAD, *(row for result in results for row in rows(result))])


def moves_table(result: dict[str, Any]) -> str:
    """A row for each move and stream, the bad ones first."""
    found = []
    for name, stream in result["streams"].items():
        for number, (move, figures) in enumerate(zip(result["moves"], stream.get("moves", ())), 1):
            bad = sum(figures[key] for key in ("lost", "duplicated", "reordered", "stale"))
            found.append((-bad, -figures["untaken"], number, name, tuple(map(str, (
                f"move {number}", name, *cells(figures), "",
                round((move[1] - move[0]) / MS, 1))))))
    return laid_out([HEAD, *(row[-1] for row in sorted(found))])
