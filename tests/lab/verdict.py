# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What has to hold after a switchover: checks that scenarios share."""

from typing import Any


NAMES = {"to_guest": "to the guest", "from_guest": "from the guest", "flooded": "flooded"}


def none(result: dict[str, Any], way: str, *what: str) -> list[tuple[str, bool]]:
    figures = result[way]
    return [(f"{NAMES[way]}: {figures['sent']} sent", figures["sent"] > 0),
            *((f"{NAMES[way]}: {figures[word]} {word.replace('_', ' ')}", figures[word] == 0)
              for word in what)]


def undisturbed(result: dict[str, Any]) -> list[tuple[str, bool]]:
    """The guest stayed where it was, whatever was tried: it got everything, in order."""
    checks = []
    for way in ("to_guest", "from_guest", "flooded"):
        if result[way]["sent"] or way != "flooded":
            checks += none(result, way, "lost", "duplicated", "damaged", "reordered")
    return checks


def every_packet_once(result: dict[str, Any]) -> list[tuple[str, bool]]:
    """Whatever the network did, the guest got everything once and in order."""
    own = result["notes"].get("guest_counts", {}).get("own", 0)     # the program counts them
    return [*undisturbed(result), (f"{own} of the guest's own frames came back", own == 0)]


def handed_over(result: dict[str, Any]) -> list[tuple[str, bool]]:
    """What the hand-over promises, with the manual's steps.

    Not judged: flooded packets that come twice (the destination's TAP gets them as well), own
    frames that come back (the announcement goes to the source, too), and packets that reach the
    destination directly before some that are still on the way through the source.
    """
    checks = none(result, "to_guest", "lost", "duplicated", "damaged", "reordered_same_way")
    if result["flooded"]["sent"]:
        checks += none(result, "flooded", "lost", "damaged")
    return checks + none(result, "from_guest", "lost", "duplicated", "damaged", "reordered")
