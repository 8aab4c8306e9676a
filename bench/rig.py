# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What the measurements are made of: TAPs, the measuring programs, a QEMU and its monitor.

All of it lives in the network namespace that bench.py has entered, and in one temporary folder;
no process outlives the driver (PR_SET_PDEATHSIG).
"""
import ctypes
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, TypeVar

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
TUN_F_CSUM_TSO = 0x1 | 0x2 | 0x4
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)

# Legacy virtio-net: CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, MRG_RXBUF. They make
# QEMU's chain carry vnet headers of 12 bytes, as with any Linux guest.
GUEST_FEATURES = 1 << 0 | 1 << 1 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 15
NIC_SLOT, NIC_PORT = 3, 0xC000

# Processors: who offers packets on one, who is measured on the other.
OFFERER, MEASURED = 0, 1

# bench.h: struct Counters
FIELDS = ("packets", "bytes", "calls", "retries", "missing", "repeated", "first_ns", "last_ns",
          "done")


T = TypeVar("T")

# A virtual machine's processors are at times somebody else's ("steal", proc_stat(5)).
STOLEN_MAX = 0.01       # of a measurement's time, if it is to count
TRIES = 3
stolen_shares: list[float] = []     # of the measurements that count


class BenchError(Exception):
    """The measurement can't be made; the text says why."""


