#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The series on several versions of QEMU, each built in a folder of its own.

usage: bases.py prepare [SOURCE...]   make or update build/bases/VERSION, and configure it
       bases.py check [SOURCE...]     that, then build and test each, and print a table

A SOURCE is what ./configure takes as --qemu-src. Besides, there are the source packages in
build/dl, and the folders of an earlier run, which remember theirs. BASES_ONLY="10.2 10.0" in the
environment: no other versions; BASES_GROUPS="series qemu": other groups of tests.

build/bases/VERSION is this repo once more, by symbolic links, with a build/ of its own: all
that `make` does here it does there, and what it writes to patches/ is written here. The version
that build/qemu has is built there.
"""
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from patchset import TOP, TREE, SeriesError, age, base_of, bases, main, qemu_base, shown
from tap import Group, parse

ROOM = TOP / "build" / "bases"
GROUPS = "lint series qemu"
# Made or fetched by configure, the same for all bases.
SHARED = ("dl", "tools")


def words(name: str, default: str) -> list[str]:
    return (os.environ.get(name) or default).split()


def version_in(source: Path) -> str:
    """QEMU's full version in a source."""
    if source.suffix == ".dsc":
        match = re.match(r"qemu_([0-9.]+)", source.name)
        return match[1] if match else ""
    if source.is_dir():
        return (source / "VERSION").read_text().strip() if (source / "VERSION").exists() else ""
    # Of a tarball: in its top folder, or at its top.
    done = subprocess.run(["tar", "-xOf", str(source), "--wildcards", "--no-wildcards-match-slash",
                           "*/VERSION", "VERSION"], text=True, capture_output=True, check=False)
    return done.stdout.split("\n")[0].strip()


def place(base: str) -> Path:
    """Where a base is built."""
    here = (TREE / "VERSION").exists() and base == qemu_base()
    return TOP if here else ROOM / base


def sources(given: list[str]) -> dict[str, Path | None]:
    """Base -> its source; None: the folder where it is built knows it."""
    found: dict[str, Path | None] = {}
    if (TREE / "VERSION").exists():
        found[qemu_base()] = None
    packages = sorted((TOP / "build" / "dl").glob("*.dsc"), reverse=True)
    for source in [*(Path(name).absolute() for name in given), *packages]:
        version = version_in(source)
        if not re.match(r"\d+\.\d+", version):
            raise SeriesError(f"{source} is no QEMU source: no version in it")
        found.setdefault(base_of(version), source)
    for folder in ROOM.glob("*/build/configure.args"):
        found.setdefault(folder.parent.parent.name, None)
    only = words("BASES_ONLY", " ".join(found))
    return {base: found[base] for base in sorted(found, key=age, reverse=True) if base in only}


def link_repo(folder: Path) -> None:
    """All of this repo but build/, and what all builds can share of that."""
    (folder / "build").mkdir(parents=True, exist_ok=True)
    wanted = {p.name: p for p in TOP.iterdir() if p.name not in ("build", ".git")}
    wanted |= {f"build/{name}": TOP / "build" / name for name in SHARED}
    for link in folder.iterdir():
        if link.is_symlink() and link.name not in wanted:
            link.unlink()
    for name in SHARED:
        (TOP / "build" / name).mkdir(parents=True, exist_ok=True)
    for name, target in wanted.items():
        link = folder / name
        if not os.path.lexists(link):   # a folder of its own will do
            link.symlink_to(os.path.relpath(target, link.parent))


def run(command: list[str], folder: Path) -> bool:
    print(f"* {shown(folder)}: {' '.join(command)}", flush=True)
    return subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, check=False,
                          env={k: v for k, v in os.environ.items()
                               if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
                          ).returncode == 0


def prepare(base: str, source: Path | None) -> bool:
    folder = place(base)
    if folder == TOP:
        return run(["make", "build/stamp/tree"], folder)
    link_repo(folder)
    return run(["./configure", *([f"--qemu-src={source}"] if source else ["--again"])], folder)


def results(base: str, group: str) -> tuple[Counter, list[str]]:
    """How many passed, failed, were skipped; what failed."""
    path = place(base) / "build" / "check" / f"{group}.tap"
    if not path.exists():
        return Counter(failed=1), ["did not run"]
    found, complete = parse(path.read_text(errors="replace"))
    count = Counter("skipped" if r.skipped else "passed" if r.ok else "failed" for r in found)
    failed = [r.name for r in found if not r.ok]
    return (count, failed) if complete else (count + Counter(failed=1), [*failed, "no end"])


def report(done: dict[str, str], groups: list[str]) -> int:
    """The table, and build/check/bases.tap."""
    out = Group("bases")
    print(f"\n{'passed/failed/skipped':<24}" + "".join(f"{group:>16}" for group in groups))
    for base, why in done.items():
        cells = []
        for group in groups:
            count, failed = results(base, group) if not why else (Counter(), [why])
            cells.append(why or "/".join(str(count[k]) for k in ("passed", "failed", "skipped")))
            out.add(f"QEMU {base} {group}", not failed, "\n".join(failed))
        print(f"QEMU {base:<19}" + "".join(f"{cell:>16}" for cell in cells))
    for base in bases():
        if base not in done:
            print(f"QEMU {base:<19}{'no source (BASES_SRC=PATH gives one)':>16}")
            out.add(f"QEMU {base}", True, "no source", skipped=True)
    for result in out.results:
        if not result.ok:
            print(f"* FAILED: {result.name}: {result.why}")
    return out.write()


def check(found: dict[str, Path | None]) -> int:
    groups = words("BASES_GROUPS", GROUPS)
    done = {}
    for base, source in found.items():
        done[base] = "" if prepare(base, source) else "not configured"
        if not done[base]:
            run(["make", "check", f"CHECK_GROUPS={' '.join(groups)}"], place(base))
    return report(done, groups)


def start(args: list[str]) -> int:
    if args[:1] not in (["prepare"], ["check"]):
        print(__doc__)
        return 2
    found = sources(args[1:])
    if not found:
        raise SeriesError(f"no source of QEMU in {shown(TOP / 'build/dl')}, and none was given")
    if args[0] == "check":
        return check(found)
    return 0 if all([prepare(base, source) for base, source in found.items()]) else 1


if __name__ == "__main__":
    os.chdir(TOP)
    main(start)
