# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""The source is killed the moment its migration has completed: what it held is lost, no more.

What is lost is shown, not judged; nothing may be doubled or damaged, what was handed over and what
came directly has to be in order, and the guest goes on. (What comes directly may overtake the
rest: nobody is left to say where that ends.)
"""

import time


def run(lab):
    source, destination = lab.handover_pair()
    lab.finish_migration(source, destination, lab.start_migration(source, destination))
    source.kill()
    lab.mark("src killed")
    lab.announce_now(destination)
    time.sleep(lab.after)
    lab.check_vhost_carries(destination)
    lab.stop_traffic()


def judge(result):
    from verdict import none     # of tests/lab: only on the outside

    return [("the guest went on at the destination", len(result["moves"]) == 1),
            *none(result, "to_guest", "duplicated", "damaged", "reordered_same_way"),
            *none(result, "from_guest", "lost", "duplicated", "damaged", "reordered")]
