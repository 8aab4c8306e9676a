#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of patchset.py and tree.py: which patches a base takes, and where refresh writes.

usage: test_tree.py     (scripts/lint.py runs it, too)

Each test has a repo of its own in a temporary folder: a "QEMU" of one file in three versions,
and a series of two patches.
"""
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent

BASES = ["3.0.50", "2.0", "1.0"]
WORDS = [f"w{number}" for number in range(1, 41)]
# In 1.0 the line that the second patch changes has another third neighbour.
SOURCE = {"3.0.50": WORDS, "2.0": WORDS, "1.0": [w.replace("w17", "other") for w in WORDS]}


def patch(subject: str, old: str, new: str, base: str = BASES[0]) -> str:
    """A patch that changes one word of the source."""
    words = SOURCE[base]
    at = words.index(old)
    first, last = max(at - 3, 0), min(at + 4, len(words))
    lines = "".join(f"-{old}\n+{new}\n" if i == at else f" {words[i]}\n"
                    for i in range(first, last))
    return (f"Subject: {subject}\n\nWhy.\n\n---\ndiff --git a/file b/file\n--- a/file\n+++ b/file\n"
            f"@@ -{first + 1},{last - first} +{first + 1},{last - first} @@\n{lines}")


class Tree(unittest.TestCase):
    def setUp(self) -> None:
        self._tmp = tempfile.TemporaryDirectory()
        self.addCleanup(self._tmp.cleanup)
        self.top = Path(self._tmp.name)
        self.tree = self.top / "build/qemu"
        self.put("bases", "# comment\n" + "\n".join(BASES) + "\n")
        self.put("0001-first.patch", patch("first", "w1", "ONE"))
        self.put("0002-second.patch", patch("second", "w20", "EIGHT"))

    def put(self, name: str, text: str) -> None:
        path = self.top / "patches" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def names(self) -> list[str]:
        folder = self.top / "patches"
        return sorted(str(p.relative_to(folder)) for p in folder.glob("**/*.patch"))

    def text(self, name: str) -> str:
        return (self.top / "patches" / name).read_text()

    def run_tool(self, *args: str) -> str:
        """What it says; an error begins with its name."""
        done = subprocess.run([sys.executable, SCRIPTS / "tree.py", *args], text=True, check=False,
                              env={**os.environ, "SERIES_TOP": str(self.top)}, capture_output=True)
        return done.stdout + done.stderr

    def git(self, *args: str) -> str:
        return subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *args],
                              cwd=self.tree, text=True, check=True, capture_output=True).stdout

    def make(self, base: str) -> str:
        self.tree.mkdir(parents=True)
        micro = "" if base.count(".") == 2 else ".7"
        (self.tree / "VERSION").write_text(f"{base}{micro}\n")
        (self.tree / "file").write_text("\n".join(SOURCE[base]) + "\n")
        self.run_tool("import", str(self.tree), base)
        return self.run_tool("prepare")

    def subjects(self) -> list[str]:
        return self.git("log", "--reverse", "--format=%s", "pristine..HEAD").split("\n")[:-1]

    def change(self, old: str, new: str, *commit: str) -> None:
        path = self.tree / "file"
        path.write_text(path.read_text().replace(f"{old}\n", f"{new}\n"))
        self.git("commit", "-qa", *commit)

    # ---- what a base takes

    def test_main(self) -> None:
        self.assertIn("with 2 patches", self.make("3.0.50"))
        self.assertEqual(self.subjects(), ["first", "second"])

    def test_older_takes_all_newer_folders(self) -> None:
        self.put("2.0/0002-second.patch", patch("second", "w20", "Eight"))
        self.put("2.0/0000-early.patch", patch("of 2.0", "w30", "NINE"))
        self.put("1.0/0000-older.patch", patch("of 1.0", "w38", "TEN", "1.0"))
        self.make("1.0")
        self.assertEqual(self.subjects(), ["of 1.0", "of 2.0", "first", "second"])
        changed = [word for word in (self.tree / "file").read_text().split() if word[0] != "w"]
        self.assertEqual(changed, ["ONE", "other", "Eight", "NINE", "TEN"])

    def test_newer_takes_none_of_the_older_folders(self) -> None:
        self.put("1.0/0002-second.patch", patch("second", "w20", "Eight"))
        self.make("2.0")
        self.assertIn("EIGHT", (self.tree / "file").read_text())

    def test_third_line_of_context(self) -> None:
        self.assertIn("with 2 patches", self.make("1.0"))

    def test_context_is_strict_on_the_first(self) -> None:
        self.put("0002-second.patch", patch("second", "w20", "EIGHT", "1.0"))
        self.assertIn("patches/0002-second.patch does not apply", self.make("3.0.50"))

    def test_a_variant_of_nothing(self) -> None:
        self.put("1.0/0002-other.patch", patch("other", "w20", "Eight"))
        self.assertIn("replaces no patch", self.make("1.0"))

    # ---- where refresh writes

    def test_refresh_first(self) -> None:
        self.make("3.0.50")
        self.change("EIGHT", "acht", "--fixup=HEAD")
        self.run_tool("refresh")
        self.assertEqual(self.names(), ["0001-first.patch", "0002-second.patch"])
        self.assertIn("+acht", self.text("0002-second.patch"))

    def test_refresh_older(self) -> None:
        self.make("1.0")
        self.change("EIGHT", "acht", "--fixup=HEAD")
        self.run_tool("refresh")
        self.assertEqual(self.names(), ["0001-first.patch", "0002-second.patch",
                                        "1.0/0002-second.patch"])
        self.assertIn("+EIGHT", self.text("0002-second.patch"))
        self.assertIn("+acht", self.text("1.0/0002-second.patch"))

    def test_refresh_removes_what_is_not_needed(self) -> None:
        self.put("1.0/0002-second.patch", patch("second", "w20", "EIGHT", "1.0"))
        self.make("1.0")
        self.assertIn("removed", self.run_tool("refresh"))
        self.assertEqual(self.names(), ["0001-first.patch", "0002-second.patch"])

    def test_refresh_message_of_all(self) -> None:
        self.put("2.0/0002-second.patch", patch("second", "w20", "Eight"))
        self.make("1.0")
        self.git("commit", "-q", "--amend", "-m", "zweitens\n\nPatch: second")
        self.run_tool("refresh")
        for name in ("0002-second.patch", "2.0/0002-second.patch"):
            self.assertTrue(self.text(name).startswith("Subject: zweitens\n"), name)

    def test_refresh_before_the_series(self) -> None:
        self.make("1.0")
        self.git("reset", "-q", "--hard", "pristine")
        self.change("w38", "TEN", "-m", "give it ten")
        self.git("cherry-pick", "refs/series/applied~1", "refs/series/applied")
        self.run_tool("refresh")
        self.assertEqual(self.names(), ["0001-first.patch", "0002-second.patch",
                                        "1.0/0000-give-it-ten.patch"])

    def test_refresh_keeps_what_newer_ones_need(self) -> None:
        self.put("2.0/0000-early.patch", patch("of 2.0", "w30", "NINE"))
        self.make("1.0")
        self.git("reset", "-q", "--hard", "pristine")
        self.git("cherry-pick", "refs/series/applied~1", "refs/series/applied")
        self.assertIn("has no commit for patches/2.0/0000-early.patch", self.run_tool("refresh"))

    # ---- variants that the shared patch has left behind

    def outdated(self) -> bool:
        return "warning: patches/1.0/0002-second.patch was made" in self.run_tool("prepare")

    def test_outdated(self) -> None:
        self.make("1.0")
        self.change("EIGHT", "acht", "--fixup=HEAD")
        self.run_tool("refresh")
        self.assertFalse(self.outdated())
        self.put("0002-second.patch", patch("second", "w20", "Huit"))
        self.assertTrue(self.outdated())
        self.run_tool("refresh")
        self.assertTrue(self.outdated())
        self.change("acht", "huit", "--fixup=HEAD")
        self.run_tool("refresh")
        self.assertFalse(self.outdated())

    def test_refresh_leaves_other_folders(self) -> None:
        self.put("1.0/0000-older.patch", patch("of 1.0", "w38", "TEN", "1.0"))
        self.put("1.0/0002-second.patch", patch("second", "w20", "acht", "1.0"))
        self.make("3.0.50")
        self.run_tool("refresh")
        before = {name: self.text(name) for name in self.names()}
        self.change("ONE", "eins", "--fixup=HEAD~1")
        self.run_tool("refresh")
        after = {name: self.text(name) for name in self.names()}
        self.assertEqual({n for n in after if after[n] != before.get(n)}, {"0001-first.patch"})


if __name__ == "__main__":
    unittest.main()
