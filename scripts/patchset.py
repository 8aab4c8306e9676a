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

patches/*.patch are for the first version in patches/bases. An older one takes the
folders of all versions from the first down to its own, in this order:
patches/X.Y/NNNN-name.patch replaces the patch of this name for X.Y and what is older (its line
"Replaces: ..." tells from which lines it was made, so that a later change there is
noticed), and patches/X.Y/0000-name.patch is one more, before the series: it gives that tree
what the next newer one has.
"""
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

# make says where build/ is: scripts/bases.py has more than one.
TOP = Path(os.environ.get("SERIES_TOP") or Path(__file__).resolve().parent.parent)
PATCHES = TOP / "patches"
BASES = PATCHES / "bases"
TREE = TOP / "build" / "qemu"
PRISTINE = "pristine"  # the tag of QEMU's unchanged source
APPLIED = "refs/series/applied"  # the commit that equals patches/

NOBODY = ("the project's authors", "authors@project.invalid")
FILE_NAME = re.compile(r"(\d{4})-([A-Za-z0-9._-]+)\.patch")
EXTRA = "0000-"  # begins the file's name of a patch that comes before the series


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
    commit: str = ""  # or this
    replaces: str = ""  # of a variant: digest of the hunks that it was made from

    @property
    def subject(self) -> str:
        return self.message.split("\n", 1)[0]

    def to_file(self) -> str:
        head = "".join(f"New-file: {n}\n" for n in self.new_files)
        head += f"Replaces: {self.replaces}\n" if self.replaces else ""
        return (f"Subject: {self.message}\n\n---\n{head}"
                + ("\n" if head and self.diff else "") + self.diff)

    def digest(self) -> str:
        """Of the lines that it takes and adds, not of those around them."""
        lines = [line for line in self.diff.split("\n") if line.startswith(("-", "+"))]
        return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]

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
        if key == "New-file" and value.strip():
            patch.new_files.append(value.strip())
        elif key == "Replaces" and value.strip():
            patch.replaces = value.strip()
        else:
            raise SeriesError(f"{shown(path)}: expected 'New-file: PATH', 'Replaces: DIGEST' or"
                              f" a hunk, found '{line}'")
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
            if what in seen and f"{what}-" != EXTRA:
                raise SeriesError(f"{shown(path)}: another patch has '{what}', too")
        numbers[match[1]] = path.name
        found[match[2]] = path
    return found


def base_of(version: str) -> str:
    """What a version is called in patches/: X.Y, or X.Y.50 between two releases."""
    major, minor, micro, *_ = [*version.split("."), "0", "0"]
    development = micro.isdigit() and int(micro) >= 50
    return f"{major}.{minor}.50" if development else f"{major}.{minor}"


def age(base: str) -> tuple[int, ...]:
    """Sorts versions, the oldest first."""
    return tuple(int(part) for part in base.split("."))


def bases() -> list[str]:
    """The versions that the series is tested on, as in patches/bases."""
    lines = BASES.read_text().split("\n")
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found or any(not re.fullmatch(r"\d+\.\d+(\.50)?", base) for base in found):
        raise SeriesError(f"{shown(BASES)}: expected versions, X.Y or X.Y.50, one a line")
    if found != sorted(found, key=age, reverse=True):
        raise SeriesError(f"{shown(BASES)}: the newest version comes first")
    return found


def main_base() -> str:
    """The version that patches/*.patch are for."""
    return bases()[0]


def variants() -> list[str]:
    """The QEMU versions that have a folder of their own."""
    names = [p.name for p in PATCHES.iterdir() if p.is_dir()]
    if wrong := [name for name in names if not re.fullmatch(r"\d+\.\d+(\.50)?", name)]:
        raise SeriesError(f"{shown(PATCHES / wrong[0])}: a folder is named for a version,"
                          " X.Y or X.Y.50")
    return sorted(names, key=age)


def layers(base: str) -> list[Path]:
    """The folders whose patches `base` takes, the most general one first."""
    first, own = age(main_base()), age(base)
    older = [v for v in variants() if own <= age(v) < first]
    newer = [v for v in variants() if first < age(v) <= own]
    return [PATCHES, *(PATCHES / v for v in [*reversed(older), *newer])]


def is_extra(path: Path) -> bool:
    """Is it a patch that only its base, and what is older, has?"""
    return path.name.startswith(EXTRA)


def chosen_files(base: str, without_own: bool = False) -> tuple[dict[str, Path], dict[str, Path]]:
    """The files for `base`: those before the series, and the series; name -> file.
    without_own: as if it had no folder."""
    extra: dict[str, Path] = {}
    series: dict[str, Path] = {}
    own = PATCHES / base if without_own else None
    for folder in layers(base):
        if folder == own:
            continue
        added: dict[str, Path] = {}
        for name, path in list_patches(folder).items():
            if is_extra(path):
                (extra if name in extra else added)[name] = path
            elif folder == PATCHES or (name in series and series[name].name == path.name):
                series[name] = path
            else:
                raise SeriesError(f"{shown(path)} replaces no patch: there is no"
                                  f" patches/{path.name}")
        extra = {**added, **extra}  # an older base's come first
    return extra, series


def read_series(base: str) -> list[Patch]:
    """The patches for QEMU `base`, in order."""
    extra, series = chosen_files(base)
    return [read_patch(path) for path in [*extra.values(), *series.values()]]


def outdated(base: str) -> list[str]:
    """Variants of `base` made from hunks that are others now: a sentence for each."""
    found = []
    _, shared = chosen_files(base, without_own=True)
    for name, path in list_patches(PATCHES / base).items():
        if name not in shared or is_extra(path):
            continue
        own, general = read_patch(path), read_patch(shared[name])
        if own.replaces != general.digest() and own.digest() != general.digest():
            found.append(f"{shown(path)} was made from other hunks than {shown(shared[name])}"
                         " has now (docs/hacking.md: 'A variant is out of date')")
    return found


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


def qemu_base() -> str:
    return base_of(qemu_version())


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


def apply(diff: str, env: dict[str, str]) -> None:
    """Apply hunks to an index. On an older base the third line of context may be another."""
    exact = [] if qemu_base() == main_base() else ["-C2"]
    git("apply", "--cached", "--whitespace=nowarn", *exact, "-", stdin=diff, env=env)


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
                    apply(patch.diff, env)
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
    return Patch(name, "\n".join(lines).strip(), new_files, commit_diff(commit), None, commit)


def gives(patch: Path, commit: str) -> bool:
    """Would this file's hunks, applied to the commit's parent, make the commit?"""
    with tempfile.TemporaryDirectory(dir=TREE / ".git") as tmp:
        env = {"GIT_INDEX_FILE": f"{tmp}/index"}
        git("read-tree", f"{commit}^", env=env)
        try:
            if diff := read_patch(patch).diff:
                apply(diff, env)
        except SeriesError:
            return False
        return git("write-tree", env=env) == git("rev-parse", f"{commit}^{{tree}}")
