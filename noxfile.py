"""
The tests on each Python, with the lowest and the highest versions of what mtlsgate needs.

``nox --list`` shows the sessions; ``nox --session lowest-3.11 -- -m "not slow"`` runs the
fast tests of one.
"""

from __future__ import annotations

from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]

nox.options.sessions = ["highest", "lowest"]


@nox.session(python=PYTHONS)
def highest(session: nox.Session) -> None:
    """The newest versions that pip finds."""
    session.install("--upgrade", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS)
def lowest(session: nox.Session) -> None:
    """The lowest versions that setup.cfg allows, those of the test tools included."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    listed = session.run("python", ".ci/lowest.py", silent=True)
    constraints.write_text(str(listed))
    session.install("--constraint", str(constraints), ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """Style, types and the directions of imports."""
    session.install("-e", ".[test,lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """The pages, as HTML in docs/_build/html."""
    session.install(".[docs]")
    session.run("sphinx-build", "-q", "-W", "-n", "-b", "html", "docs", "docs/_build/html")
