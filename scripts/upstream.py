#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run all of QEMU's own tests on QEMU as it came and on the patched one; compare.

usage: upstream.py [MESON-TEST-OPTION...]

Builds pristine QEMU, with the same options, in build/series-tree. Both sides' tests run at the same
time. A test whose subtests end differently runs again on both sides, twice at most: one that then
agrees was disturbed by the machine. Left out: our own tests, and QEMU's functional ones, which
download guest images; without KVM also what QEMU's build adds to a test (--full) because it has seen
/dev/kvm.
Writes build/check/upstream.tap and build/check/upstream.json.
"""
import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from patchset import PRISTINE, TOP, TREE, SeriesError, main
from run_tests import own_tests
from series import WORK, build_here, with_tools
from tap import Group, parse

SUITES = ("unit", "qtest", "qapi-schema", "decodetree", "softfloat", "tracetool")
TRIES = 3
TIMEOUT = 5     # times what each test has: both sides run at once
Outcome = dict[str, str]        # subtest -> passed, failed or skipped


def upstream_tests(obj: Path) -> dict[str, dict]:
    """What meson knows of each test."""
    done = subprocess.run([obj / "pyvenv/bin/meson", "introspect", "--tests", obj], check=True,
                          stdout=subprocess.PIPE, env=with_tools())
    return {test["name"]: test for test in json.loads(done.stdout)
            if test["name"] not in own_tests() and
            any(suite.rpartition(":")[2] in SUITES for suite in test["suite"])}


def run_by_hand(obj: Path, test: dict) -> Outcome:
    """Meson can't leave an argument out."""
    try:
        done = subprocess.run([word for word in test["cmd"] if word != "--full"], cwd=obj,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              errors="replace", env={**with_tools(), **test["env"]}, check=False,
                              timeout=TIMEOUT * test["timeout"])
        result, out = "ERROR" if done.returncode else "OK", done.stdout
    except subprocess.TimeoutExpired as error:
        result, out = "TIMEOUT", (error.stdout or b"").decode(errors="replace")
    return outcome({"result": result, "stdout": out})


def suite(obj: Path, options: list[str], names: list[str]) -> dict[str, Outcome]:
    """Runs tests (all if no names are given); the outcome of each."""
    log = obj / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    tests = upstream_tests(obj)
    by_hand = [name for name in names or tests if name in tests and
               "--full" in tests[name]["cmd"] and not os.access("/dev/kvm", os.W_OK)]
    chosen = [name for name in names or tests if name not in by_hand]
    if chosen:
        subprocess.run([obj / "pyvenv/bin/meson", "test", "-C", obj, "-t", str(TIMEOUT), *options,
                        *chosen], stdin=subprocess.DEVNULL, stdout=sys.stderr, env=with_tools(),
                       check=False)
        if not log.exists():
            raise SeriesError(f"meson test ran nothing in {obj}")
    found = {name: run_by_hand(obj, tests[name]) for name in by_hand}
    for line in log.read_text(errors="replace").splitlines() if chosen else ():
        entry = json.loads(line)
        found[entry["name"].rpartition(" / ")[2]] = outcome(entry)
    return found


def outcome(entry: dict) -> Outcome:
    subtests, _ = parse(entry.get("stdout") or "")
    result = {sub.name: "skipped" if sub.skipped else "passed" if sub.ok else "failed"
              for sub in subtests}
    if not result or entry["result"] not in ("OK", "SKIP", "EXPECTEDFAIL"):
        result["(the program)"] = {"OK": "passed", "EXPECTEDFAIL": "passed",
                                   "SKIP": "skipped"}.get(entry["result"], "failed")
    return result


def agree(pristine: Outcome, patched: Outcome) -> bool:
    """Some tests find their subtests in QEMU: a new QMP command is one more."""
    new = {sub for sub in patched if sub not in pristine and patched[sub] == "passed"}
    return bool(pristine) and pristine == {sub: patched[sub] for sub in patched if sub not in new}


def different(pristine: dict[str, Outcome], patched: dict[str, Outcome]) -> list[str]:
    return sorted(name for name in {*pristine, *patched}
                  if not agree(pristine.get(name, {}), patched.get(name, {})))


def counts(found: dict[str, Outcome]) -> Counter:
    return Counter(value for result in found.values() for value in result.values())


def why(name: str, pristine: Outcome, patched: Outcome) -> str:
    return "\n".join(f"{name} {sub}: pristine {pristine.get(sub, 'absent')}, patched "
                     f"{patched.get(sub, 'absent')}" for sub in sorted({*pristine, *patched})
                     if pristine.get(sub) != patched.get(sub))


def compare(options: list[str]) -> int:
    print("* building QEMU as it came", flush=True)
    build_here(PRISTINE, ["all", "meson-test-prereq"])
    sides = {"pristine": WORK / "build", "patched": TREE / "build"}

    def both(names: list[str]) -> dict[str, dict[str, Outcome]]:
        with ThreadPoolExecutor() as pool:
            return dict(zip(sides, pool.map(lambda obj: suite(obj, options, names),
                                            sides.values())))

    print("* running QEMU's tests", flush=True)
    found = both([])
    again: list[str] = []
    for _ in range(1, TRIES):
        names = different(found["pristine"], found["patched"])
        if not names:
            break
        print(f"* once more, they differ: {' '.join(names)}", flush=True)
        again += names
        for side, results in both(names).items():
            found[side].update(results)
    group = Group("upstream")
    for name in sorted({*found["pristine"], *found["patched"]}):
        pristine, patched = (found[side].get(name, {}) for side in sides)
        group.add(name, agree(pristine, patched), why(name, pristine, patched))
    for side in sides:
        total = counts(found[side])
        print(f"* {side}: {len(found[side])} programs, {total['passed']} subtests passed, "
              f"{total['failed']} failed, {total['skipped']} skipped")
    new = [f"{name} {sub}" for name, result in found["patched"].items() for sub in result
           if sub not in found["pristine"].get(name, {})]
    print(f"* only in the patched one: {', '.join(new) or 'nothing'}")
    print(f"* run more than once: {' '.join(sorted(set(again))) or 'none'}")
    (TOP / "build/check/upstream.json").write_text(json.dumps(found, indent=1) + "\n")
    return group.write()


if __name__ == "__main__":
    os.chdir(TOP)
    main(compare)
