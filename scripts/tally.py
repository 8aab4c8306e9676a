#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sum up the groups of tests that ran.

usage: tally.py GROUP...

Reads build/check/GROUP.tap of each, prints failures, skips with their reasons, a
table, and as the last line "N passed, N failed, N skipped" (also in
build/check/summary). A group without a
complete result counts as one failure. Exit status 1 on any failure, or when nothing passed.
"""
import sys
from collections import Counter

from tap import CHECK, Group, Result, parse


def load(name: str) -> Group:
    path = CHECK / f"{name}.tap"
    if not path.exists():
        return Group(name, [Result("(the group)", False, False, "did not run to its end")])
    results, complete = parse(path.read_text(errors="replace"))
    if not complete:
        results.append(Result("(the group)", False, False, f"{path} is not complete"))
    return Group(name, results)


def counts(group: Group) -> Counter:
    return Counter("skipped" if r.skipped else "passed" if r.ok else "failed"
                   for r in group.results)


def show_skips(groups: list[Group]) -> None:
    reasons = Counter((g.name, r.why or "no reason given")
                      for g in groups for r in g.results if r.skipped)
    if reasons:
        print("Skipped:")
    for (group, why), number in sorted(reasons.items()):
        print(f"  {number:4} {group}: {why}")


def show_failures(groups: list[Group]) -> None:
    failed = [(g, r) for g in groups for r in g.results if not r.ok]
    if failed:
        print("Failed:")
    for group, result in failed:
        print(f"  {group.name}: {result.name}")
        for line in result.why.rstrip().split("\n")[-8:] if result.why else ():
            print(f"      {line}")


def main(names: list[str]) -> int:
    groups = [load(name) for name in names]
    print()
    show_skips(groups)
    show_failures(groups)
    print(f"{'tests':<12}{'passed':>8}{'failed':>8}{'skipped':>8}")
    total: Counter = Counter()
    for group in groups:
        n = counts(group)
        total += n
        print(f"{group.name:<12}{n['passed']:>8}{n['failed']:>8}{n['skipped']:>8}")
    summary = f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped"
    CHECK.mkdir(parents=True, exist_ok=True)
    (CHECK / "summary").write_text(summary + "\n")
    print(summary)
    return 0 if total["passed"] and not total["failed"] else 1


sys.exit(main(sys.argv[1:]))
