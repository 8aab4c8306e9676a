# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Capture: QEMU's endpoint against other ways to read a TAP's packets.

Packets are offered on a TAP that nobody reads (its full queue drops them after they have been
captured), from one processor; who captures runs on the other one, together with a reader that
counts.
"""
import time

from captures import Capture
from results import Results
from rig import MEASURED, OFFERER, Env, Tap, settled, undisturbed, wait_until

WAYS = ("endpoint", "ring", "tcpdump", "mirred", "plain", "classic")
SUPER = 65226       # bytes: 45 segments of 1,448 behind 66 bytes of headers make 64 KiB
# CPU a packet at 60 bytes, as a ratio to each way
GOALS = {"ring": 5.0, "tcpdump": 1.0, "plain": 1 / 8}


Numbers = dict[str, float]


def offer(env: Env, capture: Capture, size: int, rate: int, seconds: float) -> Numbers:
    """Offer packets, and see what becomes of them. @rate 0: as many as possible."""
    sent = env.counters()
    before, cpu, both = capture.counters.packets, capture.process.cpu_ns(), capture.cpu_ns()
    options = ["-i", capture.tap.name, "-s", str(size), "-t", str(seconds)]
    if rate:
        options += ["-r", str(rate), "-n", str(int(rate * seconds))]
    env.start("offer", *options, counters=sent, cpu=OFFERER).wait(seconds + 20)
    took = (sent.last_ns - sent.first_ns) / 1e9
    settled(capture.counters)
    capture.drain()
    cpu, both = capture.process.cpu_ns() - cpu, capture.cpu_ns() - both
    capture.flush()
    got = settled(capture.counters) - before
    return {"offered_pps": sent.packets / took, "pps": got / took,
            "loss": 1 - got / sent.packets, "ns": cpu / max(1, got),
            "ns_with_reader": both / max(1, got)}


def measure(env: Env, size: int, rate: int, seconds: float,
            ways: tuple[str, ...]) -> dict[str, Numbers]:
    def one(way: str) -> Numbers:
        capture = Capture(env, way, size)
        try:
            return offer(env, capture, size, rate, seconds)
        finally:
            capture.end()

    return {way: undisturbed(lambda: one(way)) for way in ways}


def socket_rate(env: Env, size: int, seconds: float, loaded: bool) -> float:
    """Packets a second through a unix socket alone, writer and reader where ours would run.
    @loaded: out of as much memory as the ring has, while packets are offered to a TAP: as for
    who captures. Else out of the processor's cache, and the machine has nothing else to do."""
    path, counters = env.path("socket"), env.counters()
    tap = Tap("bsocket", offloads=True)
    reader = env.start("count", "-v", "-l", str(path), counters=counters, cpu=MEASURED)
    wait_until(path.exists, 5, "the reader's socket")
    time.sleep(0.1)
    writer = env.start("offer", "-u", str(path), "-v", "12", "-s", str(size),
                       *(("-m", str(16 << 20)) if loaded else ()), cpu=MEASURED)
    load = [env.start("offer", "-i", tap.name, "-s", str(size), cpu=OFFERER)] if loaded else []
    time.sleep(0.3)
    begin, before = time.monotonic(), counters.packets
    time.sleep(seconds)
    found = (counters.packets - before) / (time.monotonic() - begin)
    for process in (writer, reader, *load):
        process.end()
    tap.close()
    return found


def lossless_rate(env: Env, way: str, rates: tuple[int, ...], seconds: float) -> float:
    """The highest of @rates (0: all that can be offered) at which nothing is lost."""
    best = 0.0
    for rate in rates:
        found = measure(env, 60, rate, seconds, (way,))[way]
        if found["loss"] > 0:
            break
        best = found["pps"]
    return best


def run(env: Env, results: Results) -> None:
    runs, seconds = (2, 1.0) if env.quick else (3, 1.5)
    points: dict[tuple[int, int], tuple[str, ...]] = {
        (60, 100000): WAYS, (60, 1000000): WAYS[:5], (60, 0): WAYS,
        (1514, 100000): WAYS, (1514, 0): WAYS[:5], (SUPER, 10000): WAYS, (SUPER, 0): WAYS[:2]}
    found: dict[tuple[int, int], list[dict[str, Numbers]]] = {p: [] for p in points}
    sockets: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(runs):
        for (size, rate), ways in points.items():
            found[size, rate].append(measure(env, size, rate, seconds, ways))
        for loaded, rates in sockets.items():
            rates.append(undisturbed(lambda: socket_rate(env, SUPER, seconds, loaded)))

    def column(size: int, rate: int, way: str, what: str) -> list[float]:
        return [f[way][what] for f in found[size, rate]]

    def add(size: int, rate: int, what: str, name: str, unit: str, way: str,
            goal: tuple[str, str, float] | None = None) -> None:
        results.add("capture", name, {"size": size, "rate": rate or "max"}, unit,
                    column(size, rate, "endpoint", what), way, column(size, rate, way, what), goal)

    for size, rate in ((60, 100000), (60, 1000000), (1514, 100000), (SUPER, 10000)):
        for way in points[size, rate][1:]:
            limit = GOALS.get(way) if size == 60 else None
            if way == "mirred":     # which has nothing else
                add(size, rate, "ns_with_reader", "CPU a packet, reader's too", "ns", way)
                continue
            add(size, rate, "ns", "CPU a packet", "ns", way,
                ("ratio", "<=", limit) if limit else None)
    for size, rate in ((60, 1000000), (60, 0), (1514, 0), (SUPER, 0)):
        for way in points[size, rate][1:]:
            if way != "ring" or rate == 0:
                add(size, rate, "loss", "loss", "share", way,
                    ("value", "==", 0) if rate == 1000000 and way == "plain" else None)
    add(60, 1000000, "offered_pps", "packets really offered", "1/s", "ring")
    results.add("capture", "packets through, against the socket alone",
                {"size": SUPER, "rate": "max"}, "1/s", column(SUPER, 0, "endpoint", "pps"),
                "socket", sockets[False], ("ratio", ">=", 0.75))
    results.add("capture", "packets through, against the socket under the same load",
                {"size": SUPER, "rate": "max"}, "1/s", column(SUPER, 0, "endpoint", "pps"),
                "socket", sockets[True])
    repeat = 1 if env.quick else 2
    results.add("capture", "highest rate without loss", {"size": 60}, "1/s",
                [lossless_rate(env, "endpoint", (500000, 750000, 1000000, 1250000, 0), seconds)
                 for _ in range(repeat)], "plain",
                [lossless_rate(env, "plain", (25000, 50000, 100000, 200000, 300000, 400000),
                               seconds) for _ in range(repeat)], ("value", ">=", 1e6))
