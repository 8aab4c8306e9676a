# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Injection: QEMU's endpoint against a bare sendmmsg() loop and tcpreplay.

A reader empties the TAP on one processor; who injects has the other one. What arrives counts.
"""
import struct
import time
from pathlib import Path

from results import Results
from rig import MEASURED, OFFERER, Env, Process, Qemu, Tap, settled

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


def endpoint(env: Env, tap: Tap, size: int, seconds: float) -> tuple[Process, list[Process], object]:
    """A stream of packets to QEMU's indev; its out_netdev is the TAP."""
    path, sent = env.path("stream"), env.counters()
    qemu = Qemu(env, [tap], ["-chardev", f"socket,id=in0,path={path},server=on,wait=off"])
    qemu.redirector("f0", netdev="n0", indev="in0", out_netdev="n0", vnet_hdr_support=True)
    feeder = env.start("offer", "-u", str(path), "-v", "12", "-s", str(size), "-t", str(seconds),
                       counters=sent, cpu=OFFERER)
    return qemu, [feeder], sent


def bare(env: Env, tap: Tap, size: int, seconds: float) -> tuple[Process, list[Process], object]:
    sent = env.counters()
    loop = env.start("offer", "-i", tap.name, "-b", "-s", str(size), "-t", str(seconds),
                     counters=sent, cpu=MEASURED)
    return loop, [], sent


def inject(env: Env, way: str, size: int, seconds: float) -> Numbers:
    tap, arrived = Tap("binject", QUEUE), env.counters()
    reader = env.start("count", "-q", "-t", str(tap.fd), counters=arrived, cpu=OFFERER,
                       fds=(tap.fd,))
    time.sleep(0.1)
    try:
        if way == "tcpreplay":
            return replay(env, tap, arrived, size, seconds)
        start = endpoint if way == "endpoint" else bare
        process, others, sent = start(env, tap, size, seconds)
        try:
            time.sleep(seconds / 2)
            cpu, packets, begin = process.cpu_ns(), arrived.packets, time.monotonic()
            time.sleep(seconds / 4)
            took = time.monotonic() - begin
            packets = arrived.packets - packets
            cpu = process.cpu_ns() - cpu
            time.sleep(seconds / 4)
            settled(arrived)
            process.check() if way == "endpoint" else None
            return {"pps": packets / took, "ns": cpu / max(1, packets),
                    "lost": sent.packets - arrived.packets + arrived.repeated}
        finally:
            for each in (*others, process):
                each.end()
    finally:
        reader.end()
        tap.close()


def replay(env: Env, tap: Tap, arrived: object, size: int, seconds: float) -> Numbers:
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
    runs, seconds = (2, 1.5) if env.quick else (5, 3.0)
    ways = ("endpoint", "bare", "tcpreplay")
    for size in (60, 1514):
        found: dict[str, list[Numbers]] = {way: [] for way in ways}
        for _ in range(runs):
            for way in ways:
                found[way].append(inject(env, way, size, seconds))

        def column(way: str, what: str) -> list[float]:
            return [f[what] for f in found[way]]

        params = {"size": size, "queue": QUEUE}
        results.add("inject", "packets arrived", params, "1/s", column("endpoint", "pps"),
                    "sendmmsg", column("bare", "pps"), ("ratio", ">=", 0.8))
        results.add("inject", "packets arrived", params, "1/s", column("endpoint", "pps"),
                    "tcpreplay", column("tcpreplay", "pps"))
        results.add("inject", "CPU a packet", params, "ns", column("endpoint", "ns"),
                    "sendmmsg", column("bare", "ns"))
        results.add("inject", "packets lost", params, "", column("endpoint", "lost"),
                    "tcpreplay", column("tcpreplay", "lost"), ("value", "==", 0))
