# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Write an initramfs: the kernel's "newc" cpio format, no compression.

Not compressed on purpose: emulated processors unpack slowly, and memory is cheap.
Needs no privileges: device nodes and owners exist only in the archive.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO


class Archive:
    """An initramfs being written. Parents of what is added are made by themselves."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._inode = 0
        self._names: set[str] = set()

    def _entry(self, name: str, mode: int, data: bytes = b"", mtime: int = 0,
               device: tuple[int, int] = (0, 0)) -> None:
        if name in self._names:
            return
        self._names.add(name)
        parent = os.path.dirname(name)
        if parent:
            self._entry(parent, stat.S_IFDIR | 0o755)
        self._inode += 1
        raw_name = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, mtime, len(data), 0, 0, *device, len(raw_name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        self._write_padded(header + raw_name)
        self._write_padded(data)

    def _write_padded(self, data: bytes) -> None:
        self._out.write(data + b"\0" * (-len(data) % 4))

    def directory(self, name: str) -> None:
        self._entry(name, stat.S_IFDIR | 0o755)

    def symlink(self, name: str, target: str) -> None:
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        self._entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def data(self, name: str, data: bytes, mode: int = 0o644, mtime: int = 0) -> None:
        self._entry(name, stat.S_IFREG | mode, data, mtime)

    def file(self, source: Path, name: str = "") -> None:
        """Adds a file (links followed) under `name`, or under its own path."""
        info = source.stat()
        # Python believes a .pyc file only when the .py file has the recorded time.
        self.data(name or str(source).lstrip("/"), source.read_bytes(),
                  stat.S_IMODE(info.st_mode), int(info.st_mtime))

    def tree(self, source: Path, name: str, skip: frozenset[str] = frozenset()) -> None:
        """Adds a folder; entries whose name or path below it is in `skip` are left out."""
        self.directory(name)
        for entry in sorted(source.iterdir()):
            if entry.name in skip:
                continue
            target = f"{name}/{entry.name}"
            if entry.is_dir():
                self.tree(entry, target, skip)
            elif entry.is_file():
                self.file(entry, target)

    def close(self) -> None:
        self._entry("TRAILER!!!", 0)
