# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of tests as TAP files: write and read them.

build/check/GROUP.tap holds the results of one group of tests, one line a test,
with the plan ("1..N") last: a file without it was not finished.
"""
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(os.environ.get("SERIES_TOP") or Path(__file__).resolve().parent.parent)
CHECK = TOP / "build" / "check"
RESULT = re.compile(r"\s*(not )?ok\b\s*\d*\s*-?\s*(.*)")


@dataclass
class Result:
    name: str
    ok: bool = True
    skipped: bool = False
    why: str = ""  # a skip's reason, a failure's cause


@dataclass
class Group:
    name: str
    results: list[Result] = field(default_factory=list)

    def add(self, name: str, ok: bool, why: str = "", skipped: bool = False) -> None:
        self.results.append(Result(name, ok, skipped, why))

    def write(self) -> int:
        """Write the group's file; return the exit status of a test program."""
        CHECK.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, r in enumerate(self.results, 1):
            line = f"{'ok' if r.ok else 'not ok'} {number} - {r.name.replace('#', ' ')}"
            if r.skipped:
                line += f" # SKIP {r.why}"
            lines.append(line)
            if not r.ok and r.why:
                lines += [f"# {text}" for text in r.why.rstrip().split("\n")]
        lines.append(f"1..{len(self.results)}")
        part = CHECK / f"{self.name}.tap.part"
        part.write_text("\n".join(lines) + "\n")
        part.rename(CHECK / f"{self.name}.tap")
        return 0 if all(r.ok for r in self.results) else 1


def parse(text: str) -> tuple[list[Result], bool]:
    """The results in TAP output, and whether it is complete."""
    results: list[Result] = []
    plan = None
    for line in text.split("\n"):
        if m := re.match(r"\s*1\.\.(\d+)\s*(?:#\s*skip\S*\s*(.*))?", line, re.I):
            plan = int(m[1])
            if plan == 0:
                results.append(Result("all", True, True, m[2] or "no reason given"))
                plan = 1
        elif m := RESULT.match(line):
            name, _, directive = m[2].partition("#")
            skip = re.match(r"\s*skip\S*\s*(.*)", directive, re.I)
            results.append(Result(name.strip(), not m[1], bool(skip and not m[1]),
                                  skip[1].strip() if skip else ""))
        elif line.startswith("Bail out!"):
            results.append(Result("bail out", False, False, line[9:].strip()))
        elif line.startswith("# ") and results and not results[-1].ok:
            results[-1].why += line[2:] + "\n"
    return results, plan is not None and plan == len(results)
