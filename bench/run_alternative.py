# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The alternatives that are asked about: a chardev for packet sockets, the socket netdevs that there
are, tcpdump, tc mirred. captures.py says what each one is; docs/why.md gives the answer.

What they manage, what it costs, what is lost and who tells, what becomes of packets that are more
than bytes, and what a reader that stops does to them.
"""
import signal
import socket
import time
from typing import Callable

from captures import Capture
from results import Results
from rig import MEASURED, OFFERER, Env, Process, Qemu, Tap, packet_socket, run as command, \
    settled, undisturbed, wait_until
from run_capture import SUPER, Numbers, measure
from run_guest import throughput
from run_inject import Injection, inject
from witness import KINDS, Packet, recorded

CAPTURES = ("endpoint", "chardev", "chardev_vnet", "dgram", "hub", "tcpdump", "mirred")
INJECTIONS = ("endpoint", "chardev", "chardev_vnet", "dgram")
WITNESSES = 100         # packets of each kind
STOPPED_RATE = 50000    # packets a second while the reader has stopped
ANSWER_LIMIT = 2.0      # seconds

SOL_PACKET, PACKET_VNET_HDR, PACKET_QDISC_BYPASS = 263, 15, 20


def network(tap: Tap) -> None:
    """As a host has it: packets come from "bout", through a bridge, to the TAP. On their way the
    kernel takes tags out of the data."""
    command("ip", "link", "add", "bbridge", "type", "bridge")
    command("ip", "link", "add", "bout", "type", "veth", "peer", "name", "bport")
    for name in ("bport", tap.name):
        command("ip", "link", "set", name, "master", "bbridge")
    for name in ("bout", "bport", "bbridge"):
        command("ip", "link", "set", name, "up")
    command("ip", "link", "set", "bout", "mtu", "1504")     # full-size frames with a tag


def remove_network() -> None:
    for name in ("bbridge", "bout"):
        command("ip", "link", "del", name)


def captured_kinds(env: Env, way: str) -> dict[str, float]:
    """Of each kind, the share that comes out as it should."""
    tap, record = Tap("bkinds", offloads=True), env.path("record")
    network(tap)
    capture = Capture(env, way, tap=tap, record=record)
    wire = packet_socket("bout")
    wire.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    try:
        for kind in KINDS:
            for number in range(WITNESSES):
                wire.send(b"".join(kind.make(number)))
                time.sleep(0.0005)
        settled(capture.counters)
        capture.drain()
        capture.flush()
        settled(capture.counters)
        return shares(list(recorded(record)))
    finally:
        wire.close()
        capture.end()
        remove_network()
        tap.close()


def injected_kinds(env: Env, way: str) -> dict[str, float]:
    tap, record, counters = Tap("bkinds", offloads=True), env.path("record"), env.counters()
    injection = Injection(env, way, tap)
    assert injection.process
    running: list[Process] = [injection.process, env.start(
        "count", "-t", str(tap.fd), "-w", str(record), counters=counters, cpu=OFFERER,
        fds=(tap.fd,))]
    header = int(injection.options[-1]) if injection.options else None
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(str(injection.path))
    try:
        for kind in KINDS:
            for number in range(WITNESSES):
                stream.sendall(framed(kind.make(number), header))
                time.sleep(0.0005)
        settled(counters)
        return shares(list(recorded(record)))
    finally:
        stream.close()
        for process in running:
            process.end()
        tap.close()


def framed(packet: Packet, header: int | None) -> bytes:
    """As the stream has it. @header: length of vnet headers there, if it has any."""
    vnet, frame = packet
    if header is None:
        return len(frame).to_bytes(4, "big") + frame
    vnet = vnet.ljust(header, b"\0")
    return (header + len(frame)).to_bytes(4, "big") + header.to_bytes(4, "big") + vnet + frame


def shares(got: list[Packet]) -> dict[str, float]:
    return {kind.name: kind.arrived(got, WITNESSES) / WITNESSES for kind in KINDS}


def answer_ms(process: Process) -> float:
    """How long QEMU's monitor takes to answer; the limit, if it doesn't."""
    if not isinstance(process, Qemu):
        return 0
    monitor = socket.socket(socket.AF_UNIX)
    monitor.settimeout(ANSWER_LIMIT)
    begin = time.monotonic()
    try:
        monitor.connect(str(process.folder / "qmp2"))
        monitor.recv(4096)
        monitor.sendall(b'{"execute": "qmp_capabilities"}\n')
        monitor.recv(4096)
    except TimeoutError:
        pass
    finally:
        monitor.close()
    return (time.monotonic() - begin) * 1000


def stopped_reader(env: Env, way: str, seconds: float) -> Numbers:
    """The reader stops for so long while packets come, then reads on."""
    capture, sent = Capture(env, way), env.counters()
    try:
        capture.reader.signal(signal.SIGSTOP)
        env.start("offer", "-i", capture.tap.name, "-r", str(STOPPED_RATE), "-n",
                  str(int(STOPPED_RATE * seconds)), counters=sent, cpu=OFFERER).wait(seconds + 20)
        answer = answer_ms(capture.process)
        capture.reader.signal(signal.SIGCONT)
        settled(capture.counters, 0.5)
        capture.drain()
        capture.flush()
        lost = sent.packets - settled(capture.counters)
        return {"loss": lost / sent.packets, "answer_ms": answer,
                "told": capture.told() / lost if lost else 1}
    finally:
        capture.end()


def stopped_guest(env: Env, way: str, seconds: float) -> Numbers:
    """The TAP's reader stops for so long while packets are injected, then reads on."""
    tap, arrived, sent = Tap("bguest"), env.counters(), env.counters()
    injection = Injection(env, way, tap)
    assert injection.process
    running = [injection.process]
    guest = env.start("count", "-q", "-t", str(tap.fd), counters=arrived, cpu=OFFERER,
                      fds=(tap.fd,))
    running.append(guest)
    try:
        time.sleep(0.1)
        guest.signal(signal.SIGSTOP)
        running.append(env.start("offer", *injection.options, "-u", str(injection.path), "-r",
                                 str(STOPPED_RATE), "-n", str(int(STOPPED_RATE * seconds)),
                                 counters=sent, cpu=OFFERER))
        time.sleep(seconds)
        answer = answer_ms(injection.process)
        guest.signal(signal.SIGCONT)
        wait_until(lambda: bool(sent.done), 20, "the end of the packets")
        lost = sent.packets - settled(arrived, 0.5)
        return {"loss": lost / sent.packets, "answer_ms": answer,
                "told": injection.told() / lost if lost else 1}
    finally:
        for process in running:
            process.end()
        tap.close()


