# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The ways to capture a TAP's packets, each with a reader that counts them:

  off           nobody captures
  endpoint      in_netdev to a unix socket
  ring          a program that reads the same kind of ring, and only counts
  tcpdump       tcpdump -w -
  mirred        tc: the kernel sends a copy of each packet to a second TAP, which the reader reads
  plain         poll and recv for each packet, a write for each field
  chardev       a packet socket as a chardev would use it: read, write, a packet each
  chardev_vnet  the same, and it knows of vnet headers
  chardev_4k    the same with the 4 KiB that QEMU's chardevs read at once
  dgram         the netdev "dgram" on a packet socket, with a classic redirector to a unix socket
  hub           the netdev "stream" with the TAP's on a hub: QEMU reads the TAP, no vhost
  classic       the redirector as it is in QEMU, on a TAP that QEMU reads, no vhost
"""
import json
import re
import signal
import time
from pathlib import Path
from typing import Any

from rig import (ETH_P_ALL, MEASURED, PACKET_MEMORY, BenchError, Env, Process, Qemu, Tap, packet_socket,
                 run, wait_until)

SMALL_PACKET_TRUESIZE = 768     # bytes of the kernel's memory for a packet of 60


def mirror(tap: Tap, to: str) -> None:
    """Both directions of it, by tc. "matchall" where the kernel has it."""
    run("tc", "qdisc", "add", "dev", tap.name, "clsact")
    for direction in ("ingress", "egress"):
        add = ("tc", "filter", "add", "dev", tap.name, direction, "protocol", "all")
        action = ("action", "mirred", "egress", "mirror", "dev", to)
        try:
            run(*add, "matchall", *action)
        except BenchError:
            run(*add, "u32", "match", "u32", "0", "0", *action)


class Capture:
    """One way to capture, running: `process` is what is measured, `counters` the reader's.
    @record: the reader also writes the packets there. @tap: else one of its own."""

    def __init__(self, env: Env, way: str, size: int = 60, tap: Tap | None = None,
                 record: Path | None = None) -> None:
        self.env, self.way = env, way
        self.parts: list[Process] = []      # all but `process`; the reader is the last one
        self.counters = env.counters()
        self.second: Tap | None = None
        self.own = tap is None
        self.tap = tap or Tap(f"b{way[:8]}", offloads=size > 1514)
        self.more = ("-w", str(record)) if record else ()
        getattr(self, f"_start_{way}")()
        time.sleep(0.3)
        for part in (self.process, *self.parts):
            part.check()

    def _reader(self, *options: str, **more: Any) -> Process:
        return self.env.start("count", *options, *self.more, counters=self.counters, cpu=MEASURED,
                              **more)

    def _listen(self, *options: str) -> Path:
        """A reader that who captures connects to."""
        path = self.env.path("reader")
        self.parts.append(self._reader(*options, "-l", str(path)))
        wait_until(path.exists, 5, "the reader's socket")
        time.sleep(0.05)
        return path

    def _start_off(self) -> None:
        self.process = Qemu(self.env, [self.tap], [])

    def _start_ring(self) -> None:
        self.process = self.env.start("capture", "-i", self.tap.name, counters=self.counters,
                                      cpu=MEASURED)

    def _start_plain(self) -> None:
        path = self._listen("-v")
        self.process = self.env.start("capture", "-i", self.tap.name, "-u", str(path),
                                      cpu=MEASURED)

    def _start_tcpdump(self) -> None:
        self.process = Process(["tcpdump", "-i", self.tap.name, "-n", "-s", "0", "-B",
                                str(PACKET_MEMORY >> 10), "-Z", "root", "-w", "-"], MEASURED)
        self.parts.append(self._reader("-p", stdin=self.process.popen.stdout))
        time.sleep(0.5)

    def _start_mirred(self) -> None:
        self.second = Tap("bmirror", PACKET_MEMORY // SMALL_PACKET_TRUESIZE, self.tap.offloads)
        self.process = self._reader("-t", str(self.second.fd), fds=(self.second.fd,))
        mirror(self.tap, self.second.name)

    def _start_chardev(self, *options: str) -> None:
        path = self._listen(*(("-v",) if "-v" in options else ()))
        self.process = self.env.start("chardev", "-i", self.tap.name, "-u", str(path), *options,
                                      cpu=MEASURED)

    def _start_chardev_vnet(self) -> None:
        self._start_chardev("-v")

    def _start_chardev_4k(self) -> None:
        self._start_chardev("-v", "-b", "4096")

    def _start_endpoint(self) -> None:
        self._start_redirector(True, False, queue="all", in_netdev="n0")

    def _start_classic(self) -> None:
        self._start_redirector(True, True, queue="tx")

    def _start_dgram(self) -> None:
        self._start_redirector(False, False, netdev="dgram0", queue="tx")

    def _start_redirector(self, vnet: bool, reads: bool, netdev: str = "n0",
                          **properties: Any) -> None:
        path = self.env.path("stream")
        self.process = qemu = Qemu(
            self.env, [self.tap],
            ["-chardev", f"socket,id=out0,path={path},server=on,wait=off"], reads=reads)
        if netdev != "n0":
            with packet_socket(self.tap.name, ETH_P_ALL) as packets:
                qemu.add_dgram(netdev, packets)
        self.parts.append(self._reader(*(("-v",) if vnet else ()), "-u", str(path)))
        time.sleep(0.1)
        qemu.redirector("f0", netdev=netdev, outdev="out0", vnet_hdr_support=vnet, **properties)

    def _start_hub(self) -> None:
        path = self._listen()
        self.process = Qemu(self.env, [self.tap], [
            "-netdev", f"stream,id=g0,server=off,addr.type=unix,addr.path={path}",
            "-netdev", "hubport,id=g0h,hubid=0,netdev=g0"], False)

    @property
    def reader(self) -> Process:
        return self.parts[-1] if self.parts else self.process

    def cpu_ns(self) -> int:
        """Of who captures and who reads."""
        return sum(part.cpu_ns() for part in (self.process, *self.parts))

    def drain(self) -> None:
        """tcpdump waits a second for a block of its ring to get full; what it has not looked at
        when it ends is lost."""
        if self.way == "tcpdump":
            time.sleep(1.1)

    def flush(self) -> None:
        """tcpdump keeps what does not fill a buffer; a signal makes it write, and end."""
        if self.way == "tcpdump":
            self.process.signal(signal.SIGINT)
            time.sleep(0.3)

    def told(self) -> int:
        """Packets lost, as the way itself tells; after flush()."""
        if self.way == "endpoint":
            info = self.process.stats("f0")     # type: ignore[attr-defined]
            return sum(int(info[end].get("stats", {}).get("lost", 0))
                       for end in ("input", "output"))
        if self.way == "tcpdump":
            _, err = self.process.popen.communicate(timeout=20)
            found = re.search(r"(\d+) packets? dropped by kernel", err.decode())
            return int(found[1]) if found else 0
        if self.second:
            shown = json.loads(run("ip", "-j", "-s", "link", "show", "dev", self.second.name))
            return int(shown[0]["stats64"]["tx"]["dropped"])
        return 0

    def end(self) -> None:
        self.process.end()
        for part in self.parts:
            part.end()
        if self.second:
            self.second.close()
        if self.own:
            self.tap.close()
