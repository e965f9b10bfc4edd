"""
The map is true: what architecture.md and CONTRIBUTING.md name exists, and the
table of packages is complete.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import mtlsgate
from tests.kits.docs import DOCS, ROOT

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its docs")

PACKAGE = Path(mtlsgate.__file__).parent
ARCHITECTURE, CONTRIBUTING = DOCS / "architecture.md", ROOT / "CONTRIBUTING.md"
PAGES = [ARCHITECTURE, CONTRIBUTING]


def quoted(page: Path) -> list[str]:
    """:returns: what stands between backquotes in a line, without code blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_it_names_exist(page: Path) -> None:
    """Each path is one of the repository, or one in mtlsgate/."""
    paths = [one for one in quoted(page) if re.fullmatch(r"[\w.]+(/[\w.]*)+|\w+\.(py|cfg|md)", one)]
    assert len(paths) > 15
    assert [one for one in paths if not any((top / one).exists() for top in (ROOT, PACKAGE))] == []


def test_the_functions_that_it_names_exist() -> None:
    """Each dotted name leads to a module, class or function of mtlsgate."""
    names = [one for one in quoted(ARCHITECTURE) if re.fullmatch(r"[a-z_]+(\.\w+)+", one)]
    names = [one for one in names if not one.endswith((".py", ".md", ".cfg", ".hcl"))]
    assert len(names) > 20
    for name in names:
        assert resolve(name) is not None, name


def resolve(name: str) -> object:
    """:returns: what a name below mtlsgate means; raises AttributeError if nothing."""
    found: object = mtlsgate
    path = "mtlsgate"
    for part in name.split("."):
        path = f"{path}.{part}"
        try:
            found = importlib.import_module(path)
        except ModuleNotFoundError:
            found = getattr(found, part)
    return found


def test_every_package_is_on_the_map() -> None:
    """The table has each package and module at the top of mtlsgate."""
    table = ARCHITECTURE.read_text().partition("## The packages")[2].partition("\n## ")[0]
    for path in PACKAGE.iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            assert f"`{path.name}`" in table, path.name
        elif (path / "__init__.py").exists():
            assert f"`{path.name}/`" in table, path.name


def test_a_tests_name_is_a_promise() -> None:
    """One word promises nothing; and no test module imports another."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text()
        assert re.findall(r"^ *def (test_[a-z0-9]+)\(", text, re.MULTILINE) == [], path
        assert re.findall(r"^from tests\.\S*\btest_\w+ import", text, re.MULTILINE) == [], path
