# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What is done with the guest while packets are sent to it. A new case: a function, a line below.

An action gets a running guest with packets flowing (act.Act) and leaves it running somewhere.
"""

import fcntl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import commands
from act import Act
from commands import STAYING_RATE
from command import Command, Insecure, Unequipped
from direct import Direct
from domain import NAME, Domain
from rig import RigError

SLOW_MIB_S = 20             # a bandwidth at which a migration takes some seconds
SUSPEND_AFTER_S = 2
SLOW_MANAGER_S = 1.0
MOVES = 10                  # of "there-and-back"
STAY_S = 5.0
PAUSE_S = 0.2
PAUSE_QUEUE = 10000         # packets
IDLE_MOVES, IDLE_S = 3, 4.0
IDLE_RATE = 2
SLOW_RATE = 100             # what an emulated guest takes on an emulated host


def stay(act: Act) -> None:
    """Nothing happens: what the guest takes on this machine."""
    time.sleep(STAY_S)


def pause(act: Act) -> None:
    """The guest only stands still, for about as long as in a move: what it needs afterwards to take
    what has come. (A longer queue keeps that; a hand-over has room for it elsewhere.)"""
    act.lengthen_queues(PAUSE_QUEUE)
    for _ in range(act.wanted):
        act.here.virsh("suspend", NAME)
        time.sleep(PAUSE_S)
        act.here.virsh("resume", NAME)
        act.settle()


def move(act: Act) -> None:
    act.migrate()


def move_installed(act: Act) -> None:
    """Its screen is there before and after. (Its disk is no shared one in libvirt's eyes.)"""
    act.need_screen()
    act.migrate("--unsafe")
    act.need_screen()


def there_and_back(act: Act) -> None:
    for _ in range(act.wanted):
        act.migrate()
        act.settle()


def idle(act: Act) -> None:
    """Hardly a packet: one that waits for the next one to wake the guest would be late."""
    for _ in range(IDLE_MOVES):
        act.migrate()
        time.sleep(IDLE_S)


def suspend(act: Act) -> None:
    """virsh stops the guest when the migration takes too long; the destination runs it."""
    act.migrate("--bandwidth", str(SLOW_MIB_S), "--timeout", str(SUSPEND_AFTER_S),
                "--timeout-suspend")


def left_paused(act: Act) -> None:
    """Somebody lets the guest run by hand, later."""
    act.migrate("--suspend")
    time.sleep(SLOW_MANAGER_S)
    act.here.virsh("resume", NAME)


def multifd(act: Act) -> None:
    act.migrate("--parallel")


def postcopy(act: Act) -> None:
    act.migrate("--bandwidth", str(SLOW_MIB_S), "--postcopy", "--timeout", "1",
                "--timeout-postcopy")


def cancel(act: Act) -> None:
    act.start_migration("--bandwidth", str(SLOW_MIB_S))
    act.await_migration("active")
    time.sleep(1)
    act.here.virsh("domjobabort", NAME)
    act.end_migration(stays=True)


def slow_manager(act: Act) -> None:
    """Nothing fails, but it takes long until the destination is told to run."""
    act.start_migration()
    act.hold_manager_at("completed")
    time.sleep(SLOW_MANAGER_S)
    act.release_manager()
    act.end_migration()


def killed_at_switchover(act: Act) -> None:
    """The source's guest has stopped, the destination is not complete yet."""
    act.start_migration()
    act.await_stop()
    act.kill_destination()
    act.end_migration(stays=True)


def killed_before_cont(act: Act) -> None:
    """Both sides are complete, nobody has told the destination to run."""
    act.start_migration()
    act.hold_manager_at("completed")
    act.kill_destination()
    act.release_manager()
    act.end_migration(stays=True)


def cont_fails(act: Act) -> None:
    """The destination's disk, a file of its own, is locked: its QEMU refuses to run."""
    act.start_migration("--unsafe")
    act.await_migration("active")
    with act.disk(act.there).open("r+b") as disk:
        fcntl.lockf(disk, fcntl.LOCK_EX | fcntl.LOCK_NB)
        act.end_migration(stays=True)


@dataclass(frozen=True)
class Scenario:
    name: str
    act: Callable[[Act], None]
    handover: bool = False
    domain: Domain = Domain()
    rate: int = 1000            # unicast packets a second, to each network card
    broadcasts: int = 100       # broadcast packets a second
    lossless: bool = False      # judged: every packet once, in order
    prompt: bool = False        # judged: none waits for much longer than the guest stood still
    actor: type[Act] = Act      # by virsh, or by our command

    def at(self, rate: int) -> "Scenario":
        return replace(self, name=f"{self.name}-{rate}", rate=rate)


def both(name: str, act: Callable[[Act], None], **more: Any) -> list[Scenario]:
    """As stock QEMU does it, and with the hand-over, which loses nothing."""
    lossless: dict[str, Any] = {"lossless": True}
    return [Scenario(f"stock-{name}", act, False, **more),
            Scenario(f"handover-{name}", act, True, **lossless | more)]


def handed_over(name: str, act: Callable[[Act], None], **more: Any) -> Scenario:
    return both(name, act, **more)[1]


def failing(name: str, act: Callable[[Act], None], **more: Any) -> list[Scenario]:
    """The guest stays where it is and loses nothing. A rate at which its TAP's queue holds what
    comes while it stands still. With the hand-over, what is taken after the migration has
    completed comes back."""
    stock, taken = both(name, act, rate=STAYING_RATE, broadcasts=STAYING_RATE // 10, **more)
    return [replace(stock, lossless=True), taken]


def command(name: str, act: Callable[..., None], **more: Any) -> Scenario:
    """By the one command that users have: all that virsh does, and nothing left behind."""
    usual: dict[str, Any] = {"lossless": True, "actor": Command, "rate": STAYING_RATE}
    return Scenario(f"command-{name}", act, True, **usual | more)


WITH_DISK = Domain(disk=True)
GROUP, GROUP_6 = "239.1.2.3", "ff15::1:2:3"
# A guest that does not say at its new host what it is a member of, as Linux does for virtio.
SILENT = ("-global", "virtio-net-pci.guest_announce=off")
SCENARIOS = [
    Scenario("stay", stay),
    Scenario("pause", pause),
    *both("move", move),
    *both("there-and-back", there_and_back),
    *both("preallocated", there_and_back, domain=Domain(preallocated=True)),
    *both("suspend", suspend, lossless=False),
    *both("left-paused", left_paused, lossless=False),
    *both("slow-manager", slow_manager),
    *both("multifd", multifd),
    *both("postcopy", postcopy),
    *failing("cancel", cancel),
    *failing("cont-fails", cont_fails, domain=WITH_DISK),
    *failing("killed-before-cont", killed_before_cont),
    *failing("killed-at-switchover", killed_at_switchover),
    *both("two-cards", move, domain=Domain(cards=2)),
    *both("two-queues", move, domain=Domain(queues=2)),
    *both("idle", idle, rate=IDLE_RATE, broadcasts=IDLE_RATE, prompt=True),
    handed_over("ipv6", move, domain=Domain(kernel="ipv6=1")),
    handed_over("packed-ring", move, domain=Domain(driver="packed='on'")),
    handed_over("no-event-idx", move, domain=Domain(driver="event_idx='off'")),
    handed_over("intx", move, domain=Domain(kernel="pci=nomsi")),
    *both("virt-install", move_installed, domain=Domain(installed=True)),
    command("move", move),
    command("move-insecure", move, actor=Insecure),
    command("socket", commands.over_socket, actor=Unequipped),
    command("twice", commands.twice),
    command("two-cards", move, domain=Domain(cards=2)),
    command("virt-install", move_installed, domain=Domain(installed=True)),
    command("status", commands.status),
    command("capture", commands.capture),
    command("capture-vhost", commands.capture_vhost, domain=Domain(vhost=True), rate=SLOW_RATE,
            broadcasts=SLOW_RATE // 10),
    command("move-vhost", move, domain=Domain(vhost=True), rate=SLOW_RATE,
            broadcasts=SLOW_RATE // 10),
    command("strangers", commands.strangers),
    command("strangers-insecure", commands.strangers_insecure, actor=Insecure),
    command("once-insecure", commands.once, actor=Insecure),
    command("wrong-authority", commands.wrong_authority),
    command("wrong-name", commands.wrong_name),
    command("no-certificate", commands.no_certificate),
    command("unconfirmed", commands.unconfirmed),
    command("no-destination", commands.no_destination),
    command("bad-option", commands.bad_option),
    command("cancel", cancel),
    command("tool-terminated", commands.tool_terminated),
    command("tool-killed", commands.tool_killed),
    command("virsh-killed", commands.leader_killed),
    command("destination-killed", commands.destination_killed),
    command("killed-at-switchover", killed_at_switchover),
    command("killed-before-cont", killed_before_cont),
    command("cont-fails", cont_fails, domain=WITH_DISK),
    command("qmp", commands.by_qmp, actor=Direct),
    command("qmp-two-cards", commands.by_qmp, actor=Direct, domain=Domain(cards=2)),
    command("qmp-socket", commands.by_qmp_socket, actor=Direct),
    command("qmp-insecure", commands.by_qmp_insecure, actor=Direct),
    command("qmp-refused", commands.by_qmp_refused, actor=Direct),
    command("qmp-terminated", commands.by_qmp_terminated, actor=Direct),
    command("qmp-destination-killed", commands.by_qmp_killed, actor=Direct),
    command("qmp-killed-before-cont", commands.by_qmp_left, actor=Direct, rate=200),
    *both("guest-bridge", move, domain=Domain(behind="bridge"), lossless=False),
    *both("macvlan", move, domain=Domain(behind="macvlan")),
    *both("multicast", move, domain=Domain(group=GROUP)),
    *both("multicast-silent", move, domain=Domain(group=GROUP, options=SILENT)),
    *both("multicast-ipv6", move, domain=Domain(group=GROUP_6, kernel="ipv6=1")),
    *both("multicast-ipv6-silent", move,
          domain=Domain(group=GROUP_6, kernel="ipv6=1", options=SILENT)),
]
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
# At a rate that a slow, busy machine takes, too: a TAP's queue holds what comes in five seconds.
SHORT = [BY_NAME[name].at(200) for name in
         ("handover-move", "handover-two-cards", "handover-two-queues", "handover-cont-fails",
          "handover-killed-before-cont", "handover-killed-at-switchover", "command-move",
          "command-tool-terminated")]
RATES = (200, 1000, 3000, 10000)
# All of the above; the plain move at several rates.
SWEEP = [scenario for scenario in SCENARIOS if scenario.act is not move or
         scenario.domain != Domain()] + \
        [BY_NAME[f"{how}-move"].at(rate) for rate in RATES for how in ("stock", "handover")]


def named(name: str) -> Scenario:
    """A scenario, or one at another rate: NAME-RATE."""
    stem, _, rate = name.rpartition("-")
    if name in BY_NAME:
        return BY_NAME[name]
    if stem in BY_NAME and rate.isdigit():
        return BY_NAME[stem].at(int(rate))
    raise RigError(f"no scenario '{name}'; there are: {', '.join(BY_NAME)}; "
                   "NAME-RATE is one at another rate")
