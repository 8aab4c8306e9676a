# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Main loop: how long QEMU's monitor takes to answer while packets flow, or can't.

QEMU has one processor to itself; all others, who asks included, share the other one. Who asks
runs at real-time priority, and so does QEMU's monitor thread but for one case: what it waits for
is the main loop, not its share of the one processor that they have.
"""
import json
import os
import signal
import time
from pathlib import Path
from typing import Callable

from results import Results
from rig import OFFERER, Env, Process, Qemu, Tap, undisturbed

Parts = list[Process]


def capture(env: Env, tap: Tap, *reader: str, size: int = 60) -> tuple[Qemu, Parts]:
    path = env.path("stream")
    qemu = Qemu(env, [tap], ["-chardev", f"socket,id=out0,path={path},server=on,wait=off"])
    peer = env.start("count", "-v", "-u", str(path), *reader, cpu=OFFERER)
    time.sleep(0.1)
    qemu.redirector("f0", netdev="n0", in_netdev="n0", outdev="out0", vnet_hdr_support=True)
    flood = env.start("offer", "-i", tap.name, "-s", str(size), cpu=OFFERER)
    return qemu, [flood, peer]


def idle(env: Env, tap: Tap) -> tuple[Qemu, Parts]:
    qemu, parts = capture(env, tap)
    parts.pop(0).end()
    return qemu, parts


def slow_peer(env: Env, tap: Tap) -> tuple[Qemu, Parts]:
    return capture(env, tap, "-r", "1000000")


def stopped_peer(env: Env, tap: Tap) -> tuple[Qemu, Parts]:
    qemu, parts = capture(env, tap)
    parts[1].signal(signal.SIGSTOP)
    return qemu, parts


def super_packets(env: Env, tap: Tap) -> tuple[Qemu, Parts]:
    return capture(env, tap, size=65226)


def injection(env: Env, tap: Tap) -> tuple[Qemu, Parts]:
    qemu, parts = stuck_tap(env, tap)
    parts.append(env.start("count", "-t", str(tap.fd), cpu=OFFERER, fds=(tap.fd,)))
    return qemu, parts


def stuck_tap(env: Env, tap: Tap) -> tuple[Qemu, Parts]:
    path = env.path("stream")
    qemu = Qemu(env, [tap], ["-chardev", f"socket,id=in0,path={path},server=on,wait=off"])
    qemu.redirector("f0", netdev="n0", indev="in0", out_netdev="n0", vnet_hdr_support=True)
    return qemu, [env.start("offer", "-u", str(path), "-v", "12", cpu=OFFERER)]


def favour_threads(qemu: Qemu) -> None:
    """All but the main loop's."""
    for task in Path(f"/proc/{qemu.pid}/task").iterdir():
        if task.name != str(qemu.pid):
            os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(1))


STOLEN_MAX = 0.001      # by the hypervisor: a hundredth of all trips is what is looked at
TRIES = 6
SHARING = "injection flood, monitor thread not favoured"
CASES: dict[str, Callable[[Env, Tap], tuple[Qemu, Parts]]] = {
    "idle": idle, "capture flood": capture, "capture of super-packets": super_packets,
    "injection flood": injection, SHARING: injection, "peer reads slowly": slow_peer,
    "peer has stopped": stopped_peer, "TAP that nobody reads": stuck_tap}


def round_trips(env: Env, case: str, seconds: int) -> dict[str, float]:
    tap = Tap("bloop", offloads=case == "capture of super-packets")
    qemu, parts = CASES[case](env, tap)
    try:
        time.sleep(0.5)
        if case != SHARING:
            favour_threads(qemu)
        cpu = qemu.cpu_ns()
        ping = env.start("roundtrip", "-u", str(qemu.folder / "qmp2"), "-t", str(seconds),
                         cpu=OFFERER)
        found = json.loads(ping.wait(seconds + 60))
        found["busy"] = (qemu.cpu_ns() - cpu) / (seconds * 1e9)
        for part in parts:
            part.check()
        return found
    finally:
        for part in (*parts, qemu):
            part.end()
        tap.close()


def run(env: Env, results: Results) -> None:
    runs, seconds = (1, 3) if env.quick else (3, 5)
    found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    for _ in range(runs):
        for case in CASES:
            found[case].append(undisturbed(
                lambda: round_trips(env, case, seconds), STOLEN_MAX, TRIES))
    base = found["idle"]
    for case, trips in found.items():
        for what, limit in (("p50", None), ("p99", 2000.0), ("max", 20000.0)):
            results.add("mainloop", f"{what}, {case}", {}, "us", [t[f"{what}_us"] for t in trips],
                        "idle", [t[f"{what}_us"] for t in base],
                        ("value", "<=", limit) if limit and case != SHARING else None)
        results.add("mainloop", f"processor used, {case}", {}, "share", [t["busy"] for t in trips])
