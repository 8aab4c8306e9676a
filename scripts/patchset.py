# SPDX-License-Identifier: GPL-2.0-or-later
"""The series as files (patches/) and as commits (build/qemu).

A patch file is a message, the new files that come with it, and hunks on QEMU's
own files:

    Subject: net/tap: do this

    Why it is done.

    ---
    New-file: net/packet-socket.c

    diff --git a/net/tap.c b/net/tap.c
    ...

A commit of the patched tree holds the hunks only. Its message keeps what the
file's name and header tell, as the last lines "New-file: ..." and "Patch: name".
patches/X.Y/NNNN-name.patch replaces patches/NNNN-name.patch for QEMU X.Y.
"""
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

TOP = Path(__file__).resolve().parent.parent
PATCHES = TOP / "patches"
TREE = TOP / "build" / "qemu"
PRISTINE = "pristine"  # the tag of QEMU's unchanged source
APPLIED = "refs/series/applied"  # the commit that equals patches/

NOBODY = ("the project's authors", "authors@project.invalid")
FILE_NAME = re.compile(r"(\d{4})-([A-Za-z0-9._-]+)\.patch")


class SeriesError(Exception):
    """Something the user has to know and can act on."""


def main(run) -> NoReturn:
    """Run a tool's main function; an expected failure is one message."""
    try:
        sys.exit(run(sys.argv[1:]))
    except SeriesError as e:
        print(f"{Path(sys.argv[0]).name}: error: {e}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    sys.exit(1)


@dataclass
class Patch:
    """One patch: what a commit of the patched tree is made from."""
    name: str
    message: str  # subject, empty line, body; no newline at the end
    new_files: list[str] = field(default_factory=list)
    diff: str = ""
    path: Path | None = None  # where it was read from

    @property
    def subject(self) -> str:
        return self.message.split("\n", 1)[0]

    def to_file(self) -> str:
        new = "".join(f"New-file: {n}\n" for n in self.new_files)
        return (f"Subject: {self.message}\n\n---\n{new}"
                + ("\n" if new and self.diff else "") + self.diff)

    def to_commit(self) -> str:
        new = "".join(f"New-file: {n}\n" for n in self.new_files)
        return f"{self.message}\n\n{new}Patch: {self.name}\n"


def shown(path: Path) -> str:
    return str(path.relative_to(TOP)) if path.is_relative_to(TOP) else str(path)


def read_patch(path: Path) -> Patch:
    match = FILE_NAME.fullmatch(path.name)
    if not match:
        raise SeriesError(f"{shown(path)}: a patch is named NNNN-name.patch")
    head, mark, rest = path.read_text().partition("\n---\n")
    if not mark or not head.startswith("Subject: "):
        raise SeriesError(f"{shown(path)}: needs 'Subject: ...' as its first line and a"
                          " line '---' between the message and the hunks")
    start = rest.find("diff --git ")
    header, diff = (rest, "") if start < 0 else (rest[:start], rest[start:])
    patch = Patch(match[2], head.removeprefix("Subject: ").strip(), [], diff, path)
    for line in filter(None, header.split("\n")):
        key, _, value = line.partition(": ")
        if key != "New-file" or not value.strip():
            raise SeriesError(f"{shown(path)}: expected 'New-file: PATH' or a hunk, found"
                              f" '{line}'")
        patch.new_files.append(value.strip())
    return patch


def list_patches(folder: Path) -> dict[str, Path]:
    """name -> file, in the order of the numbers."""
    found: dict[str, Path] = {}
    numbers: dict[str, str] = {}
    for path in sorted(folder.glob("*.patch")):
        match = FILE_NAME.fullmatch(path.name)
        if not match:
            raise SeriesError(f"{shown(path)}: a patch is named NNNN-name.patch")
        for what, seen in ((match[1], numbers), (match[2], found)):
            if what in seen:
                raise SeriesError(f"{shown(path)}: another patch has '{what}', too")
        numbers[match[1]] = path.name
        found[match[2]] = path
    return found


def variants() -> list[str]:
    """The QEMU versions that have hunks of their own."""
    return sorted(p.name for p in PATCHES.iterdir() if p.is_dir())


def read_series(minor: str) -> list[Patch]:
    """The patches for QEMU `minor`, in order."""
    base = list_patches(PATCHES)
    own = list_patches(PATCHES / minor)
    for name, path in own.items():
        if name not in base or base[name].name != path.name:
            raise SeriesError(f"{shown(path)} replaces no patch: there is no"
                              f" patches/{path.name}")
    return [read_patch(own.get(name, path)) for name, path in base.items()]


def check_new_files(series: list[Patch]) -> None:
    seen: dict[str, Path | None] = {}
    for patch in series:
        where = shown(patch.path) if patch.path else patch.name
        for name in patch.new_files:
            if name in seen:
                raise SeriesError(f"{where}: {name} comes with an earlier patch already")
            if not (TOP / name).is_file():
                raise SeriesError(f"{where}: New-file {name} does not exist")
            seen[name] = patch.path


# ---- the git repo with the patched tree

def git(*args: str, cwd: Path = TREE, stdin: str | None = None,
        env: dict[str, str] | None = None) -> str:
    """git's output; independent of the user's hooks, signing and pagers."""
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false",
               "-c", "core.autocrlf=false", "-c", "core.excludesFile=/dev/null",
               # root may test what a user has built, and the other way round
               "-c", "safe.directory=*", "-c", "gc.auto=0", *args]
    # surrogateescape: QEMU's tree has a few bytes that are no UTF-8
    done = subprocess.run(command, cwd=cwd, input=stdin, text=True, errors="surrogateescape",
                          capture_output=True, env={**os.environ, **(env or {})},
                          stdin=None if stdin is not None else subprocess.DEVNULL)
    if done.returncode:
        raise SeriesError(f"git {args[0]} failed in {shown(cwd)}: {done.stderr.strip()}")
    return done.stdout


