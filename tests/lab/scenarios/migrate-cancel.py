# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The user cancels at the switchover: the source must go on as if nothing had happened."""


def run(lab):
    source, destination = lab.handover_pair()
    started = lab.hold_switchover(source, destination)
    source.qmp("migrate_cancel")
    lab.go_on(source, started)


def judge(result):
    from verdict import undisturbed     # of tests/lab: only on the outside

    return [("the migration was cancelled", result["notes"]["migration_status"] == "cancelled"),
            *undisturbed(result)]
