# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""A QEMU in a network namespace of its own, without a guest, for tests that break things.

QEMU has a TAP (netdev x, interface tapx), a netdev n without an interface, whose packets this
program sends and receives, and socket chardevs, whose peer this program is.
"""
import ctypes
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

TOP = Path(os.environ.get("SERIES_TOP") or Path(__file__).resolve().parent.parent.parent)
sys.path.insert(0, str(TOP / "scripts"))
from tap import Group  # noqa: E402

WAIT_S = 30
MACS = bytes.fromhex("02000000000102000000000288b5")     # a type set aside for experiments


class Failed(Exception):
    """What was expected did not happen; the message says what."""


def need(condition: Any, what: str) -> None:
    if not condition:
        raise Failed(what)


def wait_until(what: str, test: Callable[[], Any], limit_s: float = WAIT_S) -> Any:
    end = time.monotonic() + limit_s
    while not (value := test()):
        need(time.monotonic() < end, f"{what}: not within {limit_s} s")
        time.sleep(0.01)
    return value


def enter_sandbox(group: str) -> None:
    """Go on in a network namespace of our own: run this program once more, in it.

    Where the host allows none, or no TAP in it, the group is skipped, and this does not return.
    """
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    if not os.environ.get("ROBUST_SANDBOX"):
        os.environ["ROBUST_SANDBOX"] = "1"
        namespaces = ["unshare", *user, "--net", "--mount"]
        if subprocess.run([*namespaces, "true"], check=False, capture_output=True).returncode:
            skip(group, "no private network namespace")
        os.execvp("unshare", [*namespaces, "--kill-child", "--fork", sys.executable, *sys.argv])
    try:
        run("ip", "tuntap", "add", "dev", "probe0", "mode", "tap")
        run("ip", "link", "del", "probe0")
        open_interface("lo").close()
    except (Failed, OSError) as e:
        skip(group, f"no TAP or no packet socket in a private network namespace: {e}")
    run("mount", "-t", "sysfs", "sysfs", "/sys")    # of this namespace, seen only here
    for conf in Path("/proc/sys/net/ipv6/conf").glob("*/disable_ipv6"):
        conf.write_text("1")    # it would send packets of its own


def skip(name: str, why: str) -> None:
    print(f"* {name}: skipped: {why}")
    group = Group(name)
    group.add(name, True, why, skipped=True)
    sys.exit(group.write())


def run(*command: str) -> None:
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    need(done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}")


def packet(number: int, size: int = 60) -> bytes:
    return MACS + struct.pack(">I", number) + bytes((number * 31 + i) & 255
                                                    for i in range(size - 18))


def number_of(data: bytes) -> int:
    """The number of a packet that packet() made, whole and as it was."""
    need(data[:14] == MACS, f"not a packet of ours: {data[:20].hex()}")
    number, = struct.unpack(">I", data[14:18])
    need(data == packet(number, len(data)), f"packet {number} is damaged")
    return number


class Stream:
    """A peer's end of a redirector's chardev, without vnet_hdr_support."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def send(self, *numbers: int, size: int = 60) -> None:
        for number in numbers:
            self.sock.sendall(struct.pack(">I", size) + packet(number, size))

    def receive(self, limit_s: float = WAIT_S) -> int | None:
        """The next packet's number; None when the time is over or the connection is closed."""
        end = time.monotonic() + limit_s
        while True:
            if len(self.buffer) >= 4:
                size, = struct.unpack(">I", self.buffer[:4])
                if len(self.buffer) >= 4 + size:
                    data, self.buffer = self.buffer[4:4 + size], self.buffer[4 + size:]
                    return number_of(data)
            left = max(0.0, end - time.monotonic())
            if not select.select([self.sock], [], [], left)[0]:
                return None
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.buffer += data

    def expect(self, *numbers: int) -> None:
        for number in numbers:
            got = self.receive()
            need(got == number, f"the peer got packet {got}, not {number}")

    def expect_nothing(self) -> None:
        got = self.receive(0)
        need(got is None, f"the peer got packet {got}, which is one too many")


