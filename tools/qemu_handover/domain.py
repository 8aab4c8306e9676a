# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What libvirt's XML says of a domain, and the XML that its destination is started with."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from .ends import ours
from .machine import Failure

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
WITH_TAP = ("bridge", "network", "ethernet", "direct")
ET.register_namespace("qemu", QEMU)


@dataclass(frozen=True)
class Interface:
    """One that is a TAP (or macvtap) device on the host."""
    alias: str          # libvirt's
    device: str         # on the host
    source: str         # what libvirt connects it to, for people
    position: int       # among the domain's interfaces: names it at the destination

    @property
    def netdev(self) -> str:
        """As libvirt calls it in QEMU."""
        return "host" + self.alias

    @property
    def destination_netdev(self) -> str:
        """libvirt numbers them anew, but for names that the user chose."""
        return "host" + (self.alias if self.alias.startswith("ua-") else f"net{self.position}")


def _attribute(element: ET.Element, path: str, name: str) -> str:
    found = element.find(path)
    return found.get(name, "") if found is not None else ""


def interfaces(xml: str) -> list[Interface]:
    """Of a running domain: those whose packets can be captured and handed over."""
    found = [item for item in ET.fromstring(xml).iterfind("devices/interface")
             if item.get("type") != "hostdev"]
    return [Interface(_attribute(item, "alias", "name"), _attribute(item, "target", "dev"),
                      next(iter(source.attrib.values()), "")
                      if (source := item.find("source")) is not None else "", position)
            for position, item in enumerate(found)
            if item.get("type") in WITH_TAP and _attribute(item, "target", "dev")]


def choose(known: list[Interface], name: str | None) -> Interface:
    """By the name that somebody gave: the host's, or libvirt's."""
    fitting = [item for item in known if name in (None, item.device, item.alias)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(f"{item.device} ({item.source or item.alias})" for item in known)
    raise Failure((f"has no interface '{name}'" if name else "say which interface")
                  + f"; there are: {names or 'none with a TAP device'}")


def with_arguments(xml: str, arguments: list[str]) -> str:
    """For the destination: QEMU's own arguments added, those of an earlier hand-over removed."""
    root = ET.fromstring(xml)
    line = root.find(f"{{{QEMU}}}commandline")
    if line is None:
        line = ET.SubElement(root, f"{{{QEMU}}}commandline")
    tag = f"{{{QEMU}}}arg"
    words = [item for item in line if item.tag == tag]
    for option, value in zip(words[::2], words[1::2]):
        if ours(_ident(value.get("value", ""))):
            line.remove(option)
            line.remove(value)
    for word in arguments:
        ET.SubElement(line, tag, value=word)
    return ET.tostring(root, encoding="unicode")


def _ident(option: str) -> str:
    return next((part[3:] for part in option.split(",") if part.startswith("id=")), "")
