# Sourced by .ci/run: which other Pythons the tests run on, and where they are.

# minor_of PYTHON: its version as 3.X.
minor_of() { "$1" -c 'import sys; print("3.%d" % sys.version_info[1])'; }

# Every supported minor version except that of python3 itself.
other_minors() {
    local ours minor
    ours=$(minor_of python3)
    for minor in 3.11 3.12 3.13 3.14; do
        [ "$minor" = "$ours" ] || echo "$minor"
    done
}

# find_python 3.X: path of a working one: the newest of pyenv's, or the one on PATH (pyenv also has shims for versions
# that are not switched on: those do not run).
find_python() {
    local candidate
    for candidate in \
        $(ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python3 2>/dev/null | sort -rV) \
        $(type -aP "python$1" || true); do
        if "$candidate" -c "import ensurepip, ssl, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" \
            >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    return 1
}
