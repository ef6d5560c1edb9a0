"""pandas, pyarrow, zarr and dask each write and read a data set through ``natsobj://``."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

from natsproto.server import LocalServer
from objstore.filesystem import NatsObjectFileSystem
from support.filesystems import close_all, need, register

pytestmark = [
    pytest.mark.integrations,
    # Their own, about each other; those of this project stay errors.
    pytest.mark.filterwarnings("default::FutureWarning"),
    pytest.mark.filterwarnings("default::DeprecationWarning:(pandas|pyarrow|zarr|dask|numpy|numcodecs)"),
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
    pytest.mark.filterwarnings("default::UserWarning:zarr"),
]
ROWS = 20_000


@pytest.fixture(scope="module")
def options(new_server: LocalServer) -> dict[str, str]:
    """The ``storage_options`` of each library."""
    register()
    return {"servers": new_server.url}


@pytest.fixture
def fs(options: dict[str, str]) -> NatsObjectFileSystem:
    return fsspec.filesystem("natsobj", **options)


@pytest.fixture
def url(fs: NatsObjectFileSystem) -> Iterator[str]:
    """An empty bucket."""
    bucket = "t-" + uuid.uuid4().hex[:12]
    fs.mkdir(bucket)
    yield f"natsobj://{bucket}"
    fs.rm(bucket, recursive=True)


@pytest.fixture(scope="module", autouse=True)
def closed(options: dict[str, str]) -> Iterator[None]:
    """File systems are disconnected before the server ends."""
    yield
    close_all()


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Any:
    need(request.config, "pandas", "pyarrow")
    import pandas

    return pandas.DataFrame(
        {
            "number": range(ROWS),
            "name": [f"name {number % 7}" for number in range(ROWS)],
            "value": [number / 4 for number in range(ROWS)],
        }
    )


def test_pandas(table: Any, url: str, options: dict[str, str], fs: NatsObjectFileSystem) -> None:
    import pandas

    table.to_parquet(f"{url}/table.parquet", storage_options=options)
    assert pandas.read_parquet(f"{url}/table.parquet", storage_options=options).equals(table)
    one = pandas.read_parquet(f"{url}/table.parquet", columns=["name"], storage_options=options)
    assert one.equals(table[["name"]])
    for name in ("table.csv", "table.csv.gz"):
        table.to_csv(f"{url}/{name}", index=False, storage_options=options)
        assert pandas.read_csv(f"{url}/{name}", storage_options=options).equals(table)
    table.to_json(f"{url}/table.jsonl", orient="records", lines=True, storage_options=options)
    assert len(pandas.read_json(f"{url}/table.jsonl", lines=True, storage_options=options)) == ROWS
    assert len(fs.ls(url)) == 4


def test_pyarrow(table: Any, url: str, fs: NatsObjectFileSystem) -> None:
    import pyarrow
    import pyarrow.dataset as dataset
    import pyarrow.parquet as parquet
    from pyarrow.fs import FileSelector, FileType, FSSpecHandler, PyFileSystem

    root = url.removeprefix("natsobj://") + "/set"
    written = pyarrow.Table.from_pandas(table)
    parquet.write_to_dataset(written, root, partition_cols=["name"], filesystem=fs)
    found = dataset.dataset(root, format="parquet", partitioning="hive", filesystem=fs)
    assert found.count_rows() == ROWS
    part = found.to_table(filter=dataset.field("name") == "name 3", columns=["number"])
    assert part.column("number").to_pylist() == [number for number in range(ROWS) if number % 7 == 3]
    arrow = PyFileSystem(FSSpecHandler(fs))
    infos = arrow.get_file_info(FileSelector(root, recursive=True))
    assert sum(info.type is FileType.Directory for info in infos) == 7
    assert arrow.get_file_info(root + "/none").type is FileType.NotFound
    file = next(info for info in infos if info.type is FileType.File)
    assert file.mtime == fs.modified(file.path)
    with arrow.open_input_file(file.path) as opened:
        assert opened.read_at(4, file.size - 4) == b"PAR1"
    arrow.copy_file(file.path, root + "/copy")
    arrow.move(root + "/copy", root + "/moved")
    arrow.delete_file(root + "/moved")
    arrow.delete_dir(root)
    assert fs.find(url) == []


def test_names_that_are_patterns(
    request: pytest.FixtureRequest, url: str, options: dict[str, str], fs: NatsObjectFileSystem
) -> None:
    """Others choose names; these libraries have no patterns, and hand on what they have listed."""
    need(request.config, "pyarrow", "zarr")
    import zarr
    from fsspec.generic import rsync
    from pyarrow.fs import FileSelector, FSSpecHandler, PyFileSystem

    bucket = url.removeprefix("natsobj://")
    mine = [f"{bucket}/in/1", f"{bucket}/in/d/2"]
    fs.pipe(dict.fromkeys([*mine, f"{bucket}/in/*", f"{bucket}/in/[d]/x", f"{bucket}/in"], b"x"))
    arrow = PyFileSystem(FSSpecHandler(fs))
    arrow.move(f"{bucket}/in/*", f"{bucket}/moved")
    arrow.delete_dir(f"{bucket}/in/[d]")
    with pytest.raises(ValueError, match="both an object and a directory"):
        arrow.move(f"{bucket}/in", f"{bucket}/to")
    arrow.delete_file(f"{bucket}/moved")
    arrow.delete_file(f"{bucket}/in")
    assert fs.find(bucket) == mine
    assert [info.path for info in arrow.get_file_info(FileSelector(f"{bucket}/in"))] == [
        f"{bucket}/in/1",
        f"{bucket}/in/d",
    ]
    fs.pipe({f"{bucket}/copy/{name}": b"x" for name in ("1", "*", "d/2")})
    rsync(f"{url}/in", f"{url}/copy", delete_missing=True, inst_kwargs={"default_method": "current"})
    assert fs.find(f"{bucket}/copy") == [f"{bucket}/copy/1", f"{bucket}/copy/d/2"]
    group = zarr.open_group(f"{url}/group", mode="w", storage_options=options)
    for name in ("a", "b", "*", "[ab]"):
        group.create_array(name, shape=(1,), dtype="i4")
    for name in ("*", "[ab]"):
        del group[name]
    assert sorted(group.array_keys()) == ["a", "b"]


def test_zarr(request: pytest.FixtureRequest, url: str, options: dict[str, str]) -> None:
    need(request.config, "zarr")
    import numpy
    import zarr

    data = numpy.arange(250_000, dtype="f4").reshape(500, 500)
    array = zarr.create_array(
        f"{url}/array", shape=data.shape, chunks=(100, 100), dtype="f4", storage_options=options
    )
    array[:] = data
    read = zarr.open_array(f"{url}/array", mode="r", storage_options=options)
    assert (read[:] == data).all()
    assert (read[10:20, 5] == data[10:20, 5]).all()
    group = zarr.open_group(f"{url}/group", mode="w", storage_options=options)
    group.create_array("inner", shape=(10,), dtype="i4")[:] = numpy.arange(10)
    again = zarr.open_group(f"{url}/group", mode="r", storage_options=options)
    assert list(again.array_keys()) == ["inner"]
    assert again["inner"][:].tolist() == list(range(10))
    shards = zarr.create_array(
        f"{url}/sharded",
        shape=data.shape,
        chunks=(50, 50),
        shards=(500, 500),
        dtype="f4",
        storage_options=options,
    )
    shards[:] = data
    read = zarr.open_array(f"{url}/sharded", mode="r", storage_options=options)
    assert (read[100:120, 300:400] == data[100:120, 300:400]).all()  # ranges of one object


def test_dask(
    request: pytest.FixtureRequest, table: Any, url: str, options: dict[str, str], fs: NatsObjectFileSystem
) -> None:
    need(request.config, "dask")
    import dask.bag
    import dask.dataframe

    parts = dask.dataframe.from_pandas(table, npartitions=4)
    parts.to_parquet(f"{url}/parquet", storage_options=options)
    read = dask.dataframe.read_parquet(f"{url}/parquet", storage_options=options)
    assert read.npartitions == 4
    assert read.compute().to_dict("list") == table.to_dict("list")
    assert read[read.number < 100].value.sum().compute() == table[table.number < 100].value.sum()
    parts.to_csv(f"{url}/csv/*.csv", index=False, storage_options=options)
    assert len(dask.dataframe.read_csv(f"{url}/csv/*.csv", storage_options=options)) == ROWS
    lines = dask.bag.read_text(f"{url}/csv/*.csv", storage_options=options)
    assert lines.count().compute() == ROWS + 4
    assert len(fs.glob(f"{url}/csv/*.csv")) == 4
