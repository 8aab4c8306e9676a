# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The program that is the guest, its client, and the watch over where packets have been.

All three are roles of one C program, tests/lab/program/.
"""

import subprocess
from pathlib import Path

from machine import Vm
from qmp import ScenarioError

PROGRAM = "/usr/bin/lab-net"
ANSWER_LIMIT_S = 60


class Process:
    """One lab-net process; it says a first word when it is ready, more when it ends."""

    def __init__(self, *command: str, ready: str = "") -> None:
        self._name = command[0] if command[0] != "ip" else "client"
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, text=True)
        if ready:
            self.expect(ready)

    def expect(self, word: str) -> None:
        line = self.line()
        if line != word:
            raise ScenarioError(f"lab-net: {line or 'it died'}")

    def line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def order(self, text: str) -> str:
        assert self._process.stdin
        try:
            self._process.stdin.write(text + "\n")
            self._process.stdin.flush()
        except OSError:
            pass    # it says why on its standard output
        return self.line()

    def finish(self) -> str:
        """Ends the process; returns what it said last."""
        self._process.terminate()
        out, _ = self._process.communicate(timeout=ANSWER_LIMIT_S)
        if self._process.returncode:
            raise ScenarioError(f"lab-net failed: {out.strip()}")
        return out.strip()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


class Guest:
    """The guest: it runs wherever a QEMU says that its machine runs."""

    def __init__(self) -> None:
        self._process = Process(PROGRAM, "guest")

    def order(self, text: str) -> None:
        answer = self._process.order(text)
        if answer != "ok":
            raise ScenarioError(f"guest: '{text}': {answer or 'the program died'}")

    def know(self, vm: Vm) -> None:
        self.order(f"machine {vm.name} {vm.folder}/qtest {vm.folder}/qmp-guest {vm.memory}")

    def boot(self, vm: Vm, queues: int) -> None:
        self.order(f"boot {vm.name} {queues}")

    def counts(self) -> dict[str, int]:
        """What came and went since the last save."""
        words = self._process.order("count").split()
        return dict(zip(("arrived", "own", "other", "sent"), map(int, words)))

    def kill(self) -> None:
        self._process.kill()


class Watch:
    """Notes which packets the host gives to each TAP."""

    def __init__(self, folder: Path, taps: tuple[str, ...]) -> None:
        self._process = Process(PROGRAM, "watch", str(folder),
                                *(f"at-{tap}=tap:{tap}" for tap in taps), ready="watching")

    def finish(self) -> str:
        return self._process.finish()

    def kill(self) -> None:
        self._process.kill()


class StreamWatch(Watch):
    """Stands between the source's redirector and the destination's, and notes what passes."""

    def __init__(self, folder: Path, name: str, listen: str, connect: str) -> None:
        self._process = Process(PROGRAM, "watch", str(folder),
                                f"{name}=stream:{listen}:{connect}", ready="watching")
