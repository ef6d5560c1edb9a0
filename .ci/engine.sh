# Sourced by .ci/run: engine_start and engine_stop. If no Docker engine answers, one is started, and stopped at the
# end. If it cannot run containers, a message says so, and NATSPROTO_DOCKER=0 leaves out the tests that need one.
engine_pid='' engine_log=${TMPDIR:-/tmp}/natsproto-dockerd.log

engine_answers() { timeout 20 docker version >/dev/null 2>&1; }

# Whether the engine can do what the tests need, tried without their code: a network with names, a published port.
engine_works() {
    local probe=natsproto-probe-$$ busybox status=1
    busybox=$(command -v busybox)
    if tar -C "$(dirname "$busybox")" -c busybox | timeout 60 docker import - "$probe" &&
        timeout 20 docker network create "$probe" &&
        timeout 60 docker run --rm --network "$probe" --network-alias here -p 127.0.0.1::80 "$probe" \
            /busybox nslookup here.; then
        status=0
    fi
    timeout 20 docker network rm "$probe" || true
    timeout 20 docker rmi -f "$probe" || true
    return $status
}

engine_start() {
    : >"$engine_log"
    if engine_answers; then
        echo "one runs already"
    else
        dockerd --storage-driver=vfs >>"$engine_log" 2>&1 &
        engine_pid=$!
        for _ in $(seq 60); do
            if engine_answers || ! kill -0 "$engine_pid" 2>/dev/null; then break; fi
            sleep 0.5
        done
    fi
    if ! engine_answers || ! engine_works >>"$engine_log" 2>&1; then
        export NATSPROTO_DOCKER=0
        printf '\n!!! No Docker engine can run here: the container tests are LEFT OUT. From %s:\n' "$engine_log"
        grep -v level=info "$engine_log" | tail -n 8
        engine_stop
    fi
}

engine_stop() {
    if [ -n "$engine_pid" ]; then
        kill "$engine_pid" 2>/dev/null || true
        wait "$engine_pid" 2>/dev/null || true
        engine_pid=''
    fi
}
