# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Who dropped the packets that are missing: the kernels' counters, on the hosts and in the guest.

What a drop at a TAP, whose queue was full, means depends on what its host is to the guest:
  running   the guest runs here and does not take what comes: so it would with no migration
  held      it runs here, but its QEMU takes over from its other host first
  stopped   it stands still here, or has left
  waiting   it is not here: what it is to get goes to its other host, these are copies
"""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import rig
from analyse import MS

LOOK_S = 0.02
RETURN_NS = 1000 * MS           # what a source takes back comes before what is new
SENDING_NS = 20 * MS            # from its time stamp until a packet is sent, on a busy machine
RX_DROP, TX_DROP = 3, 11        # columns of /proc/net/dev
RUNNING, HELD, STOPPED, WAITING = "running", "held", "stopped", "waiting"
TAKEN_OVER = "FILTER_REDIRECTOR_TAKEN_OVER"
TAP = "vnet"                    # as libvirt calls them

Key = tuple[str, int]           # a packet: its stream, its number


@dataclass
class Drop:
    """Packets that an interface dropped between two looks."""
    since_ns: int
    ns: int
    host: str
    interface: str
    packets: int
    state: str = ""


# ---- on the hosts

def parse_dev(text: str) -> dict[str, int]:
    """Dropped packets of each interface."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        columns = rest.split()
        found[name.strip()] = int(columns[RX_DROP]) + int(columns[TX_DROP])
    return found


def parse_softnet(text: str) -> int:
    """Packets that found a processor's queue full."""
    return sum(int(line.split()[1], 16) for line in text.splitlines())


class Watch(threading.Thread):
    """Looks at the interfaces until it is stopped: a TAP goes with its QEMU."""

    def __init__(self, the_rig: rig.Rig) -> None:
        super().__init__(daemon=True)
        # A process in each network. The switches are in the rig's own.
        self._files = {host.name: Path(f"/proc/{host.process.pid}/net/dev")
                       for host in the_rig.hosts}
        self._files["switches"] = Path("/proc/self/net/dev")
        self._seen: dict[tuple[str, str], int] = {}
        self._looked_ns = 0
        self._end = threading.Event()
        self.drops: list[Drop] = []
        self.softnet = 0

    def _look(self) -> None:
        start = time.time_ns()
        for host, path in self._files.items():
            dropped = parse_dev(path.read_text())
            now = time.time_ns()
            for name, count in dropped.items():
                before = self._seen.get((host, name), 0)
                self._seen[(host, name)] = count
                if count > before:
                    self.drops.append(Drop(self._looked_ns, now, host, name, count - before))
        self._looked_ns = start

    def run(self) -> None:
        softnet = Path("/proc/net/softnet_stat")
        before = parse_softnet(softnet.read_text())
        self._look()
        self.drops.clear()      # those were before
        while not self._end.wait(LOOK_S):
            self._look()
        self._look()
        self.softnet = parse_softnet(softnet.read_text()) - before

    def stop(self) -> None:
        if self.is_alive():
            self._end.set()
            self.join()

    def told(self, events: list[rig.Event], with_handover: bool) -> list[Drop]:
        """What was dropped, and what the host was to the guest at that time."""
        for drop in self.drops:
            drop.state = state_of(drop, events, with_handover)
        return self.drops


def state_of(drop: Drop, events: list[rig.Event], with_handover: bool) -> str:
    state, until = WAITING, 0
    booted = False      # the guest's first start takes nothing over
    ended = False       # a QEMU that was told to can still hand over what comes
    for event in events:
        if event.ns > drop.ns:
            break
        if event.host == drop.host and event.name == "RESUME":
            held = with_handover and booted
            until = event.ns + RETURN_NS if held and state == STOPPED else 0
            state = HELD if held else RUNNING
        elif event.host == drop.host and event.name == "STOP":
            state = STOPPED
        elif event.host == drop.host and event.name == "SHUTDOWN":
            ended = True
        elif event.host == drop.host and event.name == "MIGRATION" and ended:
            state, ended = WAITING, False
        elif event.host == drop.host and event.name == TAKEN_OVER and state == HELD:
            state = RUNNING
        booted |= event.name == "RESUME"
    return RUNNING if state == HELD and 0 < until < drop.ns else state


def match(missing: dict[Key, int], drops: list[Drop]) -> dict[str, set[Key]]:
    """Which of the missing packets (and when each was sent) were dropped at a TAP, by its state.

    Between client and TAP nothing waits: a packet is dropped there when it is sent. A drop
    explains no more packets than it has counted.
    """
    found: dict[str, set[Key]] = {RUNNING: set(), HELD: set(), STOPPED: set()}
    left = sorted((ns, key) for key, ns in missing.items())
    at = 0
    for drop in sorted(drops, key=lambda drop: drop.ns):
        if drop.state not in found or not drop.interface.startswith(TAP):
            continue
        while at < len(left) and left[at][0] < drop.since_ns - SENDING_NS:
            at += 1
        end = at
        while end < len(left) and left[end][0] <= drop.ns and end - at < drop.packets:
            found[drop.state].add(left[end][1])
            end += 1
        at = end
    return found


# ---- in the guest

@dataclass
class GuestCounters:
    sockets: Counter[int] = field(default_factory=Counter)      # by port
    cards: int = 0
    softnet: int = 0

    def dropped(self, port: int, flows: int) -> int:
        """At these ports' sockets. What is dropped before is any stream's: it counts as lost."""
        return sum(self.sockets[port + flow] for flow in range(flows))


def parse_guest(text: str) -> GuestCounters:
    """What "traffic counters" has said."""
    files: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        files.setdefault(name, []).append(rest)
    sockets: Counter[int] = Counter()
    for line in files["udp"][1:]:
        words = line.split()
        sockets[int(words[1].split(":")[1], 16)] += int(words[-1])
    cards = parse_dev("\n".join(files["dev"]))
    return GuestCounters(sockets, sum(cards.values()),
                         parse_softnet("\n".join(files["softnet_stat"])))
