"""
Protocol plugins: finding the one that a ``protocol`` block names.

The built-in ones are in this package, one module or package each.  All are found in
one way, by the entry point group ``mtlsgate.protocols``.

They import `upstream`, `http`, `http2` and the public interfaces.  Begin with `echo`, the
smallest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import attrs
from attrs import field, frozen
from twisted.internet.interfaces import IReactorCore
from zope.interface import implementer
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from mtlsgate.certificates.parsing import read_file
from mtlsgate.config import Material
from mtlsgate.config.material import material_bytes
from mtlsgate.errors import GateError, did_you_mean
from mtlsgate.interfaces import IGate, IProtocolEnvironment, IProtocolPlugin
from mtlsgate.spiffe.agents import Agents
from mtlsgate.text import printable, quoted
from mtlsgate.upstream.state import TargetStates

GROUP = "mtlsgate.protocols"


class PluginError(GateError):
    """A protocol plugin is missing or broken; the text says so in one line."""


def installed_reactor() -> IReactorCore:
    from twisted.internet import reactor

    return reactor


def no_gate() -> IGate:
    """:raises LookupError: always."""
    raise LookupError("no gate is running")


@implementer(IProtocolEnvironment)
@frozen(slots=False)
class ProtocolEnvironment:
    """
    What a plugin gets from the gate, as documented in `IProtocolEnvironment`.

    :ivar server: the name of the server block.
    :ivar directory: the configuration file's directory.
    :ivar server_names: the names that the server declares.
    :ivar names_elsewhere: names that its wildcards match, but another server declares.
    :ivar client_authentication: the server's, ``required`` or ``none``.
    :ivar starttls: how its clients ask for TLS, the name of a dialect; or None.
    :ivar gate: returns the running gate, or raises LookupError.
    :ivar target_states: what is known of targets.
    :ivar agents: what SPIFFE agents have delivered.
    """

    server: str
    directory: Path
    _get_reactor: Callable[[], object] = field(default=installed_reactor, repr=False)
    _read_file: Callable[[Path], bytes] = field(default=read_file, repr=False, kw_only=True)
    server_names: tuple[str, ...] = field(default=(), kw_only=True)
    names_elsewhere: tuple[str, ...] = field(default=(), kw_only=True)
    client_authentication: str = field(default="required", kw_only=True)
    starttls: str | None = field(default=None, kw_only=True)
    gate: Callable[[], IGate] = field(default=no_gate, repr=False, kw_only=True)
    target_states: TargetStates = field(factory=TargetStates, repr=False, kw_only=True)
    agents: Agents = field(factory=Agents, repr=False, kw_only=True)

    @cached_property
    def reactor(self) -> object:
        """The reactor; installed on first use."""
        return self._get_reactor()

    def read(self, material: Material) -> bytes:
        """
        :returns: what the attribute holds, or the file that it names.
        :raises Misconfigured: at the attribute, if the file cannot be read.
        """
        return material_bytes(material, self.directory, self._read_file)


def find_plugin(name: str) -> IProtocolPlugin:
    """
    :param name: the block's label.
    :raises PluginError: if there is no such plugin, if there are two, or if it cannot
        be loaded.  Other plugins are not loaded, so a broken one does no harm until it
        is used.
    """
    installed = entry_points(group=GROUP)
    candidates = {one.value: one for one in installed if one.name == name}
    if not candidates:
        hint = did_you_mean(name, {one.name for one in installed})
        known = ", ".join(sorted({one.name for one in installed})) or "none"
        raise PluginError(f"no protocol plugin {quoted(name)}{hint} (installed: {known})")
    if len(candidates) > 1:
        origins = " and ".join(sorted(map(_origin, candidates.values())))
        raise PluginError(f"{origins} both claim the name; uninstall one")
    (entry,) = candidates.values()
    return _load(entry)


def _origin(entry: EntryPoint) -> str:
    distribution = f" of {entry.dist.name}" if entry.dist is not None else ""
    return f"{entry.value}{distribution}"


def _load(entry: EntryPoint) -> IProtocolPlugin:
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:
        text = printable(f"{type(error).__name__}: {error}")
        raise PluginError(f"the plugin {_origin(entry)} does not load: {text}") from error
    try:
        verifyObject(IProtocolPlugin, found)
    except Invalid as error:
        text = " ".join(str(error).split())
        raise PluginError(
            f"the plugin {_origin(entry)} does not provide IProtocolPlugin: {text}"
        ) from error
    if found.name != entry.name:
        raise PluginError(
            f"the plugin {_origin(entry)} calls itself {quoted(str(found.name))}, "
            f"but is installed as {quoted(entry.name)}"
        )
    if not (isinstance(found.configuration, type) and attrs.has(found.configuration)):
        raise PluginError(f"the configuration of the plugin {_origin(entry)} is no attrs class")
    return found  # type: ignore[no-any-return]
