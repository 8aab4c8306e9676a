#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (c) 2026 the project's authors
"""Build and run the fuzzers (libFuzzer, with ASan and UBSan).

usage: fuzz.py build               build all
       fuzz.py run SECONDS [NAME]  run each, or one, that long; `make fuzz` does it
       fuzz.py check SECONDS       the same, for `make check`: writes build/check/fuzz.tap
       fuzz.py total               how many executions all runs so far add up to
       fuzz.py save [NAME]         reduce what was found to tests/fuzz/corpus/NAME.txt

A fuzzer is tests/fuzz/fuzz-NAME.c, linked with the modules that FUZZERS names. It starts from
its corpus, one input a line in hexadecimal, and keeps what it finds in build/fuzz/NAME/. An
input that breaks something is build/fuzz/NAME/crash-*: the program runs it as its argument.
"""
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TOP = Path(os.environ.get("SERIES_TOP") or Path(__file__).resolve().parent.parent.parent)
sys.path.insert(0, str(TOP / "scripts"))
from tap import Group  # noqa: E402

HERE = TOP / "tests" / "fuzz"
TREE = TOP / "build" / "qemu"
OBJ = TREE / "build-sanitize"
WORK = TOP / "build" / "fuzz"
LOG = WORK / "executions.txt"

# The program's modules, and what of libc it does itself.
FUZZERS: dict[str, tuple[list[str], list[str]]] = {
    "stream": (["net/packet-stream.c", "net/packet-inject.c", "net/packet-txring.c",
                "net/vnet-hdr.c", "net/checksum.c"], ["sendmmsg", "setsockopt"]),
    "ring": (["net/packet-capture.c", "net/packet-ring.c", "net/packet-filter.c",
              "net/vnet-hdr.c", "net/checksum.c"],
             ["setsockopt", "getsockopt", "mmap64", "munmap"]),
    "vnet": (["net/vnet-gso.c", "net/vnet-hdr.c", "net/checksum.c", "tests/fuzz/packet.c"], []),
    "vlan": (["net/vnet-gso.c", "net/vnet-hdr.c", "net/checksum.c", "tests/fuzz/packet.c"], []),
}
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize=function",
            "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
# libFuzzer learns from branches and comparisons of what is under test, only from the branches
# of the program around it, and nothing from checksums: their loops would take most of the time.
TESTED = ["-fsanitize=fuzzer-no-link"]
AROUND = ["-fsanitize-coverage=inline-8bit-counters,pc-table"]
HELPERS = ("net/checksum.c",)
# ... where comparisons lead nowhere: the program writes what is compared.
PLAIN = ("net/packet-capture.c", "net/packet-ring.c", "net/packet-filter.c")
# Memory that is freed is new memory again sooner.
ASAN_OPTIONS = "quarantine_size_mb=1:max_malloc_fill_size=0"
MAX_LEN = 200       # bytes of input: enough for what the programs make of them
CORPUS_MAX = 400    # inputs of each that are kept in this repo
SPDX = "# SPDX-License-Identifier: GPL-2.0-or-later\n"


@dataclass
class Run:
    name: str
    ok: bool
    executions: int
    seconds: float
    coverage: int
    output: str


def program(name: str) -> Path:
    return WORK / f"fuzz-{name}"


def found(name: str) -> Path:
    return WORK / name


# ---- build

def qemu_flags() -> list[str]:
    """The include paths and defines that QEMU's build compiles its net/ with."""
    for entry in json.loads((OBJ / "compile_commands.json").read_text()):
        if entry["file"].endswith("net/packet-capture.c"):
            words = shlex.split(entry["command"])
            break
    else:
        raise SystemExit("fuzz: build-sanitize does not compile net/packet-capture.c")
    flags: list[str] = []
    for i, word in enumerate(words):
        if word.startswith(("-I", "-D", "-U", "-std=")) and word != "-I":
            flags.append(word)
        elif word in ("-isystem", "-iquote", "-include", "-I"):
            flags += [word, words[i + 1]]
    return flags


def compile_file(source: str, flags: list[str]) -> Path:
    """Compile one file, if it or any header has changed; where all fuzzers share it, once."""
    ours = source.startswith("tests/")
    path = TOP / source if ours else TREE / source
    out = WORK / (source.replace("/", "_") + ".o")
    newest = max(f.stat().st_mtime for f in [
        path, Path(__file__), OBJ / "config-host.h", *HERE.glob("*.h"),
        *(TOP / "include/net").glob("*.h"), *(TOP / "net").glob("*.h")])
    if not out.exists() or out.stat().st_mtime < newest:
        cover = AROUND if ours or source in PLAIN else [] if source in HELPERS else TESTED
        subprocess.run(["clang", "-c", "-O2", "-g", "-Wall", "-Werror", *SANITIZE, *cover, *flags,
                        "-o", str(out), str(path)], check=True, cwd=OBJ)
    return out


def build() -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    # To stdout only what went wrong.
    subprocess.run(["ninja", "--quiet", "-C", str(OBJ), "libqemuutil.a"], check=True)
    flags = qemu_flags()
    libs = shlex.split(subprocess.run(["pkg-config", "--libs", "glib-2.0", "gthread-2.0"],
                                      check=True, text=True, stdout=subprocess.PIPE).stdout)
    for name, (sources, wraps) in FUZZERS.items():
        objects = [compile_file(s, flags) for s in [f"tests/fuzz/fuzz-{name}.c", *sources]]
        inputs = [*objects, OBJ / "libqemuutil.a"]
        if program(name).exists() and all(f.stat().st_mtime < program(name).stat().st_mtime
                                          for f in inputs):
            continue
        print(f"* building fuzz-{name}", flush=True)
        subprocess.run(["clang", "-fsanitize=fuzzer", *SANITIZE, "-o", str(program(name)),
                        *map(str, inputs), *(f"-Wl,--wrap={w}" for w in wraps), *libs, "-lm"],
                       check=True)


