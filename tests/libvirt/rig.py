# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Two hosts with real libvirt, switches between them, a client: all in namespaces of this process.

    client --- sw0 --- hosta br0      (and sw1, br1: a second network, likewise)
                |----- hostb br0
               swm --- hosta, hostb   (the hosts' own network: migrations, hand-overs)

enter() makes the namespaces. What runs in them ends with their first process, whatever ends that:
there is nothing to clean up.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NETWORKS = 2
CLIENT = "client"
QEMU = "qemu-system-x86_64"    # in the rig's folder
INSIDE = "LIBVIRT_RIG"      # set in the environment of what runs inside: the rig's folder
# So many times as long is waited as a machine needs that emulates nothing but the guest.
SLOW = int(os.environ.get("LIBVIRT_RIG_SLOW", "1"))
START_S = 30 * SLOW
POLL_S = 0.002
VIRSH_S = 60 * SLOW
VHOST = Path("/dev/vhost-net")
# Whether AppArmor confines libvirt and its guests (in the lab only: it is the whole machine's),
# where its profiles are, below a host's root, and who says what has to be added to them.
APPARMOR = bool(os.environ.get("LIBVIRT_RIG_APPARMOR"))
PROFILES = "etc/apparmor.d"
MANUAL = "docs/libvirt.md"


class RigError(Exception):
    """What was expected did not happen; the message says what."""


def wait_until(what: str, test: Callable[[], Any], limit_s: float = START_S,
               poll_s: float = 0.05) -> Any:
    end = time.monotonic() + limit_s
    while not (value := test()):
        if time.monotonic() > end:
            raise RigError(f"{what}: not within {limit_s:.0f} s")
        time.sleep(poll_s)
    return value


def run(*command: str, limit_s: float = VIRSH_S) -> str:
    try:
        done = subprocess.run(command, text=True, capture_output=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise RigError(f"{' '.join(command)}: no answer within {limit_s:.0f} s") from None
    if done.returncode:
        raise RigError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


# ---- namespaces

def why_not() -> str:
    """Why this machine can't have the rig; empty if it can."""
    if os.geteuid():
        return "needs root"
    missing = [name for name in ("libvirtd", "virsh", "ip", "unshare", "setpriv")
               if not shutil.which(name)]
    if missing or not list(Path("/usr/lib").glob("*/libvirt/connection-driver/*driver_qemu.so")):
        return f"libvirt is not installed (see {HERE.name}/packages.txt): {' '.join(missing)}"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun"
    return ""


def enter() -> int:
    """Runs this program once more, in namespaces; returns its exit status.

    The shell is their first process: unlike Python it collects whatever ends, such as the QEMUs,
    whose parent is gone. libvirt takes one that is not collected for one that runs.
    """
    # Not where TMPDIR says: it has to be outside the places that host.py covers.
    folder = Path(tempfile.mkdtemp(prefix="libvirt-rig-", dir="/tmp"))
    folder.chmod(0o755)     # QEMU is not root
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        return subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "--",
             "unshare", "--net", "--mount", "--mount-proc", "--uts", "--ipc", "--pid", "--fork",
             "--kill-child", "--", "/bin/sh", "-c", '"$@"; exit $?', "init",
             sys.executable, *sys.argv],
            env={**os.environ, INSIDE: str(folder)}, check=False).returncode
    finally:
        folder.rmdir()


def emulator(folder: Path) -> Path:
    """Where QEMU is: in the rig's folder, or where "make install" puts it and profiles expect it."""
    return (Path("/usr/local/bin") if APPARMOR else folder) / QEMU


def inside() -> Path | None:
    folder = os.environ.get(INSIDE)
    return Path(folder) if folder else None


