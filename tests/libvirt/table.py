# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Counts of runs, as text."""

from typing import Any

from analyse import MS

COLUMNS = (("sent", "sent"), ("delivered", "delivered"), ("lost", "lost"),
           ("doubled", "duplicated"), ("disorder", "reordered"), ("stale", "stale"),
           ("gap ms", "longest_gap_ms"))
HEAD = ("scenario", "packets", *(title for title, _ in COLUMNS), "p50 ms", "p99 ms", "max ms",
        "own", "stop ms")


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


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    if "streams" not in result:
        return [(result["scenario"], "no counts")]
    found = []
    for name, stream in result["streams"].items():
        if name == "own":
            continue
        first = not found
        found.append(tuple(map(str, (
            result["scenario"] if first else "", name, *(stream[key] for _, key in COLUMNS),
            *stream["delay_ms"].values(),
            result["streams"]["own"]["frames"] if first else "",
            stopped_ms(result) if first else ""))))
    return found


def table(results: list[dict[str, Any]]) -> str:
    return in_columns([HEAD, *(row for result in results for row in rows(result))])


def in_columns(lines: list[tuple[str, ...]]) -> str:
    """The first line is the head; the first two columns are words."""
    widths = [max(len(line[i]) for line in lines if i < len(line))
              for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) if i < 2 else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(line, widths))).rstrip()
                     for line in lines)
