# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The guest's machine: used outside (to save its snapshot) and inside (to start it from that).

Both must give QEMU the same machine, or the snapshot does not load.
"""

GUEST_MAC = "52:54:00:00:00:02"
GUEST_IP = "10.0.0.2"
CLIENT_MAC = "52:54:00:00:00:01"
CLIENT_IP = "10.0.0.1"
TRAFFIC_PORT = 7000

# What vhost-net of the lab's kernel (6.1) does not offer: without these, QEMU refuses to migrate
# or the guest's features don't fit.
NIC_LIMITS = "queue_reset=off,host_uso=off,guest_uso4=off,guest_uso6=off"


def machine(kernel: str, initrd: str) -> list[str]:
    """QEMU's arguments for the guest, without a back end for its network card."""
    return ["-machine", "pc,hpet=off,usb=off,vmport=off",
            "-accel", "tcg,tb-size=96",
            "-cpu", "qemu64", "-smp", "1", "-m", "128",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", kernel, "-initrd", initrd,
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off audit=0 "
                       "tsc=reliable no_timer_check nowatchdog"]


def network_card() -> list[str]:
    """The network card; its back end is the netdev net0."""
    return ["-device", f"virtio-net-pci,id=nic0,netdev=net0,mac={GUEST_MAC},romfile=,"
                       f"rx_queue_size=1024,{NIC_LIMITS}"]
