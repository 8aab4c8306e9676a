# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What a user of libvirt gets: a guest is migrated as QEMU does it, and by qemu-handover, some
times each. A table of all runs, and a plot of two: one of each, in which the guest stood still for
about the same time. (How long that is, is the migration's matter, not the hand-over's.)"""

import itertools
import json
import statistics
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analyse import MS, GuestClock
from image import LabError, need
from load import Move
from packets import read_packets
from table import laid_out, stopped_ms

RATE = 1000                 # packets a second
COUNT = 3
SCENARIOS = {f"stock-move-{RATE}": "virsh migrate",
             f"command-move-{RATE}": "qemu-handover migrate"}
HEAD = ("", "packets", "sent", "lost", "doubled", "out of order", "stood still",
        "longest gap", "delay p50", "p99")
SUMS = ("sent", "lost", "duplicated", "reordered")
BEFORE_S, AFTER_S = 0.5, 0.8
SECOND_NS = 1000 * MS
LOST_AT = -0.06             # of the panel's height: where a lost packet is drawn
MIDDLE_MS = 10.0            # the least height of a panel
COLOURS = {"passed": "#2a6f97", "lost": "#c1121f", "stopped": "#f2c078", "text": "#555555"}

Result = dict[str, Any]
Run = tuple[Path, Result]


def alike(runs: dict[str, list[Run]]) -> dict[str, Run]:
    """One of each kind, as near as there are in the time for which the guest stood still."""
    pairs = itertools.product(*(runs[name] for name in SCENARIOS))
    best = min(pairs, key=lambda pair: abs(stopped_ms(pair[0][1]) - stopped_ms(pair[1][1])))
    return dict(zip(SCENARIOS, best))


def gap_ms(result: Result) -> float:
    return float(result["streams"]["unicast"]["longest_gap_ms"])


def gaps(chosen: dict[str, Run]) -> str:
    """Of the plot's two runs: whether the hand-over costs the guest time."""
    lines = [f"{SCENARIOS[name]}: longest gap {gap_ms(result):.0f} ms, the guest stood still for "
             f"{stopped_ms(result):.0f} ms" for name, (_, result) in chosen.items()]
    stock, ours = (gap_ms(result) for _, result in chosen.values())
    verdict = "shorter" if ours < stock else "LONGER"
    return "\n".join(["The plot's runs, those in which the guest stood still for about the same time:",
                      *(f"  {line}" for line in lines),
                      f"  with the hand-over the gap is {verdict} by {abs(ours - stock):.0f} ms"])


def rows(title: str, results: list[Result]) -> list[tuple[str, ...]]:
    """Counts are those of all runs together; a time is the middle one of the runs'."""
    found = []
    for kind in ("unicast", "broadcast"):
        streams = [result["streams"][kind] for result in results]
        times = [[stopped_ms(result) for result in results],
                 [stream["longest_gap_ms"] for stream in streams],
                 *([stream["delay_ms"][name] for stream in streams] for name in ("p50", "p99"))]
        found.append((title if kind == "unicast" else "", kind,
                      *(str(sum(stream[key] for stream in streams)) for key in SUMS),
                      *(f"{statistics.median(values):.1f} ms" for values in times)))
    return found


def table(runs: dict[str, list[Run]]) -> str:
    lines: list[tuple[str, ...]] = [HEAD]
    for name, title in SCENARIOS.items():
        lines += rows(f"{title}, {len(runs[name])} times",
                      [result for _, result in runs[name]])
    return laid_out(lines)


# ---- the plot

def packets(folder: Path, moves: list[Move]) -> list[tuple[float, float | None]]:
    """When each was sent, in seconds since the guest stopped, and its delay in ms, if it came."""
    arrivals = read_packets(folder / "unicast", "to-guest.arrived")
    clock = GuestClock(arrivals, moves)
    came: dict[int, int] = {}
    for arrival in arrivals:
        came.setdefault(arrival.number, clock.lab_ns(arrival.arrived_ns))
    return [((packet.sent_ns - moves[0][0]) / SECOND_NS,
             (came[packet.number] - packet.sent_ns) / MS if packet.number in came else None)
            for packet in read_packets(folder / "unicast", "to-guest.sent")]


