# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Run each command of the manual page, in its order, on real machines."""

import json
import re
import shlex
import socket
import time
from pathlib import Path

PARAMETERS = {"guest": "linux", "after": 2.0}
PAGE = "/lab/manual.rst"
CAPTURE = "/tmp/capture.sock"


def blocks(kind):
    """The page's code blocks of one kind: their text, unindented."""
    found = re.findall(rf"^\.\. code-block:: {kind}\n\n((?:    .*\n|\n)+)",
                       Path(PAGE).read_text(), re.M)
    return [re.sub(r"^    ", "", text, flags=re.M).strip() for text in found]


def qmp_blocks():
    decoder = json.JSONDecoder()
    return [[decoder.raw_decode(command)[0] for command in text.split("-> ")[1:]]
            for text in blocks("QMP")]


def qemu_options():
    """The options of the page's command line that come after the netdev and its NIC."""
    text = re.search(r"^    qemu-system-x86_64 \.\.\. \\\n((?:        .*\n)+)",
                     Path(PAGE).read_text(), re.M)
    words = shlex.split(text[1].replace("\\\n", " "))
    return words[words.index("-chardev"):]


def give(vm, commands, descriptor=None):
    """Gives the commands; `descriptor` goes with the one that takes one."""
    for command in commands:
        name = command["execute"]
        vm.qmp(name, descriptor if name == "getfd" else None, **command.get("arguments", {}))


def host(lab, text, tap):
    for line in text.splitlines():
        lab.command(*shlex.split(line.replace("tap0", tap)))


def capture_by_passed_socket(lab, vm, chardev_add, commands, clean_up):
    """Captures the guest's pings with a packet socket that the page's Python code opened."""
    names = {"socket": socket}
    [code] = blocks("python")
    exec(code.replace("tap0", vm.tap), names)
    give(vm, [chardev_add])
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(CAPTURE)
        give(vm, commands, names["sock"].fileno())
        lab.warm_up()
        peer.settimeout(10)
        first = peer.recv(65536)
        lab.note("passed", {"bytes": len(first), **vm.redirector("f0")["input"]})
    give(vm, clean_up)
    names["sock"].close()


def write_pcap(lab, vm, commands):
    """Has QEMU write a pcap file while the guest pings."""
    file = Path(commands[1]["arguments"]["file"])
    give(vm, commands[:2])
    lab.warm_up()
    time.sleep(0.5)
    give(vm, commands[2:])
    lab.note("pcap", {"bytes": file.stat().st_size, "magic": file.read_bytes()[:4].hex()})


def move_without_packet_sockets(lab, source, before, hold, source_side):
    """Migrates once more, without any step but those that set up both sides. Whether packets are
    lost that way is for scenarios with a quicker guest to tell."""
    destination = lab.destination("back", "src0")
    give(destination, [before[0], *hold, before[-1]])
    started = time.time_ns()
    give(source, source_side)
    lab.finish_migration(source, destination, started)
    lab.note("taken_over", destination.qmp.event("FILTER_REDIRECTOR_TAKEN_OVER")["data"])
    return destination


def run(lab):
    capture, pcap, before, source_side, announce, clean_up, hold, passed = qmp_blocks()
    learning_off, learning_on, queue = blocks("shell")
    lab.network(("src0", "dst0"))
    lab.command("ip", "link", "set", "lo", "up")
    lab.command("ip", "addr", "add", "192.0.2.2/32", "dev", "lo")
    source = lab.source(*qemu_options())
    give(source, capture[-2:])      # the object of the command line goes
    give(source, capture)
    write_pcap(lab, source, pcap)

    host(lab, queue, source.tap)
    destination = lab.destination()
    give(destination, before)
    host(lab, learning_off, destination.tap)
    lab.start_traffic()
    started = time.time_ns()
    give(source, source_side)
    lab.note("output_before", source.redirector("handover0")["output"]["state"])
    lab.finish_migration(source, destination, started)
    lab.wait_handed_over(source, destination, "handover0")
    host(lab, learning_on, destination.tap)
    give(destination, announce)
    time.sleep(lab.after)
    lab.stop_traffic()
    lab.note("sent", source.redirector("handover0")["output"]["stats"])
    lab.note("injected", destination.redirector("handover0")["output"]["stats"])
    for vm in (source, destination):
        give(vm, clean_up)
    lab.end(source)
    third = move_without_packet_sockets(lab, destination, before, hold, source_side)
    give(third, clean_up)
    capture_by_passed_socket(lab, third, capture[0], passed, capture[-2:])


def judge(result):
    notes = result["notes"]
    passed = notes["passed"]
    return [("the output is active before the migration", notes["output_before"] == "active"),
            ("no packet lost", result["lost"] == 0),
            ("no packet doubled", result["duplicated"] == 0),
            ("both counters agree", notes["sent"]["packets"] == notes["injected"]["packets"] > 0),
            ("nothing counted as lost", not any(notes[end][what] for end in ("sent", "injected")
                                                for what in ("lost", "errors"))),
            ("the second destination lost nothing", notes["taken_over"]["lost"] == 0),
            (f"a pcap file of {notes['pcap']['bytes']} bytes",
             notes["pcap"]["magic"] == "d4c3b2a1" and notes["pcap"]["bytes"] > 200),
            (f"the passed socket captures: {passed['stats']['packets']} packets",
             passed["type"] == "packet-socket" and passed["state"] == "active"
             and passed["stats"]["packets"] > 0 and passed["bytes"] > 0)]
