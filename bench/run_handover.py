# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Hand-over: packets offered at a steady rate through a real migration between two QEMUs on TAPs.

No guest: behind each QEMU's TAP is a hub with a stream of packets to one reader, which looks at
the numbers of all packets. The network goes on sending to the source's TAP to the end.
"""
import time

from results import Results
from rig import OFFERER, BenchError, Env, Process, Qemu, Tap, settled, wait_until

QUEUE = 100000          # packets in a TAP's queue; the kernel's default is 1000


def options(path: object) -> list[str]:
    """The guest's place: what the TAP's hub brings goes to the reader."""
    return ["-netdev", f"stream,id=g0,server=off,addr.type=unix,addr.path={path}",
            "-netdev", "hubport,id=g0h,hubid=0,netdev=g0"]


def migrate(env: Env, rate: int, handover: bool, seconds: float) -> dict[str, float]:
    taps = [Tap("bsource", QUEUE), Tap("bdest", QUEUE)]
    paths = [env.path("guest"), env.path("guest")]
    wire, state = env.path("handover"), env.path("migration")
    got, sent = env.counters(), env.counters()
    reader = env.start("count", "-q", "-l", str(paths[0]), "-l", str(paths[1]), counters=got,
                       cpu=OFFERER)
    running: list[Process] = [reader]
    try:
        wait_until(paths[0].exists, 5, "the reader's first socket")
        source = Qemu(env, taps[:1], options(paths[0]) + [
            "-chardev", f"socket,id=hand0,path={wire},server=on,wait=off"], False)
        running.insert(0, source)
        wait_until(paths[1].exists, 5, "the reader's second socket")
        destination = Qemu(env, taps[1:], options(paths[1]) + [
            "-chardev", f"socket,id=hand0,path={wire},reconnect-ms=100", "-incoming", "defer"],
            False)
        running.insert(0, destination)
        if handover:
            destination.redirector("f0", netdev="n0", indev="hand0", out_netdev="n0",
                                   vnet_hdr_support=True)
            source.redirector("f0", netdev="n0", queue="tx", outdev="hand0",
                              enable_when_stopped=True, enable_when_running=False,
                              vnet_hdr_support=True)
        destination.qmp("migrate-incoming", uri=f"unix:{state}")
        offerer = env.start("offer", "-i", taps[0].name, "-r", str(rate),
                            "-n", str(int(rate * seconds)), counters=sent, cpu=OFFERER)
        running.append(offerer)
        time.sleep(seconds / 3)
        source.qmp("migrate", uri=f"unix:{state}")
        wait_until(lambda: source.qmp("query-migrate").get("status") in ("completed", "failed"),
                   60, "the migration")
        info = source.qmp("query-migrate")
        if info["status"] != "completed":
            raise BenchError(f"the migration ended as {info['status']}")
        offerer.wait(seconds * 5 + 10)
        settled(got, 0.5)
        return {"downtime_ms": info["downtime"], "lost": sent.packets - got.packets + got.repeated,
                "repeated": got.repeated,
                "pps": sent.packets / ((sent.last_ns - sent.first_ns) / 1e9)}
    finally:
        for process in running:
            process.end()
        for tap in taps:
            tap.close()


def run(env: Env, results: Results) -> None:
    runs, seconds = (2, 3.0) if env.quick else (3, 4.0)
    for rate in (50000, 100000):
        found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
        for _ in range(runs):
            for handover in (True, False):
                found[handover].append(migrate(env, rate, handover, seconds))
        params = {"rate": rate, "queue": QUEUE}
        for what, unit, goal in (("lost", "", ("value", "==", 0)), ("repeated", "",
                                 ("value", "==", 0)), ("pps", "1/s", None),
                                 ("downtime_ms", "ms", None)):
            results.add("handover", what.removesuffix("_ms").replace("pps", "packets offered"),
                        params, unit, [f[what] for f in found[True]], "stock",
                        [f[what] for f in found[False]], goal if rate == 50000 else None)
