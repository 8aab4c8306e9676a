#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# usage: configure-sanitize.sh
#
# Configures build/qemu/build-sanitize: the same tree and options as the main
# build (its config.status has them), but with clang's AddressSanitizer and
# UndefinedBehaviorSanitizer, which the fuzzers need, too. Without TCG and little
# optimization: no test boots a guest there, and it builds in a third of the time.
# Needs: a configured build/qemu/build, clang and its runtime libraries.
set -eu
cd "$(dirname "$0")/.."
TOP=$PWD
OBJ=build/qemu/build-sanitize
MAIN=build/qemu/build
LOG=$TOP/build/log/configure-sanitize.log
TOOLS_PY=$TOP/build/tools/usr/lib/python3/dist-packages

command -v clang >/dev/null || {
    echo "configure-sanitize: error: 'clang' is missing: install clang and libclang-rt-dev" >&2
    exit 1
}
clang='clang'
if command -v ccache >/dev/null; then clang='ccache clang'; fi

stamp="$(cksum <$MAIN/config.status) $(cksum <"$0")"
if [ -e $OBJ/build.ninja ] && [ "$(cat $OBJ/.options 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
echo "* configuring the build with sanitizers"
rm -rf $OBJ
mkdir $OBJ
if [ -d "$TOOLS_PY" ]; then
    PYTHONPATH=$TOOLS_PY${PYTHONPATH:+:$PYTHONPATH}
    export PYTHONPATH
fi
(cd $OBJ && sh ../build/config.status --cc="$clang" --host-cc=clang --enable-asan --enable-ubsan \
    --disable-tcg -Doptimization=1) </dev/null >"$LOG" 2>&1 || {
    tail -n 15 "$LOG" >&2
    echo "configure-sanitize: error: QEMU's configure failed (all of it: $LOG)" >&2
    exit 1
}
# So that ninja finds our meson by itself when it has to run it again.
cp $MAIN/pyvenv/lib/python3*/site-packages/tools.pth $OBJ/pyvenv/lib/python3*/site-packages/ \
    2>/dev/null || :
# QEMU looks for its firmware there.
cp -a $MAIN/qemu-bundle/. $OBJ/qemu-bundle/
echo "$stamp" >$OBJ/.options
