"""
Finds errors in the blocks of a configuration that cannot be built as a whole.

One run is to report all problems.  So blocks inside a broken one are read on their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mtlsgate.config import Located, Material, model
from mtlsgate.load.listening_blocks import ListeningBuilder
from mtlsgate.protocols import installed_reactor


def report_further_problems(
    unplaced: Iterable[tuple[str, str, object]],
    listening: ListeningBuilder,
    read_admin: Callable[[model.Admin], object],
) -> None:
    """
    :param unplaced: what was read in the blocks that could not be built: heading, name,
        value; see `mtlsgate.config.decode.Decoder`.
    :param listening: builds what can be; it has the report.
    :param read_admin: reads an ``admin`` block.
    """
    blocks = [
        (where, name, one)
        for where, name, found in unplaced
        for one in (found if isinstance(found, tuple) else (found,))
    ]
    servers = [one for *_, one in blocks if isinstance(one, model.Server)]
    clients = [one for *_, one in blocks if isinstance(one, model.Client)]
    listening.all(servers, clients, model.Settings())
    applications, files = listening.applications, listening.files
    rules, credentials = listening.servers.rules, listening.servers.credentials
    for where, name, one in blocks:
        match one:
            case model.Tls():
                for block in one.server_certificate:
                    credentials.read(block)
                for number, rule in enumerate(one.client_certificate, 1):
                    rules.rule(rule, number)
            case model.ServerCertificate():
                credentials.read(one)
            case model.ClientCertificate():
                rules.rule(one, 0)
            case model.Protocol():
                read = applications.read(one)
                if read is not None:
                    applications.build(read, "", installed_reactor)
            case Material():
                files.read(one, where)
            case model.Admin():
                read_admin(one)
            case model.PinBlock():
                files.certificates(one.leaf_certificate, one.heading)
            case Located() if name == "hosts":
                listening.host(one, where)