class Table:
    """Numbers of each way, in turn, run by run; then ours against each other one."""

    def __init__(self, results: Results, ways: tuple[str, ...], runs: int,
                 one: Callable[[str], Numbers], tries: int = 3) -> None:
        self.results, self.ways = results, ways
        self.found: dict[str, list[Numbers]] = {way: [] for way in ways}
        for _ in range(runs):
            for way in ways:
                self.found[way].append(undisturbed(lambda: one(way), tries=tries))

    def column(self, way: str, what: str) -> list[float]:
        return [numbers[what] for numbers in self.found[way]]

    def add(self, what: str, name: str, unit: str, others: tuple[str, ...] | None = None,
            **params: object) -> None:
        for way in others or self.ways[1:]:
            self.results.add("alternative", name, params, unit, self.column("endpoint", what), way,
                             self.column(way, what))


def capture_tables(env: Env, results: Results, runs: int, seconds: float) -> None:
    for size, rate in ((60, 100000), (60, 1000000), (1514, 100000), (SUPER, 10000)):
        # Without vnet headers there is no need to look at what becomes of super-packets.
        ways = CAPTURES if size < SUPER else ("endpoint", "chardev_vnet", "tcpdump", "mirred")
        table = Table(results, ways, runs,
                      lambda way: measure(env, size, rate, seconds, (way,))[way], 1)
        params = {"size": size, "rate": rate}
        table.add("ns_with_reader", "capture, CPU a packet, reader's too", "ns", **params)
        table.add("pps", "capture, packets through", "1/s", **params)
        table.add("loss", "capture, loss", "share", **params)
    ways = (*CAPTURES, "off")
    table = Table(results, ways, runs, lambda way: measure(env, 60, 0, seconds, (way,))[way], 1)
    table.add("offered_pps", "capture, packets the sender managed", "1/s", size=60, rate="max")
    ways = tuple(way for way in ways if way != "hub")       # there, QEMU is the guest's reader
    table = Table(results, ways, runs,
                  lambda way: {"pps": throughput(env, way, 60, seconds)})
    table.add("pps", "capture, packets to the guest meanwhile", "1/s", size=60, rate="max")


def stop_tables(env: Env, results: Results, seconds: float) -> None:
    params = {"rate": STOPPED_RATE, "seconds": seconds}
    table = Table(results, CAPTURES, 1, lambda way: stopped_reader(env, way, seconds), 1)
    table.add("loss", "reader has stopped, loss", "share", **params)
    table.add("told", "reader has stopped, told of the loss", "share", **params)
    table.add("answer_ms", "reader has stopped, monitor answers", "ms", ("dgram", "hub"), **params)
    table = Table(results, INJECTIONS, 1, lambda way: stopped_guest(env, way, seconds), 1)
    table.add("loss", "guest has stopped, loss", "share", **params)
    table.add("told", "guest has stopped, told of the loss", "share", **params)
    table.add("answer_ms", "guest has stopped, monitor answers", "ms", ("dgram",), **params)


def inject_tables(env: Env, results: Results, runs: int, seconds: float) -> None:
    for size in (60, 1514):
        table = Table(results, INJECTIONS, runs, lambda way: inject(env, way, size, seconds))
        params = {"size": size, "rate": "max"}
        table.add("pps", "injection, packets arrived", "1/s", **params)
        table.add("ns", "injection, CPU a packet", "ns", **params)
        table.add("loss", "injection, loss", "share", **params)


def kind_tables(env: Env, results: Results) -> None:
    table = Table(results, (*CAPTURES, "chardev_4k"), 1, lambda way: captured_kinds(env, way), 1)
    for kind in KINDS:
        table.add(kind.name, f"captured right: {kind.name}", "share")
    table = Table(results, INJECTIONS, 1, lambda way: injected_kinds(env, way), 1)
    for kind in KINDS:
        table.add(kind.name, f"injected right: {kind.name}", "share")


def run(env: Env, results: Results) -> None:
    runs, seconds = (1 if env.quick else 3), 1.0
    kind_tables(env, results)
    for stopped in (2.0, 5.0):      # the second is longer than any of them has room for
        stop_tables(env, results, stopped)
    capture_tables(env, results, runs, seconds)
    inject_tables(env, results, runs, 2 * seconds)
