# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The guest's own traffic: what a TAP's reader, in the guest's place, gets while packets are
captured; and what a capture costs that has nothing to do."""
import time

from captures import Capture
from results import Results
from rig import MEASURED, OFFERER, Env, Tap, settled, undisturbed

WAYS = ("off", "endpoint", "tcpdump", "mirred", "plain")


def throughput(env: Env, way: str, size: int, seconds: float) -> float:
    """Packets a second that the TAP's reader gets of as many as can be offered."""
    tap, got = Tap("bguest"), env.counters()
    capture = Capture(env, way, tap=tap)
    guest = env.start("count", "-t", str(tap.fd), counters=got, cpu=MEASURED, fds=(tap.fd,))
    try:
        time.sleep(0.2)
        sent = env.counters()
        env.start("offer", "-i", tap.name, "-s", str(size), "-t", str(seconds), counters=sent,
                  cpu=OFFERER).wait(seconds + 20)
        settled(got)
        return got.packets / ((sent.last_ns - sent.first_ns) / 1e9)
    finally:
        guest.end()
        capture.end()
        tap.close()


def idle_wakeups(env: Env, seconds: float) -> tuple[float, float]:
    """A second: of a QEMU with a capture, and of one without."""
    found = []
    for way in ("endpoint", "off"):
        capture = Capture(env, way)
        try:
            time.sleep(1)
            before = capture.process.wakeups()
            time.sleep(seconds)
            found.append((capture.process.wakeups() - before) / seconds)
        finally:
            capture.end()
    return found[0], found[1]


def run(env: Env, results: Results) -> None:
    runs, seconds = (2, 1.0) if env.quick else (3, 2.0)
    for size in (60, 1514):
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(runs):
            for way in WAYS:
                found[way].append(undisturbed(lambda: throughput(env, way, size, seconds)))
        for way in WAYS[1:]:
            results.add("guest", f"packets to the guest, capture {way}", {"size": size}, "1/s",
                        found[way], "off", found["off"])
        for way in ("tcpdump", "mirred"):
            results.add("guest", "packets to the guest while captured", {"size": size}, "1/s",
                        found["endpoint"], way, found[way],
                        ("ratio", ">=", 1) if way == "tcpdump" else None)
    idle = [idle_wakeups(env, 5 if env.quick else 10)]
    results.add("guest", "wake-ups of an idle capture", {}, "1/s", [a for a, _ in idle],
                "off", [b for _, b in idle], ("value", "==", 0))
