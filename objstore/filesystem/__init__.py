"""The object store as a file system of fsspec: ``natsobj://bucket/path`` (extra ``fsspec``).

Whatever opens files by fsspec (pandas, pyarrow, zarr, dask …) finds it by the protocol, without an import::

    pandas.read_parquet("natsobj://media/table.parquet", storage_options={"servers": "nats://127.0.0.1:4222"})
"""

from __future__ import annotations

from natsproto.errors import MissingExtraError

try:
    import fsspec as _fsspec  # noqa: F401
except ImportError as _exc:
    raise MissingExtraError("natsobj:// paths and objstore.filesystem need fsspec", "fsspec") from _exc

from .filesystem import NatsObjectFileSystem

__all__ = ["NatsObjectFileSystem"]
