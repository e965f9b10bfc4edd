"""
Whether a user can change what a name leads to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mtlsgate.observe.owner import is_changeable_by

USER = (12345, 54321)

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as somebody else")


@pytest.fixture
def roots() -> Iterator[Path]:
    """A directory that is root's, below one that is everybody's, as /tmp is."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def theirs(roots: Path) -> Path:
    """A directory of the user's."""
    found = roots / "theirs"
    found.mkdir(mode=0o700)
    os.chown(found, *USER)
    return found


def test_a_name_in_roots_directory_is_not(roots: Path) -> None:
    """Be the file there or not, be it the user's or not, be the directory shut or not."""
    (roots / "file").touch()
    assert not is_changeable_by(USER, roots / "file")
    assert not is_changeable_by(USER, roots / "missing")
    os.chown(roots / "file", *USER)
    assert not is_changeable_by(USER, roots / "file")
    roots.chmod(0o700)
    assert not is_changeable_by(USER, roots / "file")


def test_a_name_in_a_directory_of_theirs_is(theirs: Path) -> None:
    """Also if they have taken their own right to write away for now."""
    assert is_changeable_by(USER, theirs / "file")
    theirs.chmod(0o500)
    assert is_changeable_by(USER, theirs / "file")


@pytest.mark.parametrize("mode", [0o775, 0o777])
def test_a_directory_that_they_may_write_is_like_theirs(roots: Path, mode: int) -> None:
    """By its group, or because everybody may."""
    directory = roots / "open"
    directory.mkdir()
    os.chown(directory, 0, USER[1])
    directory.chmod(mode)
    (directory / "file").touch()
    assert is_changeable_by(USER, directory / "file")


def test_in_a_sticky_directory_only_what_is_theirs_is(roots: Path) -> None:
    """As in /tmp."""
    directory = roots / "tmp"
    directory.mkdir()
    directory.chmod(0o1777)
    (directory / "file").touch()
    assert not is_changeable_by(USER, directory / "file")
    os.chown(directory / "file", *USER)
    assert is_changeable_by(USER, directory / "file")
    # Nobody has it yet.
    assert is_changeable_by(USER, directory / "missing")


def test_every_part_of_the_path_counts(roots: Path, theirs: Path) -> None:
    """A directory above, a link on the way, a link that leads through their directory."""
    (theirs / "below").mkdir()
    assert is_changeable_by(USER, theirs / "below" / "file")
    (theirs / "out").symlink_to(roots)
    assert is_changeable_by(USER, theirs / "out" / "file")
    (roots / "through").symlink_to("theirs/out")
    assert is_changeable_by(USER, roots / "through" / "file")
    (roots / "safe").symlink_to(roots)
    assert not is_changeable_by(USER, roots / "safe" / "file")
    (roots / "up").symlink_to("theirs/..")
    assert not is_changeable_by(USER, roots / "file")


def test_a_circle_of_links_is_nothing_to_rely_on(roots: Path) -> None:
    """It ends."""
    (roots / "a").symlink_to("b")
    (roots / "b").symlink_to("a")
    assert is_changeable_by(USER, roots / "a" / "file")
