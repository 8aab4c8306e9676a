# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The guest that migrates: what it boots, and what libvirt is told of it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import rig
from cpio import Archive
from image import GUEST_MODULES, HERE as LAB, Image, guest

NAME = "guest"
UUID = "11111111-2222-3333-4444-555555555555"
MEMORY_MIB = 128
READY = "traffic: peer ready"
BOOT_S = 90 * rig.SLOW

KERNEL_LINE = ("console=ttyS0 quiet panic=-1 mitigations=off audit=0 tsc=reliable no_timer_check "
               "nowatchdog " + guest.SPARE_WORK)

QEMU_XML = "http://libvirt.org/schemas/domain/qemu/1.0"
XML = """\
<domain type='{kind}'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  {backing}
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{folder}/vmlinuz</kernel>
    <initrd>{folder}/initrd</initrd>
    <cmdline>{line}</cmdline>
  </os>
  <features><acpi/></features>
  {cpu}
  <devices>
    <emulator>{qemu}</emulator>
    {devices}
    <serial type='file'><source path='{folder}/serial' append='on'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""

QEMU_CPU = "<cpu mode='custom'><model>qemu64</model></cpu>"
HOST_CPU = "<cpu mode='host-passthrough'/>"

PREALLOCATED = "<memoryBacking><allocation mode='immediate'/></memoryBacking>"

CARD_XML = """\
<interface type='bridge'>
  <source bridge='br{number}'/>
  <mac address='{mac}'/>
  <model type='virtio'/>
  <driver name='{back_end}' queues='{queues}' {driver}/>
  <rom enabled='no'/>
</interface>"""

DISK_XML = """\
<disk type='file' device='disk'>
  <driver name='qemu' type='raw'/>
  <source file='{path}'/>
  <target dev='vda' bus='virtio'/>
</disk>"""


class GuestImage(Image):
    """The lab's kernel and programs, and an initramfs of our own."""

    def __init__(self, folder: Path, qemu: Path) -> None:
        super().__init__(folder, qemu)
        self.initrd = folder / "libvirt-guest.cpio"

    def make(self) -> None:
        self._make_parts()
        self._product(self.initrd, [self.kernel, self.traffic, rig.HERE / "guest-init",
                                    Path(__file__), LAB / "image.py", LAB / "cpio.py"],
                      self._make_initrd)

    def _make_initrd(self) -> None:
        with self.initrd.open("wb") as out:
            archive = Archive(out)
            self._add_busybox(archive)
            archive.data("init", (rig.HERE / "guest-init").read_bytes(), 0o755)
            archive.file(self.traffic, "bin/traffic")
            self._add_modules(archive, self._modules((*GUEST_MODULES, "virtio_blk", "bridge",
                                                      "macvlan")))
            archive.close()


@dataclass(frozen=True)
class Domain:
    """What a scenario wants of its guest."""
    cards: int = 1
    queues: int = 1
    behind: str = ""            # the guest has its addresses on a "bridge" or "macvlan" of its own
    group: str = ""             # multicast: it is a member, and the network's bridges know
    disk: bool = False          # it has one, a file for each host
    driver: str = ""            # more attributes of the cards' <driver>
    kernel: str = ""            # more words for the guest's kernel
    preallocated: bool = False  # its memory is there before it needs it
    options: tuple[str, ...] = ()   # more of QEMU's
    vhost: bool = False         # the host's kernel carries its packets: for KVM's guests only
    installed: bool = False     # virt-install says what it has: a disk too, which the hosts share

    @property
    def flows(self) -> int:
        return guest.flows(self.queues)

    @property
    def peers(self) -> int:
        """How many programs in the guest say that they are ready."""
        return self.cards + 1 + bool(self.group)

    def mac(self, card: int) -> str:
        """Whose packets for that card's address are."""
        return rig.guest_mac(card, bool(self.behind))

    def xml(self, host: rig.Host, folder: Path, arguments: list[str], disk: Path | None) -> str:
        """For virsh; `folder` has what it boots, `arguments` are QEMU's beyond libvirt's."""
        text = self._installed_xml(host, folder, disk) if self.installed and disk else \
            self._own_xml(folder, disk)
        extra = "\n".join(f"<qemu:arg value='{word}'/>"
                          for word in (*self.options, *arguments))
        text = text.replace("<domain ", f"<domain xmlns:qemu='{QEMU_XML}' ", 1)
        return text.replace("</domain>", f"<qemu:commandline>{extra}</qemu:commandline></domain>")

    def _own_xml(self, folder: Path, disk: Path | None) -> str:
        devices = [CARD_XML.format(number=card, mac=rig.guest_mac(card), queues=self.queues,
                                    back_end="vhost" if self.vhost else "qemu",
                                    driver=self.driver)
                   for card in range(self.cards)]
        if disk:
            devices.append(DISK_XML.format(path=disk))
        kind, cpu = ("kvm", HOST_CPU) if self.vhost else ("qemu", QEMU_CPU)
        return XML.format(kind=kind, cpu=cpu, name=NAME, uuid=UUID, memory=MEMORY_MIB,
                          backing=PREALLOCATED if self.preallocated else "", folder=folder,
                          qemu=rig.emulator(folder), line=self.kernel_line,
                          devices="\n".join(devices))

    def _installed_xml(self, host: rig.Host, folder: Path, disk: Path) -> str:
        """What virt-install would have libvirt run, with nothing chosen that it chooses itself."""
        networks = [word for card in range(self.cards) for word in
                    ("--network", f"bridge=br{card},model=virtio,mac={rig.guest_mac(card)}")]
        return rig.run("virt-install", "--connect", host.uri, "--virt-type", "qemu",
                       "--name", NAME, "--uuid", UUID, "--memory", str(MEMORY_MIB),
                       "--vcpus", "1", "--osinfo", "debian11", "--import",
                       "--disk", f"path={disk},format=raw", *networks,
                       "--serial", f"file,path={folder}/serial",
                       "--boot", f"kernel={folder}/vmlinuz,initrd={folder}/initrd,"
                                 f"kernel_args={self.kernel_line}", "--print-xml")

    @property
    def kernel_line(self) -> str:
        return (f"{KERNEL_LINE} cards={self.cards} queues={self.queues} flows={self.flows} "
                f"behind={self.behind} group={self.group} {self.kernel}")


def install(image: GuestImage, folder: Path) -> None:
    """Copies, because libvirt gives them to QEMU's user."""
    shutil.copyfile(image.kernel, folder / "vmlinuz")
    shutil.copyfile(image.initrd, folder / "initrd")


def await_boot(domain: Domain, folder: Path) -> None:
    serial = folder / "serial"

    def ready() -> bool:
        return serial.exists() and \
            serial.read_text(errors="replace").count(READY) >= domain.peers

    try:
        rig.wait_until("the guest boots", ready, BOOT_S, 0.2)
    except rig.RigError as error:
        text = serial.read_text(errors="replace") if serial.exists() else ""
        raise rig.RigError(f"{error}:\n{text[-2000:]}") from None
