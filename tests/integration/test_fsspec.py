"""``natsobj://`` on real servers: whole programs, processes, rights, large files, other writers."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import fsspec
import fsspec.generic
import pytest
from fsspec.asyn import sync
from hatchling.builders.wheel import WheelBuilder

import natsproto
from natsproto.server import LocalServer
from objstore import ObjectLink
from objstore.filesystem import NatsObjectFileSystem
from support.filesystems import close_all, register
from support.imports import ROOT
from support.objects import MIB, pattern

DATA = pattern(9 * MIB)


@pytest.fixture
def fs(server: LocalServer, bucket_name: str) -> Iterator[NatsObjectFileSystem]:
    register()
    fs = fsspec.filesystem("natsobj", servers=server.url, skip_instance_cache=True)
    fs.mkdir(bucket_name)
    yield fs
    fs.rm(bucket_name, recursive=True)
    fs.close()


def test_found_by_its_protocol(tmp_path: Path) -> None:
    """In an environment where the wheel is installed, without an import."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = "import fsspec; print(fsspec.get_filesystem_class('natsobj').__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "NatsObjectFileSystem\n", done.stderr


def test_a_large_file(fs: NatsObjectFileSystem, bucket_name: str, tmp_path: Path) -> None:
    path = f"natsobj://{bucket_name}/large.bin"
    with fs.open(path, "wb", block_size=MIB) as file:
        for start in range(0, len(DATA), 700_000):
            file.write(DATA[start : start + 700_000])
        assert not fs.exists(path)
    assert fs.size(path) == len(DATA)
    with fs.open(path, "rb", block_size=MIB) as file:
        assert file.seek(5_000_000) == 5_000_000
        assert file.read(10) == DATA[5_000_000:5_000_010]
        file.seek(0)
        assert b"".join(iter(lambda: file.read(1_300_000), b"")) == DATA
    spots = range(0, len(DATA) - 100, 777_777)
    found = fs.cat_ranges([path] * len(spots), list(spots), [at + 100 for at in spots])
    assert found == [DATA[at : at + 100] for at in spots]
    fs.get(path, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == DATA
    fs.mv(path, path + ".moved")
    fs.cp(path + ".moved", path)
    assert fs.ukey(path) == fs.ukey(path + ".moved")


def test_a_cache_notices_another_content(
    fs: NatsObjectFileSystem, server: LocalServer, bucket_name: str, tmp_path: Path
) -> None:
    path = f"{bucket_name}/cached"
    for content in (b"one", b"another"):
        fs.pipe_file(path, content)
        cached = fsspec.filesystem(
            "filecache", fs=fs, cache_storage=str(tmp_path), check_files=True, skip_instance_cache=True
        )
        with cached.open(path) as file:
            assert file.read() == content


def test_a_transaction_for_which_there_is_no_room(fs: NatsObjectFileSystem, bucket_name: str) -> None:
    """The file system has left it, and what was sent of the files is gone."""
    small = f"{bucket_name}-small"
    fs.mkdir(small, max_bytes=3 * MIB)
    with pytest.raises(OSError, match="full") as caught, fs.transaction:
        for name in "abc":
            with fs.open(f"{small}/{name}", "wb", block_size=MIB // 2) as file:
                file.write(DATA[: MIB // 4])
        fs.pipe_file(f"{small}/large", DATA[: 5 * MIB // 2])
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.__notes__ == [
        f"'{small}/b' failed: 1 of 3 files of the transaction stored before it, 1 discarded after it"
    ]
    assert fs.find(small) == [f"{small}/a", f"{small}/large"]
    fs.rm_file(f"{small}/large")
    with fs.open(f"{small}/later", "wb") as file:
        file.write(DATA[:MIB])
    assert fs.size(f"{small}/later") == MIB
    fs.rm(small, recursive=True)


def test_from_several_threads(fs: NatsObjectFileSystem, bucket_name: str) -> None:
    def use(number: int) -> bytes:
        fs.pipe_file(f"{bucket_name}/{number}", b"%d" % number)
        return fs.cat_file(f"{bucket_name}/{number}")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(40))) == [b"%d" % number for number in range(40)]
    assert len(fs._connections._held) == 1


PROGRAM = """
import os, sys, pickle, fsspec
from objstore.filesystem import NatsObjectFileSystem
fsspec.register_implementation("natsobj", NatsObjectFileSystem, clobber=True)
bucket = sys.argv[1]
fs = fsspec.filesystem("natsobj")
fs.pipe_file(f"{bucket}/parent", b"parent")
text = pickle.dumps(fs)
child = os.fork()
if not child:
    try:
        fs.cat_file(f"{bucket}/parent")
    except RuntimeError as error:
        assert "fork" in str(error), error
        assert pickle.loads(text) is not fs
        own = fsspec.filesystem("natsobj")
        own.pipe_file(f"{bucket}/child", own.cat_file(f"{bucket}/parent"))
        sys.exit(0)  # not os._exit(): what is registered for the end runs
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert fs.cat_file(f"{bucket}/child") == b"parent"
unfinished = fs.open(f"{bucket}/unfinished", "wb", block_size=1000)
unfinished.write(bytes(500_000))
"""


async def test_a_program_its_child_and_their_end(server: LocalServer, bucket_name: str) -> None:
    """The server is named by the environment; a child connects by itself; what is unfinished is removed."""
    async with natsproto.connect(server.url) as nc:
        js = nc.jetstream()
        store = await js.create_object_store(bucket=bucket_name)
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "ignore", "-c", PROGRAM, bucket_name],
            env={**os.environ, "PYTHONPATH": str(ROOT), "NATS_URL": server.url},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert sorted(info.name for info in await store.list()) == ["child", "parent"]
        left = await js.stream_subjects(f"OBJ_{bucket_name}", f"$O.{bucket_name}.C.>")
        assert len(left) == 2
        await js.delete_object_store(bucket_name)


@pytest.mark.parametrize("large", [True, False])
def test_what_is_continued_keeps_its_end(new_server: LocalServer, bucket_name: str, large: bool) -> None:
    fs = NatsObjectFileSystem(new_server.url, skip_instance_cache=True)
    fs.mkdir(bucket_name, allow_msg_ttl=True)
    path = f"{bucket_name}/a"
    data = DATA if large else b"1"
    options = {"description": "d", "headers": {"H": "1"}, "metadata": {"k": "v"}}
    with fs.open(path, "wb", ttl=timedelta(seconds=30), chunk_size=50_000, **options) as file:
        file.write(data)
    before = fs.info(path)
    for _ in range(3):
        with fs.open(path, "ab", block_size=MIB) as file:
            file.write(data)
    after = fs.info(path)
    assert fs.cat_file(path) == 4 * data
    assert {**before, "size": 4 * len(data)} == {
        **after,
        **{key: before[key] for key in ("created", "mtime", "digest", "revision")},
    }
    fs.rm(bucket_name, recursive=True)
    fs.close()


def test_what_is_moved_keeps_its_end(new_server: LocalServer, bucket_name: str) -> None:
    """Whoever may write the name that it is moved to would decide whether it ends."""
    fs = NatsObjectFileSystem(new_server.url, skip_instance_cache=True)
    allows, not_allowed = f"{bucket_name}-1", f"{bucket_name}-2"
    for bucket in (bucket_name, allows):
        fs.mkdir(bucket, allow_msg_ttl=True)
    fs.mkdir(not_allowed)
    fs.pipe_file(f"{bucket_name}/there", b"old")
    for target in ("free", "there"):
        fs.pipe_file(f"{bucket_name}/a", b"x", ttl=timedelta(seconds=50))
        end = fs.info(f"{bucket_name}/a")["expires"]
        fs.mv(f"{bucket_name}/a", f"{bucket_name}/{target}")
        moved = fs.info(f"{bucket_name}/{target}")
        assert end <= moved["expires"] < end + timedelta(seconds=1.1)
        assert fs.cat(f"{bucket_name}/{target}") == b"x"
    fs.mv(f"{bucket_name}/there", f"{allows}/there")
    assert end <= fs.info(f"{allows}/there")["expires"] < end + timedelta(seconds=2.2)
    fs.mv(f"{allows}/there", f"{not_allowed}/there")
    assert "expires" not in fs.info(f"{not_allowed}/there")
    for bucket in (bucket_name, allows, not_allowed):
        fs.rm(bucket, recursive=True)
    fs.close()


def test_rights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = """
    authorization { users = [
        { user: all, password: a }
        { user: reader, password: r, permissions: {
            publish: ["$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.OBJ_b", "$JS.API.STREAM.MSG.GET.OBJ_b",
                      "$JS.API.DIRECT.GET.OBJ_b", "$JS.API.DIRECT.GET.OBJ_b.>"] } }
    ] }
    """
    with LocalServer(config=config) as server:
        writer = NatsObjectFileSystem(server.url, user="all", password="a", skip_instance_cache=True)
        writer.mkdir("b")
        writer.pipe_file("b/a", b"1")
        reader = NatsObjectFileSystem(server.url, user="reader", password="r", skip_instance_cache=True)
        assert reader.cat_file("b/a") == b"1"
        for denied in (lambda: reader.pipe_file("b/a", b"2"), lambda: reader.rm_file("b/a")):
            with pytest.raises(PermissionError) as caught:
                denied()
            assert isinstance(caught.value.__cause__, natsproto.errors.PermissionsViolationError)
        writer.mkdir("secret")
        writer.pipe_file("secret/x", b"3")

        async def link() -> None:
            await (await writer._store("b")).add_link("d/l", ObjectLink("secret", "x"))

        sync(writer.loop, link)
        assert reader.ls("b", detail=False) == ["b/a", "b/d"]
        types = {path: entry["type"] for path, entry in reader.find("b", detail=True).items()}
        assert types == {"b/a": "file", "b/d/l": "other"}
        assert reader.info("b/d/l")["type"] == "other"
        assert reader.cat("b", recursive=True, on_error="omit") == {"b/a": b"1"}
        with pytest.raises(PermissionError, match="OBJ_secret"):
            reader.cat_file("b/d/l")
        assert reader.ls("", detail=False) == ["b", "secret"]
        walked = {"": [], "b": ["a"], "b/d": ["l"], "secret": []}
        for look, found in (
            (lambda: reader.find(""), ["b/a", "b/d/l"]),
            (lambda: reader.glob("*/d/*"), ["b/d/l"]),
            (lambda: reader.du("", total=False), {"b/a": 1, "b/d/l": 0}),
            (lambda: {at: names for at, _, names in reader.walk("")}, walked),
        ):
            caplog.clear()
            assert look() == found
            assert "bucket 'secret' is left out: this user may not" in caplog.text
        for denied in (
            lambda: reader.find("secret"),
            lambda: list(reader.walk("secret")),
            lambda: list(reader.walk("", on_error="raise")),
            lambda: reader.get("", str(tmp_path), recursive=True),
        ):
            with pytest.raises(PermissionError, match="OBJ_secret"):
                denied()
        assert list(tmp_path.iterdir()) == []
        stranger = NatsObjectFileSystem(server.url, user="all", password="x", skip_instance_cache=True)
        with pytest.raises(PermissionError):
            stranger.ls("")
        for each in (writer, reader):
            each.close()


@pytest.mark.parametrize("subject", ["eA==", "%%%"])
def test_a_bucket_with_metas_that_cannot_be_read_is_not_empty(
    fs: NatsObjectFileSystem, bucket_name: str, subject: str
) -> None:
    async def spoil() -> None:
        store = await fs._store(bucket_name)
        await store.put("d/", b"")
        await store.js.publish(f"$O.{bucket_name}.M.{subject}", b"{garbage")

    sync(fs.loop, spoil)
    fs.rmdir(f"{bucket_name}/d")
    with pytest.raises(OSError, match="cannot be read") as caught:
        fs.rmdir(bucket_name)
    assert caught.value.errno == errno.ENOTEMPTY
    assert fs.exists(bucket_name)


def test_a_target_below_which_others_store_something(
    server: LocalServer, fs: NatsObjectFileSystem, bucket_name: str, tmp_path: Path
) -> None:
    """It is a directory, then; where paths are taken as they are, nothing lands in it unnoticed."""
    literal = NatsObjectFileSystem(server.url, patterns=False, skip_instance_cache=True)
    local, target = tmp_path / "local", f"{bucket_name}/final"
    local.write_bytes(b"new")
    fs.pipe({f"{bucket_name}/{name}": b"new" for name in ("tmp", "tree/a", "tree/b")})
    fs.pipe_file(f"{target}/q", b"of others")
    before = fs.find(bucket_name)
    calls = [
        lambda to: literal.mv(f"{bucket_name}/tmp", to),
        lambda to: literal.mv(f"{bucket_name}/tmp", to, recursive=True),
        lambda to: literal.cp(f"{bucket_name}/tmp", to),
        lambda to: literal.cp(f"{bucket_name}/tree", to, recursive=True),
        lambda to: literal.put(str(local), to),
    ]
    for call in calls:
        with pytest.raises(IsADirectoryError, match="end it with a slash"):
            call(target)
    assert fs.find(bucket_name) == before
    for call in calls[2:]:
        call(f"{target}/")
    literal.mv([f"{bucket_name}/tmp"], [target])
    literal.put(str(local), bucket_name)  # a bucket is a directory, whoever stores what in it
    found = {"final", "final/q", "final/tmp", "final/tree/a", "final/tree/b", "final/local", "local"}
    assert {*fs.find(bucket_name)} == {f"{bucket_name}/{name}" for name in (*found, "tree/a", "tree/b")}
    fs.cp(f"{bucket_name}/local", f"{bucket_name}/tree")
    assert fs.exists(f"{bucket_name}/tree/local"), "as the file systems of fsspec do"
    literal.close()


@pytest.mark.parametrize("follow", ["all", "none"])
def test_a_link_is_moved_as_a_link(
    server: LocalServer, fs: NatsObjectFileSystem, bucket_name: str, follow: str
) -> None:
    """Whoever may write a name decides where it leads: that is not copied to where others read."""
    mover = NatsObjectFileSystem(server.url, follow_links=follow, skip_instance_cache=True)
    secret, archive = f"{bucket_name}-secret", f"{bucket_name}-archive"
    for bucket in (secret, archive):
        fs.mkdir(bucket)
    fs.pipe(
        {f"{secret}/x": b"secret", f"{bucket_name}/done/file": b"before", f"{bucket_name}/in/file": b"new"}
    )

    async def link(name: str, leads_to: ObjectLink) -> None:
        store = await fs._store(bucket_name)
        if leads_to.name is None:
            await store.add_bucket_link(name, leads_to.bucket, description="d")
        else:
            await store.add_link(name, leads_to, description="d")

    async def found(path: str) -> tuple[ObjectLink | None, str | None]:
        store, name = await fs._at(path)
        info = await store.get_info(name)
        return info.options and info.options.link, info.description

    def leads(path: str) -> tuple[ObjectLink | None, str | None]:
        result: tuple[ObjectLink | None, str | None] = sync(fs.loop, found, path)
        return result

    into = f"{bucket_name}/done/"
    try:
        for target in (ObjectLink(secret, "x"), ObjectLink(secret), ObjectLink(bucket_name, "done/file")):
            for there in ("nothing", "a link", "an object"):
                for to in (into, f"{archive}/") if follow == "all" else (into,):
                    sync(fs.loop, link, "in/l", target)
                    if there == "an object":
                        fs.rm(f"{to}l")
                        fs.pipe(f"{to}l", b"object")
                        with pytest.raises(FileExistsError):
                            mover.mv(f"{bucket_name}/in/l", f"{to}l")
                        assert fs.cat(f"{to}l") == b"object"
                        fs.rm(f"{to}l")
                    else:
                        mover.mv(f"{bucket_name}/in/l", to)
                        assert leads(f"{to}l") == (target, "d")
        mover.mv([f"{bucket_name}/in/file"], [f"{bucket_name}/done/file"])  # an object replaces an object
        assert fs.cat(f"{bucket_name}/done/file") == b"new"
    finally:
        mover.close()
        for bucket in (secret, archive):
            fs.rm(bucket, recursive=True)


async def test_in_the_loop_of_the_caller(server: LocalServer, bucket_name: str) -> None:
    fs = NatsObjectFileSystem(server.url, asynchronous=True, skip_instance_cache=True)
    await fs._mkdir(bucket_name)
    async with await fs.open_async(f"{bucket_name}/a", "wb", block_size=MIB) as file:
        await file.write(DATA)
    async with await fs.open_async(f"{bucket_name}/a") as file:
        assert await file.read() == DATA
    assert pickle.loads(pickle.dumps(fs))._connections._held == {}
    await fs._rm(bucket_name, recursive=True)
    await fs.aclose()


def test_of_several_that_create_one_succeeds(fs: NatsObjectFileSystem, bucket_name: str) -> None:
    def create(number: int) -> int | None:
        try:
            fs.pipe_file(f"{bucket_name}/one", b"%d" % number, mode="create")
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        (winner,) = [each for each in pool.map(create, range(8)) if each is not None]
    assert fs.cat_file(f"{bucket_name}/one") == b"%d" % winner


def test_objects_that_others_have_spoilt(
    fs: NatsObjectFileSystem, bucket_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each call does all that can be done, and then says what could not."""
    good = {f"{number:02}": b"%d" % number for number in range(40)}
    fs.pipe({f"{bucket_name}/{name}": data for name, data in good.items()})
    fs.pipe({f"{bucket_name}/0-{bad}": b"x" for bad in ("damaged", "target")})

    async def spoil() -> None:
        store = await fs._store(bucket_name)
        nuid = (await store.get_info("0-damaged")).nuid
        await store.js.purge_stream(store.bound_bucket.stream, subject=f"$O.{bucket_name}.C.{nuid}")
        await store.add_link("0-dangling", ObjectLink(bucket_name, "0-target"))
        await store.delete("0-target")

    sync(fs.loop, spoil)
    bad = [f"{bucket_name}/0-damaged", f"{bucket_name}/0-dangling"]
    other = f"{bucket_name}-other"
    fs.mkdir(other)
    try:
        for call in (
            lambda: fs.cat(bucket_name, recursive=True),
            lambda: fs.get(f"{bucket_name}/", str(tmp_path), recursive=True),
            lambda: fs.copy(f"{bucket_name}/", f"{other}/copied/", recursive=True),
            lambda: fs.mv(f"{bucket_name}/", f"{other}/moved/", recursive=True),
        ):
            caplog.clear()
            with pytest.raises(OSError, match="0-damaged") as caught:
                call()
            assert caught.value.errno == errno.EIO
            assert sorted(text.partition(" failed: ")[0] for text in caplog.messages) == list(map(repr, bad))
        assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == good
        for target in ("copied", "moved"):
            found = fs.cat(f"{other}/{target}", recursive=True)
            assert found == {f"{other}/{target}/{name}": data for name, data in good.items()}
        assert fs.find(bucket_name) == bad
        fs.rm([f"{bucket_name}/0-damaged", f"{bucket_name}/0-dangling"])
    finally:
        fs.rm(other, recursive=True)


def test_a_server_that_is_away_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once by all that are read at the same time, that is; the others fail with them."""
    with LocalServer() as server:
        fs = NatsObjectFileSystem(server.url, retry_budget=0.3, skip_instance_cache=True)
        fs.mkdir("b")
        names = [f"b/{number}" for number in range(100)]
        fs.pipe(dict.fromkeys(names, b"x"))
        assert fs.cat(names, on_error="return") == dict.fromkeys(names, b"x")
    begun: list[str] = []
    read = fs._cat_file

    async def counted(path: str) -> bytes:
        begun.append(path)
        return await read(path)

    monkeypatch.setattr(fs, "_cat_file", counted)
    found = fs.cat(names, on_error="return")
    assert all(isinstance(each, ConnectionError | TimeoutError) for each in found.values())
    assert list(found) == sorted(names)
    assert len(begun) == 16
    fs.close()


def test_what_fsspec_builds_on_it(
    fs: NatsObjectFileSystem, server: LocalServer, bucket_name: str, tmp_path: Path
) -> None:
    """Mappings, chained protocols, sub-directories, several files at once, rsync."""
    mapping = fs.get_mapper(f"{bucket_name}/map")
    mapping["x/y"] = b"1"
    assert dict(mapping) == {"x/y": b"1"}
    url = f"natsobj://{bucket_name}/map/x/y"
    with fsspec.open(
        f"simplecache::{url}", natsobj={"servers": server.url}, simplecache={"cache_storage": str(tmp_path)}
    ) as file:
        assert file.read() == b"1"
    below = fsspec.filesystem("dir", path=bucket_name, fs=fs)
    assert below.find("") == ["map/x/y"]
    with (
        pytest.raises(KeyError),
        fsspec.open_files(f"natsobj://{bucket_name}/n/*", "wb", num=3, servers=server.url) as files,
    ):
        for file in files:
            file.write(b"half")
        raise KeyError
    assert not fs.exists(f"{bucket_name}/n")
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a").write_bytes(b"2")
    options = {"default_method": "options", "storage_options": {"natsobj": {"servers": server.url}}}
    fsspec.generic.rsync(f"file://{tmp_path}/from", f"natsobj://{bucket_name}/to", inst_kwargs=options)
    assert fs.cat(f"{bucket_name}/to/a") == b"2"
    close_all()
