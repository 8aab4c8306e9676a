#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The mailable series: write it, check it, build each of its commits.

usage: series.py write    patches/ -> build/series/*.patch (branch `series` in build/qemu)
       series.py check    write, then: `git am` takes it on pristine source,
                          checkpatch.pl is silent; writes build/check/series.tap
       series.py build    every commit builds (slow)

The author is git's user.name and user.email, who signs off; SERIES_VERSION=2
makes it a "PATCH v2".
"""
import os
import shutil
import subprocess
from pathlib import Path

from patchset import (NOBODY, PATCHES, PRISTINE, TOP, TREE, Patch, SeriesError, as_person,
                      check_new_files, commit_series, commits, git, main, main_base, qemu_base,
                      qemu_version, read_series, shown)
from tap import Group

OUT = TOP / "build" / "series"
WORK = TOP / "build" / "series-tree"  # a work tree beside build/qemu, kept for its objects
COVER = PATCHES / "cover.txt"


def person() -> tuple[str, str]:
    def config(key: str) -> str:
        return subprocess.run(["git", "config", key], cwd=TOP, text=True, check=False,
                              stdout=subprocess.PIPE).stdout.strip()
    name, email = config("user.name"), config("user.email")
    return (name, email) if name and email else NOBODY


def message(patch: Patch, who: tuple[str, str]) -> str:
    signed = f"Signed-off-by: {who[0]} <{who[1]}>"
    last = patch.message.rstrip().split("\n\n")[-1]
    trailers = all(": " in line and line[0].isupper() and " " not in line.split(": ")[0]
                   for line in last.split("\n")) and last != patch.message
    return f"{patch.message}{chr(10) if trailers else chr(10) * 2}{signed}\n"


def cover_text() -> tuple[str, str]:
    if not COVER.exists():
        raise SeriesError(f"{shown(COVER)} is missing: its first line is the cover letter's"
                          " subject, the rest its text")
    subject, _, text = COVER.read_text().partition("\n")
    return subject.strip(), text.strip()


def make_commits(who: tuple[str, str]) -> str:
    series = read_series(qemu_base())
    if not series:
        raise SeriesError("patches/ has no patch")
    check_new_files(series)
    head = commit_series(series, who, None, lambda p: message(p, who), real_files=True)
    git("update-ref", "refs/heads/series", head)
    return head


def write() -> None:
    who = person()
    head = make_commits(who)
    part = OUT.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    version = os.environ.get("SERIES_VERSION", "")
    git("format-patch", "-q", "-o", str(part), "--cover-letter", "--no-signature",
        "--no-renames", *([f"-v{version}"] if version else []), f"{PRISTINE}..{head}",
        env=as_person(who))
    subject, text = cover_text()
    cover = next(part.glob("*-cover-letter.patch"))
    cover.write_text(cover.read_text().replace("*** SUBJECT HERE ***", subject)
                     .replace("*** BLURB HERE ***", text))
    shutil.rmtree(OUT, ignore_errors=True)
    part.rename(OUT)
    print(f"* wrote {shown(OUT)}: {len(mails())} patches and a cover letter,"
          f" by {who[0]} <{who[1]}>")
    if qemu_base() != main_base():
        print(f"* that is for QEMU {qemu_base()}: the series to mail is for {main_base()}")
    if who == NOBODY:
        print("* that address is not real: set git's user.name and user.email before mailing")


def mails() -> list[Path]:
    return [p for p in sorted(OUT.glob("*.patch")) if "cover-letter" not in p.name]


def work_tree(commit: str) -> None:
    """WORK at `commit`; objects of an earlier build stay."""
    git("worktree", "prune")
    # A work tree of an earlier build/qemu is nothing any more.
    link = WORK / ".git"
    if link.exists() and not Path(link.read_text().removeprefix("gitdir:").strip()).exists():
        shutil.rmtree(WORK)
    if not WORK.exists():
        git("worktree", "add", "-q", "--force", "--detach", str(WORK), commit)
        return
    git("reset", "-q", "--hard", cwd=WORK)
    git("checkout", "-q", "--detach", commit, cwd=WORK)


def check_am(group: Group) -> bool:
    """git am of all mails gives exactly the commits' content."""
    work_tree(PRISTINE)
    shutil.rmtree(git("rev-parse", "--git-path", "rebase-apply", cwd=WORK).strip(),
                  ignore_errors=True)
    try:
        git("am", "-q", *map(str, mails()), cwd=WORK, env=as_person(NOBODY))
    except SeriesError as e:
        group.add("git am takes the series on pristine source", False, str(e))
        return False
    same = not git("diff", "--stat", "HEAD", "refs/heads/series", cwd=WORK)
    group.add("git am takes the series on pristine source", same,
              "the mails give another tree than patches/")
    return same


def check_style(group: Group, mail: Path) -> None:
    done = subprocess.run(["perl", "scripts/checkpatch.pl", "-q", "--no-summary", str(mail)],
                          cwd=WORK, text=True, errors="replace", capture_output=True,
                          stdin=subprocess.DEVNULL, check=False)
    said = (done.stdout + done.stderr).strip()
    group.add(f"checkpatch.pl {mail.name}", not said and done.returncode == 0, said)


def check() -> int:
    group = Group("series")
    try:
        write()
    except SeriesError as e:
        if not any(PATCHES.glob("*.patch")):
            group.add("the series", True, "patches/ has no patch yet", skipped=True)
        else:
            group.add("the series is written", False, str(e))
        return report(group)
    if check_am(group):
        for mail in mails():
            check_style(group, mail)
    return report(group)


def report(group: Group) -> int:
    for result in group.results:
        print(f"* {'ok' if result.ok else 'FAILED'}: {result.name}")
        if not result.ok:
            print(result.why)
    return group.write()


def link_firmware(obj: Path) -> None:
    """The links to firmware that `configure` has made in build/qemu/build."""
    ready = TREE / "build"
    for link in (ready / "qemu-bundle").rglob("*"):
        if link.is_symlink() and link.is_dir():
            copy = obj / link.relative_to(ready)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(os.readlink(link))


def find_tools(obj: Path) -> None:
    """Meson works there by itself, as in build/qemu/build, where `configure` had to fetch it."""
    for pth in (TREE / "build").glob("pyvenv/lib/python3*/site-packages/tools.pth"):
        shutil.copy(pth, obj / pth.relative_to(TREE / "build"))


