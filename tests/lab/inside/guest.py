# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The guest's machine: used outside (to save its snapshot) and inside (to start it from that).

Both must give QEMU the same machine, or the snapshot does not load.
"""

import socket
import struct

GUEST_MAC = "52:54:00:00:00:02"
GUEST_IP = "10.0.0.2"
CLIENT_MAC = "52:54:00:00:00:01"
CLIENT_IP = "10.0.0.1"
TRAFFIC_PORT = 7000

# A guest with several queues gets traffic of several flows, enough that no queue is likely to
# be left without one (4 queues: once in 1,200 runs). Packet n is one of flow n % flows.
FLOWS = 32
FIRST_FLOODED = 1 << 40     # broadcast packets of the program are numbered from here on
FIRST_INJECTED = 1 << 32    # injected packets are numbered from here on, not as the client's

# What a kernel under emulation need not do.
SPARE_WORK = "init_on_alloc=0 apparmor=0 cgroup_disable=memory"

# What vhost-net of the lab's kernel (6.1) does not offer: without these, QEMU refuses to migrate
# or the guest's features don't fit.
NIC_LIMITS = "queue_reset=off,host_uso=off,guest_uso4=off,guest_uso6=off"


def flows(queues: int) -> int:
    return FLOWS if queues > 1 else 1


def machine(kernel: str, initrd: str, queues: int) -> list[str]:
    """QEMU's arguments for the guest, without its network card."""
    use = f"queues={queues} flows={flows(queues)} "     # see guest-init
    return ["-machine", "pc,hpet=off,usb=off,vmport=off",
            "-accel", "tcg,tb-size=96",
            "-cpu", "qemu64", "-smp", "1", "-m", "128",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", kernel, "-initrd", initrd,
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off audit=0 "
                       "tsc=reliable no_timer_check nowatchdog " + use + SPARE_WORK]


PROGRAM_MIB = 32            # GUEST_MEMORY of tests/qtest/filter-redirector-guest.h
CARD_PLACE = "04.0"         # where the program looks for its network card


def program_machine(memory: str, qtest: str) -> list[str]:
    """QEMU's arguments for a guest that is a program, without its network card: `memory` is the
    file that both map, `qtest` the socket through which the program acts."""
    return ["-machine", "pc,hpet=off,usb=off,vmport=off,memory-backend=memory",
            "-accel", "qtest", "-qtest", f"unix:{qtest},server=on,wait=off", "-qtest-log", "none",
            "-m", str(PROGRAM_MIB), "-object", f"memory-backend-file,id=memory,"
            f"size={PROGRAM_MIB}M,mem-path={memory},share=on",
            "-nodefaults", "-no-user-config", "-display", "none"]


def network_card(queues: int) -> list[str]:
    """The network card; its back end is the netdev net0."""
    several = f",mq=on,vectors={2 * queues + 2}" if queues > 1 else ""
    return ["-device", f"virtio-net-pci,id=nic0,netdev=net0,mac={GUEST_MAC},romfile=,"
                       f"addr={CARD_PLACE},"
                       f"rx_queue_size=1024,{NIC_LIMITS}{several}"]


def back_end(options: str, queues: int) -> list[str]:
    """The netdev net0, a TAP of our own script's."""
    several = f",queues={queues}" if queues > 1 else ""
    return ["-netdev", f"tap,id=net0,{options}{several}"]


# ---- the traffic program's packets, byte by byte (see traffic.c) ----

MAGIC = 0x4C414254
PATTERN_PERIOD = 251
VNET_HEADER_BYTES = 12      # of a modern virtio-net card
INJECTED_PAYLOAD = 200
_PATTERN = bytes(range(PATTERN_PERIOD))


def payload(number: int, sent_ns: int, size: int) -> bytes:
    """The UDP payload of packet `number`."""
    stamp = struct.pack("<IIQQ", MAGIC, size, number, sent_ns)
    start = number % PATTERN_PERIOD
    return (stamp + (_PATTERN * (size // PATTERN_PERIOD + 2))[start:])[:size]


def internet_checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def injected_packet(number: int, sent_ns: int, flow: int) -> bytes:
    """A packet from client to guest, as a redirector's stream has it: length, length of the vnet
    header, vnet header (no offload), frame."""
    data = payload(number, sent_ns, INJECTED_PAYLOAD)
    addresses = socket.inet_aton(CLIENT_IP) + socket.inet_aton(GUEST_IP)
    port = TRAFFIC_PORT + flow
    udp = struct.pack("!HHHH", port, port, 8 + len(data), 0)
    pseudo = addresses + struct.pack("!HH", socket.IPPROTO_UDP, len(udp) + len(data))
    check = internet_checksum(pseudo + udp + data) or 0xFFFF
    udp = udp[:6] + struct.pack("!H", check)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp) + len(data), number & 0xFFFF, 0, 64,
                     socket.IPPROTO_UDP, 0) + addresses
    ip = ip[:10] + struct.pack("!H", internet_checksum(ip)) + ip[12:]
    macs = bytes.fromhex((GUEST_MAC + CLIENT_MAC).replace(":", ""))
    frame = bytes(VNET_HEADER_BYTES) + macs + b"\x08\x00" + ip + udp + data
    return struct.pack("!II", len(frame), VNET_HEADER_BYTES) + frame
