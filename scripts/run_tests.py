#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run our tests in QEMU's suites and QEMU's own listed ones; count their subtests.

usage: run_tests.py qemu|sanitize [MESON-TEST-OPTION...]

Ours are tests/unit/*.c and tests/qtest/*.c named test-* or *-test; QEMU's are
listed in tests/GROUP-suite.txt. Writes build/check/GROUP.tap. Group sanitize runs in the
build with sanitizers, builds just what it needs there, and runs the fuzzers' corpora, too.
"""
import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path

from tap import Group, parse

TOP = Path(os.environ.get("SERIES_TOP") or Path(__file__).resolve().parent.parent)
GROUPS = ("qemu", "sanitize")
GROUP = sys.argv[1] if sys.argv[1:] and sys.argv[1] in GROUPS else GROUPS[0]
OBJ = TOP / "build" / "qemu" / ("build-sanitize" if GROUP == "sanitize" else "build")
MESON = OBJ / "pyvenv" / "bin" / "meson"
QTEST = "qtest-x86_64/"  # how meson names a qtest
LOG = OBJ / "meson-logs" / "testlog.json"
# LeakSanitizer traces its own process, which one without capabilities may not do.
# In the others QEMU's own snapshots and COLO leak what they have allocated.
WITHOUT_LEAKS = [QTEST + f"filter-redirector-{name}-test"
                 for name in ("access", "destination", "switchover")]


def is_test(path: Path) -> bool:
    return path.stem.startswith("test-") or path.stem.endswith("-test")


def own_tests() -> list[str]:
    """meson's names of the tests that this repo brings."""
    unit = [p.stem for p in sorted((TOP / "tests/unit").glob("*.c")) if is_test(p)]
    qtest = [QTEST + p.stem for p in sorted((TOP / "tests/qtest").glob("*.c")) if is_test(p)]
    return unit + qtest


def listed_tests() -> list[str]:
    lines = (TOP / f"tests/{GROUP}-suite.txt").read_text().split("\n")
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def introspect(obj: Path) -> list[dict]:
    """What meson knows of each test."""
    out = subprocess.run([obj / "pyvenv/bin/meson", "introspect", "--tests", obj], check=True,
                         text=True, stdout=subprocess.PIPE).stdout
    return list(json.loads(out))


def choose(group: Group) -> list[str]:
    """The names to run; what can't run is a result already."""
    known = [test["name"] for test in introspect(OBJ)]
    chosen: list[str] = []
    for name in own_tests():
        if name in known:
            chosen.append(name)
        elif name.startswith(QTEST) and not any(k.startswith(QTEST) for k in known):
            group.add(name, True, "the configured targets have no x86_64", skipped=True)
        else:
            group.add(name, False, "meson does not know it: no patch adds it to QEMU's"
                                   " meson.build")
    for pattern in listed_tests():
        names = fnmatch.filter(known, pattern)
        if not names:
            group.add(pattern, True, "not in this QEMU or configuration", skipped=True)
        chosen += [n for n in names if n not in chosen]
    return chosen


def collect(group: Group, chosen: list[str]) -> None:
    """Turn meson's log into one result a subtest."""
    ran = {}
    if LOG.exists():
        for line in LOG.read_text(errors="replace").splitlines():
            entry = json.loads(line)
            # The log's name has the suites in front: "qemu:qtest / qtest-x86_64/x"
            ran[entry["name"].rpartition(" / ")[2]] = entry
    for name in chosen:
        if name in ran:
            add_test(group, name, ran[name])
        else:
            group.add(name, False, "did not run (see the messages above)")


def add_test(group: Group, name: str, entry: dict) -> None:
    subtests, _ = parse(entry.get("stdout") or "")
    for sub in subtests:
        group.add(f"{name} {sub.name}", sub.ok, sub.why, sub.skipped)
    good = entry["result"] in ("OK", "SKIP", "EXPECTEDFAIL")
    if not subtests:
        group.add(name, good, "" if good else cause(entry), entry["result"] == "SKIP")
    elif not good and all(sub.ok for sub in subtests):
        group.add(f"{name} (end)", False, cause(entry))


def cause(entry: dict) -> str:
    lines = (entry.get("stderr") or entry.get("stdout") or "").strip().split("\n")[-6:]
    return "\n".join([f"{entry['result']} after {entry['duration']:.0f} s, exit status"
                      f" {entry['returncode']}", *lines])


def set_sanitizer_options(leaks: bool) -> None:
    """A report ends the program that made it, so that its test fails."""
    common = "abort_on_error=1:halt_on_error=1:print_stacktrace=1:strip_path_prefix=../"
    robust = TOP / "tests" / "robust"
    os.environ["UBSAN_OPTIONS"] = f"{common}:suppressions={robust / 'ubsan.txt'}"
    os.environ["LSAN_OPTIONS"] = f"suppressions={robust / 'lsan.txt'}:print_suppressions=0"
    os.environ["ASAN_OPTIONS"] = f"{common}:detect_stack_use_after_return=1" \
                                 f":detect_leaks={int(leaks)}"


def run(group: Group, options: list[str], chosen: list[str]) -> None:
    if not chosen:
        return      # without names meson would run all
    LOG.unlink(missing_ok=True)
    # A generous multiplier: a test's own limit supposes a quick, idle machine.
    subprocess.run([MESON, "test", "-C", OBJ, "-t", "5", "--print-errorlogs", *options, *chosen],
                   stdin=subprocess.DEVNULL, check=False)
    collect(group, chosen)


def main(options: list[str]) -> int:
    group = Group(GROUP)
    chosen = choose(group)
    if GROUP == "sanitize":
        programs = [f"tests/qtest/{name.removeprefix(QTEST)}" if name.startswith(QTEST)
                    else f"tests/unit/{name}" for name in chosen]
        subprocess.run(["ninja", "-C", OBJ, "qemu-system-x86_64", *programs], check=True)
        options = ["--no-rebuild", *options]    # would build all of QEMU's tests
        set_sanitizer_options(leaks=False)
        run(group, options, [name for name in chosen if name in WITHOUT_LEAKS])
        set_sanitizer_options(leaks=True)
        chosen = [name for name in chosen if name not in WITHOUT_LEAKS]
    run(group, options, chosen)
    if GROUP == "sanitize":
        sys.path.insert(0, str(TOP / "tests" / "fuzz"))
        import fuzz  # pylint: disable=import-outside-toplevel
        fuzz.build()
        fuzz.replay(group)
    return group.write()


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]) if sys.argv[1:2] == [GROUP] else __doc__)
