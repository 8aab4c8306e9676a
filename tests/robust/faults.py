#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Each system call of the endpoints fails once, with each plausible error.

usage: faults.py QEMU      writes build/check/faults.tap

strace makes a call of the running QEMU's main thread fail. At set-up: a first run, without
faults, shows which calls an object-add makes; then each of them fails in turn. At run time: the
table RUNTIME. After each fault QMP answers, nothing is left behind, and the endpoint works, or
says that it does not.
"""
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator

import kit
from kit import Failed, Qemu, Stream, need, wait_until
from tap import Group

# What a call can fail with; those that no table of the kernel has, too.
ERRORS = {
    "socket": ["EPERM", "EACCES", "ENOMEM", "ENOBUFS", "EMFILE", "ENFILE", "EAFNOSUPPORT"],
    "setsockopt": ["EPERM", "ENOMEM", "ENOBUFS", "EINVAL", "ENOPROTOOPT", "EBUSY", "EINTR"],
    "getsockopt": ["EPERM", "ENOMEM", "EINVAL", "ENOPROTOOPT"],
    "bind": ["EPERM", "ENOMEM", "ENODEV", "ENXIO", "ENETDOWN", "EINVAL", "EADDRNOTAVAIL"],
    "mmap": ["ENOMEM", "EAGAIN", "EPERM", "EINVAL"],
    "ioctl": ["EPERM", "ENODEV", "ENXIO", "EINVAL", "EINTR", "ENOMEM", "ENOTTY"],
    "fstat": ["EACCES", "ENOMEM"],
    "newfstatat": ["EACCES", "ENOENT", "ENOMEM"],
    "recvfrom": ["EINTR", "ENOMEM", "ENETDOWN"],
    "setns": ["EPERM", "EINVAL", "ENOMEM"],
}
# Calls at set-up that must be there: else the run without faults has seen nothing.
CALLS = {
    "capture": ["socket(AF_PACKET", "PACKET_VNET_HDR", "PACKET_VERSION", "PACKET_RX_RING", "mmap",
                "SO_ATTACH_FILTER", "bind(", "ioctl("],
    "inject": ["socket(AF_PACKET", "PACKET_VNET_HDR", "PACKET_QDISC_BYPASS",
               "bind(", "ioctl("],
}
# What these would tell may not be needed then, or an error says what is missing instead of why.
QUERIES = ("ioctl", "fstat", "newfstatat", "recvfrom", "getsockopt")
SETUPS: dict[str, dict[str, Any]] = {
    "capture": {"in_netdev": "x", "outdev": "co"},
    "inject": {"indev": "ci", "out_netdev": "x"},
}


@contextmanager
def traced(q: Qemu, *options: str) -> Iterator[Callable[[], list[str]]]:
    """strace on QEMU's main thread; the value gives its lines, once the block is left."""
    log = q.dir / "strace"
    log.unlink(missing_ok=True)
    tracer = subprocess.Popen(["strace", "-o", str(log), "-p", str(q.pid), *options],
                              stderr=subprocess.PIPE, text=True, preexec_fn=kit.die_with_parent)
    assert tracer.stderr
    line = tracer.stderr.readline()
    if "attached" not in line:
        tracer.kill()
        raise Failed(f"strace: {line.strip()}")
    try:
        yield lambda: log.read_text().splitlines()
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        tracer.stderr.close()


def calls_of(q: Qemu, props: dict[str, Any]) -> list[tuple[str, int, str]]:
    """The calls of an object-add: name, its number among those of that name, and the line."""
    with traced(q, "-e", "trace=" + ",".join(ERRORS)) as lines:
        q.add(**props)
    q.delete()
    counts: dict[str, int] = {}
    found = []
    for line in lines():
        name = line.split("(")[0]
        counts[name] = counts.get(name, 0) + 1
        # Memory of the allocator's is not the endpoint's, and no fault of it can be survived.
        if name in ERRORS and not (name == "mmap" and "MAP_ANONYMOUS" in line):
            found.append((name, counts[name], line))
    return found


def same_as_before(q: Qemu, fds: list[str], rings: int) -> None:
    need(q.fds() == fds, f"file descriptors left behind: {q.fds()}, before: {fds}")
    need(q.rings() == rings, "a ring is left mapped")


def fail_setup(q: Qemu, props: dict[str, Any], name: str, number: int, error: str) -> None:
    fds, rings = q.fds(), q.rings()
    with traced(q, "-e", f"trace={name}", "-e",
                f"inject={name}:error={error}:when={number}") as lines:
        answer = q.ask("object-add", {"qom-type": "filter-redirector", "id": "f0",
                                      "netdev": "n", **props})
        if "return" in answer:
            q("query-filter-redirectors")
            q.delete()
    hit = [line for line in lines() if "(INJECTED)" in line]
    need(len(hit) == 1, "strace did not make the call fail")
    same_as_before(q, fds, rings)
    if "error" in answer:
        text = answer["error"]["desc"]
        need(text.startswith("filter-redirector 'f0': ") and "'x'" in text,
             f"the error does not say what it is about: {text}")
        need(os.strerror(getattr(errno, error)) in text or name in QUERIES,
             f"the error does not say why: {text}")
    else:
        # The filter that starts the capture is tried again.
        need(name in QUERIES or "SO_ATTACH_FILTER" in hit[0], "object-add succeeded all the same")
    q.add(**props)
    q.delete()
    same_as_before(q, fds, rings)


