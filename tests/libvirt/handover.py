# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What the hand-over needs on both sides if it is done by hand, as docs/libvirt.md tells: options
and QMP commands of these scenarios stand here and only here. (qemu-handover has its own way.)"""

from typing import Any

FIRST_PORT = 4445       # of the destination; one for each network card
RUNNING = "enable_when_running"


def name(card: int) -> str:
    return f"handover{card}"


def netdev(card: int) -> str:
    """As libvirt calls it."""
    return f"hostnet{card}"


def _command(execute: str, **arguments: Any) -> dict[str, Any]:
    return {"execute": execute, "arguments": arguments}


def query_properties() -> dict[str, Any]:
    return _command("qom-list-properties", typename="filter-redirector")


def spares_running(properties: list[dict[str, Any]]) -> bool:
    """Whether this QEMU can leave a running guest its packets. One that can't takes them from a
    TAP without vhost as soon as it is told to hand over."""
    return any(known["name"] == RUNNING for known in properties)


def source_commands(card: int, destination: str, spares: bool) -> list[dict[str, Any]]:
    """What the source is told before its migration; `destination` is the other host's address."""
    states = {"enable_when_stopped": True, **({RUNNING: False} if spares else {})}
    peer = {"type": "inet", "data": {"host": destination, "port": str(FIRST_PORT + card)}}
    return [
        _command("chardev-add", id=name(card), backend={"type": "socket", "data": {
            "addr": peer, "server": False, "reconnect-ms": 100}}),
        _command("object-add", id=name(card), netdev=netdev(card), queue="tx",
                 outdev=name(card), vnet_hdr_support=True, **states,
                 **{"qom-type": "filter-redirector"}),
    ]


def destination_arguments(card: int) -> list[str]:
    """What the destination's QEMU is started with."""
    return [
        "-chardev", f"socket,id={name(card)},host=0.0.0.0,port={FIRST_PORT + card},"
                    "server=on,wait=off",
        "-object", f"filter-redirector,id={name(card)},netdev={netdev(card)},queue=tx,"
                   f"indev={name(card)},vnet_hdr_support=on,"
                   "enable_when_stopped=on",
    ]


def removal_commands(card: int) -> list[dict[str, Any]]:
    """What ends it, on either side."""
    return [_command("object-del", id=name(card)), _command("chardev-remove", id=name(card))]
