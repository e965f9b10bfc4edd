"""
What a configuration names as ``package.module:attribute``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtlsgate.text import looks_secret, printable, quoted, shown


def resolve(name: str, directory: Path) -> object:
    """
    :param name: ``package.module:attribute``.
    :param directory: where modules are looked for after the usual places.
    :raises ValueError: if there is no such thing, or importing it fails.
    """
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise ValueError(f'{quoted(name)} is not of the form "package.module:attribute"')
    # Last, so that nothing beside the configuration shadows what is installed.
    if str(directory) not in sys.path:
        sys.path.append(str(directory))
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"no module named {shown(str(error.name))}: install it, or put it beside the "
            "configuration"
        ) from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"importing {shown(module_name)} failed: {describe(error)}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ValueError(f"{shown(module_name)} has no attribute {shown(attribute)}") from None
    return found


def describe(error: BaseException) -> str:
    """:returns: an exception in one printable line."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return type(error).__name__ if looks_secret(text) else printable(text)


def call(what: Callable[..., object], arguments: dict[str, Any], origin: str) -> object:
    """
    :raises ValueError: if calling it fails, with why in one line.
    """
    try:
        return what(**arguments)
    except ValueError:
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"{origin} failed: {describe(error)}") from error
