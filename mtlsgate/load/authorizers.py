"""
Finds a server's authorizer: the ``authorize`` attribute.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from mtlsgate.config import model
from mtlsgate.errors import Report, did_you_mean
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.interfaces import IAuthorizer
from mtlsgate.protocols.importing import resolve
from mtlsgate.text import quoted

#: The entry points that name authorizers.
AUTHORIZERS = "mtlsgate.authorizers"
#: The default, in seconds.
AUTHORIZE_TIMEOUT = 5.0


def read_authorizer(
    server: model.Server, directory: Path, report: Report, given: object = None
) -> Authorizer | None:
    """
    :param directory: searched for modules after the usual places.
    :param given: the authorizer itself, if Python code passed it; or None.
    :returns: the server's authorizer; None if there is none, or if the report says
        what is wrong.
    """
    if server.authorize is None:
        return None
    name = server.authorize.value
    try:
        found = _find(name, directory) if given is None else given
    except ValueError as error:
        report.error(server.authorize.at, server.heading, f"authorize: {error}")
        return None
    ask = found.authorize if IAuthorizer.providedBy(found) else found
    if not callable(ask) or isinstance(ask, type):
        kind = "a class" if isinstance(ask, type) else f"a {type(ask).__name__}"
        report.error(
            server.authorize.at,
            server.heading,
            f"authorize: {quoted(name)} is {kind}; name a function or what provides IAuthorizer",
        )
        return None
    return Authorizer(name, ask, server.authorize_timeout or AUTHORIZE_TIMEOUT)


def _find(name: str, directory: Path) -> object:
    """
    :param name: ``package.module:attribute``, or the name of an entry point.
    :raises ValueError: if there is no such thing.
    """
    if ":" in name:
        return resolve(name, directory)
    installed = entry_points(group=AUTHORIZERS)
    named = {one.value for one in installed if one.name == name}
    if len(named) != 1:
        known = {one.name for one in installed}
        count = "several authorizers" if named else "no authorizer"
        raise ValueError(
            f"{count} {quoted(name)}{did_you_mean(name, known)}; write "
            '"package.module:function", or install one that announces itself'
        )
    return resolve(named.pop(), directory)