class Qemu:
    def __init__(self, program: Path, *args: str, outputs: bool = True) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="robust-"))
        self.log = (self.dir / "stderr").open("w+")
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.chain = mine       # netdev n: what is sent here goes through its chain
        options = [
            "-M", "none", "-accel", "qtest", "-nodefaults", "-display", "none", "-S",
            "-qmp", f"unix:{self.dir}/qmp,server=on,wait=off",
            "-netdev", "tap,id=x,ifname=tapx,script=,downscript=,vhost=off",
            "-netdev", f"dgram,id=n,local.type=fd,local.str={theirs.fileno()}",
            "-netdev", "hubport,id=h,hubid=0,netdev=n",
        ]
        if outputs:
            options += ["-chardev", f"socket,id=co,path={self.dir}/co,server=on,wait=off",
                        "-chardev", f"socket,id=ci,path={self.dir}/ci,server=on,wait=off"]
        self.process = subprocess.Popen(
            [str(program), *options, *args], stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=self.log, pass_fds=[theirs.fileno()], env=self.environment())
        theirs.close()
        self.pid = self.process.pid
        self.buffer = b""
        self.events: list[dict[str, Any]] = []
        self.monitor = socket.socket(socket.AF_UNIX)
        wait_until("QEMU's monitor", self._connected)
        self._message()
        self("qmp_capabilities")
        self("cont")

    @staticmethod
    def environment() -> dict[str, str]:
        common = "abort_on_error=1:halt_on_error=1:print_stacktrace=1"
        # A small quarantine: else it would be most of the memory that is watched. Slow unwinding:
        # else a leak's stack ends in glib.
        leaks = Path(__file__).with_name("lsan.txt")
        return {**os.environ, "UBSAN_OPTIONS": common,
                "LSAN_OPTIONS": f"suppressions={leaks}:print_suppressions=0",
                "ASAN_OPTIONS": f"{common}:detect_leaks=1:quarantine_size_mb=8"
                                ":fast_unwind_on_malloc=0"}

    def _connected(self) -> bool:
        need(self.process.poll() is None, f"QEMU did not start: {self.said()}")
        try:
            self.monitor.connect(str(self.dir / "qmp"))
        except OSError:
            return False
        return True

    def said(self) -> str:
        self.log.flush()
        return (self.dir / "stderr").read_text(errors="replace")

    def _message(self) -> dict[str, Any]:
        end = time.monotonic() + WAIT_S
        while b"\n" not in self.buffer:
            left = max(0.0, end - time.monotonic())
            need(select.select([self.monitor], [], [], left)[0],
                 f"QMP does not answer within {WAIT_S} s")
            data = b""
            try:
                data = self.monitor.recv(65536)
            except ConnectionResetError:
                pass
            need(data, f"QEMU is dead: {self.said()[-4000:]}")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def ask(self, command: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run a command; return QEMU's answer, be it an error."""
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self.monitor.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self._message()
            if "event" not in message:
                return message
            self.events.append(message)

    def __call__(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        answer = self.ask(command, arguments)
        need("return" in answer, f"QMP {command} {arguments}: {answer.get('error')}")
        return answer["return"]

    # ---- redirectors

    def add(self, **props: Any) -> None:
        self("object-add", {"qom-type": "filter-redirector", "id": "f0", "netdev": "n", **props})

    def delete(self, name: str = "f0") -> None:
        self("object-del", {"id": name})

    def info(self, name: str = "f0") -> dict[str, Any]:
        return next(i for i in self("query-filter-redirectors") if i["id"] == name)

    def stat(self, end: str, name: str) -> int:
        return self.info()[end]["stats"][name]

    def state(self, end: str) -> str:
        return self.info()[end]["state"]

    def peer(self, chardev: str) -> Stream:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.dir / chardev))
        wait_until("the connection", lambda: any(
            c["label"] == chardev and not c["filename"].startswith("disconnected")
            for c in self("query-chardev")))
        return Stream(sock)

    # ---- what it holds

    def fds(self) -> list[str]:
        found = []
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                found.append(re.sub(r"\[\d+\]", "", os.readlink(fd)))
            except FileNotFoundError:
                pass
        return sorted(found)

    def rings(self) -> int:
        """How many packet rings it has mapped."""
        return Path(f"/proc/{self.pid}/maps").read_text().count("socket:")

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+)", status)[1])

    def quit(self) -> None:
        """End it, and see that it ends well."""
        self.ask("quit")
        code = self.process.wait(WAIT_S)
        need(code == 0, f"QEMU's exit status is {code}: {self.said()[-6000:]}")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.monitor.close()
        self.chain.close()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def open_interface(name: str) -> socket.socket:
    """A packet socket: what is sent goes to the TAP's reader, what its writer sends is heard."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((name, 3))        # ETH_P_ALL
    return sock


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
