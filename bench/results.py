# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Results: collect, compare with goals, write build/bench/results.json, show as a table."""
import json
import operator
import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence

from rig import stolen_shares

OPERATORS = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


@dataclass
class Goal:
    """What has to hold for the ratio ("ratio") or for our own number ("value")."""
    of: str
    op: str
    limit: float

    def met(self, value: float) -> bool:
        return bool(OPERATORS[self.op](value, self.limit))

    def __str__(self) -> str:
        return f"{self.of} {self.op} {self.limit:g}"


@dataclass
class Result:
    group: str
    name: str
    params: dict[str, Any]
    unit: str
    ours: list[float]
    other_name: str = ""
    other: list[float] = field(default_factory=list)
    goal: Goal | None = None

    @property
    def ratios(self) -> list[float]:
        """Of each run: both numbers were taken in it."""
        return [a / b for a, b in zip(self.ours, self.other) if b]

    @property
    def ratio(self) -> float | None:
        return median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        if not self.goal:
            return None
        value = self.ratio if self.goal.of == "ratio" else median(self.ours)
        return None if value is None else self.goal.met(value)

    def as_json(self) -> dict[str, Any]:
        return {"group": self.group, "name": self.name, "params": self.params, "unit": self.unit,
                "ours": {"median": median(self.ours), "runs": self.ours},
                "other": {"name": self.other_name, "median": median(self.other),
                          "runs": self.other} if self.other else None,
                "ratio": self.ratio, "ratio_runs": self.ratios,
                "goal": str(self.goal) if self.goal else None, "met": self.met}


class Results:
    def __init__(self) -> None:
        self.all: list[Result] = []
        self.notes: list[str] = []

    def add(self, group: str, name: str, params: dict[str, Any], unit: str,
            ours: Sequence[float], other_name: str = "", other: Sequence[float] = (),
            goal: tuple[str, str, float] | None = None) -> None:
        result = Result(group, name, params, unit, [round(v, 4) for v in ours], other_name,
                        [round(v, 4) for v in other], Goal(*goal) if goal else None)
        self.all.append(result)
        print(line(result), flush=True)

    def write(self, path: Path, quick: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({
            "quick": quick,
            "machine": {"kernel": platform.release(), "processors": os.cpu_count()},
            "stolen": {"median": median(stolen_shares or [0]), "max": max(stolen_shares or [0])},
            "results": [r.as_json() for r in self.all],
            "failed": self.notes}, indent=1) + "\n")
        part.rename(path)


def number(value: float | None) -> str:
    if value is None:
        return ""
    if value and abs(value) < 10:
        return f"{value:.3g}"
    return f"{value:,.0f}"


HEAD = f"{'what':58} {'ours':>12} {'other':>12} {'ratio':>7}  {'goal':15} met"


def line(r: Result) -> str:
    params = " ".join(f"{k}={v}" for k, v in r.params.items())
    what = f"{r.group}: {r.name} [{r.unit}] {params}"
    against = f"{'':4}against {r.other_name}" if r.other_name else ""
    met = {True: "yes", False: "NO", None: "-"}[r.met]
    ratio = f"{r.ratio:.3g}" if r.ratio is not None else ""
    other = number(median(r.other)) if r.other else ""
    text = f"{what:58} {number(median(r.ours)):>12} {other:>12} {ratio:>7}  " \
           f"{str(r.goal or ''):15} {met}"
    return text + (f"\n{against}" if against else "")


def table(results: Results) -> str:
    lines = [HEAD, "-" * len(HEAD), *(line(r) for r in results.all)]
    goals = [r for r in results.all if r.met is not None]
    lines += [f"FAILED {note}" for note in results.notes]
    if stolen_shares:
        lines.append(f"processor time that the hypervisor took: {median(stolen_shares):.1%} of a "
                     f"measurement's (median), {max(stolen_shares):.1%} at most")
    lines.append(f"{sum(bool(r.met) for r in goals)} of {len(goals)} goals met")
    return "\n".join(lines)