def short(line: str) -> str:
    """What a strace line calls: its name, and the constant that tells it from others."""
    name = line.split("(")[0]
    words = [w for w in re.findall(r"\b[A-Z][A-Z0-9_]{3,}\b", line.split(" = ")[0])
             if not w.startswith(("SOL_", "PROT_", "MAP_", "O_", "AT_"))]
    return f"{name} {words[0]}" if words else name


def check_setup(group: Group, program: Path) -> None:
    for kind, props in SETUPS.items():
        q = Qemu(program)
        try:
            for _ in range(2):      # what only the first one allocates
                q.add(**props)
                q.delete()
            calls = calls_of(q, props)
            for wanted in CALLS[kind]:
                group.add(f"set-up of {kind}: calls {wanted.strip('(')}",
                          any(wanted in line for _, _, line in calls))
            for name, number, line in calls:
                for error in ERRORS[name]:
                    attempt(group, f"set-up of {kind}: {short(line)} #{number} {error}",
                            lambda n=name, i=number, e=error: fail_setup(q, props, n, i, e))
            q.quit()
        finally:
            q.close()


def attempt(group: Group, name: str, test: Callable[[], None]) -> None:
    try:
        test()
        group.add(name, True)
    except Failed as e:
        print(f"* FAILED: {name}: {e}", flush=True)
        group.add(name, False, str(e))


# ---- at run time

@dataclass
class Rig:
    """A redirector at work, and both ends of it."""
    q: Qemu
    peer: Stream
    net: Any        # socket on the TAP's interface


def tap_packets() -> int:
    return int(Path("/sys/class/net/tapx/statistics/tx_packets").read_text())


@dataclass
class Fault:
    """A call fails while the action goes on; then packets flow, but for those counted."""
    kind: str               # of SETUPS
    call: str
    errors: list[str]
    action: str             # packets, query, off-on or stop-cont
    counted: int = 0        # packets that the fault may cost: errors and lost together
    ends: bool = False      # the endpoint may end, if it says so
    when: str = "1"


TRANSIENT = ["EAGAIN", "ENOBUFS", "EINTR"]
RUNTIME = [
    Fault("inject", "sendmmsg", [*TRANSIENT, "ENXIO", "ENETDOWN"], "packets"),
    Fault("inject", "sendmmsg", ["ENOMEM", "EPERM", "EINVAL", "EMSGSIZE", "EIO"], "packets", 1),
    Fault("inject", "sendmmsg", ["ENODEV"], "packets", 100, True),
    Fault("inject", "recvmsg", ["EAGAIN", "EINTR"], "packets"),
    Fault("inject", "recvmsg", ["ECONNRESET", "ENOMEM", "EIO"], "packets", 100, True),
    Fault("inject", "ioctl", ["ENODEV", "ENXIO", "EPERM", "EINTR", "ENOMEM"], "query"),
    Fault("inject", "getsockopt", ["ENOMEM", "EINTR", "EINVAL"], "query"),
    Fault("capture", "sendmsg", TRANSIENT + ["ENOMEM"], "packets"),
    Fault("capture", "sendmsg", ["EPIPE", "ECONNRESET", "EIO"], "packets", 100, True),
    Fault("capture", "getsockopt", ["ENOMEM", "EINTR", "EINVAL", "ENOTCONN"], "query"),
    Fault("capture", "ioctl", ["ENODEV", "ENXIO", "EPERM", "EINTR", "ENOMEM"], "query"),
    Fault("capture", "setsockopt", ["ENOMEM", "EPERM", "EINVAL", "EINTR"], "off-on"),
    Fault("capture", "setsockopt", ["ENOMEM", "EPERM", "EINVAL", "EINTR"], "stop-cont"),
    Fault("capture", "setsockopt", ["ENOMEM", "EPERM"], "off-on", when="2"),
    Fault("capture", "setsockopt", ["ENOMEM", "EPERM"], "stop-cont", when="2"),
    # Again at the first retry: nothing else would see to it after that.
    Fault("capture", "setsockopt", ["ENOMEM", "ENOBUFS"], "off-on", when="2..3"),
    Fault("capture", "setsockopt", ["ENOMEM", "ENOBUFS"], "stop-cont", when="1..4"),
]


def off_on(q: Qemu) -> None:
    for value in ("off", "on"):
        q("qom-set", {"path": "/objects/f0", "property": "status", "value": value})
        q("query-filter-redirectors")


def stop_cont(q: Qemu) -> None:
    q("stop")
    q("query-filter-redirectors")
    q("cont")