def netns(name: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", name, *command]


# ---- the network

def ip(words: str) -> None:
    run("ip", *words.split())


def plug(switch: str, port: str, name: str, where: str) -> None:
    """A cable from `switch` to interface `name` in namespace `where`."""
    ip(f"link add {port} type veth peer name {name} netns {where}")
    ip(f"link set {port} master {switch} up")
    ip(f"-n {where} link set {name} up")


def client_mac(network: int) -> str:
    return f"52:54:00:00:00:f{network}"


def guest_mac(card: int, behind: bool = False) -> str:
    """Of the network card, or of the guest's own bridge or macvlan behind it."""
    return f"52:54:00:00:0{int(behind)}:0{2 + card}"


def make_network(hosts: tuple["Host", ...]) -> None:
    """Bridges as they come from the kernel: they learn, flood and age as anybody's do."""
    for name in (CLIENT, *(host.name for host in hosts)):
        ip(f"netns add {name}")
        run(*netns(name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"))
    run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    for n in range(NETWORKS):
        ip(f"link add sw{n} type bridge")
        ip(f"link set sw{n} up")
        plug(f"sw{n}", f"client{n}", f"eth{n}", CLIENT)
        ip(f"-n {CLIENT} link set eth{n} address {client_mac(n)}")
        ip(f"-n {CLIENT} addr add 10.0.{n}.1/24 broadcast + dev eth{n}")
        for host in hosts:
            ip(f"-n {host.name} link add br{n} type bridge")
            ip(f"-n {host.name} link set br{n} up")
            plug(f"sw{n}", f"{host.name}{n}", f"up{n}", host.name)
            ip(f"-n {host.name} link set up{n} master br{n}")
    ip("link add swm type bridge")
    ip("link set swm up")
    for host in hosts:
        plug("swm", f"{host.name}m", "mgmt", host.name)
        ip(f"-n {host.name} link set lo up")
        ip(f"-n {host.name} addr add {host.address}/24 dev mgmt")


def snoop(group: str) -> None:
    """The first network's switch asks who is a member of which multicast group: from the answers
    all of its bridges know where such packets have to go, and nowhere else. It asks some times at
    first, and then not during a run, as others that do it every two minutes."""
    if ":" in group:
        run("sysctl", "-qw", "net.ipv6.conf.sw0.disable_ipv6=0")
        run(*netns(CLIENT, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0"))
    elif group:
        ip("addr replace 10.0.0.254/24 dev sw0")
        ip(f"-n {CLIENT} route replace 239.0.0.0/8 dev eth0")
    ip("link set sw0 type bridge mcast_startup_query_interval 100 mcast_startup_query_count 5 "
       "mcast_query_response_interval 50 mcast_query_interval 12500 "
       f"mcast_query_use_ifaddr 1 mcast_querier {int(bool(group))}")


def await_member(host: "Host", group: str) -> None:
    """Until then a group's packets go nowhere, or where a guest of an earlier run was."""
    wait_until(f"the switch knows of a member of {group} at {host.name}",
               lambda: f"port {host.name}0 grp {group} " in run("bridge", "mdb", "show"))


def know_guest(card: int, mac: str) -> None:
    """The client doesn't ask for the guest's address: its questions would be traffic, too."""
    ip(f"-n {CLIENT} neigh replace 10.0.{card}.2 lladdr {mac} dev eth{card} nud permanent")


# ---- hosts

@dataclass
class Event:
    """A QMP event, as the host's libvirt logged it; the time is QEMU's."""
    host: str
    name: str
    ns: int
    data: dict[str, Any]


@dataclass
class Host:
    name: str
    address: str
    folder: Path
    events: list[Event] = field(default_factory=list)
    _log: Any = None
    _rest: str = ""
    _mark: int = 0

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.folder}/run/libvirt/libvirt-sock"

    def start(self) -> None:
        self.folder.mkdir()
        path = f"{emulator(self.folder.parent).parent}:{os.environ['PATH']}"
        with (self.folder / "output").open("w") as output:
            self.process = subprocess.Popen(
                netns(self.name, "unshare", "--mount", "--uts", "--",
                      sys.executable, str(HERE / "host.py"), self.name, str(self.folder)),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, "PATH": path})
        wait_until(f"{self.name}'s libvirtd answers", self._answers)
        self._log = (self.folder / "libvirtd.log").open()

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RigError(f"{self.name}'s libvirtd ended: "
                           f"{(self.folder / 'output').read_text()[-2000:]}")
        try:
            self.virsh("uri")
        except RigError:
            return False
        return True

    def enter(self) -> list[str]:
        """What runs a program as on that host: its network, files and name."""
        return ["nsenter", "--target", str(self.process.pid), "--net", "--mount", "--uts", "--"]

    def virsh(self, *words: str) -> str:
        return run(*self.virsh_command(*words))

    def virsh_command(self, *words: str) -> list[str]:
        return ["virsh", "-q", "-c", self.uri, *words]

    def qmp(self, domain: str, command: dict[str, Any]) -> Any:
        answer = json.loads(self.virsh("qemu-monitor-command", domain, json.dumps(command)))
        if "error" in answer:
            raise RigError(f"{self.name}: {command['execute']}: {answer['error']['desc']}")
        return answer["return"]

    def qemu_pid(self, domain: str) -> int:
        return int((self.folder / f"run/libvirt/qemu/{domain}.pid").read_text())

    def state(self, domain: str) -> str:
        """What libvirt says of the domain; "none" where there is none."""
        try:
            return self.virsh("domstate", domain).strip()
        except RigError:
            return "none"

    # ---- its log, and the events in it

    def mark_log(self) -> None:
        """A run begins here."""
        self._mark = (self.folder / "libvirtd.log").stat().st_size

    def log_since_mark(self) -> str:
        with (self.folder / "libvirtd.log").open(errors="replace") as log:
            log.seek(self._mark)
            return log.read()

    def new_events(self) -> Iterator[Event]:
        text = self._rest + self._log.read()
        *lines, self._rest = text.split("\n")
        for line in lines:
            match = re.search(r"QEMU_MONITOR_RECV_EVENT: \S+ event=(.*)", line)
            if match:
                event = json.loads(match[1])
                stamp = event["timestamp"]
                self.events.append(Event(self.name, event["event"], stamp["seconds"] * 10**9 +
                                         stamp["microseconds"] * 1000, event.get("data", {})))
                yield self.events[-1]

    def await_event(self, name: str, after_ns: int, limit_s: float = START_S,
                    **data: Any) -> Event:
        def found() -> Event | None:
            list(self.new_events())
            return next((event for event in self.events
                         if event.name == name and event.ns >= after_ns
                         and data.items() <= event.data.items()), None)

        event: Event = wait_until(f"{name} {data or ''} on {self.name}", found, limit_s, POLL_S)
        return event


class Rig:
    """All of it, running."""

    def __init__(self, folder: Path, qemu: Path) -> None:
        """In the rig's namespaces; `folder` is covered with a file system of its own."""
        run("mount", "-t", "tmpfs", "-o", "mode=755", "rig", str(folder))
        run("mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run")
        self.folder = folder
        self.hosts = (Host("hosta", "192.168.77.1", folder / "hosta"),
                      Host("hostb", "192.168.77.2", folder / "hostb"))
        # Where it was built, QEMU's user may not go.
        emulator(folder).parent.mkdir(parents=True, exist_ok=True)
        emulator(folder).touch()
        run("mount", "--bind", str(qemu.resolve()), str(emulator(folder)))
        make_network(self.hosts)
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(
            f"{host.address} {host.name}\n" for host in self.hosts))
        for host in self.hosts:
            host.start()

    def other(self, host: Host) -> Host:
        return self.hosts[host is self.hosts[0]]

    def events(self) -> list[Event]:
        """Of both hosts, in the order of their times."""
        for host in self.hosts:
            list(host.new_events())
        return sorted((event for host in self.hosts for event in host.events),
                      key=lambda event: event.ns)
