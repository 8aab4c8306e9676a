# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Read and check what a redirector's chardev delivered during a run (kit.Stream's files)."""

import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import guest
from analyse import Order
from packets import read_packets

NEEDS_CSUM, DATA_VALID = 1, 2               # vnet header flags
GSO_NONE, GSO_TCPV4 = 0, 1
ETHERNET, IPV4 = 14, 20
CHECKSUM_OFFSET = {6: 16, 17: 6}            # TCP, UDP
MAX_FRAME = 1514


@dataclass
class Comparison:
    sent: int
    captured: int       # different packets, equal to the last byte of their payload
    doubled: int
    differing: int
    unknown: int        # numbers nobody sent
    reordered: int      # as analyse counts it

    @property
    def whole(self) -> bool:
        return (self.sent > 0 and self.captured == self.sent and not self.doubled
                and not self.differing and not self.unknown and not self.reordered)

    def __str__(self) -> str:
        return (f"{self.captured} of {self.sent} sent packets captured byte for byte, "
                f"{self.doubled} doubled, {self.differing} differing, {self.unknown} unknown, "
                f"{self.reordered} out of order")


class Capture:
    """The packets of a stream file, each with vnet header and frame."""

    def __init__(self, folder: str, queues: int) -> None:
        path = Path(folder, "capture.stream")
        self._folder = path.parent
        self._flows = guest.flows(queues)
        self.packets = list(parse(path.read_bytes()))
        self.super_packets = sum(len(frame) > MAX_FRAME for _, frame in self.packets)
        self.bad_headers = sum(not header_good(*packet) for packet in self.packets)

    def check_stream(self, direction: str) -> Comparison:
        """Compares the captured UDP packets of one direction with what was sent."""
        sent = {p.number: p.sent_ns for p in read_packets(self._folder, f"{direction}.sent")}
        source = guest.CLIENT_MAC if direction == "to-guest" else guest.GUEST_MAC
        mac = bytes.fromhex(source.replace(":", ""))
        seen: Counter[int] = Counter()
        order = Order(self._flows)
        differing = unknown = 0
        for _, frame in self.packets:
            data = udp_payload(frame)
            if frame[6:12] != mac or len(data) < 24:
                continue
            number = struct.unpack_from("<Q", data, 8)[0]
            if number not in sent:
                unknown += 1
            elif data != guest.payload(number, sent[number], len(data)):
                differing += 1
            else:
                seen[number] += 1
                order.add(number)
        return Comparison(len(sent), len(seen), sum(seen.values()) - len(seen), differing, unknown,
                          len(order.reordered))


def capture_checks(capture: Capture, traffic: dict[str, Any],
                   redirector: dict[str, Any]) -> list[tuple[str, bool]]:
    """What has to hold for each capture: it is complete, and the guest did not notice."""
    forth, back = (capture.check_stream(direction) for direction in ("to-guest", "from-guest"))
    counters = redirector["input"]["stats"]
    return [(f"the guest's own traffic is whole ({traffic['injected']} packets injected)",
             not any(traffic[way][what] for way in ("to_guest", "from_guest")
                     for what in ("lost", "duplicated", "damaged"))),
            (f"to the guest: {forth}", forth.whole),
            (f"from the guest: {back}", back.whole),
            (f"bad vnet headers: {capture.bad_headers}", capture.bad_headers == 0),
            ("the kernel dropped nothing", counters["lost"] == 0 and counters["errors"] == 0)]


def parse(data: bytes) -> list[tuple[bytes, bytes]]:
    """(vnet header, frame) of each packet."""
    stream = bytearray()
    at = 0
    while at < len(data):
        _, size = struct.unpack_from("<QI", data, at)
        stream += data[at + 12:at + 12 + size]
        at += 12 + size
    packets = []
    at = 0
    while at + 8 <= len(stream):
        length, header = struct.unpack_from("!II", stream, at)
        packet = bytes(stream[at + 8:at + 8 + length])
        packets.append((packet[:header], packet[header:]))
        at += 8 + length
    if at != len(stream):
        raise ValueError("the stream ends within a packet")
    return packets


def udp_payload(frame: bytes) -> bytes:
    """Empty if the frame is not one of the traffic program's."""
    if frame[12:14] != b"\x08\x00" or frame[ETHERNET + 9] != 17:
        return b""
    size = struct.unpack_from("!H", frame, ETHERNET + IPV4 + 4)[0]
    return frame[ETHERNET + IPV4 + 8:ETHERNET + IPV4 + size]


def header_good(header: bytes, frame: bytes) -> bool:
    """Whether a receiver could use the frame: the vnet header fits it."""
    flags, gso_type, gso_size, start, offset = map(int, struct.unpack_from("<BBxxHHH", header))
    if frame[12:14] != b"\x08\x00":
        return gso_type == GSO_NONE
    protocol = frame[ETHERNET + 9]
    if protocol not in CHECKSUM_OFFSET:
        return gso_type == GSO_NONE
    if len(frame) > MAX_FRAME or gso_type != GSO_NONE:
        # A super-packet: TCP, to be cut into pieces, each needing a checksum.
        if (protocol, gso_type & 0x7F, flags & NEEDS_CSUM) != (6, GSO_TCPV4, NEEDS_CSUM) \
                or not 0 < gso_size < len(frame):
            return False
    if flags & NEEDS_CSUM:
        return (start, offset) == (ETHERNET + IPV4, CHECKSUM_OFFSET[protocol])
    return bool(flags & DATA_VALID) or checksum_right(frame, protocol)


def checksum_right(frame: bytes, protocol: int) -> bool:
    length = struct.unpack_from("!H", frame, ETHERNET + 2)[0] - IPV4
    segment = frame[ETHERNET + IPV4:ETHERNET + IPV4 + length]
    pseudo = frame[ETHERNET + 12:ETHERNET + IPV4] + struct.pack("!HH", protocol, length)
    return guest.internet_checksum(pseudo + segment) == 0
