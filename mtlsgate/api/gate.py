"""
A gate in Python::

    gate = Gate(
        certificate=("server.crt", "server.key"),
        rules=[Rule("fleet", ca="fleet-ca.crt")],
    )
    gate.endpoint(reactor, "tcp:8443").listen(Site(root))

It is built by the loader of ``twistd mtlsgate`` and run by the same
`EpochRunner`: a reload is another epoch that takes over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Unpack

from attrs import evolve
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory

from mtlsgate.api.building import Built, FromFile, FromPython, Origin
from mtlsgate.api.endpoint import GateEndpoint, Member, Running
from mtlsgate.api.values import Credential, GateOptions, Rule
from mtlsgate.clock import utc_now
from mtlsgate.errors import GateError
from mtlsgate.load.sources import ConfigPaths, names_of
from mtlsgate.load.state import KeptDocuments
from mtlsgate.spiffe.agents import Agents


class Gate:
    """
    Rules, certificates and terms of one server, for Twisted applications.

    Files are read when the gate is made and when it is reloaded; relative paths start
    at the directory that was current when it was made.

    :ivar name: the server's name in logs.
    """

    def __init__(
        self,
        *,
        certificate: Credential | list[Credential],
        rules: Iterable[Rule] = (),
        name: str = "gate",
        now: Callable[[], datetime] = utc_now,
        **options: Unpack[GateOptions],
    ) -> None:
        """
        :param certificate: the server's certificate and its key, or a `Svid`; or a list
            of these, chosen by the name that a client asks for.
        :param rules: a client is admitted if at least one of these rules admits it.
        :param name: the server's name in logs.
        :param now: returns the time to judge certificates by.
        :param options: further attributes of the ``server`` and ``tls`` blocks, by
            their names.
        :raises ConfigError: with everything that is wrong.
        """
        _refuse_unknown(options)
        origin = FromPython(Path.cwd(), name, certificate, _listed(rules), dict(options))
        self._begin(origin, now)

    @classmethod
    def from_config(
        cls,
        paths: ConfigPaths,
        server: str | None = None,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> Gate:
        """
        Take one server of a configuration, without its ``protocol``: the application
        that listens on the endpoint replaces it.

        :param paths: the configuration files or directories of such files.
        :param server: the server's name; not needed if there is only one.
        :raises ConfigError: with everything that is wrong.
        """
        gate = cls.__new__(cls)
        names = tuple(os.path.abspath(name) for name in names_of(paths))
        gate._begin(FromFile(names, server), now)  # noqa: SLF001 -- its own class's
        return gate

    def _begin(self, origin: Origin, now: Callable[[], datetime]) -> None:
        self._origin = origin
        self._now = now
        self._kept = KeptDocuments()
        self._agents = Agents()
        self._built = origin.build(now, self._kept, self._agents)
        self._warnings = self._built.check()
        self._running = Running()

    @property
    def name(self) -> str:
        """The server's name in logs."""
        return self._built.parts.model.name

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about probable mistakes, in lines."""
        return tuple(map(str, self._warnings))

    def __repr__(self) -> str:
        return f"<Gate {self.name!r}>"

    def endpoint(
        self,
        reactor: Any,
        *hosts: str,
        beside: Iterable[tuple[Gate, IProtocolFactory | Factory[Any]]] = (),
    ) -> GateEndpoint:
        """
        :param reactor: the reactor.
        :param hosts: where to listen, as in ``hosts`` of a server: ``"tcp:8443"``,
            ``"*:8443"``, ``"127.0.0.1:8443"``, ``"unix:/run/gate.sock"``; by default
            where the configuration file says.
        :param beside: further gates on the same hosts, each with its application.  The
            name that a client asks for chooses among the ``server_names`` of all.
        :returns: an `IStreamServerEndpoint`.  Factories that listen on it get only
            verified connections.
        :raises GateError: if no host is named.
        """
        where = hosts or self._built.hosts
        if not where:
            raise GateError(f'{self!r}: name where to listen, as in "tcp:8443"')
        members = tuple(gate.before(application) for gate, application in beside)
        return GateEndpoint(self._running, self._now_built, members, reactor, tuple(where))

    def before(self, application: IProtocolFactory | Factory[Any]) -> Member:
        """:returns: the gate together with the application behind it."""
        return Member(self._running, self._now_built, application)

    def _now_built(self) -> Built:
        return self._built

    def reload(
        self,
        *,
        certificate: Credential | list[Credential] | None = None,
        rules: Iterable[Rule] | None = None,
        **options: Unpack[GateOptions],
    ) -> None:
        """
        Read all files again, replace what is given, and judge connected clients by the
        new rules.  Clients that are no longer admitted are closed.

        What is not given stays as it was.  A gate that was read from a file is read
        from that file again, and takes no arguments.

        :raises ConfigError: with everything that is wrong.  Then nothing has changed.
        """
        _refuse_unknown(options)
        origin = self._origin
        if certificate is not None or rules is not None or options:
            if not isinstance(origin, FromPython):
                raise TypeError("this gate is read from a file: change the file")
            origin = evolve(
                origin,
                certificate=origin.certificate if certificate is None else certificate,
                rules=origin.rules if rules is None else _listed(rules),
                options={**origin.options, **options},
            )
        built = origin.build(self._now, self._kept, self._agents)
        warnings = built.check()
        self._running.take_over(built)
        self._origin, self._built, self._warnings = origin, built, warnings


def _listed(rules: Iterable[Rule]) -> object:
    """:returns: the rules, to be read more than once; what is no list is reported later."""
    return rules if isinstance(rules, str | bytes | Sequence) else list(rules)


def _refuse_unknown(options: GateOptions) -> None:
    unknown = sorted(options.keys() - GateOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}")
