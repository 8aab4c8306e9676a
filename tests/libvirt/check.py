#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""A Linux guest is migrated by real libvirt, from host to host, while packets are sent to it.

  check.py list             names the scenarios
  check.py check            the short set that "make check" runs; writes build/check/libvirt.tap
  check.py sweep            all scenarios, and several rates
  check.py demo             what a user gets: BUILD/demo has a table and a plot
  check.py run SCENARIO..   these; NAME-RATE is one at another packet rate
  check.py shell            a prompt among the hosts; $A and $B are their URIs for virsh -c

Each run's packets, logs and counts are in BUILD/libvirt/SCENARIO, the table in
BUILD/libvirt/table.txt; where the guest moves more than once, each move's in moves.txt. Options:
--build DIR, --qemu FILE, --count N (each scenario N times), --moves N (of "there-and-back"),
--made (what the guest boots is there: in the lab).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True      # nothing of ours lands beside the sources
HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
sys.path[1:1] = [str(TOP / "tests/lab"), str(TOP / "scripts")]
import demo  # noqa: E402
import rig  # noqa: E402
import scenarios  # noqa: E402
import table  # noqa: E402
from counters import Watch  # noqa: E402
from domain import NAME, GuestImage, install  # noqa: E402
from image import LabError  # noqa: E402
from load import Load  # noqa: E402
from scenarios import Scenario  # noqa: E402
from tap import Group  # noqa: E402

GROUP = "libvirt"
BEFORE_S = 2.0
AFTER_S = 4.0
NO_VHOST = "no vhost-net here; see: make lab SCENARIO=libvirt"
PROMPT_MS = 100             # beyond the time that the guest stood still


