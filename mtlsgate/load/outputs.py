"""
The files that a configuration has written to: log and audit log.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mtlsgate.config import model
from mtlsgate.config.material import looks_like_material
from mtlsgate.errors import Report
from mtlsgate.load.files import CertificateFiles
from mtlsgate.text import quoted


def refuse_outputs(settings: model.Settings, files: CertificateFiles, report: Report) -> None:
    """Report a file that is to be written to, but is read, or is written to as another."""
    written: dict[Path, str] = {}
    for where, block in (("audit", settings.audit), ("log", settings.log)):
        file = None if block is None else block.file
        if file is None or looks_like_material(file.value):
            continue
        path = files.directory / file.value
        with suppress(OSError, ValueError, RuntimeError):
            if {path, path.resolve()} & files.seen.keys():
                text = "is read as part of the configuration, and would be written to"
            elif path.resolve() in written:
                text = f"is the file of {written[path.resolve()]}, too"
            else:
                written[path.resolve()] = where
                continue
            report.error(file.at, where, f"file: {quoted(file.value)} {text}: name another file")