def qemu_version() -> str:
    return (TREE / "VERSION").read_text().strip()


def qemu_minor() -> str:
    return ".".join(qemu_version().split(".")[:2])


def as_person(person: tuple[str, str], date: str | None = None) -> dict[str, str]:
    env = {}
    for role in ("AUTHOR", "COMMITTER"):
        env[f"GIT_{role}_NAME"], env[f"GIT_{role}_EMAIL"] = person
        if date:
            env[f"GIT_{role}_DATE"] = date
    return env


def blame_hunk(patch: Patch, error: str) -> str:
    where = re.search(r"patch failed: (.*)", error) or re.search(r"error: (.*)", error)
    detail = where[1] if where else error
    path = shown(patch.path) if patch.path else patch.name
    return (f"{path} does not apply to QEMU {qemu_version()}: hunk at {detail}"
            f" (docs/hacking.md: 'A hunk does not apply')")


def commit_series(series: list[Patch], person: tuple[str, str], date: str | None,
                  message, real_files: bool) -> str:
    """
    Make one commit a patch on top of pristine and return the last one. Works in
    an index of its own: neither the work tree nor a branch changes, so a failure
    leaves everything as it was.

    message:    function from a patch to its commit's message
    real_files: put the new files into the commits, as in the mailed series
    """
    head = git("rev-parse", f"{PRISTINE}^{{commit}}").strip()
    with tempfile.TemporaryDirectory(dir=TREE / ".git") as tmp:
        env = {"GIT_INDEX_FILE": f"{tmp}/index", **as_person(person, date)}
        git("read-tree", head, env=env)
        for patch in series:
            if patch.diff:
                try:
                    git("apply", "--cached", "--whitespace=nowarn", "-", stdin=patch.diff, env=env)
                except SeriesError as e:
                    raise SeriesError(blame_hunk(patch, str(e))) from e
            for name in patch.new_files if real_files else ():
                add_file(name, env)
            tree = git("write-tree", env=env).strip()
            head = git("commit-tree", tree, "-p", head, stdin=message(patch), env=env).strip()
    return head


def add_file(name: str, env: dict[str, str]) -> None:
    path = TOP / name
    blob = git("hash-object", "-w", "--no-filters", str(path), env=env).strip()
    mode = "100755" if os.access(path, os.X_OK) else "100644"
    git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{name}", env=env)


def commits(since: str, until: str) -> list[str]:
    return git("rev-list", "--reverse", f"{since}..{until}").split()


def commit_diff(commit: str) -> str:
    """The hunks, without what depends on the rest of the repo (index lines)."""
    diff = git("diff-tree", "-p", "--no-commit-id", "--no-color", "--no-ext-diff",
               "--no-renames", "--src-prefix=a/", "--dst-prefix=b/", commit)
    return re.sub(r"(?m)^index [0-9a-f]+\.\.[0-9a-f]+.*\n", "", diff)


def read_commit(commit: str) -> Patch:
    """A commit of the patched tree as a patch; its name is empty in a new one."""
    name, new_files, lines = "", [], []
    for line in git("show", "-s", "--format=%B", commit).strip().split("\n"):
        key, _, value = line.partition(": ")
        if key == "Patch":
            name = value.strip()
        elif key == "New-file":
            new_files.append(value.strip())
        else:
            lines.append(line)
    return Patch(name, "\n".join(lines).strip(), new_files, commit_diff(commit))
