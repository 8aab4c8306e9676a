#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Check this repo's own files; writes build/check/lint.tap.

Shell scripts: shellcheck. Python: compiles. What users run (tools/): pylint; mypy, as for its
tests. Every file: an SPDX line. Our QEMU files: each comes with exactly one patch. The tools
that keep the patches: their own tests.
"""
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

from patchset import (TOP, SeriesError, bases, check_new_files, main_base, outdated, read_series,
                      shown, variants)
import test_tree
from tap import Group

# Where git knows the files; TOP may be a build folder of another base (scripts/bases.py).
REPO = Path(__file__).resolve().parent.parent

# Folders whose files go to QEMU's tree, at the same path.
QEMU_FOLDERS = ("net", "include", "qapi", "tests/unit", "tests/qtest", "docs/system",
                "docs/devel", "docs/interop")
# What users run, besides QEMU
COMMAND, COMMAND_MODULES = "tools/qemu-handover", "tools/qemu_handover"
# What can't or need not carry a license line.
NO_SPDX = ("COPYING", ".gitignore", "patches/")


def files() -> list[Path]:
    """Tracked files, and new ones that git does not ignore; all where there is no git."""
    done = subprocess.run(["git", "ls-files", "-z", "--cached", "--others",
                           "--exclude-standard"], cwd=REPO, text=True, check=False,
                          capture_output=True)
    names = done.stdout.split("\0") if done.returncode == 0 else \
        [str(p.relative_to(REPO)) for p in REPO.rglob("*")
         if not {"build", ".git"} & set(p.relative_to(REPO).parts)]
    return [TOP / n for n in sorted(set(names)) if n and (TOP / n).is_file()]


def first_line(path: Path) -> str:
    with path.open(errors="replace") as f:
        return f.readline()


def check_by(program: str, group: Group, name: str, *words: str) -> None:
    """What a program of its own finds wrong with `name`."""
    if not shutil.which(program):
        group.add(f"{program} {name}", True, f"no {program}", skipped=True)
        return
    done = subprocess.run([program, *words], text=True, capture_output=True, check=False, cwd=REPO)
    group.add(f"{program} {name}", done.returncode == 0, done.stdout + done.stderr)


def check_python(group: Group, path: Path) -> None:
    try:
        compile(path.read_text(), str(path), "exec")
        group.add(f"python {shown(path)}", True)
    except SyntaxError as e:
        group.add(f"python {shown(path)}", False, str(e))


def check_python_closely(group: Group) -> None:
    """pyproject.toml says how strictly. One run of each: what is wrong may be in two files."""
    check_by("pylint", group, COMMAND, "--rcfile", "pyproject.toml", COMMAND, COMMAND_MODULES)
    lab = [str(path.relative_to(REPO)) for path in REPO.glob("tests/lab/*.py")]
    check_by("mypy", group, f"{COMMAND}, its tests, the lab", "--config-file", "pyproject.toml",
             "--cache-dir", str(TOP / "build/mypy"), COMMAND, COMMAND_MODULES, "tests/libvirt",
             *lab)


def check_spdx(group: Group, paths: list[Path]) -> None:
    missing = []
    for path in paths:
        if str(path.relative_to(TOP)).startswith(NO_SPDX):
            continue
        head = path.read_bytes()[:4096]
        if b"\0" not in head and head.strip() and b"SPDX-License-Identifier:" not in head:
            missing.append(shown(path))
    group.add("an SPDX line in each file", not missing, "\n".join(missing))


def check_series_files(group: Group, paths: list[Path]) -> None:
    for base in dict.fromkeys([*bases(), *variants()]):
        name = f"patches for QEMU {base} are well formed"
        try:
            check_new_files(read_series(base))
            why = "\n".join(outdated(base) if base != main_base() else [])
            group.add(name, not why, why)
        except SeriesError as e:
            group.add(name, False, str(e))
            return
    declared = {n for patch in read_series(main_base()) for n in patch.new_files}
    ours = {shown(p) for p in paths if shown(p).startswith(tuple(f + "/" for f in QEMU_FOLDERS))}
    lost = sorted(ours - declared)
    group.add("each QEMU file comes with a patch", not lost,
              "no patch has a New-file line for: " + ", ".join(lost))


def check_tools(group: Group) -> None:
    for suite in unittest.defaultTestLoader.loadTestsFromModule(test_tree):
        for test in suite:
            result = unittest.TestResult()
            test.run(result)
            group.add(test.id(), result.wasSuccessful(),
                      "\n".join(why for _, why in result.failures + result.errors))


def main() -> int:
    group = Group("lint")
    paths = files()
    for path in paths:
        line = first_line(path)
        if line.startswith("#!") and ("/sh" in line or "bash" in line) or path.suffix == ".sh":
            check_by("shellcheck", group, shown(path), str(path))
        elif path.suffix == ".py" or line.startswith("#!") and "python" in line:
            check_python(group, path)
    check_python_closely(group)
    check_spdx(group, paths)
    check_series_files(group, paths)
    check_tools(group)
    for result in group.results:
        if not result.ok:
            print(f"* FAILED: {result.name}\n{result.why}")
    return group.write()


sys.exit(main())
