"""The documentation is true: its examples run, its commands and links exist.

The blocks of a page run in order in one namespace, on a server of their own, with the names that
``docs/README.md`` promises. Blocks that begin with a file's name are files, and pytest runs those.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import natsproto
import objstore
from natsproto import errors
from natsproto.server import LocalServer
from objstore.cli.output import CommandError
from objstore.cli.parser import parse
from objstore.cli.table import COMMANDS
from objstore.errors import exit_code
from support import filesystems

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [ROOT / "README.md", *PAGES]
LIMIT = 60.0
FILE = re.compile(r"# ([a-z_]+\.py)\n")
LIBRARY = re.compile(rf"^import ({'|'.join(filesystems.LIBRARIES)})\b", re.MULTILINE)
DASK = pytest.mark.filterwarnings("ignore:The inplace keyword")  # dask's own call of pandas

pytestmark = pytest.mark.skipif(not PAGES, reason="no docs here")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The blocks of a language, each with the number of its first line."""
    text = page.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in found]


def titled(paths: list[Path], **marks: pytest.MarkDecorator | list[pytest.MarkDecorator]) -> Any:
    found = [pytest.param(path, id=path.name, marks=marks.get(path.stem, ())) for path in paths]
    return pytest.mark.parametrize("page", found)


async def run(source: str, scope: dict[str, Any], page: Path, line: int) -> None:
    """Run a block, top-level ``await`` included; errors point to the page's own lines.

    Those of sync.md run as they would in a script: in a thread without a loop.
    """
    if page.stem == "sync":
        await asyncio.to_thread(exec, compile("\n" * line + source, str(page), "exec"), scope)
        return
    code = compile("\n" * line + source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    result = eval(code, scope)
    if inspect.isawaitable(result):
        await result


def environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def tour() -> list[str]:
    """The lines of the README's first five minutes that use the command."""
    (text,) = [text for _, text in blocks(ROOT / "README.md", "sh") if "objstore bucket add" in text]
    return [line for line in text.splitlines() if line.startswith("objstore ")]


async def test_services_survive_what_a_peer_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request of an example comes after messages that get no answer, on the same subject."""
    request = natsproto.Client.request
    served = 0

    async def after_others(self: natsproto.Client, subject: str, *args: Any, **options: Any) -> Any:
        nonlocal served
        session = self.connection.session
        assert session is not None
        for reply in (b"", b"$JS.API.STREAM.PURGE.OBJ_docs", b"a..b", b"a.*", b"r.\xff\xfe", b"r" * 4075):
            session.write(b"PUB %b %b 0\r\n\r\n" % (subject.encode(), reply))
        answer = await request(self, subject, *args, **options)
        served += 1
        return answer

    monkeypatch.setattr(natsproto.Client, "request", after_others)
    for page in TEXTS:
        for line, source in blocks(page, "python"):
            if ".respond(" in source:
                served = 0
                async with LocalServer() as server, natsproto.connect(server.url) as nc:
                    await run(source, {"nc": nc, "url": server.url}, page, line)
                    assert served, f"{page.name}:{line} asks its service nothing"
                    assert nc.stats.reconnects == nc.stats.errors == 0


@titled(PAGES, testing=pytest.mark.cluster, fsspec=[pytest.mark.integrations, DASK])
async def test_examples_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    filesystems.register()
    files = []
    missing: set[str] = set()
    async with LocalServer() as server, natsproto.connect(server.url) as nc:
        js = nc.jetstream()
        store = await js.create_object_store(bucket="docs")
        scope: dict[str, Any] = {"__name__": "docs", "url": server.url, "nc": nc, "js": js, "store": store}
        for line, source in blocks(page, "python"):
            name = FILE.match(source)
            lacking = filesystems.lacking(*LIBRARY.findall(source))
            if lacking:
                missing.update(lacking)
            elif name is not None:
                (tmp_path / name[1]).write_text(source)
                files.append(name[1])
            else:
                await run(source, scope, page, line)
        filesystems.close_all()
        for name_ in await js.object_store_names():
            assert await js.consumer_names(f"OBJ_{name_}") == [], f"consumers left behind on {name_}"
    if files:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files[1:]],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2 passed" in done.stdout
    filesystems.need(request.config, *sorted(missing))  # the other blocks of the page have run


def test_the_program_of_the_readme_runs(new_server: LocalServer, tmp_path: Path) -> None:
    (source,) = [text for _, text in blocks(ROOT / "README.md", "python") if "asyncio.run(" in text]
    default = "nats://127.0.0.1:4222"
    assert source.count(default) == 1
    program = tmp_path / "program.py"
    program.write_text(source.replace(default, new_server.url))
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert "b'hello, object store'" in done.stdout
    assert (tmp_path / "copy.py").read_bytes() == program.read_bytes()


def test_the_first_five_minutes_of_the_readme(tmp_path: Path) -> None:
    """The command does what its lines say, and ``objstore ls`` prints what the picture shows."""
    script = ["objstore() { " + shlex.join([sys.executable, "-m", "objstore"]) + ' "$@"; }']
    script += [line.replace("--duration 3s", "--duration 100ms --warmup 0") for line in tour()]
    with LocalServer() as server:
        done = subprocess.run(
            ["sh", "-e", "-c", "\n".join(script)],
            cwd=ROOT,
            env={**environment(), "NATS_URL": server.url, "XDG_CONFIG_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    assert done.returncode == 0, done.stderr
    ((_, picture),) = blocks(ROOT / "README.md", "text")
    time = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ")
    assert time.sub("TIME", picture) in time.sub("TIME", done.stdout)
    assert re.search(r"^put +[\d ]+", done.stdout, re.MULTILINE), "the report of bench"


@pytest.mark.integrations
async def test_the_parquet_file_of_the_readme(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    filesystems.need(request.config, "pandas", "pyarrow")
    filesystems.register()
    (found,) = [found for found in blocks(ROOT / "README.md", "python") if "import pandas" in found[1]]
    async with LocalServer() as server, natsproto.connect(server.url) as nc:
        monkeypatch.setenv("NATS_URL", server.url)
        store = await nc.jetstream().create_object_store("media")
        await run(found[1], {}, ROOT / "README.md", found[0])
        filesystems.close_all()
        assert (await store.get("weather.parquet")).startswith(b"PAR1")
    assert "Oslo" in capsys.readouterr().out


@titled(TEXTS)
def test_commands_exist(page: Path) -> None:
    """Subcommands, flags and values of every ``objstore`` line are ones the parser takes."""
    seen = 0
    for line, text in [*blocks(page, "console"), *blocks(page, "sh")]:
        for number, row in enumerate(text.splitlines(), line + 1):
            if row.startswith("objstore "):
                row = f"$ {row}"
            for part in row.removeprefix("$ ").split(" | "):
                words = shlex.split(part.partition(" > ")[0], comments=True)
                if row.startswith("$ ") and words and words[0] == "objstore":
                    seen += 1
                    try:
                        parse(words[1:])
                    except CommandError as exc:
                        pytest.fail(f"{page.name}:{number}: {part}: {exc}")
    assert seen or page.name not in ("README.md", "cli.md") or page.parent == DOCS


def test_the_page_of_the_command_names_every_subcommand() -> None:
    text = (DOCS / "cli.md").read_text()
    for name in COMMANDS:
        assert re.search(rf"^\| `{name}[ `]", text, re.MULTILINE), name


def test_what_migrating_names_exists() -> None:
    """Import lines and errors of its tables, those of nats-py too; not those of boto3."""
    rows = [row for row in (DOCS / "migrating.md").read_text().splitlines() if row.startswith("| `")]
    spans = [span for row in rows for span in re.findall(r"`([^`]+)`", row)]
    imports = [span for span in spans if re.match(r"(from|import) (?!boto)", span)]
    names = [span for span in spans if re.fullmatch(r"(nats|natsproto|objstore)(\.\w+)+", span)]
    assert len(imports) > 10
    assert len(names) > 30
    for line in imports:
        exec(line, {})
    for name in names:
        pkgutil.resolve_name(name)


@titled(TEXTS)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in anchors, f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    for page in PAGES:
        assert page.name == "README.md" or f"[{page.name}]({page.name})" in index, page.name


def error_classes() -> dict[str, type[BaseException]]:
    """Every error class of the two trees that has a name of its own."""
    return {
        name: value
        for module in (errors, objstore.errors)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, errors.NatsError) and not name.startswith("_")
    }


def test_errors_and_their_exit_codes() -> None:
    """The tables of errors.md agree with the classes: names, bases, codes."""
    from objstore.format.codec import MetaDecodeError

    classes = {**error_classes(), "MetaDecodeError": MetaDecodeError}
    named = set()
    for row in (DOCS / "errors.md").read_text().splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if not row.startswith("| `"):
            continue
        (code,) = [int(cell) for cell in cells if cell.isdigit()]
        for name in re.findall(r"`(\w+)`", cells[0]):
            named.add(name)
            kind = classes[name]
            for base in re.findall(r"`(\w+)`", cells[1]):
                assert base in {parent.__name__ for parent in kind.__mro__}, f"{name} is no {base}"
            assert exit_code(kind.__new__(kind)) == code, name
    assert set(classes) - named == {"NatsError", "ProtocolError"}
