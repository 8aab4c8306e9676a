# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Capture and inject without privileges, the TAP in QEMU's network namespace or in another."""

PARAMETERS = {"rate": 1000, "injected": 1000}
NETNS = {"own": "", "other": "pod"}


def run(lab):
    lab.network(("src0",))
    lab.command("ip", "netns", "add", NETNS["other"])
    for name, netns in NETNS.items():
        lab.part(name)
        vm = lab.unprivileged(name, netns)
        stream = lab.capture_and_inject(vm, lab.injected)
        lab.stop_traffic()
        stream.settle()
        lab.end(vm)


def judge_part(result, name):
    from stream import Capture, capture_checks      # of tests/lab: only on the outside

    traffic = result["parts"][name]
    state = result["notes"][f"{name}_privileges"]
    redirectors = {r["id"]: r for r in result["notes"][f"{name}_redirectors"]}
    ids = {state[key] for key in ("Uid", "Gid")}
    capabilities = {int(state[key], 16) for key in ("CapPrm", "CapEff", "CapBnd")}
    return [(f"user and group {ids}, capabilities {capabilities}",
             ids == {"\t".join(["65534"] * 4)} and capabilities == {0}),
            ("in the sandbox", state["Seccomp"] == "2"),
            (f"network namespace {state['netns']}, the TAP in {state['tap_netns']}",
             (state["netns"] == state["tap_netns"]) == (name == "own")),
            *capture_checks(Capture(traffic["folder"], 1), traffic, redirectors["capture"]),
            ("all that arrived was in order", traffic["reordered"] == 0),
            (f"{traffic['injected']} packets were injected",
             traffic["injected"] == result["parameters"]["injected"]
             == redirectors["inject"]["output"]["stats"]["packets"])]


def judge(result):
    return [(f"{name}: {text}", good) for name in NETNS
            for text, good in judge_part(result, name)]
