# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The demo's report: a table, summary.json, a plot, and the QMP commands that were used."""

import json
import shlex
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from image import LabError, need
from packets import read_packets

COLUMNS = (("sent", "sent"), ("delivered", "delivered"), ("lost", "lost"),
           ("duplicated", "duplicated"), ("reordered", "reordered"),
           ("longest_gap_ms", "longest gap, ms"), ("downtime_ms", "downtime, ms"))
SUMMARY_KEYS = ("scenario", "rate", *(key for key, _ in COLUMNS))
TITLES = {"migrate-stock": "Stock QEMU: no redirector",
          "migrate-handover": "Hand-over: filter-redirector with enable_when_stopped",
          "migrate-capture": "Capture: filter-redirector with in_netdev"}
BIN_S = 0.25
CLEAR = ["unset label", "unset arrow", "unset object"]      # after each panel
BEFORE_S, AFTER_MAX_S = 4.0, 30.0


def columns(heads: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    return "\n".join("  ".join(text.ljust(width) if i == 0 else text.rjust(width)
                               for i, (text, width) in enumerate(zip(row, widths)))
                     for row in [heads, *rows])


def table(results: list[dict[str, Any]]) -> str:
    return columns(["scenario", "packets/s", *(title for _, title in COLUMNS)],
                   [[run["scenario"], str(run["rate"]), *(str(run[key]) for key, _ in COLUMNS)]
                    for run in results])


def sweep_table(results: list[tuple[str, dict[str, Any]]]) -> str:
    """A row for each run, the bad ones first. "own": frames of the guest's own that came back to
    it; "dropped": what the kernel dropped at full TAP queues because the guest (or, while it was stopped, nobody) took
    none; "p50", "p99": the delay of what was sent around the switchover, in ms."""
    heads = ["run", "rate", "sent", "lost", "doubled", "reordered", "flooded", "lost", "doubled",
             "stale", "own", "gap", "downtime", "p50", "p99", "dropped", "checks"]
    bad_first = sorted(results, key=lambda item: is_good(item[1]))
    rows = [[label, *sweep_row(run)] for label, run in bad_first]
    if any(" #" in label for label, _ in results):
        rows += sums(heads, rows)
    return columns(heads, [[str(value) for value in row] for row in rows])


def sums(heads: list[str], rows: list[list[Any]]) -> list[list[Any]]:
    """A row for all runs with the same parameters: their sums, and the longest of their times."""
    found = []
    for name in dict.fromkeys(row[0].partition(" #")[0] for row in rows):
        same = [row for row in rows if row[0].partition(" #")[0] == name]
        cells: list[Any] = [f"{name}, {len(same)} runs"]
        for head, values in list(zip(heads, zip(*same)))[1:-1]:
            numbers = [value for value in values if value != "-"]
            if not numbers or head == "rate":
                cells.append("-")
            elif head in ("gap", "downtime", "p50", "p99"):
                cells.append(max(numbers))
            else:
                cells.append(sum(numbers))
        good = sum(row[-1] == "good" for row in same)
        found.append([*cells, f"{good} good"])
    return found


def is_good(run: dict[str, Any]) -> bool:
    return all(good for _, good in run["checks"])


def sweep_row(run: dict[str, Any]) -> list[Any]:
    flooded, delay = run["flooded"], run["switchover_latency_ms"]
    dropped = sum(value for name, value in run["notes"].items() if name.endswith("_tap_dropped"))
    return [run["rate_achieved"], run["sent"], run["lost"], run["duplicated"], run["reordered"],
            flooded["sent"], flooded["lost"], flooded["duplicated"], flooded["stale"],
            run["notes"].get("guest_counts", {}).get("own", "-"), run["longest_gap_ms"],
            run["downtime_ms"], delay.get("p50", "-"), delay.get("p99", "-"), dropped,
            "good" if is_good(run) else "FAIL"]


def write_summary(results: list[dict[str, Any]], path: Path) -> None:
    path.write_text(json.dumps([{key: run[key] for key in SUMMARY_KEYS} for run in results],
                               indent=1) + "\n")


# ---- the commands ----

def write_commands(folders: list[Path], path: Path) -> None:
    """Each machine's QMP commands, in the order they were given, one JSON object a line."""
    lines = ["# QMP commands of the demo's migrations, in the order they were given.",
             "# src is the source's QEMU, dst the destination's. Each line can be pasted into the",
             "# named one's QMP connection as it is, once 'qmp_capabilities' has been said there.",
             "# Paths, ids and ports are the lab's: put yours in their place."]
    for folder in folders:
        record = json.loads((folder / "record.json").read_text())
        lines += ["", f"# ---- {record['scenario']} ----"]
        for command in record["commands"]:
            if "shell" in command:
                lines += ["# on the destination's host:", command["shell"]]
                continue
            request = {"execute": command["execute"]}
            if command["arguments"]:
                request["arguments"] = command["arguments"]
            lines += [f"# to {command['vm']}:", json.dumps(request)]
    path.write_text("\n".join(lines) + "\n")


# ---- the plot ----

def write_series(folder: Path, stem: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Writes the panel's data files; times in seconds since the source's guest stopped."""
    stop, resume = result["moves"][0]
    seen: set[int] = set()
    bins: Counter[int] = Counter()
    last = 0.0
    for arrival in read_aligned(folder / "to-guest.aligned.csv"):
        if arrival[0] not in seen:
            seen.add(arrival[0])
            seconds = (arrival[1] - stop) / 1e9
            last = max(last, seconds)
            bins[int(seconds // BIN_S)] += 1
    first, end = int(-BEFORE_S // BIN_S), int(min(AFTER_MAX_S, last) // BIN_S) + 1
    stem.with_suffix(".delivered").write_text("".join(
        f"{(i + 0.5) * BIN_S} {bins[i]}\n" for i in range(first, end)))
    lost = [(packet.sent_ns - stop) / 1e9 for packet in read_packets(folder, "to-guest.sent")
            if packet.number not in seen]
    stem.with_suffix(".lost").write_text("".join(f"{seconds} 0\n" for seconds in lost))
    return {"resume": (resume - stop) / 1e9, "lost": lost,
            "top": max(bins.values(), default=1), "end": min(AFTER_MAX_S, last),
            "gap_start": (result["to_guest"]["longest_gap_at_ns"] - stop) / 1e9,
            "gap": result["longest_gap_ms"] / 1000, "result": result}


def read_aligned(path: Path) -> list[tuple[int, int]]:
    lines = path.read_text().splitlines()[1:]
    return [(int(number), int(arrived)) for number, _, arrived in (l.split(",") for l in lines)]


def panel(stem: Path, facts: dict[str, Any], title: str) -> list[str]:
    result = facts["result"]
    top = facts["top"] * 1.45
    gap_end = facts["gap_start"] + facts["gap"]
    verdict = (f"{result['lost']} of {result['sent']} packets never arrived" if result["lost"]
               else f"all {result['sent']} packets arrived")
    verdict += f", {result['duplicated']} arrived twice, {result['reordered']} out of order"
    commands = [
        f"set label 9 \"{title}: {verdict}\" at graph 0,1.07 font ',13'",
        f"set yrange [{-0.12 * top}:{top}]",
        f"set object 1 rectangle from 0,0 to {facts['resume']},{top} fc rgb '#f2c078' "
        "fs solid 0.8 noborder behind",
        f"set label 1 'guest stopped for {result['downtime_ms']:.0f} ms' at {facts['resume']},"
        f"{top * 0.95} left offset 0.5,0 tc rgb '#9a5b00'",
        f"set arrow 1 from {facts['gap_start']},{top * 0.78} to {gap_end},{top * 0.78} heads "
        "size 0.08,90 lc rgb '#555555'",
        f"set label 2 'longest gap {facts['gap'] * 1000:.0f} ms' at {gap_end},{top * 0.78} "
        "left offset 0.5,0 tc rgb '#555555'",
    ]
    if facts["lost"]:
        commands.append(f"set label 3 '{len(facts['lost'])} lost packets, at the time each was "
                        f"sent' at {max(facts['lost'])},{-0.06 * top} left offset 1,0 "
                        "tc rgb '#c1121f'")
    bars = (f"plot '{stem.with_suffix('.delivered')}' using 1:2 with boxes fs solid 0.75 noborder "
            f"lc rgb '#2a6f97' title 'packets delivered to the guest in each {BIN_S} s'")
    crosses = (f", '{stem.with_suffix('.lost')}' using 1:({-0.06 * top}) with points pt 2 ps 0.6 "
               "lc rgb '#c1121f' title 'packet that never arrived'")
    commands.append(bars + (crosses if facts["lost"] else ""))
    return commands + CLEAR


def plot(runs: list[tuple[Path, dict[str, Any]]], target: Path) -> None:
    """switchover.svg and .png in the folder `target`."""
    panels: list[str] = []
    end = 0.0
    for folder, result in runs:
        stem = target / "data" / result["scenario"]
        stem.parent.mkdir(exist_ok=True)
        facts = write_series(folder, stem, result)
        end = max(end, facts["end"])
        panels += panel(stem, facts, TITLES[result["scenario"]])
    rate = runs[0][1]["rate"]
    for terminal, name in (("svg size 1100,800 font 'DejaVu Sans,12' background '#ffffff'", "svg"),
                           ("pngcairo size 1100,800 font 'DejaVu Sans,11'", "png")):
        note = ("" if runs[0][1].get("accel") == "kvm" else
                "The long waits after the move are the lab's: its guest runs on a processor "
                "emulated twice and is slow to start.")
        script = [
            f"set terminal {terminal}", "set termoption noenhanced",
            f"set output {str(target / f'switchover.{name}')!r}",
            f"set multiplot layout {len(runs)},1 title 'Live migration of a virtual machine with "
            f"vhost-net, while {rate} numbered packets a second are sent to it' font ',14'",
            f"set xrange [{-BEFORE_S}:{end + 1}]", f"set boxwidth {BIN_S * 0.95}",
            "set xlabel 'time in seconds; 0 = the guest stops on the source host'",
            f"set ylabel 'packets per {BIN_S} s'", "set key top right samplen 1",
            "set tmargin 3", "set bmargin 4",
            "set grid ytics lc rgb '#dddddd'", "set border 3", "set tics nomirror",
            "set lmargin 10", "set rmargin 3", *panels[:-1 - len(CLEAR)],
            f"set label 99 \"{note}\" at screen 0.99,0.012 right font ',10' tc rgb '#555555'",
            *panels[-1 - len(CLEAR):], "unset multiplot"]
        done = subprocess.run([need("gnuplot", "gnuplot-nox")], input="\n".join(script) + "\n",
                              text=True, capture_output=True, check=False)
        if done.returncode:
            raise LabError(f"gnuplot failed: {done.stderr.strip()}")


def write_report(runs: list[tuple[Path, dict[str, Any]]], target: Path) -> str:
    """All of it, into `target`; returns the table."""
    results = [result for _, result in runs]
    write_summary(results, target / "summary.json")
    write_commands([folder for folder, _ in runs], target / "qmp-commands.txt")
    plot([run for run in runs if run[1]["scenario"] != "migrate-capture"], target)
    text = table(results)
    (target / "table.txt").write_text(text + "\n")
    return text + (f"\n\nfiles: {target}/summary.json, switchover.svg, switchover.png, "
                   f"qmp-commands.txt; look: xdg-open {shlex.quote(str(target))}/switchover.png")
