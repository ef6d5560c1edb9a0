"""The API reference: ``sphinx-build -W -n -b html docs/api build/api``. See docs/README.md."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from natsproto import __version__  # noqa: E402
from natsproto.aio.handlers import Handler, ReplySlot  # noqa: E402
from natsproto.aio.options import Options  # noqa: E402

project = "natsproto"
release = version = __version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"natsproto {release}"
html_copy_source = False
default_role = "py:obj"
nitpick_ignore = [("py:class", "natsproto.testing.scripted.E")]  # a type variable
add_module_names = False
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    # The standard library documents what its classes contribute.
    "inherited-members": "BaseException, OSError, dict, str, Mapping, MutableMapping, Protocol, Generic",
}
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# The modules that users import names from (tests/unit/test_docstrings.py reads this, too). An object is
# documented once: in the first module that exports it.
PUBLIC = (
    "natsproto",
    "natsproto.errors",
    "natsproto.headers",
    "natsproto.jetstream.api.errors",
    "natsproto.jetstream.api.models",
    "natsproto.server",
    "natsproto.testing",
    "natsproto.wire",
    "natsproto.transport",
    "objstore",
    "objstore.filesystem",
    "objstore.sync",
)
# Where else a name without a module may come from.
STANDARD = ("builtins", "asyncio", "collections.abc", "datetime", "io", "os", "ssl", "types", "typing")

# Types that only the library's own code has: a class that takes one is created by calls, not by users.
MADE_INSIDE = re.compile(
    r"\b(Bucket|WireMsg|Connection|PublishWindow|AckCheck|Options|Pinned|Writing|Link)\b"
)
# Imports under another name.
OTHER_NAMES = {"WireMsg": "natsproto.wire.Msg"}
# Called by other parts of the library: public for them, not for users.
SEAM = {name for kind in (Handler, ReplySlot, Options) for name in dir(kind) if not name.startswith("_")}
SEAM |= {"connection", "bound_bucket", "twin"}


def exported(module: str) -> list[str]:
    loaded = importlib.import_module(module)
    own = [name for name, value in vars(loaded).items() if getattr(value, "__module__", None) == module]
    return getattr(loaded, "__all__", [name for name in own if not name.startswith("_")])


def homes() -> dict[int, str]:
    found: dict[int, str] = {}
    for module in PUBLIC:
        for name in exported(module):
            value = getattr(importlib.import_module(module), name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found.setdefault(id(value), f"{module}.{name}")
    return found


HOMES = homes()


def look_up(path: str) -> Any:
    """The object of a dotted path; ``LookupError`` where there is none."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        try:
            for part in parts[end:]:
                value = getattr(value, part)
        except AttributeError:
            break
        return value
    raise LookupError(path)


def candidates(target: str) -> list[str]:
    """Full names that ``target`` may stand for."""
    target = OTHER_NAMES.get(target, target.partition("[")[0])
    owner, _, attribute = target.rpartition(".")
    names = [target] if owner else []
    for path, rest in ((target, ""), (owner, f".{attribute}")):
        try:
            names.append(HOMES[id(look_up(path))] + rest)
        except (LookupError, ValueError):
            pass
    return names + [f"{module}.{target}" for module in (*PUBLIC, *STANDARD)]


def resolve(app: Any, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """Resolve references by the names that the source uses, and references into the standard library."""
    if node.get("refdomain") != "py":
        return None
    for name in candidates(node["reftarget"]):
        found = env.domains["py"].resolve_xref(
            env, node["refdoc"], app.builder, node["reftype"], name, node, contnode
        )
        if found is not None:
            return found
        root = name.partition(".")[0]
        if root in sys.stdlib_module_names:
            try:
                value = look_up(name)
            except LookupError:
                continue
            module = name.rpartition(".")[0] if not inspect.ismodule(value) else name
            anchor = name.removeprefix("builtins.")
            page = "functions" if module == "builtins" else module
            url = f"https://docs.python.org/3/library/{page}.html#{anchor}"
            return nodes.reference("", "", contnode, internal=False, refuri=url)
    return None


def exact(app: Any, doctree: nodes.document) -> None:
    """Name one of two twins: Sphinx's search for similar names would find that of the other API, too."""
    for node in doctree.findall(addnodes.pending_xref):
        if node["reftarget"].rpartition(".")[2] in exported("objstore.sync"):
            node.attributes.pop("refspecific", None)


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Skip names that another module exports first, and names for other parts of the library."""
    if what == "class" and name in SEAM:
        return True
    if what != "module" or id(obj) not in HOMES:
        return None
    return HOMES[id(obj)].rpartition(".")[0] != app.env.current_document.autodoc_module or None


def bases(app: Any, name: str, obj: Any, options: Any, found: list[Any]) -> None:
    """Replace a base that is an implementation detail by its own public bases."""

    def public(base: Any) -> list[Any]:
        cls = getattr(base, "__origin__", base)
        if id(cls) in HOMES or not cls.__module__.startswith(("natsproto", "objstore")):
            return [base]
        return [upper for each in cls.__bases__ for upper in public(each)]

    shown = [upper for base in found for upper in public(base)]
    found[:] = [base for base in dict.fromkeys(shown) if base is not object] or [object]


def signature(
    app: Any, what: str, name: str, obj: Any, options: Any, arguments: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Hide constructors that only the library calls; show defaults made per object as ``...``."""
    if arguments is None:
        return None
    if what == "class" and MADE_INSIDE.search(arguments):
        return "", None
    if arguments == "(*args, **kwargs)":
        return "", None  # a protocol's
    return arguments.replace("<factory>", "..."), returns


def setup(app: Any) -> None:
    app.connect("autodoc-process-signature", signature)
    app.connect("doctree-read", exact)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-bases", bases)
