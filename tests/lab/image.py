# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Make what the lab boots: kernel, initramfs, and the guest's snapshot.

Everything lies in one folder (build/lab) and is made again when an input changed: each product has
a ".inputs" file beside it with a digest of all it was made from.
"""

import hashlib
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from cpio import Archive

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "inside"))
import guest  # noqa: E402

KERNEL_PACKAGE = "linux-image-cloud-amd64"
LAB_MODULES = ("virtio_pci", "virtio_blk", "tun", "vhost_net", "bridge", "veth", "macvtap",
               "sch_netem", "sch_prio", "cls_u32")
OVS_PACKAGES = ("openvswitch-switch", "openvswitch-common")
OVS_PROGRAMS = ("usr/sbin/ovsdb-server", "usr/bin/ovsdb-tool", "usr/bin/ovs-vsctl",
                "usr/bin/ovs-appctl", "usr/lib/openvswitch-switch/ovs-vswitchd")
OVS_SCHEMA = "usr/share/openvswitch/vswitch.ovsschema"
GUEST_MODULES = ("virtio_pci", "virtio_net")
# Where Debian's packages seabios, qemu-system-data and ipxe-qemu put firmware.
FIRMWARE_FOLDERS = ("/usr/share/seabios", "/usr/share/qemu", "/usr/lib/ipxe/qemu")
FIRMWARE = ("bios-256k.bin", "linuxboot_dma.bin", "kvmvapic.bin")
PYTHON_SKIP = frozenset({"test", "idlelib", "tkinter", "ensurepip", "lib2to3", "pydoc_data",
                         "turtledemo", "distutils", "dist-packages", "site-packages"})
TRAFFIC_SOURCES = ("traffic.c", "queues.c")
PROGRAM = HERE / "program"      # the guest that needs no processor, and what goes with it
DRIVER = HERE.parent / "qtest/filter-redirector-guest.c"
SNAPSHOT_BOOT_S = 60


class LabError(Exception):
    """Something a user can act on; shown without a traceback."""


def say(text: str) -> None:
    print(f"lab: {text}", flush=True)


def digest(inputs: Iterable[Path | str]) -> str:
    """One digest of files' contents (Path) and of texts (str)."""
    total = hashlib.sha256()
    for item in inputs:
        data = item.read_bytes() if isinstance(item, Path) else item.encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


def need(program: str, package: str) -> str:
    path = shutil.which(program)
    if not path:
        raise LabError(f"{program} is not installed: install Debian's package {package}")
    return path


