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
from run_tests import introspect, own_tests
from series import WORK, build_here
from tap import Group, parse

SUITES = ("unit", "qtest", "qapi-schema", "decodetree", "softfloat", "tracetool")
TRIES = 3
TIMEOUT = 5     # times what each test has: both sides run at once
Outcome = dict[str, str]        # subtest -> passed, failed or skipped


def upstream_tests(obj: Path) -> dict[str, dict]:
    own = own_tests()
    return {test["name"]: test for test in introspect(obj) if test["name"] not in own and
            any(suite.rpartition(":")[2] in SUITES for suite in test["suite"])}


def run_by_hand(obj: Path, test: dict) -> Outcome:
    """Meson can't leave an argument out."""
    subprocess.run(["ninja", "-C", obj, os.path.relpath(test["cmd"][0], obj)],
                   stdout=sys.stderr, check=True)
    try:
        done = subprocess.run([word for word in test["cmd"] if word != "--full"], cwd=obj,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              errors="replace", env={**os.environ, **test["env"]}, check=False,
                              timeout=TIMEOUT * test["timeout"])
        result, out = "ERROR" if done.returncode else "OK", done.stdout
    except subprocess.TimeoutExpired as error:
        result, out = "TIMEOUT", (error.stdout or b"").decode(errors="replace")
    return outcome({"result": result, "stdout": out})


def run_by_meson(obj: Path, options: list[str], names: list[str]) -> dict[str, Outcome]:
    log = obj / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    subprocess.run([obj / "pyvenv/bin/meson", "test", "-C", obj, "-t", str(TIMEOUT), *options,
                    *names], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if not log.exists():
        raise SeriesError(f"meson test ran nothing in {obj}")
    entries = map(json.loads, log.read_text(errors="replace").splitlines())
    return {entry["name"].rpartition(" / ")[2]: outcome(entry) for entry in entries}


def suite(obj: Path, options: list[str], names: list[str]) -> dict[str, Outcome]:
    """Runs tests (all if no names are given); the outcome of each."""
    kvm = os.access("/dev/kvm", os.W_OK)
    tests = {name: test for name, test in upstream_tests(obj).items() if not names or name in names}
    by_hand = [name for name, test in tests.items() if "--full" in test["cmd"] and not kvm]
    found = {name: run_by_hand(obj, tests[name]) for name in by_hand}
    if by_meson := [name for name in tests if name not in by_hand]:    # no names: all tests
        found |= run_by_meson(obj, options, by_meson)
    return found


def outcome(entry: dict) -> Outcome:
    subtests, _ = parse(entry.get("stdout") or "")
    result = {sub.name: "skipped" if sub.skipped else "passed" if sub.ok else "failed"
              for sub in subtests}
    if not result or entry["result"] not in ("OK", "SKIP", "EXPECTEDFAIL"):
        result["(the program)"] = {"OK": "passed", "EXPECTEDFAIL": "passed",
                                   "SKIP": "skipped"}.get(entry["result"], "failed")
    return result


def added(pristine: Outcome, patched: Outcome) -> list[str]:
    """Some tests find their subtests in QEMU: a new QMP command is one more."""
    return [sub for sub in patched if sub not in pristine and patched[sub] == "passed"]


def agree(pristine: Outcome, patched: Outcome) -> bool:
    return bool(pristine) and patched == pristine | dict.fromkeys(added(pristine, patched), "passed")


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
    # Not meson-test-prereq: what functional tests need is downloaded. meson test builds the rest.
    build_here(PRISTINE, ["all"])
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
    new = [f"{name} {sub}" for name, result in found["patched"].items()
           for sub in added(found["pristine"].get(name, {}), result)]
    print(f"* only in the patched one: {', '.join(new) or 'nothing'}")
    print(f"* run more than once: {' '.join(sorted(set(again))) or 'none'}")
    (TOP / "build/check/upstream.json").write_text(json.dumps(found, indent=1) + "\n")
    return group.write()


if __name__ == "__main__":
    os.chdir(TOP)
    main(compare)
