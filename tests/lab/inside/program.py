# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The program that is the guest, its client, and the watch over where packets have been.

All three are roles of one C program, tests/lab/program/.
"""

import subprocess
from pathlib import Path

from machine import Vm
from qmp import ScenarioError, say

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
        self.start(text)
        return self.line()

    def start(self, text: str) -> None:
        """Gives an order; its answer is for the caller to await."""
        assert self._process.stdin
        try:
            self._process.stdin.write(text + "\n")
            self._process.stdin.flush()
        except OSError:
            pass    # it says why on its standard output

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

    def __init__(self, folder: Path, name: str, listen: str, connect: str, spoil: str) -> None:
        """`spoil`: "drop=N" or "swap=N" does that to one packet of every N."""
        place = f"{name}=stream:{listen}:{connect}" + (f":{spoil}" if spoil else "")
        self._process = Process(PROGRAM, "watch", str(folder), place, ready="watching")


class Injector:
    """Sends numbered packets into a redirector's chardev; a list of them is in
    injected.sent.packets."""

    def __init__(self, folder: Path, path: str, flows: int) -> None:
        self._folder = folder
        self._sending = False
        self._process = Process(PROGRAM, "inject", path, str(flows))

    def send(self, count: int, rate: int) -> None:
        """Sends in the background, after what was to be sent before."""
        self._join()
        say(f"injecting {count} packets")
        self._process.start(f"send {count} {rate}")
        self._sending = True

    def _join(self) -> None:
        if self._sending:
            self._process.expect("ok")
            self._sending = False

    def finish(self) -> None:
        self._join()
        if self._process.order(f"save {self._folder}") != "ok":
            raise ScenarioError("the list of injected packets was not saved")
        self._process.kill()