def panel(title: str, run: Run, stem: Path, height: float) -> list[str]:
    """Commands for gnuplot; writes the data it draws."""
    folder, result = run
    moves = [(stop, go) for stop, go in result["moves"]]
    near = [(at, delay) for at, delay in packets(folder, moves) if -BEFORE_S <= at <= AFTER_S]
    stopped = (moves[0][1] - moves[0][0]) / SECOND_NS
    lost = LOST_AT * height
    passed_file, lost_file = stem.with_suffix(".passed"), stem.with_suffix(".lost")
    passed_file.write_text("".join(f"{at} {delay}\n" for at, delay in near if delay is not None))
    lost_file.write_text("".join(f"{at} {lost}\n" for at, delay in near if delay is None))
    figures = result["streams"]["unicast"]
    verdict = f"{figures['lost']} packets lost" if figures["lost"] else "no packet lost"
    draw = [f"'{passed_file}' with points pt 7 ps 0.35 lc rgb '{COLOURS['passed']}' "
            "title 'a packet: when it was sent, and its delay'"]
    if figures["lost"]:
        draw.append(f"'{lost_file}' with points pt 2 ps 0.6 lc rgb '{COLOURS['lost']}' "
                    "title 'a packet that never arrived'")
    return [f"set label 1 \"{title}: {verdict}\" at graph 0,1.07 font ',14'",
            f"set label 2 'longest gap {gap_ms(result):.0f} ms, stood still for "
            f"{stopped_ms(result):.0f} ms' at {stopped},{0.55 * height} "
            f"left offset 1,0 tc rgb '{COLOURS['text']}'",
            f"set object 1 rectangle from 0,{1.5 * lost} to {stopped},{height} "
            f"fc rgb '{COLOURS['stopped']}' fs solid 0.5 noborder behind",
            f"set label 3 'guest stands still' at 0,{0.93 * height} left offset 0.5,0 "
            f"tc rgb '{COLOURS['text']}'",
            f"plot {', '.join(draw)}", "unset label", "unset object"]


def plot(chosen: dict[str, Run], target: Path) -> None:
    """switchover.svg and .png: both on the same scales."""
    height = 1.25 * max(MIDDLE_MS, *(gap_ms(result) for _, result in chosen.values()))
    (target / "data").mkdir(exist_ok=True)
    panels = [line for name, title in SCENARIOS.items()
              for line in panel(title, chosen[name], target / "data" / name, height)]
    for terminal, name in (("svg size 1000,720 font 'DejaVu Sans,12' background '#ffffff'", "svg"),
                           ("pngcairo size 1000,720 font 'DejaVu Sans,11'", "png")):
        draw([f"set terminal {terminal}", "set termoption noenhanced",
              f"set output '{target / f'switchover.{name}'}'",
              "set multiplot layout 2,1 title 'A running guest is migrated by libvirt, while "
              f"{RATE} packets a second are sent to it' font ',14'",
              f"set xrange [{-BEFORE_S}:{AFTER_S}]",
              f"set yrange [{1.5 * LOST_AT * height}:{height}]",
              "set xlabel 'sent, in seconds since the guest stopped at the source'",
              "set ylabel 'delay, ms'", "set key top right samplen 1", "set tmargin 3",
              "set bmargin 4", "set lmargin 10", "set rmargin 3", "set border 3",
              "set tics nomirror", "set grid ytics lc rgb '#dddddd'", *panels,
              "unset multiplot"])


def draw(commands: Iterable[str]) -> None:
    done = subprocess.run([need("gnuplot", "gnuplot-nox")], input="\n".join(commands) + "\n",
                          text=True, capture_output=True, check=False)
    if done.returncode:
        raise LabError(f"gnuplot failed: {done.stderr.strip()}")


def report(runs: dict[str, list[Run]], target: Path) -> str:
    """All of it, into `target`; returns what is to be printed."""
    chosen = alike(runs)
    text = f"{table(runs)}\n\n{gaps(chosen)}"
    (target / "table.txt").write_text(text + "\n")
    summary = {SCENARIOS[name]: [{"folder": folder.name, **result["streams"]}
                                 for folder, result in done] for name, done in runs.items()}
    (target / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    plot(chosen, target)
    return f"{text}\n\nfiles: {target}/table.txt, summary.json, switchover.svg, switchover.png"
