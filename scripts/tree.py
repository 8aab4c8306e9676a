#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The patched tree build/qemu: make it from patches/, write it back there.

usage: tree.py import DIR VERSION   make the unpacked source DIR a git repo
       tree.py prepare              bring build/qemu in line with patches/
       tree.py refresh              bring patches/ in line with build/qemu
       tree.py saved                exit 0 if patches/ has all that build/qemu has
"""
import os
import re
from pathlib import Path

from patchset import (APPLIED, NOBODY, PATCHES, PRISTINE, TOP, TREE, Patch, SeriesError,
                      as_person, check_new_files, commit_series, commits, git, list_patches,
                      main, qemu_minor, qemu_version, read_commit, read_patch, read_series,
                      shown, variants)

# Same patches, same commits: a fixed date makes them comparable.
DATE = "1000000000 +0000"
MARK = "# new files, kept in patches' repo:"
BRANCH = "refs/heads/patched"


def import_source(folder: Path, version: str) -> None:
    git("init", "-q", "-b", "patched", cwd=folder)
    git("config", "gc.auto", "0", cwd=folder)
    # --force: QEMU's .gitignore also matches files that a release contains.
    git("add", "--all", "--force", cwd=folder)
    git("commit", "-q", "-m", f"QEMU {version}", cwd=folder, env=as_person(NOBODY, DATE))
    git("tag", PRISTINE, cwd=folder)
    git("update-ref", APPLIED, PRISTINE, cwd=folder)


def unsaved() -> str:
    """What build/qemu has and patches/ doesn't: a sentence, or nothing."""
    if git("status", "--porcelain", "--untracked-files=no").strip():
        return f"{shown(TREE)} has uncommitted changes"
    head, applied = git("rev-parse", "HEAD", APPLIED).split()
    # The same content under other commits (a reworded fixup) counts as unsaved, too.
    if head != applied:
        return f"{shown(TREE)} has commits that patches/ does not have"
    return ""


def build(series: list[Patch]) -> str:
    return commit_series(series, NOBODY, DATE, Patch.to_commit, real_files=False)


def link_new_files(series: list[Patch]) -> None:
    """Symlinks to our new files, known to git as ignored; those of before go."""
    exclude = TREE / ".git" / "info" / "exclude"
    kept, _, ours = (exclude.read_text() if exclude.exists() else "").partition(MARK + "\n")
    wanted = [name for patch in series for name in patch.new_files]
    for line in ours.split():
        link = TREE / line.lstrip("/")
        if line.lstrip("/") not in wanted and link.is_symlink():
            link.unlink()
    exclude.parent.mkdir(exist_ok=True)
    exclude.write_text(kept + MARK + "\n" + "".join(f"/{name}\n" for name in wanted))
    for name in wanted:
        link = TREE / name
        target = os.path.relpath(TOP / name, link.parent)
        if link.is_symlink() and os.readlink(link) == target:
            continue
        if link.exists() and not link.is_symlink():
            raise SeriesError(f"New-file {name}: QEMU {qemu_version()} has such a file itself")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def prepare() -> None:
    series = read_series(qemu_minor())
    check_new_files(series)
    new = build(series)
    head = git("rev-parse", "HEAD").strip()
    if head != new:
        if why := unsaved():
            raise SeriesError(
                f"{why}, and patches/ has changed: 'make refresh' first saves them, or"
                f" 'git -C {shown(TREE)} reset --hard {APPLIED}' throws them away")
        # Touches only files that differ, so only those are built again.
        git("reset", "-q", "--hard", new)
    git("update-ref", APPLIED, new)
    link_new_files(series)
    print(f"* {shown(TREE)}: QEMU {qemu_version()} with {len(series)} patches")


# ---- refresh

def squash_fixups() -> None:
    subjects = git("log", "--format=%s", f"{PRISTINE}..HEAD")
    if not re.search(r"(?m)^(fixup|squash|amend)! ", subjects):
        return
    try:
        git("rebase", "-q", "-i", "--autosquash", PRISTINE,
            env={"GIT_SEQUENCE_EDITOR": "true", "GIT_EDITOR": "true",
                 **as_person(NOBODY)})
    except SeriesError as e:
        git("rebase", "--abort")
        raise SeriesError(f"the fixup commits do not fit; rebase by hand. {e}") from e


