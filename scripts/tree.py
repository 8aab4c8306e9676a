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

from patchset import (APPLIED, EXTRA, NOBODY, PATCHES, PRISTINE, TOP, TREE, Patch, SeriesError,
                      as_person, check_new_files, chosen_files, commit_series, commits, git,
                      gives, is_extra, list_patches, main, main_base, outdated, qemu_base,
                      qemu_version, read_commit, read_patch, read_series, shown, variants)

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
    series = read_series(qemu_base())
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
    for why in outdated(qemu_base()):
        print(f"* warning: {why}")


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


def split(patches: list[Patch]) -> tuple[list[Patch], list[Patch]]:
    """What comes before the series in build/qemu, and the series."""
    extra, series = chosen_files(qemu_base())
    start = next((i for i, patch in enumerate(patches) if patch.name in series), 0)
    if late := [p for p in patches[start:] if p.name in extra]:
        raise SeriesError(f"commit '{late[0].subject}' comes before the series: rebase")
    if qemu_base() == main_base():
        return [], patches
    return patches[:start], patches[start:]


def series_content(patches: list[Patch]) -> dict[Path, str]:
    """The files of the series. Where the hunks that other versions share do not give a
    commit of this one, it gets a variant; messages and numbers are the same for all."""
    base = qemu_base()
    own = PATCHES if base == main_base() else PATCHES / base
    _, shared = chosen_files(base, without_own=True)
    files = {folder: list_patches(folder)
             for folder in {PATCHES, *(PATCHES / v for v in variants())}}
    content: dict[Path, str] = {}
    for number, patch in enumerate(patches, 1):
        there = {folder: read_patch(found[patch.name])
                 for folder, found in files.items() if patch.name in found}
        if own == PATCHES or patch.name not in shared:
            there[PATCHES] = patch
        elif gives(shared[patch.name], patch.commit):
            there.pop(own, None)
        else:
            there[own] = variant(patch, there.get(own), read_patch(shared[patch.name]))
        for folder, found in there.items():
            out = Patch(patch.name, patch.message, patch.new_files, found.diff,
                        replaces=found.replaces)
            content[folder / f"{number:04d}-{patch.name}.patch"] = out.to_file()
    return content


def variant(patch: Patch, before: Patch | None, shared: Patch) -> Patch:
    """The commit as a variant. One that has not changed is as up to date as it was."""
    if before and before.replaces and before.digest() == patch.digest():
        return Patch(patch.name, patch.message, patch.new_files, patch.diff,
                     replaces=before.replaces)
    return Patch(patch.name, patch.message, patch.new_files, patch.diff,
                 replaces=shared.digest())


def extra_content(patches: list[Patch]) -> dict[Path, str]:
    """The files of what comes before the series: those of other versions as they are."""
    own = PATCHES / qemu_base()
    shared, _ = chosen_files(qemu_base(), without_own=True)
    content = {path: path.read_text() for version in variants()
               for path in list_patches(PATCHES / version).values()
               if is_extra(path) and path.parent != own}
    names = [patch.name for patch in patches]
    for name, path in shared.items():
        if name not in names:
            raise SeriesError(f"build/qemu has no commit for {shown(path)}, which comes with"
                              f" QEMU {path.parent.name} and all older ones")
    for patch in patches:
        path, diff = shared.get(patch.name), patch.diff
        if path and gives(path, patch.commit):
            diff = read_patch(path).diff
        else:
            path = own / f"{EXTRA}{patch.name}.patch"
        out = Patch(patch.name, patch.message, patch.new_files, diff)
        content[path] = out.to_file()
    return content


def new_content(patches: list[Patch]) -> dict[Path, str]:
    """All files that patches/ shall have."""
    extra, series = split(patches)
    return {**extra_content(extra), **series_content(series)}


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
    if not (TREE / ".git").exists():
        raise SeriesError(f"{shown(TREE)} does not exist: make it with './configure'")
    if git("status", "--porcelain", "--untracked-files=no").strip():
        raise SeriesError(f"{shown(TREE)} has uncommitted changes: commit them first, e.g."
                          f" 'git -C {shown(TREE)} commit -a --fixup=COMMIT'")
    squash_fixups()
    patches = read_tree()
    check_new_files(patches)
    write_patches(new_content(patches))
    series = read_series(qemu_base())
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
