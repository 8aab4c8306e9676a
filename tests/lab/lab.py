#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The vhost-net lab: a virtual host with real vhost-net, in which scenarios run.

  lab.py list                         scenarios, one a line
  lab.py run SCENARIO [name=value..]  run one; its files go to BUILD/lab/SCENARIO
  lab.py shell                        a prompt inside
  lab.py image                        only make what the lab boots
  lab.py check [name=value..]         the scenarios of "make check", TAP output
  lab.py demo [name=value..]          migrations with and without redirector, a table and a plot
  lab.py sweep [SCENARIO..] [name=value,value..]
                                      each scenario with each combination of the values; without
                                      any, the table of the documentation (half an hour): a table,
                                      the bad ones first, in BUILD/lab/sweep after each run

Options: --build DIR (default build), --qemu FILE (default BUILD/qemu-system-x86_64), --count N (of
a sweep: each run N times).
"""

import argparse
import ast
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True      # nothing of ours lands beside the sources
import analyse  # noqa: E402
import report  # noqa: E402
from cpio import Archive  # noqa: E402
from image import HERE, Image, LabError, say  # noqa: E402
from guest import SPARE_WORK  # noqa: E402  (image makes it importable)
sys.path.append(str(HERE.parent / "libvirt"))
from in_lab import LabPart  # noqa: E402

SCENARIOS = HERE / "scenarios"
MANUAL = HERE.parent.parent / "docs/system/filter-redirector.rst"
MEMORY_MIB = 1536
RESULT_DISK_BYTES = 1 << 30     # sparse
BOOT_LIMIT_S = 90               # until the lab's first line
TIME_LIMIT_S = 300              # of a whole run, unless the scenario sets its own
KVM_PROBE_S = 10
CONSOLE_TAIL = 40
DIAGNOSIS_HEAD = 40
MAX_QUEUES = 8

# What every scenario can be given; a scenario's own PARAMETERS come on top.
PARAMETERS: dict[str, Any] = {
    "guest": "program", # a program that needs no processor; or "linux", which is emulated
    "rate": 5000,       # packets a second to the guest
    "back": 200,        # packets a second from the guest
    "size": 200,        # bytes of UDP payload; above 1472: TCP super-packets (program only)
    "flooded": 10,      # of each 100 packets, so many are broadcast (program only)
    "queue": 10000,     # txqueuelen of the TAPs; the kernel's default is 1000
    "before": 1.5,      # seconds of traffic before the scenario acts
    "after": 2.0,       # seconds of traffic after it acted
    "late": True,       # announce a moved guest only after the backlog was handed over; else the
                        # destination holds back what comes directly until then
    "switch": "bridge", # Linux' bridge, a "hub" that never learns, or "openvswitch"
    "tap": "tap",       # or "macvtap": above an interface that is at the switch; one queue
    "queues": 1,        # queue pairs of guest and TAP; with several, traffic of several flows
    "spoil": "",        # "drop=N", "swap=N": what the hand-over's stream does to every Nth packet
    "vhost": True,      # off only to see the checks fail
}
CHOICES = {"guest": ("program", "linux"), "switch": ("bridge", "hub", "openvswitch"),
           "tap": ("tap", "macvtap")}
# What an emulated guest can do, and the time it needs.
LINUX = {"guest": "linux", "rate": 200, "back": 20, "before": 3.0, "after": 6.0}
DEMO = ("migrate-stock", "migrate-handover", "migrate-capture")
# What "make check" runs: scenarios, with parameters other than their own. A few with Linux, whose
# network stack is as real as it gets; what needs rates, and all that is about order, with the program.
CHECKED = (
    "capture", "manual", "migrate-handover guest=linux", "unprivileged",
    "qtest", "receive rate=20000", "inject", "multiqueue",
    "migrate-stock", "migrate-handover", "migrate-handover size=65481 rate=500",
    "migrate-capture", "migrate-cancel", "migrate-fail", "migrate-postcopy", "migrate-multifd",
    "migrate-killed", "migrate-libvirt", "migrate-libvirt announcement=never",
    "migrate-libvirt announcement=late", "migrate-libvirt rate=2 flooded=0 back=2",
    # Not switch=openvswitch: that may put packets out of order by itself, at any time.
    "migrate-libvirt overtaken=3", "migrate-libvirt switch=hub", "migrate-libvirt tap=macvtap",
    "migrate-handover late=off queues=4", "migrate-resumed",
    "migrate-many", "spoilt", "spoilt spoil=swap=997", "libvirt apparmor=on",
    "libvirt which=command-move-vhost apparmor=on",
)
# What "make lab-sweep" runs when not told: the table of docs/robustness.md.
SWEEP = (
    *(f"{name} rate={rate} queue={queue}" for rate in (1000, 5000, 10000, 20000)
      for queue in (1000, 10000)
      for name in ("migrate-stock", "migrate-handover", "migrate-libvirt")),
    *(f"{name} size=65481 rate=500" for name in ("migrate-stock", "migrate-handover",
                                                 "migrate-libvirt")),
    "migrate-stock queues=4", "migrate-libvirt queues=4", "migrate-capture",
    "migrate-capture queues=4", "migrate-cancel", "migrate-fail", "migrate-postcopy",
    "migrate-multifd", "migrate-killed",
    "migrate-many rounds=100",
)


# What the kernel says of what AppArmor refuses is in dmesg.txt.
WITH_APPARMOR = "apparmor=1 security=apparmor audit=1"
PANIC = "Kernel panic"

# What a scenario can set for those who run it: parameters, seconds, programs of QEMU's build
# folder that it needs inside (in /lab), and larger parts: "libvirt".
CONSTANTS = ("PARAMETERS", "TIME_LIMIT_S", "PROGRAMS", "PARTS")


def scenario_names() -> list[str]:
    return sorted(path.stem for path in SCENARIOS.glob("*.py"))


def scenario_path(name: str) -> Path:
    if name not in scenario_names():
        raise LabError(f"no scenario '{name}'; there are: {', '.join(scenario_names())}")
    return SCENARIOS / f"{name}.py"


def scenario_constants(name: str) -> dict[str, Any]:
    """A scenario's docstring and the CONSTANTS among its constants, without running it."""
    tree = ast.parse(scenario_path(name).read_text())
    found: dict[str, Any] = {"__doc__": ast.get_docstring(tree) or ""}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) \
                and node.targets[0].id in CONSTANTS:
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def parts_of(scenario: str) -> tuple[str, ...]:
    return tuple(scenario_constants(scenario).get("PARTS", ())) if scenario else ()


