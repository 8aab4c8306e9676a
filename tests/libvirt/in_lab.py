# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What the lab gets so that all this runs in it, where hosts have vhost-net: libvirt as it is
installed here, the repo's Python, the guest that is migrated."""

import sys
from pathlib import Path

import domain
import rig
from cpio import Archive
from image import HERE as LAB, LabError, need

TOP = rig.HERE.parent.parent
PROGRAMS = {"libvirtd": "libvirt-daemon", "virsh": "libvirt-clients", "unshare": "util-linux",
            "nsenter": "util-linux", "openssl": "openssl"}
LIBVIRT = Path("/usr/share/libvirt")
DRIVER = [*Path("/usr/lib").glob("*/libvirt/connection-driver/*driver_qemu.so")]
OPENSSL = Path("/usr/lib/ssl/openssl.cnf")
MODULES = Path("/usr/lib/python3/dist-packages")
BINDINGS = [*MODULES.glob("libvirtmod*.so")]
# They are on a host that has libvirt, where AppArmor is; the helper is where libvirt is.
APPARMOR_PACKAGES = ("apparmor", "libvirt-daemon-system")
APPARMOR_PARSER = "sbin/apparmor_parser"
APPARMOR_HELPER = Path("/usr/lib/libvirt/virt-aa-helper")
USERS = {"passwd": "root:x:0:0:root:/:/bin/sh\n", "group": "root:x:0:\n", "hosts": ""}
KVM = ("kvm_amd", "kvm_intel")      # the lab's processor has what one of them needs
# Where it is in the lab, at the paths that it has in the repo.
REPO = "lab/repo"
FOLDERS = ("tests/libvirt", "tests/lab", "scripts", "tools")


class LabPart(domain.GuestImage):
    """An initramfs of its own: it comes on top of the lab's."""

    def __init__(self, folder: Path, qemu: Path) -> None:
        super().__init__(folder, qemu)
        self.libvirt = folder / "libvirt.cpio"

    def make(self) -> None:
        super().make()
        self._product(self.libvirt, [self.kernel, self.initrd, self.traffic, Path(__file__),
                                     LAB / "image.py", LAB / "cpio.py", sys.version,
                                     *self._programs()], self._make_libvirt)

    @staticmethod
    def why_not() -> str:
        """Why there is nothing to make it of; empty if there is."""
        if not DRIVER or not BINDINGS:
            return f"libvirt is not installed (see {rig.HERE.name}/packages.txt)"
        return ""

    def _programs(self) -> list[Path]:
        if why := self.why_not():
            raise LabError(why)
        return [*(Path(need(*item)) for item in PROGRAMS.items()), *DRIVER, *BINDINGS]

    def _make_libvirt(self) -> None:
        with self.libvirt.open("wb") as out:
            archive = Archive(out)
            for path in self._programs():
                self.add_program(archive, path, str(path).lstrip("/"))
            for path in MODULES.glob("libvirt*.py"):
                archive.file(path)
            archive.file(OPENSSL)
            archive.tree(LIBVIRT, str(LIBVIRT).lstrip("/"))
            # Not a link to where the lab has it: QEMU may read this one.
            archive.tree(self.firmware, "usr/share/qemu")
            for number, path in enumerate(self._modules(KVM)):
                archive.file(path, f"{REPO}/modules/{number}-{path.name}")
            for name, text in USERS.items():
                archive.data(f"etc/{name}", text.encode())
            for path in (self.kernel, self.initrd, self.traffic):
                archive.file(path, f"{REPO}/build/lab/{path.name}")
            archive.close()

    def add_apparmor(self, archive: Archive) -> None:
        """What confines libvirt and its guests."""
        root = self.unpacked("apparmor", APPARMOR_PACKAGES)
        self.add_program(archive, root / APPARMOR_PARSER, APPARMOR_PARSER)
        self.add_program(archive, APPARMOR_HELPER, str(APPARMOR_HELPER).lstrip("/"))
        for folder in (rig.PROFILES, "etc/apparmor", "usr/share/apparmor-features"):
            archive.tree(root / folder, folder)
        archive.file(TOP / rig.MANUAL, f"{REPO}/{rig.MANUAL}")

    @staticmethod
    def add_repo(archive: Archive) -> None:
        """What changes often."""
        for folder in FOLDERS:
            archive.tree(TOP / folder, f"{REPO}/{folder}", frozenset({"__pycache__"}))
