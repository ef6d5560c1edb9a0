"""The names of one bucket as directories and files: what fsspec lists, walks and finds, from one listing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from .paths import LEVELS, ends, join

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from ..format.models import ObjectInfo

Entry = dict[str, object]
"""What fsspec knows about a path: ``name``, ``size``, ``type``, and more."""


def directory_entry(path: str, created: datetime | None = None) -> Entry:
    """Return the entry of a directory; only a bucket has been created at a certain time."""
    entry: Entry = {"name": path, "size": 0, "type": "directory"}
    if created is not None:
        entry.update(created=created, mtime=created)
    return entry


def file_entry(path: str, info: ObjectInfo, target: ObjectInfo | None) -> Entry:
    """Return the entry of an object.

    Args:
        path: the path that was asked for.
        info: the object, or a link.
        target: the object that is read: the link's target; ``None`` for a link that leads to none.
    """
    read = target or info
    entry: Entry = {
        "name": path,
        "size": read.size,
        "type": "other" if target is None else "file",
        "created": read.mtime,
        "mtime": read.mtime,
        "digest": read.digest,
        "revision": read.revision,
        "description": read.description,
        "headers": None if read.headers is None else read.headers.as_wire(),
        "metadata": dict(read.metadata),
        "islink": info.is_link,
    }
    if info.is_link:
        assert info.links is not None
        entry["destination"] = info.links[0]
    if read.expires is not None:
        entry["expires"] = read.expires
    return entry


class Tree:
    """The directories and files of a bucket, or of a part of it.

    Only the names are kept, sorted: those in a directory, and below, follow one another. The paths of all
    directories of a name with very many would take memory by the square of its length.

    Attributes:
        files: the entry of each file by its name.
        markers: names that end in a slash: they mark directories.
    """

    def __init__(self, bucket: str) -> None:
        self.files: dict[str, Entry] = {}
        self.markers: list[ObjectInfo] = []
        self._bucket = bucket
        self._names: list[str] = []
        self._sorted = True

    def add(self, info: ObjectInfo, target: ObjectInfo | None) -> None:
        """Add an object, as :func:`file_entry` takes it."""
        self._names.append(info.name)
        self._sorted = False
        if info.name.endswith("/"):
            self.markers.append(info)
        else:
            self.files[info.name] = file_entry(join(self._bucket, info.name), info, target)

    def is_directory(self, name: str) -> bool:
        """Whether anything lies in it; the whole bucket (``""``) is always one."""
        return not name or (not name.endswith("/") and bool(self._below(name)))

    def children(self, directory: str) -> list[Entry]:
        """Return the entries of a directory, sorted; of two with one path, the directory comes first."""
        directories, files = self._inside(directory)
        found = [directory_entry(join(self._bucket, name)) for name in directories]
        found += [self.files[name] for name in files]
        return sorted(found, key=lambda entry: str(entry["name"]))

    def _below(self, directory: str) -> list[str]:
        """Return the names in a directory and below, sorted."""
        if not self._sorted:
            self._names.sort()
            self._sorted = True
        if not directory:
            return self._names
        first = bisect_left(self._names, directory + "/")
        return self._names[first : bisect_left(self._names, directory + "0", first)]  # "0" comes after "/"

    def _inside(self, directory: str) -> tuple[list[str], list[str]]:
        """Return the names of the directories and of the files in a directory, each sorted."""
        start = len(directory) + 1 if directory else 0
        directories: dict[str, None] = {}
        files = []
        for name in self._below(directory):
            end = next(ends(name, start), None)
            if end == len(name):
                files.append(name)
            elif end is not None:  # else it marks this very directory
                directories[name[:end]] = None
        return sorted(directories), files

    def walk(
        self, directory: str, maxdepth: int | None, *, topdown: bool
    ) -> Iterator[tuple[str, dict[str, Entry], dict[str, Entry]]]:
        """Yield each directory's path with its directories and its files, by the names they have there.

        A caller may remove directories from what is yielded top-down: those are left out.
        """
        levels = [_Level(self, directory, maxdepth)]  # names may be deeper than Python calls functions
        while levels:
            level = levels[-1]
            if level.left is None:  # it has just been entered
                if topdown:
                    yield level.listing
                level.left = iter(list(level.directories) if level.depth is None or level.depth > 1 else ())
            name = next(level.left, None)
            if name is not None:
                below = level.name + "/" + name if level.name else name
                levels.append(_Level(self, below, level.depth and level.depth - 1))
                continue
            levels.pop()
            if not topdown:
                yield level.listing

    def listed(self, directory: str) -> tuple[dict[str, Entry], dict[str, Entry]]:
        """Return the directories and the files in a directory, by the names they have there."""
        start = len(directory) + 1 if directory else 0
        directories, files = self._inside(directory)
        return (
            {name[start:]: directory_entry(join(self._bucket, name)) for name in directories},
            {name[start:]: self.files[name] for name in files},
        )

    def path(self, directory: str) -> str:
        """Return the path of a directory."""
        return join(self._bucket, directory)

    def find(
        self, directory: str, maxdepth: int | None, prefix: str, *, withdirs: bool, levels: int = LEVELS
    ) -> Mapping[str, Entry]:
        """Return what lies in a directory and below, by its path, sorted.

        Args:
            maxdepth: levels to go down; ``None`` = all.
            prefix: of the names in the directory.
            withdirs: return directories, too, the directory itself included. A file of the same path wins.
            levels: of directories below it; deeper ones are not returned, the files in them are.
        """
        start = len(directory) + 1 if directory else 0
        wanted = directory + "/" + prefix if directory else prefix
        names = set()
        if directory in self.files or (withdirs and self.is_directory(directory)):
            names.add(directory)
        for name in self._below(directory):
            if not name.startswith(wanted):
                continue
            for level, end in enumerate(islice(ends(name, start), maxdepth)):
                if end == len(name) or (withdirs and level < levels and end >= len(wanted)):
                    names.add(name[:end])
        found = {}
        for name in names:
            path = join(self._bucket, name)
            found[path] = self.files.get(name) or directory_entry(path)
        return {path: found[path] for path in sorted(found)}


def only_names(
    walk: Iterator[tuple[str, dict[str, Entry], dict[str, Entry]]],
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield what :meth:`Tree.walk` yields, but names only; what a caller removes is left out, too."""
    for at, directories, files in walk:
        names = list(directories)
        yield at, names, list(files)
        for gone in set(directories).difference(names):
            del directories[gone]


class _Level:
    """A directory of :meth:`Tree.walk`, and those in it that are left."""

    def __init__(self, tree: Tree, name: str, depth: int | None) -> None:
        self.name = name
        self.depth = depth
        self.directories, files = tree.listed(name)
        self.listing = tree.path(name), self.directories, files
        self.left: Iterator[str] | None = None
