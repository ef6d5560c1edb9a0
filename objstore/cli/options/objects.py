"""Arguments of the commands on objects."""

from __future__ import annotations

from argparse import ArgumentParser

from .. import arguments


def _bucket(parser: ArgumentParser) -> None:
    parser.add_argument("bucket", metavar="BUCKET")


def _targets(parser: ArgumentParser, *, count: str = "+") -> None:
    """Add ``BUCKET NAME…`` or addresses."""
    parser.add_argument(
        "targets", metavar="BUCKET NAME", nargs=count, help="or addresses: natsobj://BUCKET/NAME"
    )


def _recursive(parser: ArgumentParser, what: str) -> None:
    parser.add_argument("-r", "--recursive", action="store_true", help=what)


def _force(parser: ArgumentParser, what: str) -> None:
    parser.add_argument("-f", "--force", action="store_true", help=what)


def _null(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-0",
        "--null",
        action="store_true",
        help="names only, each followed by a NUL: for xargs -0 objstore rm --literal BUCKET --",
    )


def _literal(parser: ArgumentParser) -> None:
    meaning = parser.add_mutually_exclusive_group()
    meaning.add_argument(
        "--literal",
        action="store_const",
        const=True,
        help="names mean what they say: no globs (for names that others chose; write -- before them)",
    )
    meaning.add_argument(
        "--glob",
        action="store_const",
        const=False,
        dest="literal",
        help="globs mean what matches, even if an object is called so",
    )


def _about(parser: ArgumentParser) -> None:
    """Add description, headers and metadata."""
    parser.add_argument("--description", metavar="TEXT")
    parser.add_argument(
        "-H",
        "--header",
        metavar="K:V",
        dest="headers",
        type=arguments.header,
        action="append",
        default=[],
        help="header of the object; may be repeated",
    )
    parser.add_argument("--metadata", metavar="K=V", type=arguments.pair, action="append", default=[])


def _if_revision(parser: ArgumentParser, what: str) -> None:
    parser.add_argument("--if-revision", metavar="N", type=arguments.revision, help=what)


def put(parser: ArgumentParser) -> None:
    """Add the arguments of ``put``."""
    _bucket(parser)
    parser.add_argument("files", metavar="FILE", nargs="+", help="- is standard input and needs --name")
    parser.add_argument("--name", metavar="NAME", help="name of the object; default: the file's base name")
    parser.add_argument("--prefix", metavar="TEXT", help="what all names begin with, such as photos/")
    _recursive(parser, "of a directory, store what is in it, by the paths relative to it")
    _about(parser)
    parser.add_argument("--chunk-size", metavar="SIZE", type=arguments.size, help="bytes of a chunk (128KiB)")
    parser.add_argument(
        "--size", metavar="SIZE", type=arguments.size, help="bytes of standard input: others are an error"
    )
    parser.add_argument("--create", action="store_true", help="fail if the object exists")
    _if_revision(parser, "store only if the object is at this revision; 0: if there is none")
    parser.add_argument(
        "--ttl", metavar="TIME", type=arguments.duration, help="age at which the object expires: 7d"
    )
    parser.add_argument(
        "--atomic", action="store_true", help="commit everything at once: up to 999 chunks, nats-server 2.12"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep what is stored if it fails, and continue with it"
    )


def _follow_links(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--follow-links",
        choices=("all", "same-bucket", "none"),
        default="all",
        help="which links may be read through; others are errors (all). Writers of a bucket choose where"
        " its links lead",
    )


def get(parser: ArgumentParser) -> None:
    """Add the arguments of ``get``."""
    _bucket(parser)
    parser.add_argument("names", metavar="NAME", nargs="*", help="name, or a glob in quotes: 'photos/*.jpg'")
    parser.add_argument(
        "-O",
        "--output",
        metavar="FILE",
        help="file to write; - is standard output; default: the base name of NAME in the current directory;"
        " for several objects, or if it ends in /: the directory to write into",
    )
    _recursive(parser, "NAME and everything below it, as a directory; without NAME: the whole bucket")
    _force(parser, "replace an existing file")
    parser.add_argument(
        "--resume", action="store_true", help="keep what is read if it fails, and continue with it"
    )
    _follow_links(parser)
    _literal(parser)


def cat(parser: ArgumentParser) -> None:
    """Add the arguments of ``cat``."""
    _targets(parser)
    parser.add_argument(
        "--range", metavar="A-B", type=arguments.byte_range, help="bytes: 0-99, 100-, or =-100 (the last 100)"
    )
    _follow_links(parser)
    _literal(parser)


