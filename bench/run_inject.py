# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Injection: QEMU's endpoint against a bare sendmmsg() loop and tcpreplay.

A reader empties the TAP on one processor; who injects has the other one. What arrives counts.
"""
import struct
import time
from pathlib import Path

from results import Results
from rig import MEASURED, OFFERER, Counters, Env, Process, Qemu, Tap, settled, undisturbed, wait_until

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


def start_qemu(env: Env, tap: Tap) -> Qemu:
    """QEMU, whose out_netdev is the TAP."""
    path = env.path("stream")
    qemu = Qemu(env, [tap], ["-chardev", f"socket,id=in0,path={path},server=on,wait=off"])
    qemu.redirector("f0", netdev="n0", indev="in0", out_netdev="n0", vnet_hdr_support=True)
    qemu.stream = path
    return qemu


def measured(env: Env, qemu: Qemu | None, tap: Tap, running: list[Process], arrived: Counters,
             size: int, seconds: float) -> Numbers:
    """The rate in the middle of the time, what it cost, and what has not arrived at the end."""
    sent = env.counters()
    options = ["-s", str(size), "-t", str(seconds)]
    if qemu:    # the stream's sender is the reader's neighbour
        running.append(env.start("offer", "-u", str(qemu.stream), "-v", "12", *options,
                                 counters=sent, cpu=OFFERER))
    else:
        running.append(env.start("offer", "-i", tap.name, "-b", *options, counters=sent,
                                 cpu=MEASURED))
    process = qemu or running[-1]
    time.sleep(seconds / 2)
    cpu, packets, begin = process.cpu_ns(), arrived.packets, time.monotonic()
    time.sleep(seconds / 4)
    took = time.monotonic() - begin
    packets = arrived.packets - packets
    cpu = process.cpu_ns() - cpu
    wait_until(lambda: bool(sent.done), seconds + 20, "the end of the packets")
    settled(arrived)
    return {"pps": packets / took, "ns": cpu / max(1, packets),
            "lost": sent.packets - arrived.packets + arrived.repeated}


def inject(env: Env, way: str, size: int, seconds: float) -> Numbers:
    tap, arrived = Tap("binject", QUEUE), env.counters()
    qemu = start_qemu(env, tap) if way == "endpoint" else None
    running: list[Process] = [qemu] if qemu else []
    running.append(env.start("count", "-q", "-t", str(tap.fd), counters=arrived, cpu=OFFERER,
                             fds=(tap.fd,)))
    time.sleep(0.1)
    try:
        if way == "tcpreplay":
            return replay(env, tap, arrived, size, seconds)
        return measured(env, qemu, tap, running, arrived, size, seconds)
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
