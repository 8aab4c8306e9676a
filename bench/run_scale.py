# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Scale: many redirectors in one QEMU, each with a TAP, a ring and a connection of its own."""
import time

from results import Results
from rig import MEASURED, OFFERER, Env, Qemu, Tap, settled, undisturbed

RATE = 8000             # packets a second on each TAP
RING = 2 << 20


def many(env: Env, count: int, seconds: float) -> dict[str, float]:
    carrier = Tap("bcarrier")   # the redirectors sit on its netdev; nothing is sent there
    taps = [Tap(f"bs{i}") for i in range(count)]
    paths = [env.path("stream") for _ in taps]
    options = []
    for i, path in enumerate(paths):
        options += ["-chardev", f"socket,id=out{i},path={path},server=on,wait=off"]
    qemu = Qemu(env, [carrier, *taps], options)
    got, sent = env.counters(), env.counters()
    reader = env.start("count", "-v", *(o for path in paths for o in ("-u", str(path))),
                       counters=got, cpu=MEASURED)
    try:
        time.sleep(0.3)
        begin = time.monotonic()
        for i in range(count):
            qemu.redirector(f"f{i}", netdev="n0", in_netdev=f"n{i + 1}", outdev=f"out{i}",
                            vnet_hdr_support=True, ring_size=RING)
        setup = time.monotonic() - begin
        cpu = qemu.cpu_ns()
        env.start("offer", "-i", ",".join(tap.name for tap in taps), "-r", str(RATE * count),
                  "-t", str(seconds), counters=sent, cpu=OFFERER).wait(seconds + 30)
        settled(got)
        cpu = qemu.cpu_ns() - cpu
        for i in range(count):
            if (lost := qemu.stats(f"f{i}")["input"]["stats"]["lost"]):
                print(f"  f{i} of {count} lost {lost}")
        return {"ns": cpu / max(1, got.packets), "loss": 1 - got.packets / sent.packets,
                "setup_ms": setup * 1000 / count}
    finally:
        reader.end()
        qemu.end()
        for tap in (carrier, *taps):
            tap.close()


def run(env: Env, results: Results) -> None:
    runs, seconds = (2, 1.5) if env.quick else (3, 3.0)
    counts = (1, 4, 16, 64)
    found: dict[int, list[dict[str, float]]] = {n: [] for n in counts}
    for _ in range(runs):
        for n in counts:
            found[n].append(undisturbed(lambda: many(env, n, seconds)))
    for n in counts[1:]:
        params = {"redirectors": n, "rate": RATE}
        results.add("scale", "CPU a packet", params, "ns", [f["ns"] for f in found[n]], "one",
                    [f["ns"] for f in found[1]], ("ratio", "<=", 1.3))
        results.add("scale", "loss", params, "share", [f["loss"] for f in found[n]], "one",
                    [f["loss"] for f in found[1]], ("value", "==", 0))
    for n in counts[2:]:    # of one alone it is a matter of chance: the kernel's grace periods
        results.add("scale", "set-up time of each", {"redirectors": n}, "ms",
                    [f["setup_ms"] for f in found[n]], "4", [f["setup_ms"] for f in found[4]],
                    ("ratio", "<=", 1.3))
