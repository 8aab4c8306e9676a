# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What is done by qemu-handover, and to it: strangers at its port, and whatever can be killed."""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import load
import rig
from act import Act
from command import DONE, FAILED, LOST_GUEST, QEMU_USER, Command
from direct import Direct
from domain import NAME, guest
from pki import Authority
from rig import RigError, wait_until

SLOW_MIB = 20                       # a second: a migration takes some seconds
SLOW = ("--bandwidth", str(SLOW_MIB))
CAPTURE_S = 3.0
LONG_CAPTURE_S = 8.0                # where packets are rare
PCAP_HEAD, PACKET_HEAD = 24, 16
IPV4, UDP = b"\x08\x00", 17
HEADERS = 14 + 20 + 8
NUMBER = struct.Struct("<IIQQ")     # how the traffic's packets begin: see traffic.c
FEW = 20                            # packets that are none, where there should be many
STAYING_RATE = 500                  # packets a second in these scenarios
FIRST_PORT = 49152                  # where the source listens, if that is free
SHARED = "/srv/handover"            # where the manual lets QEMU have sockets
OTHER_ADDRESS = "192.168.77.66"     # in the hosts' own network

# Speaks, and tells how many bytes came back before the other side hung up.
STRANGER = """\
import socket, ssl, sys
where, how = (sys.argv[1], int(sys.argv[2])), sys.argv[3]
try:
    with socket.create_connection(where, 5) as plain:
        plain.settimeout(5)
        if how == "garbage":
            plain.sendall(bytes(range(256)) * 16)
            print(len(plain.recv(1)) and 0)
        elif how == "silent":
            plain.settimeout(2)
            print(len(plain.recv(65536)))
        else:
            context = ssl.create_default_context(cafile=sys.argv[4] + "/ca-cert.pem")
            context.check_hostname = False
            if how == "stranger":
                context.load_cert_chain(sys.argv[4] + "/client-cert.pem",
                                        sys.argv[4] + "/client-key.pem")
            with context.wrap_socket(plain) as secret:
                print(len(secret.recv(65536)))
except OSError:
    print(0)
"""

# Tries until its input ends; tells how often it got through, and how many bytes it got.
WAITING = """\
import select, socket, sys
where, source = (sys.argv[1], int(sys.argv[2])), (sys.argv[3], 0)
times = size = 0
def over(wait_s):
    return select.select([sys.stdin], [], [], wait_s)[0]
while not over(0.01):
    try:
        with socket.create_connection(where, 1, source) as plain:
            times += 1
            plain.settimeout(0.1)
            data = b"?"
            while data and not over(0):
                try:
                    data = plain.recv(65536)
                    size += len(data)
                except TimeoutError:
                    pass
    except OSError:
        pass
print(times, size)
"""


def ask(act: Act) -> Command:
    if not isinstance(act, Command):
        raise RigError("this is for qemu-handover")
    return act


def twice(act: Act) -> None:
    """There and back: what the first one has added at the destination is gone, or it would fail."""
    act.migrate()
    act.settle()
    act.migrate()


# ---- who may connect

def stranger(act: Act, how: str, folder: Path) -> int:
    """How many bytes somebody on the destination's host gets at the source's port."""
    done = rig.run(*rig.netns(act.there.name, sys.executable, "-c", STRANGER, act.here.address,
                              str(FIRST_PORT), how, str(folder)))
    return int(done)


def strangers(act: Act) -> None:
    """While the destination is connected and before: none gets anything, and it goes on."""
    folder = act.rig.folder / "stranger"
    ask(act).authority().equip(folder, "stranger", act.there.address, os.getuid())
    act.start_migration(*SLOW)
    act.await_migration("active")
    for how in ("garbage", "silent", "nobody", "stranger"):
        if got := stranger(act, how, folder):
            raise RigError(f"'{how}' gets {got} bytes at the source's port")
    act.end_migration()


def refused(act: Act) -> None:
    """The destination doesn't get in: the migration is cancelled, the guest stays."""
    act.start_migration(*SLOW)
    need_refused(act)


def need_refused(act: Act) -> None:
    act.end_migration(stays=True)
    error = ask(act).notes["reports"][-1]["error"]
    if "does not connect" not in error:
        raise RigError(f"refused for another reason: {error}")


def wrong_authority(act: Act) -> None:
    """The destination's certificate is one that anybody can make."""
    other = Authority(act.rig.folder / "other-authority")
    ask(act).equip(act.there, other)
    try:
        refused(act)
    finally:
        ask(act).equip(act.there)


def wrong_name(act: Act) -> None:
    """It is one of this authority, but of another host."""
    ask(act).equip(act.there, name="stranger")
    try:
        refused(act)
    finally:
        ask(act).equip(act.there)


