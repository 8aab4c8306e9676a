# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The guest's own traffic: what a TAP's reader, in the guest's place, gets while packets are
captured; and what a capture costs that has nothing to do."""
import time

from results import Results
from rig import MEASURED, OFFERER, Env, Process, Qemu, Tap, settled, undisturbed, wait_until


def start_endpoint(env: Env, tap: Tap) -> list[Process]:
    path = env.path("stream")
    qemu = Qemu(env, [tap], ["-chardev", f"socket,id=out0,path={path},server=on,wait=off"],
                cpu=MEASURED)
    reader = env.start("count", "-v", "-u", str(path), cpu=MEASURED)
    time.sleep(0.1)
    qemu.redirector("f0", netdev="n0", in_netdev="n0", outdev="out0", vnet_hdr_support=True)
    return [qemu, reader]


def start_plain(env: Env, tap: Tap) -> list[Process]:
    path = env.path("plain")
    reader = env.start("count", "-v", "-l", str(path), cpu=MEASURED)
    wait_until(path.exists, 5, "the reader's socket")
    time.sleep(0.05)
    return [env.start("capture", "-i", tap.name, "-u", str(path), cpu=MEASURED), reader]


def start_off(env: Env, tap: Tap) -> list[Process]:
    return [Qemu(env, [tap], [], cpu=MEASURED)]


STARTS = {"off": start_off, "endpoint": start_endpoint, "plain": start_plain}


def throughput(env: Env, way: str, size: int, seconds: float) -> float:
    """Packets a second that the TAP's reader gets of as many as can be offered."""
    tap, got = Tap("bguest"), env.counters()
    parts = STARTS[way](env, tap)
    parts.append(env.start("count", "-t", str(tap.fd), counters=got, cpu=MEASURED,
                           fds=(tap.fd,)))
    try:
        time.sleep(0.2)
        sent = env.counters()
        env.start("offer", "-i", tap.name, "-s", str(size), "-t", str(seconds), counters=sent,
                  cpu=OFFERER).wait(seconds + 20)
        settled(got)
        return got.packets / ((sent.last_ns - sent.first_ns) / 1e9)
    finally:
        for part in parts:
            part.end()
        tap.close()


def idle_wakeups(env: Env, seconds: float) -> tuple[float, float]:
    """A second: of a QEMU with a capture, and of one without."""
    found = []
    for start in (start_endpoint, start_off):
        tap = Tap("bidle")
        parts = start(env, tap)
        try:
            time.sleep(1)
            before = parts[0].wakeups()
            time.sleep(seconds)
            found.append((parts[0].wakeups() - before) / seconds)
        finally:
            for part in parts:
                part.end()
            tap.close()
    return found[0], found[1]


def run(env: Env, results: Results) -> None:
    runs, seconds = (2, 1.0) if env.quick else (3, 2.0)
    for size in (60, 1514):
        found: dict[str, list[float]] = {way: [] for way in STARTS}
        for _ in range(runs):
            for way in STARTS:
                found[way].append(undisturbed(lambda: throughput(env, way, size, seconds)))
        for way in ("endpoint", "plain"):
            results.add("guest", f"packets to the guest, capture {way}", {"size": size}, "1/s",
                        found[way], "off", found["off"])
    idle = [idle_wakeups(env, 5 if env.quick else 10)]
    results.add("guest", "wake-ups of an idle capture", {}, "1/s", [a for a, _ in idle],
                "off", [b for _, b in idle], ("value", "==", 0))
