#!/bin/sh
# venv.sh PYTHON DIR SPEC: make the virtual environment DIR if it is not there, and install SPEC into it (editable).
# With uv where it is installed, else with the standard library's venv and pip.
set -eu
python=$1 dir=$2 spec=$3

if ! command -v "$python" >/dev/null 2>&1; then
    echo "kvmscope needs Python 3.11 or newer; '$python' was not found." >&2
    echo "  Debian/Ubuntu: apt install python3 python3-venv     Fedora: dnf install python3" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "kvmscope needs Python 3.11 or newer; '$python' is $("$python" -V 2>&1)." >&2
    echo "  Name another one: make PYTHON=python3.12 ..." >&2
    exit 1
fi

# An editable install leaves our own files uncompiled, and uv those of all packages unless it is told: a third of the
# start-up time, at every start where bytecode is not written.
compile_once() {
    "$dir/bin/python" -m compileall -q kvmscope
}

if command -v uv >/dev/null 2>&1; then
    [ -x "$dir/bin/python" ] || uv venv --quiet --python "$python" "$dir"
    uv pip install --quiet --compile-bytecode --python "$dir/bin/python" -e "$spec"
    compile_once
    exit 0
fi

if [ ! -x "$dir/bin/python" ]; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "This Python has no venv module, so no private environment can be made." >&2
        echo "  Debian/Ubuntu: apt install python3-venv     or install uv" >&2
        exit 1
    fi
    echo "kvmscope: making $dir (once)"
    "$python" -m venv "$dir"
fi
echo "kvmscope: installing what it needs into $dir (once)"
"$dir/bin/python" -m pip install --quiet --disable-pip-version-check -e "$spec"
compile_once
