# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Become a host with libvirt: host.py NAME FOLDER (see rig.py, which starts it).

Runs in a network, a mount and a UTS namespace of its own. Every place where libvirt keeps something
is covered with a folder below FOLDER, so that nothing of the machine's own libvirt is touched, and
the two hosts know nothing of each other. The log, with each QMP event, is FOLDER/libvirtd.log.
"""

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import rig

# Where libvirt keeps things. Without the machine's /run it finds no bus and no daemon, either.
PLACES = ("etc/libvirt", "etc/pki", "var", "run")
PROFILED = ("usr.lib.libvirt.virt-aa-helper", "usr.sbin.libvirtd")
SECURITY = Path("/sys/kernel/security")
# libvirt's default, of Debian's packages; the package that adds it also starts a daemon.
USER = "libvirt-qemu"
USER_ID = 64055

# Debian's defaults, but for what a test machine may not have: AppArmor as a rule, cgroups of its
# own, a log daemon.
QEMU_CONF = """\
security_driver = "{driver}"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
migration_address = "0.0.0.0"
"""

# Each QMP event is a line of the log.
LIBVIRTD_CONF = """\
host_uuid = "{uuid}"
auth_unix_rw = "none"
log_filters = "2:qemu.qemu_monitor 3:*"
log_outputs = "2:file:{log}"
"""


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def cover_places(folder: Path) -> None:
    for place in PLACES:
        ours = folder / place
        ours.mkdir(parents=True, exist_ok=True)
        Path("/", place).mkdir(exist_ok=True)
        mount("--bind", str(ours), f"/{place}")
    Path("/var/run").symlink_to("/run")


def know_hosts(folder: Path) -> None:
    """They find each other by name, as libvirt and certificates want it."""
    mount("--bind", str(folder.parent / "hosts"), "/etc/hosts")


def add_user(folder: Path) -> None:
    """Seen by this host only."""
    for name, line in (("passwd", f"{USER}:x:{USER_ID}:{USER_ID}::/var/lib/libvirt:/bin/false"),
                       ("group", f"{USER}:x:{USER_ID}:")):
        text = Path("/etc", name).read_text()
        if f"\n{USER}:" not in text:
            text = f"{text.rstrip()}\n{line}\n"
        (folder / name).write_text(text)
        mount("--bind", str(folder / name), f"/etc/{name}")


def allow_userfaultfd(folder: Path) -> None:
    """Postcopy needs it. libvirt's packages allow it to every user by a sysctl, of the whole
    machine; here the device is opened to everybody who sees this host."""
    device = Path("/dev/userfaultfd")
    if device.exists():
        ours = folder / "userfaultfd"
        os.mknod(ours, stat.S_IFCHR | 0o666, device.stat().st_rdev)
        ours.chmod(0o666)
        mount("--bind", str(ours), str(device))


def added_to_profiles() -> dict[Path, str]:
    """What the manual tells to put into which file."""
    text = (rig.HERE.parent.parent / rig.MANUAL).read_text()
    step = re.search(r"^\d\. \*\*AppArmor\*\*.*?(?=^\d\. )", text, re.MULTILINE | re.DOTALL)
    assert step, rig.MANUAL
    _, *parts = re.split(rf"`(/{rig.PROFILES}/local/\S+)`", step[0])
    return {Path(path): "\n".join(re.findall(r"^ {7}(.+,)$", lines, re.MULTILINE)) + "\n"
            for path, lines in zip(parts[::2], parts[1::2])}


def confine(name: str, folder: Path) -> None:
    """AppArmor's profiles as Debian's packages bring them. The two hosts have some of the same
    name: a policy namespace for each."""
    ours = folder / rig.PROFILES
    shutil.copytree(Path("/", rig.PROFILES), ours)
    mount("--bind", str(ours), f"/{rig.PROFILES}")
    mount("-t", "securityfs", "securityfs", str(SECURITY))
    (SECURITY / "apparmor/policy/namespaces" / name).mkdir(exist_ok=True)
    Path("/proc/self/attr/current").write_text(f"changeprofile :{name}:unconfined")
    # The packages make these.
    for local in ("usr.sbin.libvirtd", "usr.lib.libvirt.virt-aa-helper",
                  "abstractions/libvirt-qemu"):
        path = Path("/", rig.PROFILES, "local", local)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for path, lines in added_to_profiles().items():
        path.write_text(lines)
    subprocess.run(["/sbin/apparmor_parser", "-r",
                    *(f"/{rig.PROFILES}/{profile}" for profile in PROFILED)], check=True)


def main(name: str, folder: Path) -> None:
    socket.sethostname(name)
    cover_places(folder)
    if rig.APPARMOR:
        confine(name, folder)
    know_hosts(folder)
    add_user(folder)
    allow_userfaultfd(folder)
    Path("/etc/libvirt/qemu/networks").mkdir(parents=True)
    Path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF.format(
        driver="apparmor" if rig.APPARMOR else "none"))
    conf = Path("/etc/libvirt/libvirtd.conf")
    conf.write_text(LIBVIRTD_CONF.format(uuid=uuid.uuid4(), log=folder / "libvirtd.log"))
    os.execvp("libvirtd", ["libvirtd", "--config", str(conf)])


main(sys.argv[1], Path(sys.argv[2]))