class Image:
    """The lab's parts under `folder`, for the QEMU binary `qemu`."""

    def __init__(self, folder: Path, qemu: Path) -> None:
        self.folder = folder
        self.qemu = self._program(qemu)
        self.kernel = folder / "vmlinuz"
        self.base = folder / "base.cpio"
        self.guest_initrd = folder / "guest.cpio"
        self.traffic = folder / "traffic"
        self.program = folder / "lab-net"
        self.firmware = folder / "firmware"

    def _snapshot_path(self, queues: int) -> Path:
        return self.folder / ("guest.snapshot" if queues == 1 else f"guest-{queues}.snapshot")

    @staticmethod
    def _program(qemu: Path) -> Path:
        qemu = qemu.resolve()
        if not qemu.is_file():
            raise LabError(f"{qemu} does not exist: build it first (make), or give QEMU=path")
        with qemu.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                raise LabError(f"{qemu} is not a program but a script: give QEMU=path of the "
                               "program itself, its libraries are copied into the lab")
        return qemu

    def make(self) -> None:
        """Makes what is missing or out of date."""
        self._make_parts()
        self._product(self.program, [*sorted(PROGRAM.rglob("*.[ch]")), DRIVER,
                                     DRIVER.with_suffix(".h")], self._compile_program)
        self._product(self.guest_initrd,
                      [self.kernel, self.traffic, HERE / "guest-init", HERE / "image.py",
                       HERE / "cpio.py", HERE / "inside/guest.py"], self._make_guest_initrd)
        self._copy_firmware()
        self._product(self.base,
                      [self.kernel, self.traffic, self.program, self.qemu,
                       HERE / "image.py", HERE / "cpio.py", HERE / "lab-init", sys.version],
                      self._make_base)

    def _make_parts(self) -> None:
        """The kernel and the traffic program: what every guest needs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        packages = self._packages()
        self._product(self.kernel, [*packages], lambda: self._unpack(packages))
        self._product(self.traffic, [HERE / name for name in (*TRAFFIC_SOURCES, "queues.h")],
                      self._compile_traffic)

    def guest_snapshot(self, queues: int) -> Path:
        """The saved Linux guest with so many queues, made if missing or out of date."""
        path = self._snapshot_path(queues)
        self._product(path, [self.kernel, self.guest_initrd, self.qemu, HERE / "inside/guest.py"],
                      lambda: self._make_snapshot(path, queues))
        return path

    def _product(self, path: Path, inputs: list[Path | str], make: Callable[[], None]) -> None:
        """Calls `make` unless `path` exists and was made from these inputs."""
        stamp = path.with_name(path.name + ".inputs")
        want = digest(inputs)
        if path.exists() and stamp.exists() and stamp.read_text() == want:
            return
        say(f"making {path.name}")
        stamp.unlink(missing_ok=True)
        make()
        stamp.write_text(want)

    # ---- Debian's packages ----

    def _packages(self) -> list[Path]:
        """The kernel's and busybox' packages, downloaded once and kept."""
        folder = self.folder / "packages"
        folder.mkdir(exist_ok=True)
        found = [sorted(folder.glob(pattern)) for pattern in
                 ("linux-image-*-cloud-amd64_*.deb", "busybox-static_*.deb")]
        if all(found):
            return [debs[-1] for debs in found]
        need("apt-get", "apt")
        depends = subprocess.run(["apt-cache", "depends", KERNEL_PACKAGE], text=True,
                                 capture_output=True, check=False).stdout
        match = re.search(r"Depends: (linux-image-\S+-cloud-amd64)", depends)
        if not match:
            raise LabError(f"apt knows no package {KERNEL_PACKAGE}: run 'apt-get update' as root")
        self._download(folder, match[1], "busybox-static")
        return self._packages()

    @staticmethod
    def _download(folder: Path, *names: str) -> None:
        say(f"downloading {' '.join(names)}")
        folder.mkdir(exist_ok=True)
        result = subprocess.run(["apt-get", "-q", "download", *names],
                                cwd=folder, text=True, capture_output=True, check=False)
        if result.returncode:
            raise LabError("downloading packages failed; 'apt-get update' may help:\n"
                           + result.stderr.strip())

    def unpacked(self, name: str, packages: tuple[str, ...], libraries: bool = False) -> Path:
        """Where these packages are unpacked, once; with `libraries` also those that this machine
        lacks. They are not installed here: what is in them would start."""
        root = (self.folder / name).resolve()   # ldd shall tell whole paths
        if not (root / "whole").exists():
            folder = self.folder / f"{name}-packages"
            plan = subprocess.run(["apt-get", "-s", "--no-install-recommends", "install",
                                   *packages], text=True, capture_output=True,
                                  check=False).stdout if libraries else ""
            self._download(folder, *packages, *re.findall(r"^Inst (lib\S+)", plan, re.MULTILINE))
            for package in folder.glob("*.deb"):
                subprocess.run([need("dpkg-deb", "dpkg"), "-x", package, root], check=True)
            (root / "whole").touch()
        return root

    def add_openvswitch(self, archive: Archive) -> None:
        """What the lab needs besides, where its switch is Open vSwitch."""
        root = self.unpacked("openvswitch", OVS_PACKAGES, libraries=True)
        for program in OVS_PROGRAMS:
            self.add_program(archive, root / program, f"usr/sbin/{Path(program).name}", root)
        archive.file(root / OVS_SCHEMA, OVS_SCHEMA)
        self._add_modules(archive, self._modules((*LAB_MODULES, "openvswitch")))

    def _unpack(self, packages: list[Path]) -> None:
        root = self.folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        for package in packages:
            subprocess.run([need("dpkg-deb", "dpkg"), "-x", package, root], check=True)
        packed = list(root.glob("**/modules/*/kernel/**/*.ko.xz"))
        if packed:      # since Debian 13
            subprocess.run([need("xz", "xz-utils"), "-d", *packed], check=True)
        kernels = list(root.glob("boot/vmlinuz-*"))
        if len(kernels) != 1:
            raise LabError(f"{packages[0].name} has no kernel (boot/vmlinuz-*)")
        shutil.copyfile(kernels[0], self.kernel)

    def _modules(self, names: Iterable[str]) -> list[Path]:
        """The modules' files with all they depend on, in the order to load them."""
        available = {path.stem.replace("-", "_"): path
                     for path in self.folder.glob("root/**/modules/*/kernel/**/*.ko")}
        order: list[Path] = []

        def add(name: str) -> None:
            path = available.get(name.replace("-", "_"))
            if not path:
                raise LabError(f"the lab's kernel has no module {name}")
            match = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
            for dependency in (match[1].decode() if match else "").split(","):
                if dependency:
                    add(dependency)
            if path not in order:
                order.append(path)

        for name in names:
            add(name)
        return order

    def _add_modules(self, archive: Archive, paths: list[Path]) -> None:
        for path in paths:
            archive.file(path, f"modules/{path.name}")
        archive.data("modules/list",
                     "".join(f"{path.name}\n" for path in paths).encode())

    # ---- our program, the guest ----

    def _compile_traffic(self) -> None:
        subprocess.run([need("cc", "gcc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-static", "-s",
                        "-o", self.traffic, *(HERE / name for name in TRAFFIC_SOURCES)], check=True)

    def _compile_program(self) -> None:
        subprocess.run([need("cc", "gcc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-static", "-s",
                        "-I", PROGRAM / "include", "-o", self.program,
                        *sorted(PROGRAM.glob("*.c")), DRIVER], check=True)

    def _add_busybox(self, archive: Archive) -> None:
        archive.file(self.folder / "root/bin/busybox", "bin/busybox")
        archive.symlink("bin/sh", "busybox")
        archive.device("dev/console", 5, 1)
        archive.device("dev/null", 1, 3)

    def _make_guest_initrd(self) -> None:
        with self.guest_initrd.open("wb") as out:
            archive = Archive(out)
            self._add_busybox(archive)
            archive.data("init", (HERE / "guest-init").read_bytes(), 0o755)
            archive.data("client-mac", guest.CLIENT_MAC.encode())
            archive.file(self.traffic, "bin/traffic")
            self._add_modules(archive, self._modules(GUEST_MODULES))
            archive.close()

    def _copy_firmware(self) -> None:
        self.firmware.mkdir(exist_ok=True)
        for name in FIRMWARE:
            sources = [Path(folder) / name for folder in FIRMWARE_FOLDERS
                       if (Path(folder) / name).exists()]
            if not sources:
                raise LabError(f"no firmware {name}: install Debian's packages seabios and "
                               "qemu-system-data")
            target = self.firmware / name
            if not target.exists() or target.read_bytes() != sources[0].read_bytes():
                shutil.copyfile(sources[0], target)

    def _make_snapshot(self, path: Path, queues: int) -> None:
        """Boots the guest and saves it when its traffic program waits.

        Its network card has a TAP behind it, as inside the lab: the driver picks the offloads once,
        at boot. The TAP is made by QEMU in a network namespace of its own, so this needs no
        privileges where the host allows user namespaces.
        """
        temporary = path.with_name(path.name + ".new")
        temporary.unlink(missing_ok=True)
        qmp, serial = socket.socketpair(), socket.socketpair()
        command = [need("unshare", "util-linux"), "--user", "--map-root-user", "--net",
                   str(self.qemu), "-L", str(self.firmware),
                   *guest.machine(str(self.kernel), str(self.guest_initrd), queues),
                   *guest.back_end("ifname=guest0,script=,downscript=", queues),
                   *guest.network_card(queues),
                   "-chardev", f"socket,id=serial,fd={serial[1].fileno()}",
                   "-serial", "chardev:serial",
                   "-chardev", f"socket,id=qmp,fd={qmp[1].fileno()}",
                   "-mon", "chardev=qmp,mode=control"]
        log = self.folder / "guest-boot.log"
        with log.open("w") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=output,
                                       pass_fds=(qmp[1].fileno(), serial[1].fileno()))
        qmp[1].close()
        serial[1].close()
        try:
            self._await_text(serial[0], b"traffic: peer ready", log)
            time.sleep(0.3)     # let the guest settle in its poll
            for order in ('{"execute": "qmp_capabilities"}', '{"execute": "migrate", "arguments": '
                          f'{{"uri": "file:{temporary}"}}}}'):
                qmp[0].sendall(order.encode())
            qmp[0].settimeout(SNAPSHOT_BOOT_S)
            self._await_migration(qmp[0])
            qmp[0].sendall(b'{"execute": "quit"}')
            process.wait(timeout=10)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            qmp[0].close()
            serial[0].close()
        temporary.chmod(0o644)      # some scenarios' QEMU is not root
        temporary.rename(path)

    @staticmethod
    def _await_text(connection: socket.socket, text: bytes, log: Path) -> None:
        seen = b""
        end = time.monotonic() + SNAPSHOT_BOOT_S
        while text not in seen:
            console = seen.decode(errors="replace")[-2000:]
            if not select.select([connection], [], [], max(0.0, end - time.monotonic()))[0]:
                raise LabError(f"the guest did not boot within {SNAPSHOT_BOOT_S} s:\n{console}")
            data = connection.recv(4096)
            if not data:
                raise LabError(f"the guest's QEMU ended early:\n{console}\n{log.read_text()}")
            seen += data

    @staticmethod
    def _await_migration(connection: socket.socket) -> None:
        end = time.monotonic() + SNAPSHOT_BOOT_S
        answer = b""
        while b'"completed"' not in answer:
            if time.monotonic() > end or b'"failed"' in answer:
                raise LabError(f"saving the guest failed: {answer.decode(errors='replace')[-500:]}")
            time.sleep(0.2)
            connection.sendall(b'{"execute": "query-migrate"}')
            answer = connection.recv(65536)

    # ---- the lab's initramfs ----

    def add_program(self, archive: Archive, program: Path, name: str,
                    root: Path | None = None) -> None:
        """Adds a program with its shared libraries; `root` may have some that the machine lacks."""
        archive.file(program, name)
        folders = root.glob("usr/lib/*-linux-*") if root else ()
        listing = subprocess.run(["ldd", program], text=True, capture_output=True, check=False,
                                 env={**os.environ,
                                      "LD_LIBRARY_PATH": ":".join(map(str, folders))}).stdout
        if "not found" in listing:
            raise LabError(f"{program} lacks shared libraries:\n{listing}")
        for library in map(Path, re.findall(r"(?:=> |^\t)(/\S+)", listing, re.MULTILINE)):
            inside = library.relative_to(root if root and library.is_relative_to(root) else "/")
            archive.file(library, str(inside))

    def built(self, name: str) -> Path:
        """A file of QEMU's build folder."""
        path = self.qemu.parent / name
        if not path.is_file():
            raise LabError(f"{path} does not exist: build it with 'ninja -C {self.qemu.parent} "
                           f"{name}'")
        return path

    def _stripped_qemu(self) -> Path:
        target = self.folder / "qemu-stripped"
        subprocess.run([need("strip", "binutils"), "-o", target, self.qemu], check=True)
        return target

    def _make_base(self) -> None:
        with self.base.open("wb") as out:
            archive = Archive(out)
            self._add_busybox(archive)
            archive.data("init", (HERE / "lab-init").read_bytes(), 0o755)
            self._add_modules(archive, self._modules(LAB_MODULES))
            for name, package in (("ip", "iproute2"), ("bridge", "iproute2"),
                                  ("tc", "iproute2"), ("setpriv", "util-linux")):
                self.add_program(archive, Path(need(name, package)).resolve(),
                                  f"usr/sbin/{name}")
            python = Path(sys.executable).resolve()
            self.add_program(archive, python, "usr/bin/python3")
            stdlib = Path(sysconfig.get_path("stdlib"))
            archive.tree(stdlib, str(stdlib).lstrip("/"),
                         PYTHON_SKIP | {path.name for path in stdlib.glob("config-*")})
            for library in stdlib.glob("lib-dynload/_socket*.so"):
                self.add_program(archive, library, str(library).lstrip("/"))
            self.add_program(archive, self._stripped_qemu(), "usr/bin/qemu")
            archive.tree(self.firmware, "usr/share/lab-firmware")
            archive.file(self.traffic, "usr/bin/traffic")
            archive.file(self.program, "usr/bin/lab-net")
            archive.close()
