# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What becomes of packets that are more than bytes: tags beside the data, checksums left to the
device, super-packets. Each kind is made here, and recognised where it arrives."""
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

MACS = bytes.fromhex("525400000002525400000001")    # to the guest, from the network
VNET = struct.Struct("=BBHHHH")
NO_VNET = bytes(VNET.size)
NEEDS_CSUM, GSO_TCPV4 = 1, 1
MSS, HEADERS = 1460, 54
SUPER = 65226               # bytes, as run_capture.py
FULL = 1514

Packet = tuple[bytes, bytes]    # vnet header, frame


def words(data: bytes) -> int:
    """The sum that internet checksums are made of."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def pseudo(length: int) -> bytes:
    return bytes((192, 0, 2, 1, 192, 0, 2, 2, 0, 6)) + struct.pack(">H", length)


def tagged(ethertype: int) -> Callable[[int], Packet]:
    def make(number: int) -> Packet:
        frame = MACS + struct.pack(">HHHQ", ethertype, 5, 0x88B5, number)
        return NO_VNET, frame.ljust(FULL + 4, b"\0")

    return make


def tcp(size: int, port: int) -> bytes:
    """Its checksum is left to the device: there is only the pseudo header's sum."""
    ip = struct.pack(">BBHHHBBH", 0x45, 0, size - 14, 0, 0x4000, 64, 6, 0) + pseudo(0)[:8]
    ip = ip[:10] + struct.pack(">H", 0xffff - words(ip)) + ip[12:]
    head = struct.pack(">HHIIBBHHH", port, 80, 0, 0, 0x50, 0x10, 1000,
                       words(pseudo(size - 34)), 0)
    return (MACS + b"\x08\0" + ip + head).ljust(size, b"\x5a")


def left_checksum(number: int) -> Packet:
    return VNET.pack(NEEDS_CSUM, 0, 0, 0, 34, 16), tcp(200, 1000 + number)


def super_packet(number: int) -> Packet:
    return VNET.pack(NEEDS_CSUM, GSO_TCPV4, HEADERS, MSS, 34, 16), tcp(SUPER, 2000 + number)


def is_tcp(frame: bytes) -> bool:
    return len(frame) >= HEADERS and frame[12:14] == b"\x08\0" and frame[23] == 6


def checksum_usable(vnet: bytes, frame: bytes) -> bool:
    """Complete, or it is said where it has to be completed."""
    if len(vnet) >= VNET.size:
        flags, _, _, _, start, offset = VNET.unpack(vnet[:VNET.size])
        if flags & NEEDS_CSUM and (start, offset) == (34, 16):
            return True
    return words(pseudo(len(frame) - 34) + frame[34:]) == 0xffff


def size_told(vnet: bytes) -> bool:
    return len(vnet) >= VNET.size and VNET.unpack(vnet[:VNET.size])[1:4:2] == (GSO_TCPV4, MSS)


@dataclass
class Kind:
    name: str
    make: Callable[[int], Packet]
    arrived: Callable[[list[Packet], int], int]     # of so many sent


def whole(make: Callable[[int], Packet]) -> Callable[[list[Packet], int], int]:
    def arrived(got: list[Packet], sent: int) -> int:
        frames = {frame for _, frame in got}
        return sum(make(number)[1] in frames for number in range(sent))

    return arrived


def usable_checksums(got: list[Packet], sent: int) -> int:
    return sum(is_tcp(frame) and len(frame) == 200 and checksum_usable(vnet, frame)
               for vnet, frame in got)


def usable_supers(got: list[Packet], sent: int) -> int:
    """Whole with the size of its segments told, or cut into right segments."""
    bytes_of: dict[int, int] = {}
    for vnet, frame in got:
        if is_tcp(frame) and checksum_usable(vnet, frame) and \
                (len(frame) <= FULL or size_told(vnet)):
            port = int.from_bytes(frame[34:36], "big")
            bytes_of[port] = bytes_of.get(port, 0) + len(frame) - HEADERS
    return sum(count == SUPER - HEADERS for count in bytes_of.values())


KINDS = (
    Kind("full-size frame, 802.1Q tag", tagged(0x8100), whole(tagged(0x8100))),
    Kind("full-size frame, 802.1ad tag", tagged(0x88A8), whole(tagged(0x88A8))),
    Kind("checksum left to the device", left_checksum, usable_checksums),
    Kind("super-packet of 64 KiB", super_packet, usable_supers))


def recorded(path: Path) -> Iterator[Packet]:
    """What `count -w` has written."""
    data, at = path.read_bytes(), 0
    while at + 8 <= len(data):
        length, header = struct.unpack_from(">II", data, at)
        packet = data[at + 8:at + 8 + length]
        yield packet[:header], packet[header:]
        at += 8 + length
