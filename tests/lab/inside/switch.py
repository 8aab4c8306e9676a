# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The switch that the lab's TAPs and its client are at: Linux' bridge, a hub, Open vSwitch."""

import os
import time
from pathlib import Path

from qmp import ScenarioError, run

NAME = "br0"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
FOLDER = Path("/run/openvswitch")
DATABASE = f"unix:{FOLDER}/db.sock"
# It counts the processors every ten seconds of a machine's uptime, and first when these are over;
# until then (3.1) nobody handles packets that the kernel has no flow for.
COUNTS_PROCESSORS_S = 10.5


class Bridge:
    """Linux' bridge: it learns, and floods what is for a place that it does not know."""

    def __init__(self) -> None:
        run("ip", "link", "add", NAME, "type", "bridge", "stp_state", "0", "forward_delay", "0",
            "mcast_snooping", "0")
        run("ip", "link", "set", NAME, "up")

    def plug(self, port: str) -> None:
        run("ip", "link", "set", port, "master", NAME)

    def learning_command(self, port: str, value: str) -> tuple[str, ...]:
        """Whether it learns from what comes in at a port: on or off."""
        return ("bridge", "link", "set", "dev", port, "learning", value)

    def isolate(self, port: str, on: bool) -> None:
        """Isolated ports see nothing of each other."""
        run("bridge", "link", "set", "dev", port, "isolated", "on" if on else "off")


class Hub(Bridge):
    """It never learns: every port gets everything."""

    def plug(self, port: str) -> None:
        super().plug(port)
        run(*self.learning_command(port, "off"))


class OpenVSwitch:
    """As Debian has it: a learning switch, whose kernel part does what it has been told for each
    flow; that an address has moved it is told some time later."""

    def __init__(self) -> None:
        time.sleep(max(0.0, COUNTS_PROCESSORS_S - time.clock_gettime(time.CLOCK_BOOTTIME)))
        FOLDER.mkdir(parents=True)
        os.symlink(FOLDER, "/var/run/openvswitch")
        run("ovsdb-tool", "create", f"{FOLDER}/conf.db", SCHEMA)
        run("ovsdb-server", f"{FOLDER}/conf.db", f"--remote=p{DATABASE}",
            f"--pidfile={FOLDER}/ovsdb-server.pid", "--detach", "--no-chdir",
            "--log-file=/results/ovsdb-server.log")
        self._tell("--no-wait", "init")
        run("ovs-vswitchd", DATABASE, f"--pidfile={FOLDER}/ovs-vswitchd.pid", "--detach",
            "--no-chdir", "--log-file=/results/ovs-vswitchd.log")
        self._tell("add-br", NAME)

    @staticmethod
    def _tell(*words: str) -> None:
        run("ovs-vsctl", f"--db={DATABASE}", *words)

    def plug(self, port: str) -> None:
        self._tell("add-port", NAME, port)

    def learning_command(self, port: str, value: str) -> tuple[str, ...]:
        raise ScenarioError("switch=openvswitch: only for scenarios with late=off")

    def isolate(self, port: str, on: bool) -> None:
        self._tell("set", "port", port, f"protected={'true' if on else 'false'}")


SWITCHES = {"bridge": Bridge, "hub": Hub, "openvswitch": OpenVSwitch}