# ---- corpus

def corpus(name: str) -> list[bytes]:
    lines = (HERE / "corpus" / f"{name}.txt").read_text().split("\n")
    return [bytes.fromhex(line.split("#")[0]) for line in lines
            if line and not line.startswith("#")]


def by_hand(name: str) -> list[str]:
    """Lines that say why they are there: they stay, whatever they cover."""
    path = HERE / "corpus" / f"{name}.txt"
    lines = path.read_text().split("\n") if path.exists() else []
    return [line + "\n" for line in lines if "#" in line and not line.startswith("#")]


def unpack(name: str, folder: Path) -> int:
    inputs = corpus(name)
    for number, data in enumerate(inputs):
        (folder / f"{number:04}").write_bytes(data)
    return len(inputs)


def save(name: str) -> None:
    """Fewer inputs with the same coverage, the shortest first."""
    with tempfile.TemporaryDirectory(dir=WORK) as name_old, \
            tempfile.TemporaryDirectory(dir=WORK) as name_new:
        old, new = Path(name_old), Path(name_new)
        if (HERE / "corpus" / f"{name}.txt").exists():
            unpack(name, old)
        subprocess.run([program(name), "-merge=1", f"-max_len={MAX_LEN}", new, old, found(name)],
                       check=True, stderr=subprocess.DEVNULL)
        inputs = sorted((f.read_bytes() for f in new.iterdir()), key=lambda d: (len(d), d))
    (HERE / "corpus").mkdir(exist_ok=True)
    # Not all, and not the shortest only: every n-th.
    inputs = inputs[::-(-len(inputs) // CORPUS_MAX) or 1]
    text = SPDX + "".join([*by_hand(name), *(data.hex() + "\n" for data in inputs if data)])
    (HERE / "corpus" / f"{name}.txt").write_text(text)
    print(f"{name}: {len(inputs)} inputs")


def replay(group: Group) -> None:
    """Run each committed input once."""
    for name in FUZZERS:
        if not (HERE / "corpus" / f"{name}.txt").exists():
            group.add(f"fuzz-{name}: corpus", False, f"tests/fuzz/corpus/{name}.txt is missing")
            continue
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            number = unpack(name, Path(folder))
            done = subprocess.run(
                [program(name), "-runs=0", f"-artifact_prefix={WORK}/", folder], text=True,
                check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        ok = done.returncode == 0 and number > 0
        group.add(f"fuzz-{name}: corpus of {number} inputs", ok, "" if ok else tail(done.stderr))


# ---- run

def tail(text: str, lines: int = 40) -> str:
    return "\n".join(text.rstrip().split("\n")[-lines:])


def run(name: str, seconds: int) -> Run:
    folder = found(name)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as start:
        if (HERE / "corpus" / f"{name}.txt").exists():
            unpack(name, Path(start))
        began = time.monotonic()
        done = subprocess.run(
            [program(name), f"-max_total_time={seconds}", f"-max_len={MAX_LEN}", "-timeout=30",
             "-print_final_stats=1", f"-artifact_prefix={folder}/", folder, start],
            text=True, check=False, errors="replace", stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, env={"ASAN_OPTIONS": ASAN_OPTIONS, **os.environ})
    # libFuzzer's own numbers; after a crash it gives them, too.
    number = re.findall(r"stat::number_of_executed_units: (\d+)", done.stderr)
    cover = re.findall(r" cov: (\d+) ", done.stderr)
    result = Run(name, done.returncode == 0 and bool(number), int(number[-1]) if number else 0,
                 time.monotonic() - began, int(cover[-1]) if cover else 0, done.stderr)
    with LOG.open("a") as log:
        log.write(f"{int(time.time())} {name} {result.seconds:.0f} {result.executions}"
                  f" {'ok' if result.ok else 'FAILED'}\n")
    return result


def run_all(names: list[str], seconds: int, jobs: int) -> list[Run]:
    results = []
    with ThreadPoolExecutor(jobs) as pool:
        for r in pool.map(lambda name: run(name, seconds), names):
            print(f"fuzz-{r.name}: {r.executions} executions in {r.seconds:.0f} s,"
                  f" coverage {r.coverage}{'' if r.ok else ', FAILED'}", flush=True)
            if not r.ok:
                print(tail(r.output))
            results.append(r)
    return results


def total() -> None:
    sums: dict[str, int] = {}
    for line in LOG.read_text().splitlines():
        _, name, _, executions, _ = line.split()
        sums[name] = sums.get(name, 0) + int(executions)
    for name, number in sums.items():
        print(f"fuzz-{name:<8}{number:>14,}")
    print(f"{'total':<13}{sum(sums.values()):>14,}")


def main(args: list[str]) -> int:
    match args:
        case ["build"]:
            build()
        case ["run", seconds, *names] if set(names) <= set(FUZZERS):
            return 0 if all(r.ok for r in run_all(names or list(FUZZERS), int(seconds), 1)) else 1
        case ["check", seconds]:
            group = Group("fuzz")
            for r in run_all(list(FUZZERS), int(seconds), 2):
                group.add(f"fuzz-{r.name}: {r.executions} executions in {seconds} s",
                          r.ok, "" if r.ok else tail(r.output))
            return group.write()
        case ["total"]:
            total()
        case ["save", *names] if set(names) <= set(FUZZERS):
            for name in names or FUZZERS:
                save(name)
        case _:
            print(__doc__)
            print("fuzzers:", ", ".join(FUZZERS))
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
