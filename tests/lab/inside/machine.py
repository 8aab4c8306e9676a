# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""A QEMU process inside the lab, and the watch over what it reads from its TAP."""

import fcntl
import os
import socket
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import guest
from qmp import Qmp, ScenarioError

if TYPE_CHECKING:
    from kit import Lab

RESULTS = Path("/results")
TRACING = Path("/sys/kernel/tracing/instances")
NOBODY = 65534
SANDBOX = "on,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


def open_tap(name: str) -> int:
    """A TAP, or a macvtap, which has a device file of its own."""
    number = Path(f"/sys/class/net/{name}/ifindex").read_text().strip()
    own = Path(f"/dev/tap{number}")
    fd = os.open(own if own.exists() else "/dev/net/tun",
                 os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
    fcntl.ioctl(fd, TUNSETIFF, request)
    return fd


class Vm:
    """One QEMU process with one TAP, vhost on. Its guest comes from `incoming`; without, a guest
    that is a program is booted by that."""

    def __init__(self, lab: "Lab", name: str, tap: str, incoming: str,
                 extra: tuple[str, ...] = ()) -> None:
        self.name = name
        self.tap = tap
        self.queues = int(lab.queues)
        self.folder = Path("/run", name)    # for QEMU's sockets
        self.memory = Path("/tmp", f"{name}.memory")
        self._lab = lab
        self._log = (RESULTS / f"qemu-{name}.log").open("w")
        self._serial = RESULTS / f"guest-{name}.log"
        self._serial.touch()
        self.folder.mkdir()
        self._start(["/usr/bin/qemu", "-name", name, "-L", "/usr/share/lab-firmware",
                     *self._machine(str(lab.guest)),
                     *guest.network_card(self.queues),
                     "-serial", f"file:{self._serial}",
                     "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off",
                     *(["-incoming", incoming] if incoming else []), *extra])
        self.qmp = Qmp(f"{self.folder}/qmp", self._record)

    def _machine(self, kind: str) -> list[str]:
        if kind == "linux":
            return guest.machine("/guest/vmlinuz", "/guest/initrd", self.queues)
        return [*guest.program_machine(str(self.memory), f"{self.folder}/qtest"),
                "-qmp", f"unix:{self.folder}/qmp-guest,server=on,wait=off"]

    def _start(self, command: list[str]) -> None:
        vhost = ",vhost=on" if self._lab.vhost else ""
        if self._lab.tap == "tap":
            options = f"ifname={self.tap},script=,downscript={vhost}"
            self._popen([*command, *guest.back_end(options, self.queues)])
            return
        fd = open_tap(self.tap)
        self._popen([*command, *guest.back_end(f"fd={fd}{vhost}", self.queues)], (fd,))
        os.close(fd)

    def _popen(self, command: list[str], descriptors: tuple[int, ...] = ()) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log,
                                        stderr=self._log, pass_fds=descriptors)

    def passed_socket(self, purpose: str) -> dict[str, str]:
        """The property that names a packet socket passed to QEMU, where it can open none itself."""
        return {}

    def _record(self, entry: dict[str, Any]) -> None:
        self._lab.commands.append({"vm": self.name, **entry})

    def status(self) -> str:
        return str(self.qmp("query-status")["status"])

    def redirector(self, name: str) -> dict[str, Any]:
        """What query-filter-redirectors tells of one object."""
        for entry in self.qmp("query-filter-redirectors"):
            if entry["id"] == name:
                return dict(entry)
        raise ScenarioError(f"{self.name} has no filter-redirector '{name}'")

    def tap_counter(self, name: str) -> int:
        return int(Path(f"/sys/class/net/{self.tap}/statistics/{name}").read_text())

    def tap_fds(self) -> list[int]:
        """The open TAP, once for each queue."""
        infos = Path(f"/proc/{self.process.pid}/fdinfo").iterdir()
        found = [int(info.name) for info in infos if f"iff:\t{self.tap}\n" in info.read_text()]
        if len(found) != self.queues:
            raise ScenarioError(f"{self.name} has opened TAP {self.tap} {len(found)} times, for "
                                f"{self.queues} queues")
        return found

    def check_vhost(self) -> None:
        """The kernel's vhost workers of this QEMU exist, one for each queue."""
        want = f"vhost-{self.process.pid}"
        # Kernel threads of their own; since Linux 6.4 threads of QEMU.
        paths = [*Path("/proc").glob("[0-9]*/comm"),
                 *Path(f"/proc/{self.process.pid}/task").glob("*/comm")]
        names = [path.read_text().strip() for path in paths]
        if names.count(want) != self.queues:
            raise ScenarioError(f"{self.name}: {names.count(want)} kernel threads [{want}] for "
                                f"{self.queues} queues: vhost is not running")
        self._lab.note(f"{self.name}_vhost_thread", want)

    def check_vhost_started(self) -> None:
        # An error if it is not.  QEMU 11.0 dies of x-query-virtio-status here.
        self.qmp("x-query-virtio-vhost-queue-status", queue=0,
                 path="/machine/peripheral/nic0/virtio-backend")

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.memory.unlink(missing_ok=True)


