# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""A plot of the results: every ratio, with its goal."""
import shutil
import subprocess
from pathlib import Path

from results import Result, Results

SCRIPT = """
set datafile missing "?"
set terminal {terminal} size {width},{height} font ",10"
set output "{output}"
set logscale x
set yrange [-1:{count}]
set xlabel "ratio of the two sides of a run (median of runs; log scale)"
set ytics ({labels})
set grid x
set key outside top center horizontal
set arrow 1 from 1, graph 0 to 1, graph 1 nohead lc rgb "grey"
plot "{data}" using 1:2 with points pt 7 ps 1.2 lc rgb "#1a7f37" title "goal met, or none", \\
     "" using 3:2 with points pt 7 ps 1.2 lc rgb "#c0392b" title "goal missed", \\
     "" using 4:2 with points pt 3 ps 1.2 lc rgb "#2c3e50" title "goal"
"""


def label(r: Result) -> str:
    params = " ".join(f"{k}={v}" for k, v in r.params.items())
    return f"{r.group}: {r.name} {params} / {r.other_name}".replace('"', "").replace("_", " ")


def write(results: Results, folder: Path) -> None:
    rows = [r for r in results.all if r.ratio]
    if not rows or not shutil.which("gnuplot"):
        print("no plot: " + ("no ratios" if rows == [] else "gnuplot is not installed"))
        return
    rows.reverse()
    data = folder / "plot.dat"
    with data.open("w") as file:
        for y, r in enumerate(rows):
            good, bad = ("?", r.ratio) if r.met is False else (r.ratio, "?")
            goal = r.goal.limit if r.goal and r.goal.of == "ratio" else "?"
            file.write(f"{good} {y} {bad} {goal}\n")
    labels = ", ".join(f'"{label(r)}" {y}' for y, r in enumerate(rows))
    for suffix, terminal in (("svg", "svg"), ("png", "pngcairo")):
        script = SCRIPT.format(terminal=terminal, output=folder / f"plot.{suffix}", data=data,
                               labels=labels, width=1200, count=len(rows),
                               height=160 + 18 * len(rows))
        # What it says is only shown if it fails: it warns of a series without points, too.
        done = subprocess.run(["gnuplot"], text=True, check=False, capture_output=True,
                              input=script)
        if done.returncode:
            print(f"no plot: {done.stderr.strip()}")
