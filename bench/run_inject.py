# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Injection: QEMU's endpoint against a bare sendmmsg() loop and tcpreplay.

A reader empties the TAP on one processor; who injects has the other one. What arrives counts.
"""
import struct
import time
from pathlib import Path
from typing import Callable

from results import Results
from rig import (MEASURED, OFFERER, Counters, Env, Process, Qemu, Tap, packet_socket, settled,
                 undisturbed, wait_until)

QUEUE = 1000            # the kernel's default
REPLAYED = 100000       # packets in tcpreplay's file

Numbers = dict[str, float]


def write_pcap(path: Path, size: int, packets: int) -> None:
    """Numbered packets, as offer.c makes them."""
    ethernet = bytes.fromhex("525400000001525400000002") + b"\x88\xb5"
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for seq in range(packets):
            packet = (ethernet + struct.pack("=Q", seq)).ljust(size, b"\0")
            file.write(struct.pack("=IIII", 0, 0, size, size) + packet)


class Injection:
    """One way to inject into a TAP, from a stream of packets. `process` is what is measured; who
    has `options` of the program "offer" instead of a `path` injects itself."""

    def __init__(self, env: Env, way: str, tap: Tap) -> None:
        self.path: Path | None = None
        self.options = ["-v", "12"]
        self.told: Callable[[], int] = lambda: 0    # packets lost, as the way itself tells
        self.process: Process | None = None
        getattr(self, f"_start_{way}")(env, tap)

    def _start_endpoint(self, env: Env, tap: Tap) -> None:
        self.path = env.path("stream")
        self.process = qemu = self._qemu(env, tap)
        qemu.redirector("f0", netdev="n0", indev="in0", out_netdev="n0", vnet_hdr_support=True)
        self.told = lambda: int(qemu.stats("f0")["output"]["stats"]["lost"])

    def _start_dgram(self, env: Env, tap: Tap) -> None:
        """captures.py says what these are."""
        self.path, self.options = env.path("stream"), []
        self.process = qemu = self._qemu(env, tap)
        with packet_socket(tap.name) as packets:
            qemu.add_dgram("dgram0", packets)
        qemu.redirector("f0", netdev="dgram0", queue="rx", indev="in0")

    def _qemu(self, env: Env, tap: Tap) -> Qemu:
        return Qemu(env, [tap], ["-chardev", f"socket,id=in0,path={self.path},server=on,wait=off"])

    def _start_chardev(self, env: Env, tap: Tap, *options: str) -> None:
        self.path = env.path("stream")
        self.options = ["-v", "10"] if options else []
        counters = env.counters()
        self.process = env.start("chardev", "-i", tap.name, "-l", str(self.path), *options,
                                 counters=counters, cpu=MEASURED)
        wait_until(self.path.exists, 5, "the chardev's socket")
        time.sleep(0.05)

    def _start_chardev_vnet(self, env: Env, tap: Tap) -> None:
        self._start_chardev(env, tap, "-v")

    def _start_bare(self, env: Env, tap: Tap) -> None:
        self.options = ["-i", tap.name, "-b"]


def measured(env: Env, injection: Injection, running: list[Process], arrived: Counters,
             size: int, seconds: float) -> Numbers:
    """The rate in the middle of the time, what it cost, and what has not arrived at the end."""
    sent = env.counters()
    options = [*injection.options, "-s", str(size), "-t", str(seconds)]
    if injection.path:  # the stream's sender is the reader's neighbour
        options += ["-u", str(injection.path)]
    running.append(env.start("offer", *options, counters=sent,
                             cpu=OFFERER if injection.path else MEASURED))
    process = injection.process or running[-1]
    time.sleep(seconds / 2)
    cpu, packets, begin = process.cpu_ns(), arrived.packets, time.monotonic()
    time.sleep(seconds / 4)
    took = time.monotonic() - begin
    packets = arrived.packets - packets
    cpu = process.cpu_ns() - cpu
    wait_until(lambda: bool(sent.done), seconds + 20, "the end of the packets")
    settled(arrived)
    lost = sent.packets - arrived.packets + arrived.repeated
    return {"pps": packets / took, "ns": cpu / max(1, packets), "lost": lost,
            "loss": lost / sent.packets}


def inject(env: Env, way: str, size: int, seconds: float) -> Numbers:
    tap, arrived = Tap("binject", QUEUE, size > 1514), env.counters()
    injection = Injection(env, way, tap) if way != "tcpreplay" else None
    running = [injection.process] if injection and injection.process else []
    running.append(env.start("count", "-q", "-t", str(tap.fd), counters=arrived, cpu=OFFERER,
                             fds=(tap.fd,)))
    time.sleep(0.1)
    try:
        if not injection:
            return replay(env, tap, arrived, size, seconds)
        return measured(env, injection, running, arrived, size, seconds)
    finally:
        for process in running:
            process.end()
        tap.close()


def replay(env: Env, tap: Tap, arrived: Counters, size: int, seconds: float) -> Numbers:
    """tcpreplay tells neither that nor what the TAP's queue drops."""
    path = env.folder / f"replay{size}.pcap"
    if not path.exists():
        write_pcap(path, size, REPLAYED)
    loops = max(1, round(seconds * 500000 / REPLAYED))
    process = Process(["tcpreplay", "-q", "--topspeed", "-K", "-l", str(loops), "-i", tap.name,
                       str(path)], MEASURED)
    process.wait(60)
    settled(arrived)
    took = (arrived.last_ns - arrived.first_ns) / 1e9
    return {"pps": arrived.packets / took, "ns": 0, "lost": loops * REPLAYED - arrived.packets}


def run(env: Env, results: Results) -> None:
    runs, seconds = (2, 1.5) if env.quick else (3, 3.0)
    ways = ("endpoint", "bare", "tcpreplay")
    for size in (60, 1514):
        found: dict[str, list[Numbers]] = {way: [] for way in ways}
        lost: dict[str, list[float]] = {way: [] for way in ways}    # of each try

        def one(way: str) -> Numbers:
            numbers = inject(env, way, size, seconds)
            lost[way].append(numbers["lost"])
            return numbers

        for _ in range(runs):
            for way in ways:
                found[way].append(undisturbed(lambda: one(way)))

        def column(way: str, what: str) -> list[float]:
            return [f[what] for f in found[way]]

        params = {"size": size, "queue": QUEUE}
        results.add("inject", "packets arrived", params, "1/s", column("endpoint", "pps"),
                    "sendmmsg", column("bare", "pps"), ("ratio", ">=", 0.8))
        results.add("inject", "packets arrived", params, "1/s", column("endpoint", "pps"),
                    "tcpreplay", column("tcpreplay", "pps"))
        results.add("inject", "CPU a packet", params, "ns", column("endpoint", "ns"),
                    "sendmmsg", column("bare", "ns"))
        results.add("inject", "packets lost, in all", params, "", [sum(lost["endpoint"])],
                    "tcpreplay", [sum(lost["tcpreplay"])], ("value", "==", 0))
