# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Runs one scenario inside the lab: inside.py NAME. Parameters are in /lab/parameters.json."""

import importlib.util
import json
import sys
import traceback
from pathlib import Path

from kit import Lab
from qmp import ScenarioError, say


def main() -> int:
    name = sys.argv[1]
    spec = importlib.util.spec_from_file_location("scenario", f"/lab/scenarios/{name}.py")
    assert spec and spec.loader
    scenario = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scenario)
    lab = Lab(name, json.loads(Path("/lab/parameters.json").read_text()))
    try:
        scenario.run(lab)
    except ScenarioError as error:
        lab.note("error", str(error))
        say(f"scenario failed: {error}")
        return 1
    except Exception:       # a fault in the scenario itself: still bring its record home
        lab.note("error", traceback.format_exc())
        traceback.print_exc()
        say("scenario failed: see the traceback")
        return 1
    finally:
        lab.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
