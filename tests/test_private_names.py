"""No private name of another package is used, nor overridden by inheritance."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import mtlsgate


def modules() -> Iterator[ModuleType]:
    """Yield every module of the package."""
    for found in pkgutil.walk_packages(mtlsgate.__path__, "mtlsgate."):
        yield importlib.import_module(found.name)


def is_private(name: str) -> bool:
    """:returns: whether it is, and not Python's own: ``__dunder__``, of ABCs, of protocols."""
    return name.startswith("_") and not name.startswith(("__", "_abc_", "_is_protocol"))


def private_names_of_self(tree: ast.AST) -> set[str]:
    """:returns: each ``_name`` in ``self._name``, but for ``__dunder__`` and mangled ones."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and is_private(node.attr)
    }


def tree_of(one: type) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(one)))
    except (OSError, TypeError):
        return ast.Module([], [])


@cache
def foreign_names(one: type) -> set[str]:
    """:returns: the private names that a class of another package has or sets."""
    declared = {name for name in vars(one) if is_private(name)}
    return declared | private_names_of_self(tree_of(one))


def is_ours(one: type) -> bool:
    return one.__module__.partition(".")[0] == "mtlsgate"


def test_inherited_private_names_are_not_used() -> None:
    """A class that inherits from another package leaves that package's private names alone:
    they change without notice."""
    found = []
    for module in modules():
        for one in vars(module).values():
            if not (inspect.isclass(one) and one.__module__ == module.__name__):
                continue
            written = inspect.getsource(module)
            # What its source does not name, a metaclass of the base has set.
            ours = {
                name
                for name in vars(one)
                if name.startswith("_") and not name.startswith("__") and name in written
            }
            ours |= private_names_of_self(tree_of(one))
            for base in one.__mro__:
                if not is_ours(base) and base.__module__ not in ("builtins", "enum", "typing"):
                    found += [
                        f"{module.__name__}.{one.__name__}: {name} of {base.__name__}"
                        for name in sorted(ours & foreign_names(base))
                    ]
    assert not found, "\n".join(["", *found])


def test_no_private_module_or_name_is_imported() -> None:
    """No import names something private of another package."""
    found = []
    for module in modules():
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{one.name}" for one in node.names]
            found += [
                f"{module.__name__}: {name}"
                for name in names
                if not name.startswith(("mtlsgate.", "__future__"))
                and any(map(is_private, name.split(".")))
            ]
    assert not found, "\n".join(["", *found])
