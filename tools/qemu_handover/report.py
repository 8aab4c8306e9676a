# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""What came of a migration: for people, for scripts, and as an exit status."""

from dataclasses import asdict, dataclass, field
from typing import Any

# Exit statuses; 2 is argparse's for a command that makes no sense.
DONE, FAILED, UNCONFIRMED, LOST_GUEST = 0, 1, 3, 4


@dataclass
class HandedOver:
    """One interface."""
    interface: str
    device: str
    sent: int | None = None         # by the source; unknown if it had gone before it could say
    packets: int | None = None      # of the source, given to the guest
    direct: int = 0
    cancelled: int = 0
    late: int = 0
    stale: int = 0
    lost: int = 0
    how: str = "unknown"

    def take(self, taken: dict[str, Any] | None, handed: dict[str, Any] | None) -> None:
        """The destination's word, and the source's."""
        for key, value in (taken or {}).items():
            if key != "id":
                setattr(self, key, value)
        if handed:
            self.sent = handed["packets"]

    @property
    def complete(self) -> bool:
        """The source has said that this was all, and the guest has got it."""
        return self.how == "told" and not self.lost and \
            (self.sent is None or self.packets is None or self.sent <= self.packets + self.late)

    @property
    def text(self) -> str:
        name = f"{self.interface} ({self.device})" if self.device else self.interface
        if self.packets is None:
            return f"{name}: the destination does not say what was handed over"
        verdict = "complete" if self.complete else f"NOT CONFIRMED (ended: {self.how})"
        sent = "" if self.sent is None else f" of {self.sent} sent"
        return (f"{name}: {self.packets} packets{sent} handed over, {self.late} of them late, "
                f"{self.direct} came directly meanwhile, {self.lost} lost: {verdict}")


@dataclass
class Report:
    """All of it."""
    domain: str
    source: str
    destination: str
    status: int = FAILED
    runs_at: str = "source"         # or destination, or unknown
    error: str = ""
    seconds: float = 0.0
    tls: bool = False
    interfaces: list[HandedOver] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def need_complete(self) -> None:
        """The guest has moved: whether it has got all that was to be handed over."""
        if not all(item.complete for item in self.interfaces):
            self.status = UNCONFIRMED
            self.error = "the hand-over was not confirmed to be complete"

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        for item, values in zip(self.interfaces, found["interfaces"]):
            values["complete"] = item.complete
        return found

    @property
    def text(self) -> str:
        """For people."""
        lines = [item.text for item in self.interfaces] if self.runs_at == "destination" else []
        if self.runs_at == "destination":
            lines.append(f"{self.domain} runs at {self.destination} ({self.seconds:.1f} s)")
        elif self.runs_at == "source":
            lines.append(f"{self.domain} goes on at {self.source or 'the source'}; nothing of the "
                         "migration is left there")
        else:
            lines.append(f"{self.domain}: look where it runs: virsh list, on both hosts")
        if self.left_over:
            lines.append(f"could not remove: {', '.join(self.left_over)}; "
                         f"later: qemu-handover clean {self.domain}")
        return "\n".join(lines)