def wait_until(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise BenchError(f"not within {limit_s:g} s: {what}")
        time.sleep(0.005)


def run(*command: str) -> str:
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def stolen_s() -> float:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def undisturbed(measure: Callable[[], T], limit: float = STOLEN_MAX, tries: int = TRIES) -> T:
    """Measures again while the hypervisor takes the processors away; the calmest one counts.
    @limit: as a share of the processors' time."""
    found: list[tuple[float, T]] = []
    while not found or found[-1][0] > limit and len(found) < tries:
        begin, before = time.monotonic(), stolen_s()
        result = measure()
        took = (time.monotonic() - begin) * (os.cpu_count() or 1)
        found.append(((stolen_s() - before) / took, result))
    share, result = min(found, key=lambda one: one[0])
    stolen_shares.append(share)
    return result


class Counters:
    """The counters of a measuring program, live."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(8 * len(FIELDS)))
        with path.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), 8 * len(FIELDS))

    def __getattr__(self, name: str) -> int:
        if name not in FIELDS:
            raise AttributeError(name)
        return int(struct.unpack_from("=Q", self.page, 8 * FIELDS.index(name))[0])


class Tap:
    """A TAP device; it goes with the last descriptor. Nobody reads it unless told to."""

    def __init__(self, name: str, queue: int = 1000, offloads: bool = False) -> None:
        self.name, self.offloads = name, offloads
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(self.fd, TUNSETIFF, request)
        fcntl.ioctl(self.fd, TUNSETOFFLOAD, TUN_F_CSUM_TSO if offloads else 0)
        run("ip", "link", "set", name, "txqueuelen", str(queue), "up")

    def close(self) -> None:
        os.close(self.fd)


ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
PACKET_MEMORY = 16 << 20    # what each way to capture may hold: the default of a capture's ring


def packet_socket(ifname: str, protocol: int = 0) -> socket.socket:
    """Bound to an interface; @protocol 0: receives nothing."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, PACKET_MEMORY)
    opened.bind((ifname, protocol))
    return opened


class Process:
    """A process that is measured, or helps to."""

    def __init__(self, command: list[str], cpu: int | None = None, fds: tuple[int, ...] = (),
                 stdin: Any = subprocess.DEVNULL, stdout: Any = subprocess.PIPE) -> None:
        def prepare() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if cpu is not None:
                os.sched_setaffinity(0, {cpu % (os.cpu_count() or 1)})

        self.command = command
        self.popen = subprocess.Popen(command, stdin=stdin, stdout=stdout, pass_fds=fds,
                                      stderr=subprocess.PIPE, preexec_fn=prepare)
        self.pid = self.popen.pid

    def cpu_ns(self) -> int:
        """Processor time of all its threads."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total

    def wakeups(self) -> int:
        """How often its threads went to sleep, and so were woken."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
        return total

    def rss_kib(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        return 0

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def check(self) -> None:
        if self.popen.poll() is not None:
            _, err = self.popen.communicate()
            raise BenchError(f"{' '.join(self.command)} ended: {err.decode().strip()}")

    def end(self) -> str:
        """Kill it; what it said on standard output."""
        if self.popen.poll() is None:
            self.popen.kill()
        out, _ = self.popen.communicate()
        return (out or b"").decode()

    def wait(self, limit_s: float) -> str:
        """Let it end by itself."""
        try:
            out, err = self.popen.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.end()
            raise BenchError(f"{' '.join(self.command)} did not end within {limit_s:g} s") from None
        if self.popen.returncode:
            raise BenchError(f"{' '.join(self.command)}: {err.decode().strip()}")
        return (out or b"").decode()


class Qmp:
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise BenchError(f"QEMU ended during {command}")
            reply = json.loads(line)
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise BenchError(f"{command}: {reply['error']['desc']}")

    def pass_fd(self, name: str, fd: int) -> None:
        command = json.dumps({"execute": "getfd", "arguments": {"fdname": name}}) + "\n"
        socket.send_fds(self.socket, [command.encode()], [fd])
        reply = json.loads(self.file.readline())
        if "error" in reply:
            raise BenchError(f"getfd: {reply['error']['desc']}")

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class Qemu(Process):
    """A QEMU without a guest: qtest instead of a processor, one virtio-net NIC on netdev "n0"
    whose driver has chosen its features and never takes a packet, as with a NIC that vhost runs:
    QEMU itself leaves the TAP alone."""

    count = 0
    stream: Path        # where packets go in, if they do

    def __init__(self, env: "Env", taps: list[Tap], options: list[str], nic: bool = True,
                 cpu: int | None = MEASURED, reads: bool = False) -> None:
        """@nic: else each TAP has a hub for a peer. @reads: QEMU goes on reading the TAPs."""
        Qemu.count += 1
        self.folder = env.folder / f"qemu{Qemu.count}"
        self.folder.mkdir()
        qtest = self.folder / "qtest"
        command = [str(env.qemu), "-machine", "q35,pit=off,hpet=off", "-accel", "qtest",
                   "-m", "64", "-nodefaults", "-no-user-config", "-display", "none",
                   "-qtest", f"unix:{qtest},server=on,wait=off", "-qtest-log", "none"]
        for name in ("qmp", "qmp2"):
            path = self.folder / name
            command += ["-chardev", f"socket,id={name},path={path},server=on,wait=off",
                        "-mon", f"chardev={name},mode=control"]
        for i, tap in enumerate(taps):
            command += ["-netdev", f"tap,id=n{i},fd={tap.fd},vhost=off"]
            if i or not nic:    # a hub of one port, or with who the options add to it
                command += ["-netdev", f"hubport,id=h{i},hubid={i},netdev=n{i}"]
        if nic and taps:
            command += ["-device", f"virtio-net-pci,netdev=n0,addr={NIC_SLOT:#x},"
                        "disable-legacy=off,disable-modern=on,romfile="]
        super().__init__(command + options, cpu, tuple(tap.fd for tap in taps))
        wait_until(lambda: self.popen.poll() is not None or (self.folder / "qmp").exists(), 20,
                   "QEMU's monitor")
        time.sleep(0.05)
        self.check()
        self.qmp = Qmp(self.folder / "qmp")
        if nic and taps:
            self._choose_features(qtest)
        if nic and not reads:
            for tap in taps:
                self._stop_reading(tap)

    @staticmethod
    def _stop_reading(tap: Tap) -> None:
        """QEMU takes one packet that it can't deliver; from then on it leaves the TAP alone."""
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        wire.bind((tap.name, 0))
        for _ in range(2):
            wire.send(bytes(12) + b"\x88\xb6" + bytes(46))
            time.sleep(0.02)
        wire.close()
        try:
            os.read(tap.fd, 1 << 16)
        except BlockingIOError:
            raise BenchError(f"QEMU goes on reading {tap.name}") from None

    def _choose_features(self, path: Path) -> None:
        wire = socket.socket(socket.AF_UNIX)
        wire.connect(str(path))
        file = wire.makefile("rw")

        def command(text: str) -> str:
            file.write(text + "\n")
            file.flush()
            reply = file.readline().split()
            if not reply or reply[0] != "OK":
                raise BenchError(f"qtest: {text}: {' '.join(reply)}")
            return reply[-1]

        def config(offset: int, value: int) -> None:
            command(f"outl 0xcf8 {0x80000000 | NIC_SLOT << 11 | offset:#x}")
            command(f"outl 0xcfc {value:#x}")

        config(0x10, NIC_PORT)
        config(0x04, 0x5)           # I/O space, bus master
        command(f"outb {NIC_PORT + 18:#x} 0x3")
        offered = int(command(f"inl {NIC_PORT:#x}"), 16)
        command(f"outl {NIC_PORT + 4:#x} {GUEST_FEATURES & offered:#x}")
        file.close()
        wire.close()

    def redirector(self, name: str, **properties: Any) -> None:
        self.qmp("object-add", **{"qom-type": "filter-redirector", "id": name, **properties})

    def add_dgram(self, name: str, packets: socket.socket) -> None:
        """A netdev "dgram" on a packet socket, with a hub for a peer. QEMU can't describe such an
        address, and answers with an error; but it makes the netdev, which works."""
        self.qmp.pass_fd(name, packets.fileno())
        try:
            self.qmp("netdev_add", type="dgram", id=name, local={"type": "fd", "str": name})
        except BenchError as error:
            if "unsupported" not in str(error):
                raise
        self.qmp("netdev_add", type="hubport", id=f"{name}h", hubid=99, netdev=name)

    def stats(self, name: str) -> dict[str, Any]:
        for info in self.qmp("query-filter-redirectors"):
            if info["id"] == name:
                return dict(info)
        raise BenchError(f"no redirector {name}")

    def end(self) -> str:
        self.qmp.close()
        return super().end()


class Env:
    """One run of bench.py: where things are, and what has to be cleaned up."""

    def __init__(self, build: Path, qemu: Path, folder: Path, quick: bool) -> None:
        self.build, self.qemu, self.folder, self.quick = build, qemu.resolve(), folder, quick
        self.bin = (build / "bench/bin").resolve()
        self.number = 0

    def counters(self) -> Counters:
        self.number += 1
        return Counters(self.folder / f"counters{self.number}")

    def path(self, name: str) -> Path:
        self.number += 1
        return self.folder / f"{name}{self.number}"

    def start(self, program: str, *options: str, counters: Counters | None = None,
              cpu: int | None = None, **more: Any) -> Process:
        command = [str(self.bin / program), *options]
        if counters:
            command += ["-c", str(counters.path)]
        return Process(command, cpu, **more)


def settled(counters: Counters, pause_s: float = 0.15, limit_s: float = 20) -> int:
    """The packets counted, once no more come."""
    end = time.monotonic() + limit_s
    last = -1
    while counters.packets != last and time.monotonic() < end:
        last = counters.packets
        time.sleep(pause_s)
    return counters.packets
