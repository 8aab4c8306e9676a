# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Migrate with the hand-over in libvirt's order of events: nobody waits for it.

The destination is started with -S and continued once the source has completed, announces itself as
it likes, and the source is ended at once.

announcement=never: the network keeps it from the source (isolated ports), which knows by the
destination's word and by the time that all has come; announcement=late: only the first ones.

overtaken=MS: the announcement gets to the source that much sooner than data.
"""

import time

PARAMETERS = {"late": False, "linger": 0.1,     # seconds until the source is told to end
              "announcement": "seen", "overtaken": 0.0}
FIRST_LOST_S = 0.03


def run(lab):
    source, destination = lab.handover_pair(destination_extra=("-S",), overtaken=lab.overtaken)
    started = lab.start_migration(source, destination)
    stop = source.qmp.event("STOP", 60, started)
    result = lab.migration_end(source)
    lab.note("downtime_by_qemu_ms", result.get("downtime"))
    lab.migration_end(destination)
    if lab.announcement != "seen":
        lab.isolate(True)
    destination.qmp("cont")
    resume = destination.qmp.event("RESUME", 60, started)
    if lab.announcement == "late":
        time.sleep(FIRST_LOST_S)
        lab.isolate(False)
    lab.mark("src stopped", stop["ns"])
    lab.mark("dst resumed", resume["ns"])
    time.sleep(lab.linger)
    lab.terminate(source)
    time.sleep(lab.after)
    lab.check_vhost_carries(destination)
    lab.stop_traffic()


def judge(result):
    from verdict import every_packet_once   # of tests/lab: only on the outside

    return [("the guest went on at the destination", len(result["moves"]) == 1),
            *every_packet_once(result)]
