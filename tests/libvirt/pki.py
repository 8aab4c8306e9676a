# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Certificates as libvirt's documentation has them made: an authority, and for each host one as a
server and one as a client. Made with openssl, once for each run."""

import os
import shutil
from pathlib import Path

import rig

DAYS = "2"
USES = {"server": "serverAuth", "client": "clientAuth"}


class Authority:
    """Its certificate is what peers trust."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._new_key("ca")
        rig.run("openssl", "req", "-x509", "-new", "-key", str(folder / "ca-key.pem"),
                "-days", DAYS, "-subj", "/CN=authority", "-out", str(folder / "ca-cert.pem"),
                "-addext", "keyUsage=critical,keyCertSign")

    def _new_key(self, name: str) -> Path:
        path = self._folder / f"{name}-key.pem"
        rig.run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-out", str(path))
        return path

    def equip(self, target: Path, name: str, address: str, owner: int) -> None:
        """Fills `target` with what a host of that name needs."""
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._folder / "ca-cert.pem", target / "ca-cert.pem")
        for role, use in USES.items():
            key = self._new_key(f"{name}-{role}")
            request = self._folder / f"{name}-{role}.csr"
            rig.run("openssl", "req", "-new", "-key", str(key), "-subj", f"/O=test/CN={name}",
                    "-out", str(request))
            extensions = self._folder / f"{name}-{role}.ext"
            extensions.write_text(f"basicConstraints=critical,CA:FALSE\n"
                                  f"keyUsage=critical,digitalSignature\nextendedKeyUsage={use}\n"
                                  f"subjectAltName=DNS:{name},IP:{address}\n")
            rig.run("openssl", "x509", "-req", "-in", str(request), "-days", DAYS,
                    "-CA", str(self._folder / "ca-cert.pem"), "-CAcreateserial",
                    "-CAkey", str(self._folder / "ca-key.pem"), "-extfile", str(extensions),
                    "-out", str(target / f"{role}-cert.pem"))
            shutil.copyfile(key, target / f"{role}-key.pem")
            os.chown(target / f"{role}-key.pem", owner, owner)
            (target / f"{role}-key.pem").chmod(0o400)