def build_here(commit: str, targets: list[str]) -> None:
    """Builds a commit in WORK, with the options that build/qemu has."""
    options = (TOP / "build/stamp/qemu-options").read_text().strip()
    obj = WORK / "build"
    work_tree(commit)
    obj.mkdir(exist_ok=True)
    if not (obj / "build.ninja").exists():
        run_step(["sh", "-c", f"../configure {options}"], obj)
        link_firmware(obj)
    find_tools(obj)
    run_step(["ninja", "--quiet", *targets], obj)


def build() -> int:
    head = make_commits(person())
    todo = commits(PRISTINE, head)
    for number, commit in enumerate(todo, 1):
        subject = git("show", "-s", "--format=%s", commit).strip()
        print(f"* {number}/{len(todo)} {subject}", flush=True)
        build_here(commit, [])
    print(f"* every commit of {len(todo)} builds on QEMU {qemu_version()}")
    return 0


def run_step(command: list[str], cwd: Path) -> None:
    tools = TOP / "build/tools/usr"
    env = dict(os.environ)
    if tools.exists():
        env["PYTHONPATH"] = f"{tools}/lib/python3/dist-packages"
        env["PATH"] = f"{tools}/bin:{env['PATH']}"
    log = TOP / "build/log/series-build.log"
    with log.open("w") as out:
        done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out,
                              stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").split("\n")[-30:])
        raise SeriesError(f"this commit does not build:\n{tail}\n({shown(log)})")


def run(args: list[str]) -> int:
    match args:
        case ["write"]:
            write()
        case ["check"]:
            return check()
        case ["build"]:
            return build()
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    main(run)