def ls(parser: ArgumentParser) -> None:
    """Add the arguments of ``ls``."""
    parser.add_argument("bucket", metavar="BUCKET", nargs="?")
    parser.add_argument("prefixes", metavar="PREFIX", nargs="*", help="or a glob in quotes: '*.pdf'")
    _recursive(parser, "all levels, not one")
    parser.add_argument("-l", "--long", action="store_true", help="also revision, chunks and digest")
    parser.add_argument("-n", "--names", action="store_true", help="names only")
    _null(parser)
    parser.add_argument("--sort", choices=("name", "size", "time"), help="largest or newest first")
    parser.add_argument(
        "--since", metavar="TIME", type=arguments.moment, help="changed since: 2026-01-31, or an age: 7d"
    )
    parser.add_argument("--deleted", action="store_true", help="also objects that were deleted")


def info(parser: ArgumentParser) -> None:
    """Add the arguments of ``info``."""
    _bucket(parser)
    parser.add_argument("name", metavar="NAME", nargs="?")


def find(parser: ArgumentParser) -> None:
    """Add the arguments of ``find``."""
    _bucket(parser)
    parser.add_argument("prefixes", metavar="PREFIX", nargs="*", help="or a glob in quotes: 'photos/**'")
    parser.add_argument(
        "--name", metavar="GLOB", dest="match", help="of the base name, or with a / of the whole name"
    )
    parser.add_argument("--larger", metavar="SIZE", type=arguments.size, help="more bytes: 10MiB")
    parser.add_argument("--smaller", metavar="SIZE", type=arguments.size, help="fewer bytes")
    parser.add_argument(
        "--newer", metavar="TIME", type=arguments.moment, help="changed since: 2026-01-31, or an age: 7d"
    )
    parser.add_argument("--older", metavar="TIME", type=arguments.moment, help="not changed since")
    _null(parser)


def du(parser: ArgumentParser) -> None:
    """Add the arguments of ``du``."""
    _bucket(parser)
    parser.add_argument("prefix", metavar="PREFIX", nargs="?", help="only names that begin with it")
    parser.add_argument("-d", "--depth", metavar="N", type=arguments.count, help="levels to show (100)")


def rm(parser: ArgumentParser) -> None:
    """Add the arguments of ``rm``."""
    _targets(parser)
    _recursive(parser, "NAME and everything below it, as a directory")
    _force(parser, "do not ask")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be deleted")
    _literal(parser)


def cp(parser: ArgumentParser) -> None:
    """Add the arguments of ``cp``."""
    parser.add_argument(
        "places",
        metavar="PLACE",
        nargs="+",
        help="files and addresses natsobj://BUCKET/NAME, the target last; or BUCKET NAME NEW",
    )
    _recursive(parser, "directories, with everything below them")
    _force(parser, "replace an existing file")
    _follow_links(parser)
    _literal(parser)


def mv(parser: ArgumentParser) -> None:
    """Add the arguments of ``mv``."""
    parser.add_argument(
        "places",
        metavar="PLACE",
        nargs="+",
        help="files and addresses natsobj://BUCKET/NAME, the target last; or BUCKET NAME NEW",
    )
    _recursive(parser, "directories, with everything below them")
    _force(parser, "replace an existing file or object")
    _follow_links(parser)
    _literal(parser)


def ln(parser: ArgumentParser) -> None:
    """Add the arguments of ``ln``."""
    parser.add_argument(
        "targets",
        metavar="BUCKET TARGET LINK",
        nargs="+",
        help="or two addresses: natsobj://BUCKET/TARGET or natsobj://BUCKET, and that of the link",
    )
    parser.add_argument("--description", metavar="TEXT")


def meta(parser: ArgumentParser) -> None:
    """Add the arguments of ``meta``."""
    _targets(parser)
    _about(parser)
    parser.add_argument(
        "--no-header", metavar="K", dest="no_headers", action="append", default=[], help="remove a header"
    )
    parser.add_argument(
        "--no-metadata", metavar="K", action="append", default=[], help="remove a pair of the metadata"
    )
    _if_revision(parser, "change only if the object is at this revision")


def sync(parser: ArgumentParser) -> None:
    """Add the arguments of ``sync``."""
    parser.add_argument("source", metavar="PLACE", help="a directory, or natsobj://BUCKET/DIRECTORY/")
    parser.add_argument("target", metavar="PLACE", help="the other one")
    parser.add_argument("--delete", action="store_true", help="delete what only the target has")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done")


def watch(parser: ArgumentParser) -> None:
    """Add the arguments of ``watch``."""
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only names that begin so")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--all", action="store_true", help="begin with the objects that are there")
    start.add_argument(
        "--from-revision", metavar="N", type=arguments.count, help="begin with that revision, to continue"
    )
    parser.add_argument("--ignore-deletes", action="store_true", help="leave out deletions")
    parser.add_argument("--count", metavar="N", type=arguments.count, help="end after N changes")
    parser.add_argument(
        "--exec",
        metavar="COMMAND",
        help="run it by the shell for each change, one after the other: the JSON document is on its standard"
        " input, and OBJSTORE_EVENT (put, delete), OBJSTORE_BUCKET, OBJSTORE_NAME, OBJSTORE_REVISION,"
        " OBJSTORE_SIZE and OBJSTORE_DIGEST are in its environment",
    )
