# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Downtime: migrations with real vhost-net in the lab, with the hand-over and without."""
import json
import os
import subprocess
import sys
from pathlib import Path

from results import Results
from rig import BenchError, Env

LAB = Path(__file__).resolve().parent.parent / "tests/lab/lab.py"
SCENARIOS = ("migrate-handover", "migrate-stock")


def scenario(env: Env, name: str) -> dict[str, float]:
    outside = int(os.environ["BENCH_INSIDE"])     # bench.py: the namespace that has a network
    done = subprocess.run(["nsenter", f"--net=/proc/self/fd/{outside}", sys.executable, str(LAB),
                           "--build", str(env.build), "--qemu", str(env.qemu), "run", name],
                          capture_output=True, text=True, check=False, pass_fds=(outside,))
    path = env.build / "lab" / name / "result.json"
    if not path.exists():
        raise BenchError(f"lab: {name}: {(done.stderr or done.stdout).strip()[-400:]}")
    return dict(json.loads(path.read_text()))


def run(env: Env, results: Results) -> None:
    runs = 1 if env.quick else 2
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SCENARIOS}
    for _ in range(runs):
        for name in SCENARIOS:
            found[name].append(scenario(env, name))
    ours, stock = (found[name] for name in SCENARIOS)
    results.add("lab", "downtime", {}, "ms", [r["downtime_ms"] for r in ours], "stock",
                [r["downtime_ms"] for r in stock], ("ratio", "<=", 1.05))
    results.add("lab", "packets lost", {}, "", [r["lost"] for r in ours], "stock",
                [r["lost"] for r in stock], ("value", "==", 0))
