#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# usage: install.sh PREFIX DESTDIR
#
# QEMU is configured for one prefix, but finds its files relative to where it
# runs. So it is installed into a folder of ours and copied to any PREFIX.
set -eu
cd "$(dirname "$0")/.."

prefix=$1 destdir=$2
case $prefix in
    /*) ;;
    *) echo "install: error: PREFIX '$prefix' is not an absolute path" >&2; exit 1 ;;
esac

stage=$PWD/build/stage
rm -rf "$stage"
DESTDIR=$stage build/qemu/build/pyvenv/bin/meson install -C build/qemu/build \
    --no-rebuild --quiet
mkdir -p "$destdir$prefix" || {
    echo "install: error: cannot write to '$destdir$prefix'" >&2
    exit 1
}
cp -R "$stage/usr/local/." "$destdir$prefix"
rm -rf "$stage"

# The command, its modules, and QEMU's own that it uses (newer QEMUs leave it to PyPI).
lib=$destdir$prefix/lib/qemu-handover man=$destdir$prefix/share/man/man1
mkdir -p "$lib/qemu_handover" "$man"
cp tools/qemu-handover "$destdir$prefix/bin/"
cp tools/qemu_handover/*.py "$lib/qemu_handover/"
if [ -d build/qemu/python/qemu/qmp ]; then
    mkdir -p "$lib/qemu"
    cp -R build/qemu/python/qemu/qmp "$lib/qemu/"
fi
if command -v rst2man >/dev/null; then
    rst2man docs/qemu-handover.rst "$man/qemu-handover.1"
fi
echo "* installed: $destdir$prefix/bin: $(cd "$destdir$prefix/bin" && echo qemu-system-*)"
