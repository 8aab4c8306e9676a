# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Migrations in a row with the manual's steps, or with none (late=off): each one drawn from a seed.

Drawn are the rate, multifd and postcopy, how long traffic flows before, and whether the migration
completes, is cancelled or fails.
"""

import random
import time

PARAMETERS = {"rounds": 6, "seed": 1, "flooded": 0, "before": 0.3, "after": 0.3}
TIME_LIMIT_S = 1800
MOST_GAP_MS = 5000
RATES = (500, 1000, 2000, 4000, 8000)
ENDINGS = ("completed",) * 7 + ("cancelled", "failed")
CAPABILITIES = ("", "", "multifd", "postcopy-ram")


def draw(dice, rounds):
    """Each round: rate, capability, ending, pause. Enough are completed; a postcopy has no ending
    but that.

    With multifd none fails. QEMU's multifd_send_sync_main() waits for its channels with the BQL
    held: seen with 10.2.2, which answers no QMP any more in one of four migrations whose
    destination is killed at the switchover, without any netdev or redirector.
    """
    for _ in range(rounds):
        capability = dice.choice(CAPABILITIES)
        ending = "completed" if capability == "postcopy-ram" else dice.choice(ENDINGS)
        if capability == "multifd" and ending == "failed":
            ending = "cancelled"
        yield dice.choice(RATES), capability, ending, round(dice.uniform(0, 0.5), 2)


def move(lab, here, there, capability, ending):
    """One migration; returns where the guest is then."""
    if capability:
        for vm in (here, there):
            vm.qmp("migrate-set-capabilities",
                   capabilities=[{"capability": capability, "state": True}])
    if ending != "completed":
        started = lab.hold_switchover(here, there)
        if ending == "failed":
            there.kill()
            here.qmp("migrate-continue", state="pre-switchover")
        else:
            here.qmp("migrate_cancel")
        lab.guest_stays(here, started)
        return here
    if capability == "postcopy-ram":
        here.qmp("migrate-set-parameters", max_bandwidth=1 << 20)
    started = lab.start_migration(here, there)
    if capability == "postcopy-ram":
        time.sleep(0.3)
        here.qmp("migrate-start-postcopy")
    lab.finish_migration(here, there, started)
    if lab.late:
        lab.announce(here, there)
    else:
        there.qmp.event("FILTER_REDIRECTOR_TAKEN_OVER", 10, started)
        here.qmp.event("FILTER_REDIRECTOR_HANDED_OVER", 10, started)
    return there


def tidy(lab, stays, goes):
    """The guest is at `stays`, which gets rid of all that the migration needed."""
    lab.end(goes)
    stays.qmp("object-del", id="handover")
    stays.qmp("chardev-remove", id="handover")
    if lab.late:
        lab.learn(stays)
    for capability in ("multifd", "postcopy-ram", "pause-before-switchover"):
        stays.qmp("migrate-set-capabilities",
                  capabilities=[{"capability": capability, "state": False}])
    stays.qmp("migrate-set-parameters", max_bandwidth=1 << 40)


def run(lab):
    dice = random.Random(lab.seed)
    lab.network(("src0", "dst0"))
    here = lab.source()
    lab.fetch_memory()
    lab.start_traffic()
    lab.check_vhost_carries(here)
    rounds = list(draw(dice, lab.rounds))
    for number, (rate, capability, ending, pause) in enumerate(rounds, 1):
        lab.mark(f"round {number}: {rate} packets/s {capability} {ending}")
        path = f"/run/handover{number}.sock"
        there = lab.destination(f"vm{number}", "dst0" if here.tap == "src0" else "src0")
        if lab.late:
            lab.inject_end(there, path)
            lab.hold_announcement(there)
        else:
            lab.hold_end(there, path)
        lab.handover_end(here, path)
        lab.change_rate(rate)
        time.sleep(lab.before + pause)
        stays = move(lab, here, there, capability, ending)
        time.sleep(lab.after)
        tidy(lab, stays, there if stays is here else here)
        here = stays
    lab.note("completed", sum(ending == "completed" for _, _, ending, _ in rounds))
    lab.check_vhost_carries(here)
    lab.stop_traffic()


def judge(result):
    from verdict import every_packet_once, handed_over  # of tests/lab: only on the outside

    judge_all = handed_over if result["parameters"]["late"] else every_packet_once
    want = result["parameters"]["rounds"]
    gap = result["longest_gap_ms"]
    return [(f"{len(result['moves'])} of {want} rounds, "
             f"{result['notes']['completed']} migrations completed", len(result["moves"]) == want),
            # A migration without traffic would show nothing.
            (f"packets came all the time, but for {gap:.0f} ms", gap < MOST_GAP_MS),
            *judge_all(result)]
