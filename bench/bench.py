#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Measures the endpoints against what else there is, in one run on one machine.

  bench.py [--quick] [GROUP...]     all groups, or these

Runs as root, in a network namespace of its own, which goes with the last process in it. Writes
BUILD/bench/results.json and a plot, and shows a table.
"""
import argparse
import importlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True      # nothing of ours lands beside the sources
import plot  # noqa: E402
from results import Results, table  # noqa: E402
from rig import BenchError, Env, run  # noqa: E402

# Each is a module run_GROUP with a function run(env, results).
GROUPS = ("capture", "inject", "alternative", "mainloop", "memory", "guest", "scale", "handover",
          "lab")
INSIDE = "BENCH_INSIDE"


def enter_namespace() -> None:
    """Start once more in a network namespace of our own."""
    if os.environ.get(INSIDE):
        return
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)     # where the lab finds Debian's archive
    os.set_inheritable(outside, True)
    os.environ[INSIDE] = str(outside)
    os.execvp("unshare", ["unshare", "--net", "--", sys.executable, *sys.argv])


def prepare_namespace() -> None:
    run("ip", "link", "set", "lo", "up")
    for which in ("all", "default"):    # IPv6 would send packets of its own on each TAP
        path = Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6")
        if path.exists():
            path.write_text("1")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--qemu", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("groups", nargs="*", metavar="GROUP")
    args = parser.parse_args()
    for group in args.groups:
        if group not in GROUPS:
            parser.error(f"no group '{group}'; there are: {' '.join(GROUPS)}")
    return args


def measure(env: Env, groups: list[str], results: Results, path: Path) -> None:
    """Run the groups; what there is so far is in the file whenever one has ended."""
    for group in groups:
        begin = time.monotonic()
        print(f"* {group}", flush=True)
        try:
            importlib.import_module(f"run_{group}").run(env, results)
        except (BenchError, OSError) as error:
            print(f"bench: {group}: {error}", file=sys.stderr)
            results.notes.append(f"{group}: {error}")
        results.write(path, env.quick)
        print(f"* {group}: {time.monotonic() - begin:.0f} s", flush=True)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = arguments()
    if os.geteuid() != 0:
        print("bench: error: only root can make TAPs and packet sockets", file=sys.stderr)
        return 1
    enter_namespace()
    prepare_namespace()
    results = Results()
    target = args.build / "bench"
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        env = Env(args.build, args.qemu or args.build / "qemu-system-x86_64", Path(folder),
                  args.quick)
        measure(env, args.groups or list(GROUPS), results, target / "results.json")
    print(f"\n{table(results)}")
    plot.write(results, target)
    print(f"\n{target / 'results.json'}, {target / 'plot.svg'}")
    return 1 if results.notes else 0


if __name__ == "__main__":
    sys.exit(main())