def parameters_of(name: str, given: list[str]) -> dict[str, Any]:
    """Defaults, the scenario's own, then what the user gave as name=value."""
    own = scenario_constants(name).get("PARAMETERS", {})
    linux = "guest=linux" in given or own.get("guest") == "linux"
    values = {**PARAMETERS, **(LINUX if linux else {}), **own}
    for item in given:
        key, _, text = item.partition("=")
        if key not in values:
            raise LabError(f"'{item}': {name} has no parameter '{key}'; it has: "
                           f"{', '.join(sorted(values))}")
        values[key] = parse_value(item, text, values[key])
    for key, choices in CHOICES.items():
        if values[key] not in choices:
            raise LabError(f"{key}={values[key]}: give {', '.join(choices)}")
    if not 1 <= values["queues"] <= MAX_QUEUES:
        raise LabError(f"queues={values['queues']}: give 1 to {MAX_QUEUES}")
    return values


def parse_value(item: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text not in ("on", "off"):
            raise LabError(f"'{item}': give on or off")
        return text == "on"
    try:
        return type(default)(text)
    except ValueError:
        raise LabError(f"'{item}': not a number") from None


class Host:
    """Boots the lab: one QEMU process, a console, a time limit."""

    def __init__(self, image: Image, words: str = "audit=0") -> None:
        """`words`: more of the kernel's command line."""
        self.image = image
        self.words = words

    def command(self, initrd: Path, disk: Path | None, accel: str) -> list[str]:
        # Without "fast" string moves, which an emulated processor does byte by byte: with them the
        # lab needs twice the time.
        cpu = "host" if accel == "kvm" else "max,la57=off,erms=off,fsrm=off,fsrs=off,fzrm=off"
        thread = ",thread=multi" if accel == "tcg" else ""
        command = [str(self.image.qemu), "-L", str(self.image.firmware),
                   "-machine", "q35,hpet=off,vmport=off",
                   "-accel", accel + thread, "-cpu", cpu,
                   "-smp", str(min(4, max(2, os.cpu_count() or 2))), "-m", str(MEMORY_MIB),
                   "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                   "-serial", "stdio", "-kernel", str(self.image.kernel), "-initrd", str(initrd),
                   "-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable "
                              f"nowatchdog {SPARE_WORK} {self.words}"]
        if disk:
            command += ["-drive", f"file={disk},if=none,id=results,format=raw,cache=unsafe",
                        "-device", "virtio-blk-pci,drive=results"]
        # If this process is killed outright, the kernel takes the lab with it.
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        return command

    def accel(self) -> str:
        """kvm only after it has booted something: /dev/kvm may exist and hang."""
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return "tcg"
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        answer = self.image.folder / f"kvm-probe-{boot_id}"
        if not answer.exists():
            for old in self.image.folder.glob("kvm-probe-*"):
                old.unlink()
            works = self._kvm_boots()
            say("KVM works" if works else
                f"/dev/kvm booted nothing within {KVM_PROBE_S} s: emulating instead (slower)")
            answer.write_text("kvm" if works else "tcg")
        return answer.read_text()

    def _kvm_boots(self) -> bool:
        seen: list[str] = []

        def saved(line: str) -> bool:
            seen.append(line)
            return "traffic: peer ready" in line

        # The guest's first process wants a network card.
        command = [*self.command(self.image.guest_initrd, None, "kvm"),
                   "-device", "virtio-net-pci,romfile="]
        self._watch(command, KVM_PROBE_S, saved)
        return bool(seen) and "traffic: peer ready" in seen[-1]

    @staticmethod
    def _watch(command: list[str], limit_s: float, line_seen: Any) -> bool:
        """Runs QEMU, hands each console line on; ends when line_seen() says so, the process ends,
        or the time is over. False in the last case. The process is gone afterwards."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
        assert process.stdout
        descriptor = process.stdout.fileno()
        end = time.monotonic() + limit_s
        rest = b""
        try:
            while (left := end - time.monotonic()) > 0:
                if not select.select([descriptor], [], [], left)[0]:
                    break
                data = os.read(descriptor, 65536)
                if not data:
                    return True
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line_seen(line.decode(errors="replace").rstrip("\r")):
                        return True
            return False
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def run(self, initrd: Path, disk: Path, console: Path, limit_s: float) -> str:
        """Boots the lab and shows its progress; returns "" or what went wrong."""
        accel = self.accel()
        started = time.monotonic()
        done = False
        with console.open("w") as log:
            def line_seen(line: str) -> bool:
                nonlocal done
                log.write(line + "\n")
                log.flush()
                if line.startswith("lab: "):
                    print(f"[{time.monotonic() - started:5.1f} s] {line[5:]}", flush=True)
                    done = line == "lab: done"
                return False

            in_time = self._watch(self.command(initrd, disk, accel), limit_s, line_seen)
        if done:
            return ""
        return "the lab died" if in_time else f"the lab did not end within {limit_s:.0f} s"


def overlay(image: Image, target: Path, scenario: str, parameters: dict[str, Any]) -> None:
    """The lab's initramfs for one run: the base, then our scripts, which change often."""
    part = LabPart(image.folder, image.qemu) if "libvirt" in parts_of(scenario) else None
    if part:
        part.make()
    with target.open("wb") as out:
        for path in (image.base, *([part.libvirt] if part else [])):
            with path.open("rb") as base:
                shutil.copyfileobj(base, out, 1 << 20)
        archive = Archive(out)
        archive.tree(HERE / "inside", "lab", frozenset({"__pycache__"}))
        archive.tree(SCENARIOS, "lab/scenarios", frozenset({"__pycache__"}))
        if parameters["guest"] == "linux":
            archive.file(image.kernel, "guest/vmlinuz")
            archive.file(image.guest_initrd, "guest/initrd")
            archive.file(image.guest_snapshot(parameters["queues"]), "guest/snapshot")
        if part:
            part.add_repo(archive)
            if parameters["apparmor"]:
                part.add_apparmor(archive)
        programs = scenario_constants(scenario).get("PROGRAMS", ()) if scenario else ()
        for program in programs:
            image.add_program(archive, image.built(program), f"lab/{Path(program).name}")
        if parameters["switch"] == "openvswitch":
            image.add_openvswitch(archive)
        archive.data("lab/manual.rst", MANUAL.read_bytes())
        archive.data("lab/parameters.json", json.dumps(parameters).encode())
        archive.data("lab/scenario" if scenario else "lab/shell", scenario.encode())
        archive.close()


def fetch(disk: Path, folder: Path) -> None:
    """Unpacks the tar the lab left on its result disk."""
    with tarfile.open(disk, "r:") as tar:
        for member in tar:
            name = os.path.normpath(member.name)
            if member.isfile() and not name.startswith(("/", "..")):
                source = tar.extractfile(member)
                assert source
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with (folder / name).open("wb") as out:
                    shutil.copyfileobj(source, out)


def tail(path: Path) -> str:
    return "\n".join(path.read_text().splitlines()[-CONSOLE_TAIL:])


def run_scenario(image: Image, name: str, given: list[str], folder: Path) -> dict[str, Any]:
    """Runs a scenario and judges it; the result is also in folder/result.json."""
    parameters = parameters_of(name, given)
    limit = scenario_constants(name).get("TIME_LIMIT_S", TIME_LIMIT_S)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    initrd, disk, console = folder / "initrd", folder / "results.raw", folder / "console.log"
    try:
        overlay(image, initrd, name, parameters)
        with disk.open("wb") as file:
            file.truncate(RESULT_DISK_BYTES)
        say(f"{name}: booting the lab")
        host = Host(image, WITH_APPARMOR) if parameters.get("apparmor") else Host(image)
        problem = host.run(initrd, disk, console, limit)
        if problem and "libvirt" in parts_of(name) and \
                host.accel() == "tcg" and PANIC in tail(console):
            # Now and then, where an emulated processor has KVM: see the scenario.
            say(f"{name}: the lab's kernel failed ({console}.1): once more")
            console.rename(f"{console}.1")
            problem = host.run(initrd, disk, console, limit)
        if problem:
            raise LabError(f"{name}: {problem}; the end of its console ({console}):\n"
                           + tail(console))
        fetch(disk, folder)
    finally:
        initrd.unlink(missing_ok=True)
        disk.unlink(missing_ok=True)
    result = analyse.judge(scenario_path(name), folder)
    result["accel"] = host.accel()
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def shell(image: Image, folder: Path) -> int:
    """A prompt inside, on this terminal. Its end is the user's to choose: no time limit."""
    folder.mkdir(parents=True, exist_ok=True)
    initrd, disk = folder / "initrd", folder / "results.raw"
    overlay(image, initrd, "", dict(PARAMETERS))
    with disk.open("wb") as file:
        file.truncate(RESULT_DISK_BYTES)
    host = Host(image)
    try:
        command = host.command(initrd, disk, host.accel())
        command[command.index("stdio")] = "mon:stdio"
        say("'exit' ends the lab; Ctrl-A X kills it")
        return subprocess.run(command, check=False).returncode
    finally:
        initrd.unlink(missing_ok=True)
        disk.unlink(missing_ok=True)


def check(image: Image, build: Path, given: list[str]) -> int:
    """The scenarios of "make check", as TAP: shown, and in BUILD/check/lab.tap."""
    (build / "check").mkdir(parents=True, exist_ok=True)
    failed = 0
    with (build / "check/lab.tap").open("w") as tap:
        def tell(line: str) -> None:
            print(line, flush=True)
            print(line, file=tap, flush=True)

        tell(f"1..{len(CHECKED)}")
        for number, run in enumerate(CHECKED, 1):
            name, *own = run.split()
            if "libvirt" in parts_of(name) and (why := LabPart.why_not()):
                tell(f"ok {number} - {run} # SKIP {why}")
                continue
            try:
                result = run_scenario(image, name, [*own, *given],
                                      build / "lab/check" / run.replace(" ", "_"))
                problems = [text for text, good in result["checks"] if not good]
                if problems:
                    problems += diagnosis_of(result)
                summary = analyse.one_line(result)
            except LabError as error:
                problems, summary = str(error).splitlines(), "no result"
            failed += bool(problems)
            tell(f"{'not ok' if problems else 'ok'} {number} - {run}: {summary}")
            for problem in problems:
                tell(f"#   {problem}")
    return 1 if failed else 0


def diagnosis_of(result: dict[str, Any]) -> list[str]:
    """The beginning of what is known about the packets that did not arrive as they should."""
    found = []
    for folder in (result["folder"], *(part["folder"] for part in result["parts"].values())):
        path = Path(folder, "diagnosis.txt")
        if path.exists():
            lines = path.read_text().splitlines()
            found += [f"{path}:", *lines[:DIAGNOSIS_HEAD]]
    return found


def demo(image: Image, build: Path, given: list[str]) -> int:
    target = build / "demo/vhost"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    runs = []
    bad = []
    for name in DEMO:
        folder = target / name
        result = run_scenario(image, name, given, folder)
        if "sent" not in result:
            raise LabError(f"{name}: {result['notes'].get('error', 'no traffic')}")
        bad += [f"{name}: {text}" for text, good in result["checks"] if not good]
        runs.append((folder, result))
    print(f"\n{report.write_report(runs, target)}")
    for text in bad:
        print(f"NOT OK {text}")
    return 1 if bad else 0


def combinations(words: list[str]) -> list[tuple[str, list[str]]]:
    """Every scenario named with every combination of the values given; all of SWEEP without any."""
    if not words:
        return [(run.split()[0], run.split()[1:]) for run in SWEEP]
    names = [word for word in words if "=" not in word] or \
            [name for name in scenario_names() if name.startswith("migrate-")]
    choices = dict(word.split("=", 1) for word in words if "=" in word)
    return [(name, [f"{key}={value}" for key, value in zip(choices, values)])
            for values in itertools.product(*(text.split(",") for text in choices.values()))
            for name in names]


def sweep(image: Image, build: Path, words: list[str], count: int) -> int:
    runs = combinations(words)
    for name, given in runs:
        parameters_of(name, given)      # a misspelt one is told before the first run
    target = build / "lab/sweep"
    shutil.rmtree(target, ignore_errors=True)
    results = []
    bad = []
    for name, given in runs:
        for number in range(1, count + 1):
            label = " ".join([name, *given]) + (f" #{number}" if count > 1 else "")
            try:
                result = run_scenario(image, name, given, target / label.replace(" ", "_"))
            except LabError as error:
                bad.append(f"{label}: {str(error).splitlines()[0]}")
                continue
            bad += [f"{label}: {text}" for text, good in result["checks"] if not good]
            if "sent" in result:
                results.append((label, result))
                (target / "table.txt").write_text(report.sweep_table(results) + "\n")
                print(f"{label}: {analyse.one_line(result)}", flush=True)
    if results:
        print(f"\n{report.sweep_table(results)}")
    for problem in bad:
        print(f"NOT OK {problem}")
    return 1 if bad else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--qemu", type=Path)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("action", choices=("list", "run", "shell", "image", "check", "demo",
                                           "sweep"))
    parser.add_argument("rest", nargs="*")
    return parser.parse_args()


def act(args: argparse.Namespace) -> int:
    if args.action == "list":
        for name in scenario_names():
            print(f"{name:18} {scenario_constants(name)['__doc__'].splitlines()[0]}")
        return 0
    if args.action == "run":
        if not args.rest:
            raise LabError("which scenario? make lab SCENARIO=name; there are: "
                           + ", ".join(scenario_names()))
        parameters_of(args.rest[0], args.rest[1:])      # before minutes of making the image
    image = Image(args.build / "lab", args.qemu or args.build / "qemu-system-x86_64")
    image.make()
    if args.action == "run":
        name = args.rest[0]
        result = run_scenario(image, name, args.rest[1:], args.build / "lab" / name)
        print(analyse.report(result))
        return 0 if all(good for _, good in result["checks"]) else 1
    if args.action == "shell":
        return shell(image, args.build / "lab" / "shell")
    if args.action == "demo":
        return demo(image, args.build, args.rest)
    if args.action == "sweep":
        return sweep(image, args.build, args.rest, args.count)
    if args.action == "check":
        return check(image, args.build, args.rest)
    return 0


def main() -> int:
    # Termination unwinds like an interrupt, so that the lab's process is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return act(arguments())
    except LabError as error:
        print(f"lab: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