def send(rig: Rig, kind: str, numbers: range) -> None:
    for number in numbers:
        if kind == "capture":
            rig.net.send(kit.packet(number))
            continue
        try:
            rig.peer.send(number)
        except BrokenPipeError:
            return      # the connection is one of those that may end


def accounted(rig: Rig, kind: str, before: int, sent: int, counted: int) -> bool:
    """All packets came through or were counted; no more than allowed."""
    info = rig.q.info()
    passed = tap_packets() - before if kind == "inject" else info["output"]["stats"]["packets"]
    gone = sum(info[end]["stats"][what] for end in ("input", "output")
               for what in ("lost", "errors"))
    return passed + gone == sent and gone <= counted


def says_it_ended(rig: Rig) -> bool:
    return any(rig.q.state(end) in ("gone", "disconnected") for end in ("input", "output"))


def run_fault(program: Path, fault: Fault, error: str) -> None:
    q = Qemu(program)
    try:
        kit.run("ip", "link", "set", "tapx", "up")
        fds = q.fds()
        rig = Rig(q, q.peer("co" if fault.kind == "capture" else "ci"), kit.open_interface("tapx"))
        q.add(**SETUPS[fault.kind])
        before = tap_packets()
        # QMP is not the main thread's: its own calls don't fail, nor count.
        with traced(q, "-e", f"trace={fault.call}", "-e",
                    f"inject={fault.call}:error={error}:when={fault.when}") as lines:
            if fault.action == "packets":
                send(rig, fault.kind, range(10))
            elif fault.action == "query":
                q("query-filter-redirectors")
            elif fault.action == "off-on":
                off_on(q)
            else:
                stop_cont(q)
            wait_until("the fault", lambda: any("(INJECTED)" in line for line in lines()), 5)
        sent = 10 if fault.action == "packets" else 0
        if not (fault.ends and says_it_ended(rig)):
            wait_until("the endpoints' recovery", lambda: set(
                (q.state("input"), q.state("output"))) == {"active"}, 5)
            send(rig, fault.kind, range(10, 20))
            sent += 10
            wait_until(f"account of the packets {q.info()}", lambda: accounted(
                rig, fault.kind, before, sent, fault.counted), 10)
            if fault.kind == "capture" and not fault.counted:
                rig.peer.expect(*range(20 - sent, 20))
                rig.peer.expect_nothing()
        q.delete()
        rig.peer.sock.close()
        rig.net.close()
        wait_until(f"all descriptors closed ({fds})", lambda: q.fds() == fds, 5)
        q.quit()
    finally:
        q.close()


# ---- an injector that ends while packets wait in its queue

def end_with_queue(program: Path) -> None:
    q = Qemu(program)
    try:
        kit.run("ip", "link", "set", "tapx", "up", "mtu", "1000")
        q.add(out_netdev="x", queue="tx")
        kit.run("ip", "link", "set", "tapx", "down")
        for number, size in enumerate((60, 60, 1500, 60, 60)):
            q.chain.send(kit.packet(number, size))
        wait_until("packets in the queue", lambda: q.stat("output", "queued") == 5)
        with traced(q, "-e", "trace=sendmmsg", "-e", "inject=sendmmsg:error=ENODEV:when=3+"):
            kit.run("ip", "link", "set", "tapx", "up")
            wait_until("the end of the injector", lambda: q.state("output") == "gone")
        stats = q.info()["output"]["stats"]
        need(stats["packets"] + stats["errors"] + stats["lost"] == 5,
             f"5 packets are not accounted for: {stats}")
        q.delete()
        q.quit()
    finally:
        q.close()


def check_runtime(group: Group, program: Path) -> None:
    for fault in RUNTIME:
        for error in fault.errors:
            attempt(group, f"{fault.kind}: {fault.call} #{fault.when} {error} with {fault.action}",
                    lambda f=fault, e=error: run_fault(program, f, e))
    for _ in range(3):
        attempt(group, "inject: ENODEV in the middle of the queue",
                lambda: end_with_queue(program))


def strace_fails() -> str:
    """Why strace can't be used here, or nothing."""
    if not shutil.which("strace"):
        return "no strace"
    with subprocess.Popen(["sleep", "60"]) as child:
        # It ends because its time is over, if it can attach.
        done = subprocess.run(["timeout", "-s", "INT", "1", "strace", "-o", "/dev/null", "-p",
                               str(child.pid)], check=False, stderr=subprocess.PIPE, text=True)
        child.kill()
    return "" if "attached" in done.stderr else f"strace cannot attach: {done.stderr.strip()}"


def main(args: list[str]) -> int:
    if len(args) != 1:
        print(__doc__)
        return 2
    kit.enter_sandbox("faults")
    program = Path(args[0]).resolve()
    if why := strace_fails():
        kit.skip("faults", why)
    group = Group("faults")
    began = time.monotonic()
    check_setup(group, program)
    check_runtime(group, program)
    print(f"* faults: {len(group.results)} in {time.monotonic() - began:.0f} s")
    return group.write()


sys.exit(main(sys.argv[1:]))