def no_certificate(act: Act) -> None:
    """The destination has none: its QEMU doesn't start."""
    folder = ask(act).pki(act.there)
    folder.rename(folder.with_name("away"))
    try:
        act.start_migration()
        act.end_migration(stays=True)
    finally:
        folder.with_name("away").rename(folder)


def unconfirmed(act: Act) -> None:
    """Neither certificates nor --insecure: nothing is done, and it says what to do."""
    folder = ask(act).pki(act.here)
    folder.rename(folder.with_name("away"))
    try:
        code, _, error = ask(act).run_tool("migrate", NAME, act.there.uri)
        if code != FAILED or "--insecure" not in error:
            raise RigError(f"exit status {code}: {error}")
    finally:
        folder.with_name("away").rename(folder)
    ask(act).need_nothing_left()


def over_socket(act: Act) -> None:
    """Two hosts that share a folder: no port, no certificates."""
    folder = Path(SHARED) if rig.APPARMOR else act.rig.folder / "sockets"
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, QEMU_USER, QEMU_USER)
    act.start_migration("--socket", str(folder / "between"))
    act.end_migration()
    if left := list(folder.iterdir()):
        raise RigError(f"left over: {left}")


class Waiting:
    """Somebody on the destination's host, at the source's port all the time: from his own address,
    or from another one that the host has."""

    def __init__(self, act: Act, address: str = "") -> None:
        self._tool = subprocess.Popen(
            rig.netns(act.there.name, sys.executable, "-c", WAITING, act.here.address,
                      str(FIRST_PORT), address), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end(self) -> tuple[int, int]:
        """How often he got through, and how many bytes he got."""
        out, _ = self._tool.communicate(b"", 10)
        times, size = out.split()
        return int(times), int(size)


def need_nothing_got(who: Waiting, connects: bool) -> None:
    times, size = who.end()
    if size or (connects and not times):
        raise RigError(f"who waited at the source's port: connected {times} times, got {size} "
                       "bytes")


def strangers_insecure(act: Act) -> None:
    """Without TLS: one who is there before the destination is turned away, and does not take its
    place; once it is connected, nobody finds the port open."""
    host = act.there.name
    rig.ip(f"-n {host} addr add {OTHER_ADDRESS}/24 dev mgmt")
    try:
        waiting = Waiting(act, OTHER_ADDRESS)
        act.start_migration(*SLOW)
        act.await_migration("active")
        time.sleep(1)
        second = Waiting(act)
        act.end_migration()
        need_nothing_got(waiting, True)
        need_nothing_got(second, False)
    finally:
        rig.ip(f"-n {host} addr del {OTHER_ADDRESS}/24 dev mgmt")


def once(act: Act) -> None:
    """The destination is killed when all is complete: who waits behind it gets nothing."""
    command = ask(act)
    act.start_migration(*SLOW)
    act.await_migration("active")
    time.sleep(1)
    second = Waiting(act)
    command.hold_manager_at("completed")
    act.kill_destination()
    time.sleep(1)
    command.release_manager()
    act.end_migration(stays=True)
    need_nothing_got(second, False)


# ---- what can be killed

def tool_terminated(act: Act) -> None:
    """SIGTERM, in the middle."""
    act.start_migration(*SLOW)
    act.await_migration("active")
    time.sleep(1)
    ask(act).signal_tool(signal.SIGTERM)
    act.end_migration(stays=True)


def tool_killed(act: Act) -> None:
    """SIGKILL: virsh goes with it, libvirt cancels; the next one removes what was left."""
    command = ask(act)
    act.start_migration(*SLOW)
    act.await_migration("active")
    time.sleep(1)
    command.signal_tool(signal.SIGKILL)
    command.await_idle()
    code, out, error = command.run_tool("clean", NAME)
    if code != DONE or "handover-" not in out:
        raise RigError(f"clean: exit status {code}: {out} {error}")
    command.need_nothing_left()


def leader_killed(act: Act) -> None:
    """virsh, by SIGKILL."""
    act.start_migration(*SLOW)
    act.await_migration("active")
    ask(act).kill_leader()
    act.end_migration(stays=True)


def destination_killed(act: Act) -> None:
    """Its QEMU, in the middle."""
    act.start_migration(*SLOW)
    act.await_migration("active")
    time.sleep(1)
    act.kill_destination()
    act.end_migration(stays=True)


def no_destination(act: Act) -> None:
    """Nobody is at that URI."""
    code, _, error = ask(act).run_tool("migrate", NAME, "qemu+unix:///system?socket=/nowhere")
    if code != FAILED or "cannot connect" not in error:
        raise RigError(f"exit status {code}: {error}")
    ask(act).need_nothing_left()


def bad_option(act: Act) -> None:
    """virsh doesn't know it, after the source has been set up."""
    act.start_migration("--no-such-option")
    act.end_migration(stays=True)


# ---- pcap files

def frames(data: bytes) -> Iterator[tuple[float, bytes]]:
    """Of a pcap file, with the time when each passed."""
    if len(data) < PCAP_HEAD or struct.unpack_from("=I", data)[0] != 0xa1b2c3d4:
        raise RigError(f"not a pcap file: {data[:PCAP_HEAD]!r}")
    at = PCAP_HEAD
    while at + PACKET_HEAD <= len(data):
        size = struct.unpack_from("=I", data, at + 8)[0]
        second, micro = struct.unpack_from("=2I", data, at)
        yield second + micro / 1e6, data[at + PACKET_HEAD:at + PACKET_HEAD + size]
        at += PACKET_HEAD + size


def need_each_once(act: Act, data: bytes) -> dict[str, int]:
    """The client's to the guest, the client's to all, the guest's: numbered, each once, in order,
    none left out. Returns how many of each."""
    mac = bytes.fromhex(act.domain.mac(0).replace(":", ""))
    numbers: dict[str, list[int]] = {"to the guest": [], "to all": [], "from the guest": []}
    for _, frame in frames(data):
        if frame[12:14] != IPV4 or frame[23] != UDP or len(frame) < NUMBER.size + HEADERS:
            continue
        magic, _, number, _ = NUMBER.unpack_from(frame, HEADERS)
        port = int.from_bytes(frame[36:38], "big")
        way = "from the guest" if frame[6:12] == mac else \
            "to the guest" if frame[:6] == mac else "to all"
        if magic == guest.MAGIC and port in (load.FIRST_PORT, load.BROADCAST_PORT):
            numbers[way].append(number)
    for way, found in numbers.items():
        if len(found) < FEW or found != list(range(found[0], found[0] + len(found))):
            raise RigError(f"{way}: {len(found)} packets captured: {found[:20]}")
    return {way: len(found) for way, found in numbers.items()}


def need_packets(act: Act, data: bytes, seconds: float) -> None:
    """Those that the client sends to the guest: each once, at the time when it passed."""
    mac = bytes.fromhex(act.domain.mac(0).replace(":", ""))
    found = [(when, frame) for when, frame in frames(data) if frame[:6] == mac
             and frame[12:14] == IPV4 and frame[23] == UDP]
    act.notes.setdefault("captured", []).append(len(found))
    took = found[-1][0] - found[0][0] if found else 0
    if not 0.8 * seconds * STAYING_RATE < len(found) < 1.2 * took * STAYING_RATE or \
            len({frame for _, frame in found}) != len(found) or \
            abs(found[-1][0] - time.time()) > CAPTURE_S:
        raise RigError(f"{len(found)} packets in {took} s ({seconds} s, at {STAYING_RATE}/s), "
                       f"{len({frame for _, frame in found})} of them different")


def capture(act: Act) -> None:
    """To a file, ended by SIGTERM; to standard output, ended by SIGINT; killed, and cleaned up."""
    command = ask(act)
    path, inside = command.capture_file()
    for number, words in ((signal.SIGTERM, ("-w", inside)), (signal.SIGINT, ("-w", "-"))):
        with subprocess.Popen(command.tool("capture", NAME, *words), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tool:
            wait_until("the capture begins", lambda: tool.poll() is not None or command.added())
            time.sleep(CAPTURE_S)
            tool.send_signal(number)
            out, error = tool.communicate(timeout=10)
        if tool.returncode:
            raise RigError(f"capture: exit status {tool.returncode}: {error.decode()}")
        command.notes.setdefault("said", []).append(error.decode())
        need_packets(act, path.read_bytes() if "-" not in words else out, CAPTURE_S)
        command.need_nothing_left()
    with subprocess.Popen(command.tool("capture", NAME, "-w", inside),
                          stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tool:
        wait_until("the capture begins", command.added)
        tool.kill()
    if not command.added():
        raise RigError("a killed capture leaves nothing: then this tests nothing")
    code, said, text = command.run_tool("clean", NAME)
    if code:
        raise RigError(f"clean: exit status {code}: {said} {text}")
    command.need_nothing_left()


def capture_vhost(act: Act) -> None:
    """Of a guest whose packets the kernel carries; its QEMU has no privilege for it."""
    command = ask(act)
    need_vhost(command)
    path, inside = command.capture_file()
    with subprocess.Popen(command.tool("capture", NAME, "-w", inside),
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as tool:
        wait_until("the capture begins", lambda: tool.poll() is not None or command.added())
        time.sleep(LONG_CAPTURE_S)
        need_vhost(command)
        tool.send_signal(signal.SIGTERM)
        error = tool.communicate(timeout=10 * rig.SLOW)[1].decode()
    if tool.returncode:
        raise RigError(f"capture: exit status {tool.returncode}: {error}")
    command.notes["said"] = error
    command.notes["captured"] = need_each_once(act, path.read_bytes())
    command.need_nothing_left()
    need_vhost(command)


def need_vhost(command: Command) -> None:
    """The kernel has the card's queues; and who this QEMU is, that has it do so."""
    process = Path(f"/proc/{command.here.qemu_pid(NAME)}")
    opened = [os.readlink(path) for path in (process / "fd").iterdir()]
    status_ = dict(line.split(":\t", 1) for line in
                   (process / "status").read_text().splitlines() if ":\t" in line)
    found: dict[str, Any] = {key: status_[key] for key in ("Uid", "CapEff", "CapPrm", "Seccomp")}
    found["opened"] = opened.count(str(rig.VHOST))
    # An error where they are QEMU's. (Of the kernel's worker these namespaces see nothing.)
    found["queues"] = [command.here.qmp(NAME, {
        "execute": "x-query-virtio-vhost-queue-status", "arguments": {
            "path": "/machine/peripheral/net0/virtio-backend", "queue": queue}})["kick"]
        for queue in range(2)]
    command.notes["process"] = found
    if not found["opened"]:
        raise RigError(f"vhost does not run: {found}")
    if set(found["Uid"].split()) != {str(QEMU_USER)} or int(found["CapEff"], 16) or \
            int(found["CapPrm"], 16) or found["Seccomp"] != "2":
        raise RigError(f"QEMU has privileges: {found}")


def status(act: Act) -> None:
    """What is there, before and in the middle of a migration."""
    command = ask(act)
    if command.status()["redirectors"]:
        raise RigError("redirectors before the migration")
    act.start_migration(*SLOW)
    act.await_migration("active")
    found = command.status()
    if [item["phase"] for item in found["redirectors"]] != ["running"] or \
            "handover-net0" not in found["added"]:
        raise RigError(f"status: {found}")
    act.end_migration()


# ---- without libvirt

def need_direct(act: Act) -> Direct:
    if not isinstance(act, Direct):
        raise RigError("this is for QEMUs without libvirt")
    return act


def by_qmp(act: Act) -> None:
    """With TLS, there and back: to one that runs at once, and to one that waits for "cont"."""
    for paused in (False, True):
        need_direct(act).start_migration("--peer", act.there.name, paused=paused)
        act.end_migration()
        for item in act.notes["reports"][-1]["interfaces"]:
            if item["sent"] is None or item["sent"] != item["packets"]:
                raise RigError(f"both QEMUs stay, and should have told: {item}")
        act.settle()


def by_qmp_socket(act: Act) -> None:
    act.start_migration("--socket", str(act.rig.folder / "between"))
    act.end_migration()
    if left := list(act.rig.folder.glob("between*")):
        raise RigError(f"left over: {left}")


def by_qmp_insecure(act: Act) -> None:
    act.start_migration("--insecure")
    act.end_migration()


def by_qmp_refused(act: Act) -> None:
    """The destination's certificate has another name."""
    act.start_migration("--peer", "stranger")
    need_refused(act)


def by_qmp_terminated(act: Act) -> None:
    need_direct(act).start_migration("--peer", act.there.name, bandwidth_mib=SLOW_MIB)
    act.await_migration("active")
    time.sleep(1)
    need_direct(act).signal_tool(signal.SIGTERM)
    act.end_migration(stays=True)


def by_qmp_killed(act: Act) -> None:
    """The destination, in the middle."""
    need_direct(act).start_migration("--peer", act.there.name, bandwidth_mib=SLOW_MIB)
    act.await_migration("active")
    time.sleep(1)
    act.kill_destination()
    act.end_migration(stays=True)


def by_qmp_left(act: Act) -> None:
    """The destination, when both are complete: the program can't know that it ran nothing, and
    leaves the source as it is. Whoever knows says "cont" there: the guest gets all that the TAP's
    queue could take. (It stands still for more than two seconds.)"""
    direct = need_direct(act)
    direct.start_migration("--peer", act.there.name, bandwidth_mib=SLOW_MIB, paused=True)
    act.await_migration("active")
    direct.signal_tool(signal.SIGSTOP)
    act.await_migration("completed")
    act.kill_destination()
    direct.signal_tool(signal.SIGCONT)
    direct.need_report(LOST_GUEST, "unknown")
    direct.qmp(act.here, "cont")
