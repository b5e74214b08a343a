"""Signatures and docstrings as the reference shows them: types in full, public paths, links."""

import pkgutil
import re
import sys
import typing
from importlib import import_module
from typing import Any

import matplotlib.figure  # noqa: F401 - one of the libraries that are imported for types alone
import transformer_lens.model_bridge  # noqa: F401 - likewise
from sphinx.application import Sphinx

import actadd_lens as al

ROOMS = ("metrics", "plots", "statistics", "testbed")


def give_types() -> None:
    """Have signatures name the types that the source names.

    Slow libraries are imported for type checkers alone, and are ``Any`` at run time. So once all
    libraries are there, the package is imported again as a type checker reads it.
    """
    _import_rooms()
    for name in [name for name in sys.modules if name.startswith("actadd_lens.")]:
        del sys.modules[name]
    for name in {*al.__all__} - {"__version__"}:
        vars(al).pop(name, None)
    typing.TYPE_CHECKING = True
    _import_rooms()
    typing.TYPE_CHECKING = False


def _import_rooms() -> None:
    for room in pkgutil.walk_packages(al.__path__, "actadd_lens."):
        if not room.name.endswith(("__main__", ".training")):
            import_module(room.name)


def _public(name: str) -> str | None:
    """The public path of a name, e.g. of "generate" or "ContrastPair.tokens"."""
    first = name.partition(".")[0]
    if first in al.__all__ and name != "dose":  # that is a column more often
        return f"actadd_lens.{name}"
    if first[0].isupper() or "_" in first:  # others are columns, e.g. "mean"
        for room in ROOMS:
            if first in getattr(al, room).__all__:
                return f"actadd_lens.{room}.{name}"
    return None


def link_names(
    _app: Sphinx, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]
) -> None:
    """Public names in docstrings become links, and what napoleon would misread is spelt out."""

    def linked(match: re.Match[str]) -> str:
        path = _public(match[2])
        return f":py:obj:`{match[2]} <{path}>`" if path else match[0]

    field = what in ("attribute", "data", "property")
    raises = False
    for index, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[index] = re.sub(r"(?<![:`\w])(`{1,2})([A-Za-z_][\w.]*)\1(?!`)", linked, line)
        if line.strip() == "Returns:":
            lines[index] = ":returns:"  # else what stands before a colon is taken for a type
        if field and line.strip() == "Raises:":  # napoleon reads no sections of fields
            raises, lines[index] = True, ""
        elif raises:
            lines[index] = re.sub(r"^ +([\w, ]+): ", r":raises \1: ", lines[index])
    if field:
        lines.insert(0, "\\")  # shows nothing, but keeps napoleon from the first line's colon


def show_signature(
    _app: Sphinx, what: str, _name: str, obj: Any, _options: Any, arguments: str, returns: str
) -> tuple[str | None, str | None] | None:
    """No private arguments, nor any of protocols; context managers as what they are."""
    if what == "class" and getattr(obj, "_is_protocol", False):
        return "", None
    if what == "function" and getattr(obj, "__wrapped__", None) and "Iterator" in str(returns):
        return arguments, "AbstractContextManager[None]"
    if not arguments:
        return None
    shown = re.sub(r"<factory>|<function <lambda>>", "...", arguments)
    return re.sub(r", _\w+: [^=]+ = \.\.\.", "", shown), returns


def quote_options(_app: Sphinx, _context: Any, lines: list[str]) -> None:
    """Options in the help of other options keep their two hyphens."""
    for index, line in enumerate(lines):
        if not line.lstrip().startswith(".. option::"):
            lines[index] = re.sub(r"(?<![`\w])--[a-z][a-z-]*", r"``\g<0>``", line)


def find_public(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """A type in a signature has the path of its file; the page has the public one."""
    path = _public(node.get("reftarget", "").rpartition(".")[2] or "-")
    if node.get("refdomain") != "py" or path is None:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", path, node, contnode)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    give_types()
    app.connect("autodoc-process-docstring", link_names, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", show_signature)
    app.connect("missing-reference", find_public)
    for part in ("description", "options"):
        app.connect(f"sphinx-click-process-{part}", quote_options)
    return {"parallel_read_safe": True}
