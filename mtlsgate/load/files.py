"""
Reads the certificates, keys and revocation lists that a configuration names.

If something cannot be read or parsed, it is reported with its position and left out.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from attrs import frozen

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.crl import RevocationList, parse_crls, without_deltas
from mtlsgate.certificates.parsing import each_certificate
from mtlsgate.config import Located, Material, Misconfigured
from mtlsgate.config.material import material_bytes, unusable
from mtlsgate.errors import CredentialError, Position, Report
from mtlsgate.load.disk import DISK, FileSource
from mtlsgate.load.file_state import Stamp, is_directory
from mtlsgate.text import quoted
from mtlsgate.tls.trust import refuse_unreadable

T = TypeVar("T")

CERTIFICATE_ENDINGS = (".pem", ".crt", ".cer", ".der")
CRL_ENDINGS = (".pem", ".crl", ".der")


@frozen
class _Listing:
    """A directory whose files were read."""

    attribute: str
    name: str
    path: Path
    at: Position
    where: str


class CertificateFiles:
    """
    Reads files and inline material for one load.

    :ivar directory: where relative paths start.
    :ivar report: where problems go.
    :ivar seen: the files and directories that were read or searched for, with their
        state at that time.
    """

    def __init__(
        self,
        directory: Path,
        report: Report,
        seen: dict[Path, Stamp],
        source: FileSource = DISK,
    ) -> None:
        """:param source: has the files."""
        self.directory = directory
        self.report = report
        self.seen = seen
        self._source = source
        # Each list is parsed once in a load, even if many rules name it.
        self._lists: dict[tuple[Path, bool], tuple[RevocationList, ...]] = {}
        self._certificates: dict[Path, tuple[Certificate, ...]] = {}
        # Kept as DER: the parsed pins of a fleet would need too much memory.
        self._leaves: dict[Path, tuple[bytes, ...]] = {}
        self._own: set[Path] = set()
        self._listings: list[_Listing] = []

    def read_file(self, path: Path) -> bytes:
        """
        :param path: the absolute path.
        :returns: the file's content.
        :raises CredentialError: if it cannot be read; the text follows its name.
        """
        self.seen[path] = self._source.stamp(path)
        return self._source.read(path)

    def read_own(self, path: Path) -> bytes:
        """
        :param path: the absolute path of a configuration file.
        :raises CredentialError: if it cannot be read; the text follows its name.
        """
        self.note_own(path)
        return self.read_file(path)

    def is_directory(self, path: Path) -> bool:
        """:returns: whether the path is a directory."""
        return is_directory(self._source.stamp(path))

    def list_own(self, path: Path) -> list[Path]:
        """
        :param path: the absolute path of a configuration directory.
        :raises OSError: if it cannot be read.
        """
        self.seen[path] = self._source.stamp(path)
        return self._source.list(path)

    def read(self, material: Material, where: str) -> bytes | None:
        """:returns: the bytes; None if the report says what is wrong."""
        try:
            return material_bytes(material, self.directory, self.read_file)
        except Misconfigured as error:
            self.report.error(error.at, where, error.text)
            return None

    def refuse(self, material: Material, where: str, error: CredentialError) -> None:
        """Report what is wrong with material, at its attribute."""
        problem = unusable(material, error)
        self.report.error(problem.at, where, problem.text)

    # Certificates.

    def certificates(self, material: Material | None, where: str) -> tuple[Certificate, ...]:
        """:returns: the certificates; none if there is no material, or if the report
        says what is wrong with it."""
        found: list[Certificate] = []
        for part in _parts(material):
            path = None if part.path is None else self.directory / part.path
            known = None if path is None else self._certificates.get(path)
            if known is None:
                known = self._each(part, where, lambda data: tuple(_readable(data)))
                if path is not None and known:
                    self._certificates[path] = known
            found += known
        return tuple(found)

    def each_certificate(
        self, material: Material | None, where: str, keep: Callable[[Certificate], T]
    ) -> tuple[T, ...]:
        """
        :param keep: makes the value to keep from a certificate.
        :returns: the values; none if there is no material, or if the report says
            what is wrong with it.
        """
        found: list[T] = []
        for part in _parts(material):
            path = None if part.path is None else self.directory / part.path
            try:
                found += map(keep, self._leaves_of(part, path))
            except CredentialError as error:
                self.refuse(part, where, error)
            except Misconfigured as error:
                self.report.error(error.at, where, error.text)
        return tuple(found)

    def _leaves_of(self, part: Material, path: Path | None) -> Iterator[Certificate]:
        """:raises CredentialError: if they do not parse.
        :raises Misconfigured: if they cannot be read."""
        if path is not None and path in self._leaves:
            yield from map(Certificate, self._leaves[path])
            return
        data = material_bytes(part, self.directory, self.read_file)
        yield from self._noted(_readable(data), path)

    def _leaves_in(self, path: Path) -> Iterator[Certificate]:
        """:raises CredentialError: if they cannot be read or do not parse."""
        if path in self._leaves:
            yield from map(Certificate, self._leaves[path])
        else:
            yield from self._noted(_readable(self.read_file(path)), path)

    def _noted(self, found: Iterable[Certificate], path: Path | None) -> Iterator[Certificate]:
        """Yield the certificates of a file, and cache them for the next use."""
        ders: list[bytes] = []
        for one in found:
            ders.append(one.der)
            yield one
        if path is not None:
            self._leaves[path] = tuple(ders)

    def _each(
        self, part: Material, where: str, parse: Callable[[bytes], tuple[T, ...]]
    ) -> tuple[T, ...]:
        data = self.read(part, where)
        if data is None:
            return ()
        try:
            return parse(data)
        except CredentialError as error:
            self.refuse(part, where, error)
            return ()

    def each_certificate_in(
        self, directory: Located[str] | None, where: str, keep: Callable[[Certificate], T]
    ) -> tuple[T, ...]:
        """
        :param keep: makes the value to keep from a certificate.
        :returns: the values for all certificate files in a directory, which are known
            by their endings; none if the report says what is wrong.
        """
        if directory is None:
            return ()
        files = self._files("leaf_certificate_dir", directory, CERTIFICATE_ENDINGS, where)

        def parse(file: Path) -> tuple[T, ...]:
            return tuple(map(keep, self._leaves_in(file)))

        return self._all(parse, "leaf_certificate_dir", directory.at, files, where)

    # Revocation lists.

    def revocation_lists(
        self,
        lists: Material | None,
        directory: Located[str] | None,
        where: str,
        strict: bool,
    ) -> tuple[RevocationList, ...]:
        """
        :param lists: one CRL or many.
        :param directory: a directory with CRLs.
        :param strict: whether they must follow the RFC 5280 profile.
        :returns: the CRLs from both; none if the report says what is wrong.
        """
        found: list[RevocationList] = []
        for part in _parts(lists):
            try:
                found += self._lists_of(part, strict)
            except CredentialError as error:
                self.refuse(part, where, error)
            except Misconfigured as error:
                self.report.error(error.at, where, error.text)
        if directory is not None:
            files = self._files("crl_dir", directory, CRL_ENDINGS, where)
            parse = partial(self._lists_in, strict=strict)
            found += self._all(parse, "crl_dir", directory.at, files, where)
        return self._complete(found, lists, directory, where)

    def _complete(
        self,
        found: list[RevocationList],
        lists: Material | None,
        directory: Located[str] | None,
        where: str,
    ) -> tuple[RevocationList, ...]:
        """:returns: the lists without delta CRLs, with a warning for each; none if a
        delta CRL is needed, which is reported."""
        if not any(one.is_delta for one in found):
            return tuple(found)
        if lists is None:
            assert directory is not None
            at, name = directory.at, f"crl_dir: {quoted(directory.value)}"
        else:
            at, name = lists.at, lists.attribute
            if lists.path is not None:
                name += f": {quoted(str(lists.path))}"
        try:
            complete, deltas = without_deltas(found)
        except CredentialError as error:
            self.report.error(at, where, f"{name} {error}")
            return ()
        for delta in deltas:
            self.report.warn(at, where, f"{name} has {delta}, which is left out")
        return complete

    def _lists_of(self, part: Material, strict: bool) -> tuple[RevocationList, ...]:
        """:raises CredentialError: if they do not parse.
        :raises Misconfigured: if they cannot be read."""
        path = None if part.path is None else self.directory / part.path
        if path is not None and (path, strict) in self._lists:
            return self._lists[path, strict]
        found = parse_crls(material_bytes(part, self.directory, self.read_file), strict=strict)
        if path is not None:
            self._lists[path, strict] = found
        return found

    def _lists_in(self, path: Path, strict: bool) -> tuple[RevocationList, ...]:
        """:raises CredentialError: if they cannot be read or do not parse."""
        if (path, strict) not in self._lists:
            self._lists[path, strict] = parse_crls(self.read_file(path), strict=strict)
        return self._lists[path, strict]

    # The gate's own files.

    def warn_if_exposed(self, key: Material, where: str) -> None:
        """Warn about a private key that everybody on the machine may read."""
        if key.path is None:
            return
        try:
            mode = (self.directory / key.path).stat().st_mode
        except (OSError, ValueError):
            return
        if mode & stat.S_IROTH:
            name = quoted(str(key.path))
            self.report.warn(
                key.at,
                where,
                f"{key.attribute}: {name} may be read by everybody on this machine: chmod o-r it",
            )

    def note_own(self, path: Path) -> None:
        """
        Note a file that must not be in a directory of pins or revocation lists.

        :param path: a configuration file, or a server's certificate or key.
        """
        self._own.add(self.directory / path)

    def refuse_own_in_directories(self) -> None:
        """Report each directory of pins or revocation lists that has one of the gate's
        own files.  It is probably the wrong directory, and would admit everybody with a
        certificate in it."""
        own = sorted((_resolved(one.parent), one.name) for one in self._own)
        for listing in self._listings:
            path = _resolved(listing.path)
            if (name := next((name for parent, name in own if parent == path), None)) is None:
                continue
            self.report.error(
                listing.at,
                listing.where,
                f"{listing.attribute}: {quoted(listing.name)} holds {quoted(name)}, which is the "
                "gate's own: name a directory that holds nothing else",
            )

    # Directories.

    def _files(
        self, attribute: str, directory: Located[str], endings: tuple[str, ...], where: str
    ) -> list[Path]:
        name = f"{attribute}: {quoted(directory.value)}"
        try:
            # Sorted by name, so that every load reads the same.
            path = self.directory / directory.value
            self.seen[path] = self._source.stamp(path)
            entries = self._source.list(path)
        except FileNotFoundError:
            self.report.error(directory.at, where, f"{name} no such directory")
            return []
        except NotADirectoryError:
            self.report.error(directory.at, where, f"{name} is not a directory")
            return []
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.report.error(directory.at, where, f"{name} cannot be read: {reason}")
            return []
        self._listings.append(_Listing(attribute, directory.value, path, directory.at, where))
        found = [one for one in entries if one.suffix.lower() in endings]
        if not found:
            self.report.error(
                directory.at,
                where,
                f"{name} holds no file that ends in {', '.join(endings)}",
            )
        return found

    def _all(
        self,
        parse: Callable[[Path], tuple[T, ...]],
        attribute: str,
        at: Position,
        files: Iterable[Path],
        where: str,
    ) -> tuple[T, ...]:
        def each() -> Iterator[T]:
            for file in files:
                try:
                    yield from parse(file)
                except CredentialError as error:
                    name = quoted(str(file).removeprefix(f"{self.directory}/"))
                    self.report.error(at, where, f"{attribute}: {name} {error}")

        return tuple(each())


def _readable(data: bytes) -> Iterator[Certificate]:
    """:raises CredentialError: if one does not parse, or OpenSSL cannot read it."""
    for certificate in each_certificate(data):
        refuse_unreadable(certificate)
        yield certificate


def _parts(material: Material | None) -> tuple[Material, ...]:
    return () if material is None else material.parts or (material,)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path