class UnprivilegedVm(Vm):
    """QEMU as an unprivileged user, in its sandbox: its TAP, vhost-net and packet sockets are
    opened here and passed to it, as a management layer does. With `netns`, QEMU runs in that
    network namespace, and its TAP stays where it is."""

    def __init__(self, lab: "Lab", name: str, tap: str, incoming: str, netns: str = "") -> None:
        self._netns = netns
        super().__init__(lab, name, tap, incoming, ("-sandbox", SANDBOX))

    def _start(self, command: list[str]) -> None:
        for path in (self.folder, self._serial):
            os.chown(path, NOBODY, NOBODY)
        enter = ["ip", "netns", "exec", self._netns] if self._netns else []
        drop = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups",
                "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"]
        descriptors = (open_tap(self.tap), os.open("/dev/vhost-net", os.O_RDWR | os.O_CLOEXEC))
        options = "fd={},vhost=on,vhostfd={}".format(*descriptors)
        self._popen([*enter, *drop, *command, *guest.back_end(options, self.queues)], descriptors)
        for fd in descriptors:
            os.close(fd)

    def passed_socket(self, purpose: str) -> dict[str, str]:
        name = f"{purpose}_fd"
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind((self.tap, 0))
            self.qmp("getfd", sock.fileno(), fdname=name)
        return {name: name}

    def privileges(self) -> dict[str, str]:
        """What the kernel says about the process: user, capabilities, sandbox, namespace."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        wanted = ("Uid", "Gid", "CapPrm", "CapEff", "CapBnd", "Seccomp")
        found = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)
                 if key in wanted}
        return {**found, "netns": os.readlink(f"/proc/{self.process.pid}/ns/net"),
                "tap_netns": os.readlink("/proc/self/ns/net")}


class ReadWatch:
    """Counts what QEMU itself reads from its TAP, by the kernel's syscall trace events.

    While vhost carries the packets this must be 0: it is the proof that QEMU's net layer saw none.
    """

    def __init__(self, vm: Vm) -> None:
        self._folder = TRACING / vm.name
        self._folder.mkdir(exist_ok=True)
        tasks = [path.name for path in Path(f"/proc/{vm.process.pid}/task").iterdir()]
        (self._folder / "set_event_pid").write_text(" ".join(tasks))
        for call in ("read", "readv"):
            event = self._folder / f"events/syscalls/sys_enter_{call}"
            (event / "filter").write_text(" || ".join(f"fd == {fd}" for fd in vm.tap_fds()))
            (event / "enable").write_text("1")

    def stop(self) -> int:
        """Ends the watch (it slows all of the lab down) and returns how often QEMU read."""
        lines = (self._folder / "trace").read_text().splitlines()
        for event in self._folder.glob("events/syscalls/sys_enter_read*"):
            (event / "enable").write_text("0")
        self._folder.rmdir()
        return sum(1 for line in lines if not line.startswith("#"))
