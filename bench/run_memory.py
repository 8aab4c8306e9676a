# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Memory: what QEMU holds after millions of packets that its peer does not take."""
import signal
import time

from results import Results
from rig import MEASURED, OFFERER, Env, Qemu, Tap

QUEUE_KIB = 512         # REDIRECTOR_QUEUE_SIZE
SLACK_KIB = 256         # allocator and stack


def capture_growth(env: Env, packets: int) -> float:
    """KiB more than when capture had begun; the ring is mapped then."""
    path, tap = env.path("stream"), Tap("bmemory")
    qemu = Qemu(env, [tap], ["-chardev", f"socket,id=out0,path={path},server=on,wait=off"])
    peer = env.start("count", "-v", "-u", str(path), cpu=MEASURED)
    try:
        time.sleep(0.1)
        qemu.redirector("f0", netdev="n0", in_netdev="n0", outdev="out0", vnet_hdr_support=True)
        peer.signal(signal.SIGSTOP)
        qemu.stats("f0")
        before = qemu.rss_kib()
        env.start("offer", "-i", tap.name, "-n", str(packets), cpu=OFFERER).wait(120)
        qemu.stats("f0")
        return qemu.rss_kib() - before
    finally:
        peer.end()
        qemu.end()
        tap.close()


def inject_growth(env: Env, packets: int) -> float:
    """KiB more, while a peer offers packets for a TAP that nobody reads; it takes what it can,
    again and again, as the TAP is emptied at times."""
    path, tap = env.path("stream"), Tap("bmemory")
    qemu = Qemu(env, [tap], ["-chardev", f"socket,id=in0,path={path},server=on,wait=off"])
    sent = env.counters()
    try:
        qemu.redirector("f0", netdev="n0", indev="in0", out_netdev="n0", vnet_hdr_support=True)
        qemu.stats("f0")
        before = qemu.rss_kib()
        feeder = env.start("offer", "-u", str(path), "-v", "12", "-n", str(packets),
                           counters=sent, cpu=OFFERER)
        time.sleep(2)
        reader = env.start("count", "-t", str(tap.fd), cpu=OFFERER, fds=(tap.fd,))
        while not sent.done:
            time.sleep(0.5)
            reader.check()
            feeder.check()
            qemu.check()
        growth = qemu.rss_kib() - before
        feeder.end()
        reader.end()
        return growth
    finally:
        qemu.end()
        tap.close()


def run(env: Env, results: Results) -> None:
    packets = 1000000 if env.quick else 10000000
    params = {"packets": packets}
    results.add("memory", "growth, peer has stopped", params, "KiB",
                [capture_growth(env, packets)], "bounds", [QUEUE_KIB + SLACK_KIB],
                ("ratio", "<=", 1))
    some = packets // 5
    results.add("memory", "growth, injection", {"packets": some}, "KiB",
                [inject_growth(env, some)], "bounds", [2 * QUEUE_KIB + SLACK_KIB],
                ("ratio", "<=", 1))