def read_tree() -> list[Patch]:
    """The commits of build/qemu as patches, each with a name."""
    patches: list[Patch] = []
    for commit in commits(PRISTINE, "HEAD"):
        patch = read_commit(commit)
        if added := re.findall(r"(?m)^new file mode .*\n(?:index.*\n)?(?:--- .*\n)?\+\+\+ b/(.*)$",
                               patch.diff):
            raise SeriesError(
                f"commit '{patch.subject}' adds {added[0]}: move it to {added[0]} at the top"
                f" of this repo, take it out of the commit, and add the line"
                f" 'New-file: {added[0]}' to the commit's message")
        slug = re.sub(r"[^a-z0-9]+", "-", patch.subject.lower()).strip("-")[:52].strip("-")
        patch.name = patch.name or slug
        if patch.name in (p.name for p in patches):
            raise SeriesError(f"two commits are patch '{patch.name}': squash them, or remove"
                              " the line 'Patch: ...' from one's message")
        patches.append(patch)
    return patches


def base_minor() -> str:
    """The version that patches/*.patch is for: the first that configure supports."""
    text = (TOP / "configure").read_text()
    match = re.search(r"(?m)^SUPPORTED='\n(\S+)", text)
    if not match:
        raise SeriesError("configure has no list SUPPORTED")
    return match[1]


def new_content(patches: list[Patch]) -> dict[Path, str]:
    """All files that patches/ shall have. Hunks for a version other than the base
    one become a variant, and only where they differ from what patches/ gives."""
    minor, base = qemu_minor(), base_minor()
    folders = {PATCHES: list_patches(PATCHES),
               **{PATCHES / v: list_patches(PATCHES / v) for v in variants()}}
    applied = {p.name: p.diff for p in map(read_commit, commits(PRISTINE, APPLIED))}
    if minor != base:
        folders.setdefault(PATCHES / minor, {})
    content: dict[Path, str] = {}
    for number, patch in enumerate(patches, 1):
        for folder, files in folders.items():
            if patch.name in files:
                hunks = read_patch(files[patch.name]).diff
            elif folder == PATCHES:
                hunks = patch.diff
            else:
                hunks = None
            if folder == (PATCHES if minor == base or patch.name not in folders[PATCHES]
                          else PATCHES / minor):
                if minor == base or patch.diff != applied.get(patch.name):
                    hunks = patch.diff
            if hunks is not None:
                out = Patch(patch.name, patch.message, patch.new_files, hunks)
                content[folder / f"{number:04d}-{patch.name}.patch"] = out.to_file()
    return content


def write_patches(content: dict[Path, str]) -> None:
    for path in sorted(PATCHES.glob("**/*.patch")):
        if path not in content:
            path.unlink()
            print(f"* removed {shown(path)}")
    for path, text in content.items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"* wrote {shown(path)}")


def refresh() -> None:
    if git("status", "--porcelain", "--untracked-files=no").strip():
        raise SeriesError(f"{shown(TREE)} has uncommitted changes: commit them first, e.g."
                          f" 'git -C {shown(TREE)} commit -a --fixup=COMMIT'")
    squash_fixups()
    patches = read_tree()
    check_new_files(patches)
    write_patches(new_content(patches))
    series = read_series(qemu_minor())
    new = build(series)
    if git("rev-parse", f"{new}^{{tree}}") != git("rev-parse", "HEAD^{tree}"):
        raise SeriesError("patches/ does not give build/qemu again: this is a bug of tree.py;"
                          f" {shown(TREE)} is as it was")
    git("reset", "-q", "--hard", new)
    git("update-ref", APPLIED, new)
    link_new_files(series)
    print(f"* patches/ is what {shown(TREE)} has: {len(series)} patches")


def run(args: list[str]) -> int:
    match args:
        case ["import", folder, version]:
            import_source(Path(folder).resolve(), version)
        case ["prepare"]:
            prepare()
        case ["refresh"]:
            refresh()
        case ["saved"]:
            if why := unsaved():
                raise SeriesError(f"{why}; commit and 'make refresh' saves them, 'make distclean' throws"
                                  " them away")
        case _:
            print(__doc__)
            return 2
    return 0


main(run)
