# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""QMP, and what everything inside the lab needs: errors, progress, commands, waiting."""

import json
import select
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any


class ScenarioError(Exception):
    """The scenario cannot go on; the message says why."""


def say(text: str) -> None:
    print(f"lab: {text}", flush=True)


def run(*command: str) -> str:
    result = subprocess.run(command, text=True, capture_output=True, check=False, timeout=60)
    if result.returncode:
        raise ScenarioError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def wait_until(what: str, test: Callable[[], Any], limit_s: float = 30,
               every_s: float = 0.05) -> Any:
    """Returns the first true value of test(); an error that names `what` when the time is over."""
    end = time.monotonic() + limit_s
    while True:
        value = test()
        if value:
            return value
        if time.monotonic() > end:
            raise ScenarioError(f"{what}: not within {limit_s} s")
        time.sleep(every_s)


class Qmp:
    """A QMP connection. Every command goes into the lab's record; events are kept, with times."""

    def __init__(self, path: str, record: Callable[[dict[str, Any]], None]) -> None:
        self._record = record
        self._socket = socket.socket(socket.AF_UNIX)
        self._buffer = b""
        self.events: list[dict[str, Any]] = []
        wait_until(f"QMP socket {path}", lambda: self._connect(path))
        self._message(30)       # the greeting
        self._call("qmp_capabilities", {})

    def _connect(self, path: str) -> bool:
        try:
            self._socket.connect(path)
        except OSError:
            return False
        return True

    def _message(self, limit_s: float) -> dict[str, Any] | None:
        """The next message of any kind, None when the time is over."""
        end = time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            left = max(0.0, end - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                return None
            data = self._socket.recv(65536)
            if not data:
                raise ScenarioError("QEMU closed its QMP connection: it is dead")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message = json.loads(line)
        if "event" in message:
            stamp = message["timestamp"]
            message["ns"] = stamp["seconds"] * 10**9 + stamp["microseconds"] * 1000
            self.events.append(message)
        return message

    def _call(self, command: str, arguments: dict[str, Any],
              descriptor: int | None = None) -> dict[str, Any]:
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        # A descriptor goes with the first byte of the command that is about it.
        text = json.dumps(request).encode() + b"\n"
        sent = socket.send_fds(self._socket, [text], [] if descriptor is None else [descriptor])
        self._socket.sendall(text[sent:])
        while True:
            message = self._message(60)
            if message is None:
                raise ScenarioError(f"QMP {command}: no answer within 60 s")
            if "return" in message or "error" in message:
                return message

    def try_command(self, command: str, descriptor: int | None = None,
                    **arguments: Any) -> dict[str, Any]:
        """Runs a command, with a file descriptor for QEMU if the command takes one, and gives back
        QEMU's whole answer, be it an error."""
        # Python has no "-" in names; the redirector's own properties are spelt with "_".
        arguments = {name.replace("_", "-") if command != "object-add" or name == "qom_type"
                     else name: value for name, value in arguments.items()}
        started = time.time_ns()
        answer = self._call(command, arguments, descriptor)
        if not command.startswith("query-"):
            self._record({"ns": started, "execute": command, "arguments": arguments,
                          "error": answer.get("error", {}).get("desc")})
        return answer

    def __call__(self, command: str, descriptor: int | None = None, **arguments: Any) -> Any:
        answer = self.try_command(command, descriptor, **arguments)
        if "error" in answer:
            raise ScenarioError(f"QMP {command}: {answer['error']['desc']}")
        return answer["return"]

    def event(self, name: str, limit_s: float = 60, after_ns: int = 0) -> dict[str, Any]:
        """The first event of that name (and not before after_ns), awaited if need be."""
        end = time.monotonic() + limit_s
        while True:
            for event in self.events:
                if event["event"] == name and event["ns"] >= after_ns:
                    return event
            left = end - time.monotonic()
            if left <= 0 or self._message(left) is None:
                raise ScenarioError(f"QMP event {name}: not within {limit_s} s")

    def poll_events(self) -> None:
        while self._message(0):
            pass
