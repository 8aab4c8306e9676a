# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The source's ports where there is no TLS. A QEMU that listens takes whoever comes first, and the
next one when he goes. So this program listens for it, on the source's host, takes one connection
from the destination's address for each interface, and passes it on: QEMU has no port that is open.
"""

import select
import socket
from collections.abc import Iterable

from .machine import Failure


def _addresses(names: Iterable[str]) -> set[str]:
    """Of these hosts. Who has no address here is nobody."""
    found = set()
    for name in names:
        try:
            found |= {str(item[4][0]) for item in socket.getaddrinfo(name, None)}
        except OSError:
            pass
    return found


def _plain(address: str) -> str:
    """Of IPv4, where that came to a socket for both."""
    return address.removeprefix("::ffff:")


def _listen(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    return socket.create_server(("", port), family=socket.AF_INET6 if both else socket.AF_INET,
                                dualstack_ipv6=both)


class Doors:
    """Each lets one peer in, once."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._allowed = _addresses(self._names)
        self._open: dict[str, socket.socket] = {}
        self._turned_away: set[str] = set()

    @property
    def waits(self) -> bool:
        """Somebody has not come yet."""
        return bool(self._open)

    @property
    def complaint(self) -> str:
        """Who came, and may not."""
        names = ", ".join(sorted(self._turned_away))
        return f" Turned away: {names} (is that the destination? Then say --peer)." \
            if names else ""

    def add(self, ident: str, ports: range) -> int:
        """Opens one; returns its port."""
        if not self._allowed:
            raise Failure("the destination's address is not known here "
                          f"({', '.join(self._names) or 'no name'}): say --peer ADDRESS")
        for port in ports:
            try:
                self._open[ident] = _listen(port)
            except OSError:
                continue
            self._open[ident].setblocking(False)
            return port
        raise Failure(f"no free port from {ports[0]} to {ports[-1]}")

    def wait(self, limit_s: float) -> list[tuple[str, socket.socket]]:
        """Those who have come in meanwhile: whose door is closed now, behind them."""
        ready = select.select(self._open.values(), [], [], limit_s)[0]
        found = []
        for ident, door in list(self._open.items()):
            if door in ready and (guest := self._let_in(door)):
                door.close()
                del self._open[ident]
                found.append((ident, guest))
        return found

    def _let_in(self, door: socket.socket) -> socket.socket | None:
        try:
            guest, where = door.accept()
        except OSError:
            return None
        address = _plain(where[0])
        if address in self._allowed:
            return guest
        guest.close()
        self._turned_away.add(address)
        return None

    def close(self) -> None:
        """Nobody gets in any more."""
        for door in self._open.values():
            door.close()
        self._open.clear()