def run_scenario(the_rig: rig.Rig, image: GuestImage, scenario: Scenario, moves: int,
                 folder: Path) -> dict[str, Any]:
    """Runs it; its result is also in folder/result.json."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    act = scenario.actor(the_rig, scenario.domain, scenario.handover, folder / "virsh.log")
    act.wanted = moves
    load = Load(image.traffic, folder, scenario.domain, scenario.rate, scenario.broadcasts)
    result: dict[str, Any] = {"scenario": scenario.name, "rate": scenario.rate, "error": ""}
    for host in the_rig.hosts:
        host.mark_log()
    watch = Watch(the_rig)
    try:
        act.boot()
        watch.start()
        load.start()
        time.sleep(BEFORE_S)
        scenario.act(act)
        act.await_running()
        if rig.APPARMOR:
            act.need_confined()
        time.sleep(AFTER_S)
        load.stop()
        watch.stop()
        drops = watch.told(act.events(), scenario.handover)
        result["moves"] = act.moves()
        result["streams"] = load.figures(result["moves"], drops)
        result["drops"] = [asdict(drop) for drop in drops]
        result["softnet_drops"] = watch.softnet
    except rig.RigError as error:
        result["error"] = str(error)
    finally:
        load.kill()
        watch.stop()
        result["events"] = [(event.host, event.name, event.ns, event.data)
                            for event in act.events()]
        result["notes"] = act.notes
        act.destroy()
        keep_logs(the_rig, folder)
    if "streams" in result:
        (folder / "moves.txt").write_text(table.moves_table(result) + "\n")
    result["checks"] = judge(scenario, result, act.spares)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def keep_logs(the_rig: rig.Rig, folder: Path) -> None:
    for host in the_rig.hosts:
        (folder / f"{host.name}-libvirtd.log").write_text(host.log_since_mark())
        log = host.folder / f"var/log/libvirt/qemu/{NAME}.log"
        if log.exists():
            shutil.move(log, folder / f"{host.name}-qemu.log")
    serial = the_rig.folder / "serial"
    if serial.exists():
        shutil.copyfile(serial, folder / "serial")


def judge(scenario: Scenario, result: dict[str, Any],
          spares_running: bool) -> list[tuple[str, bool]]:
    """What has to hold; everything else is only told."""
    if result["error"]:
        return [(result["error"], False)]
    checks = [("the guest does not start anew",
               not any(name == "RESET" for _, name, _, _ in result["events"]))]
    if scenario.lossless and scenario.handover:
        checks.append(("none of the guest's own frames comes back",
                       result["streams"]["own"]["frames"] == 0))
    for name, stream in streams_of(result).items():
        if scenario.handover or name != "multicast":    # who is no member any more gets nothing
            checks.append((f"{name}: packets arrive at the end", stream["lost_at_end"] == 0))
        checks += [(f"{name}: none damaged", stream["damaged"] == 0),
                   (f"{name}: the guest's clock tells of no packet before it was sent",
                    stream["delay_ms"]["p50"] >= 0)]
        if scenario.lossless and spares_running:
            checks += [(f"{name}: none {what}", stream[key] == 0) for key, what in
                       (("lost", "lost"), ("duplicated", "doubled"),
                        ("reordered", "out of order"), ("stale", "stale"))]
            answers = stream.get("from_guest")
            if answers:
                checks += [(f"{name}: from the guest, {answers['sent']} sent: none {what}",
                            answers[key] == 0) for key, what in
                           (("lost", "lost"), ("duplicated", "doubled"),
                            ("reordered", "out of order"))]
        if scenario.prompt:
            limit = table.stopped_ms(result) + PROMPT_MS
            checks.append((f"{name}: none on its way for more than {limit:.0f} ms",
                           stream["latency_ms"]["p100"] <= limit))
    return checks


def streams_of(result: dict[str, Any]) -> dict[str, Any]:
    return {name: stream for name, stream in result["streams"].items() if name != "own"}


def set_up(build: Path, qemu: Path) -> tuple[rig.Rig, GuestImage]:
    image = GuestImage(build / "lab", qemu)
    folder = rig.inside()
    assert folder
    the_rig = rig.Rig(folder, qemu)
    install(image, the_rig.folder)
    return the_rig, image


def shell(build: Path, qemu: Path) -> int:
    the_rig, _ = set_up(build, qemu)
    uris = {name: host.uri for name, host in zip("AB", the_rig.hosts)}
    return subprocess.run([os.environ.get("SHELL", "/bin/sh")], cwd=the_rig.folder, check=False,
                          env={**os.environ, **uris}).returncode


def run_demo(build: Path, qemu: Path, count: int) -> int:
    target = build / "demo"
    shutil.rmtree(target, ignore_errors=True)
    the_rig, image = set_up(build, qemu)
    runs: dict[str, list[demo.Run]] = {name: [] for name in demo.SCENARIOS}
    bad = []
    for number in range(1, count + 1):
        for name, title in demo.SCENARIOS.items():
            folder = target / f"{name}-{number}"
            result = run_scenario(the_rig, image, scenarios.named(name),
                                  scenarios.MOVES, folder)
            print(f"{title}, {number} of {count}: {table.one_line(result)}", flush=True)
            bad += [f"{folder.name}: {text}" for text, good in result["checks"] if not good]
            if "streams" in result:
                runs[name].append((folder, result))
    if all(runs.values()):
        print(f"\n{demo.report(runs, target)}")
    for text in bad:
        print(f"NOT OK {text}")
    return 1 if bad else 0


def run_all(chosen: list[Scenario], count: int, moves: int, build: Path, qemu: Path) -> int:
    folder = build / "libvirt"
    group = Group(GROUP)
    results = []
    the_rig, image = set_up(build, qemu)
    for scenario in chosen:
        for number in range(1, count + 1):
            if scenario.domain.vhost and not rig.VHOST.exists():
                print(f"skipped {scenario.name}: {NO_VHOST}")
                group.add(scenario.name, True, NO_VHOST, skipped=True)
                continue
            name = scenario.name + (f"#{number}" if count > 1 else "")
            result = run_scenario(the_rig, image, scenario, moves, folder / name)
            results.append(result)
            bad = [text for text, good in result["checks"] if not good]
            line = table.one_line(result)
            print(f"{'NOT OK' if bad else 'ok'} {name}: {line}", *bad, sep="\n    ", flush=True)
            group.add(f"{scenario.name}: {line}", not bad, "\n".join(bad))
            (folder / "table.txt").write_text(table.table(results) + "\n")
            if len(result.get("moves", ())) > 1:
                print((folder / name / "moves.txt").read_text(), flush=True)
    print(f"\n{table.table(results)}")
    return group.write()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("list", "check", "sweep", "demo", "run", "shell"))
    parser.add_argument("scenario", nargs="*")
    parser.add_argument("--build", type=Path, default=TOP / "build")
    parser.add_argument("--qemu", type=Path)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--made", action="store_true")
    parser.add_argument("--moves", type=int, default=scenarios.MOVES)
    return parser.parse_intermixed_args()


def main() -> int:
    args = arguments()
    if args.what == "list":
        print(*scenarios.BY_NAME, sep="\n")
        return 0
    qemu = args.qemu or args.build / "qemu-system-x86_64"
    try:
        chosen = {"check": scenarios.SHORT, "sweep": scenarios.SWEEP}.get(
            args.what, [scenarios.named(name) for name in args.scenario])
        if not rig.inside():
            if (why := rig.why_not()) and args.what == "demo":
                print(f"* no migrations by libvirt: {why}")
                return 0
            if why:
                print(f"* {GROUP}: skipped: {why}")
                group = Group(GROUP)
                group.add(GROUP, True, why, skipped=True)
                return group.write()
            if not args.made:
                GuestImage(args.build / "lab", qemu).make()     # there is no network inside
            return rig.enter()
        if args.what == "shell":
            return shell(args.build, qemu)
        if args.what == "demo":
            return run_demo(args.build, qemu, args.count or demo.COUNT)
        return run_all(chosen, args.count or 1, args.moves, args.build, qemu)
    except (rig.RigError, LabError) as error:
        print(f"check.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
