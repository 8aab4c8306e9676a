#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""usage: meson introspect --targets OBJ | installed_targets.py OBJ

Print ninja's names of the files that an installation contains.
"""
import json
import os
import sys

for target in json.load(sys.stdin):
    if target["installed"]:
        for name in target["filename"]:
            print(os.path.relpath(name, sys.argv[1]))
