"""
Reading what a configuration names: certificates, keys and revocation lists.

Whatever cannot be read or does not parse is reported at its place, and
nothing is what is left of it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from mtlsgate.admission.revocation import RevocationList, parse_crls
from mtlsgate.certificates.parsing import itself, parse_each, read_file
from mtlsgate.config import Located, Material, Misconfigured
from mtlsgate.config.material import material_bytes, unusable
from mtlsgate.errors import CredentialError, Position, Report
from mtlsgate.load.file_state import Stamp, stamp
from mtlsgate.text import quoted

T = TypeVar("T")

CERTIFICATE_ENDINGS = (".pem", ".crt", ".cer", ".der")
CRL_ENDINGS = (".pem", ".crl", ".der")


class CertificateFiles:
    """
    Reads files and inline material for one load.

    :ivar directory: where relative paths start.
    :ivar report: where problems go.
    :ivar seen: the files and directories that were read, or looked for, in the
        state in which they were then.
    """

    def __init__(self, directory: Path, report: Report, seen: dict[Path, Stamp]) -> None:
        self.directory = directory
        self.report = report
        self.seen = seen

    def read_file(self, path: Path) -> bytes:
        """
        :param path: absolute.
        :returns: what the file holds.
        :raises CredentialError: if it cannot be read, in words that follow its name.
        """
        self.seen[path] = stamp(path)
        return read_file(path)

    def read(self, material: Material, where: str) -> bytes | None:
        """:returns: the bytes, or None if the report says why not."""
        try:
            return material_bytes(material, self.directory, self.read_file)
        except Misconfigured as error:
            self.report.error(error.at, where, error.text)
            return None

    def warn_if_exposed(self, key: Material, where: str) -> None:
        """Warn of a private key that everybody on the machine may read."""
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

    def refuse(self, material: Material, where: str, error: CredentialError) -> None:
        """Report what is wrong with material, at its attribute."""
        problem = unusable(material, error)
        self.report.error(problem.at, where, problem.text)

    def certificates(self, material: Material | None, where: str) -> tuple[x509.Certificate, ...]:
        """:returns: the certificates, or none if there is no material or the
        report says what is wrong with it."""
        return self.each_certificate(material, where, itself)

    def each_certificate(
        self, material: Material | None, where: str, keep: Callable[[x509.Certificate], T]
    ) -> tuple[T, ...]:
        """
        :param keep: makes what is kept of a certificate.
        :returns: that of each, or none if there is no material or the report
            says what is wrong with it.
        """
        data = None if material is None else self.read(material, where)
        if material is None or data is None:
            return ()
        try:
            return parse_each(data, keep)
        except CredentialError as error:
            self.refuse(material, where, error)
            return ()

    def each_certificate_in(
        self, directory: Located[str] | None, where: str, keep: Callable[[x509.Certificate], T]
    ) -> tuple[T, ...]:
        """
        :param keep: makes what is kept of a certificate.
        :returns: that of each, in every file of a directory that ends as
            certificate files do; none if the report says what is wrong.
        """
        if directory is None:
            return ()
        files = self._files("leaf_certificate_dir", directory, CERTIFICATE_ENDINGS, where)
        parse = partial(parse_each, keep=keep)
        return self._all(parse, "leaf_certificate_dir", directory.at, files, where)

    def revocation_lists(
        self,
        lists: Material | None,
        directory: Located[str] | None,
        where: str,
        strict: bool,
    ) -> tuple[RevocationList, ...]:
        """
        :param lists: one CRL or many.
        :param directory: a directory of them.
        :param strict: whether they must keep to the RFC 5280 profile.
        :returns: the CRLs of both; none if the report says what is wrong.
        """
        found: tuple[RevocationList, ...] = ()
        parse = partial(parse_crls, strict=strict)
        if lists is not None and (data := self.read(lists, where)) is not None:
            try:
                found += parse(data)
            except CredentialError as error:
                self.refuse(lists, where, error)
        if directory is not None:
            files = self._files("crl_dir", directory, CRL_ENDINGS, where)
            found += self._all(parse, "crl_dir", directory.at, files, where)
        return found

    def _files(
        self, attribute: str, directory: Located[str], endings: tuple[str, ...], where: str
    ) -> list[Path]:
        name = f"{attribute}: {quoted(directory.value)}"
        try:
            # In the order of their names, so that every load reads the same.
            path = self.directory / directory.value
            self.seen[path] = stamp(path)
            entries = sorted(path.iterdir(), key=_name)
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
        parse: Callable[[bytes], tuple[T, ...]],
        attribute: str,
        at: Position,
        files: Iterable[Path],
        where: str,
    ) -> tuple[T, ...]:
        def each() -> Iterator[T]:
            for file in files:
                try:
                    yield from parse(self.read_file(file))
                except CredentialError as error:
                    name = quoted(str(file).removeprefix(f"{self.directory}/"))
                    self.report.error(at, where, f"{attribute}: {name} {error}")

        return tuple(each())


def _name(path: Path) -> str:
    return path.name
