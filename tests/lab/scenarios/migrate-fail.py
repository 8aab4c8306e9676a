# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The destination dies at the switchover: the source must go on as if nothing had happened."""

import time


def run(lab):
    lab.network(("src0", "dst0"))
    source = lab.source()
    destination = lab.destination()
    lab.inject_end(destination, "/run/handover.sock")
    lab.handover_end(source, "/run/handover.sock")
    lab.hold_announcement(destination)
    lab.start_traffic()
    lab.check_vhost_carries(source)
    time.sleep(lab.before)
    # The source stops, and waits there for the word to go on: the worst moment, held still.
    source.qmp("migrate-set-capabilities",
               capabilities=[{"capability": "pause-before-switchover", "state": True}])
    started = lab.start_migration(source, destination)
    source.qmp.event("STOP", after_ns=started)
    time.sleep(0.5)
    destination.kill()
    source.qmp("migrate-continue", state="pre-switchover")
    status = lab.migration_end(source)["status"]
    lab.note("migration_status", status)
    if source.status() != "running":
        source.qmp("cont")
    source.qmp.event("RESUME", after_ns=started)
    time.sleep(lab.after)
    lab.stop_traffic()


def judge(result):
    return [("the migration was failed", result["notes"]["migration_status"] == "failed"),
            ("no packet lost", result["lost"] == 0),
            ("no packet doubled", result["duplicated"] == 0),
            ("no packet out of order", result["reordered"] == 0)]
