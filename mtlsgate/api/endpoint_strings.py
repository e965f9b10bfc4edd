"""
Endpoints in a string: ``mtls:…`` for servers and clients, by Twisted's plugins.

A server takes a gate from a configuration file, or is told one in the string::

    mtls:8443:config=gate.hcl:server=devices
    mtls:8443:interface=127.0.0.1:ca=ca.crt:leaf=a.crt:certificate=server.crt:key=server.key

A client shows its certificate, and verifies the server's path and name::

    mtls:gate.example:8443:certificate=a.crt:key=a.key:ca=ca.crt
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from mtlsgate.api.gate import Gate

# Twisted imports this module whenever it looks for plugins of any kind, so that all
# else is imported when an endpoint is made.


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ServerParser:
    """Parses ``mtls:…`` for `twisted.internet.endpoints.serverFromString`."""

    prefix = "mtls"

    def parseStreamServer(  # type: ignore[override]
        self, reactor: Any, port: str = "", **options: str
    ) -> IStreamServerEndpoint:
        """
        :param port: where to listen; with ``config`` it may be left out, for where
            the file says.
        :param options: ``interface``; then ``config`` and ``server``, or the gate.
        :raises ValueError: if an option is wrong or unknown.
        :raises ConfigError: if the gate is.
        """
        interface = options.pop("interface", "*")
        hosts = [_host(interface, port)] if port else []
        return _gate(options).endpoint(reactor, *hosts)


def _host(interface: str, port: str) -> str:
    return f"[{interface}]:{port}" if ":" in interface else f"{interface}:{port}"


def _gate(options: dict[str, str]) -> Gate:
    from mtlsgate.api.gate import Gate

    path = options.pop("config", None)
    if path is not None:
        server = options.pop("server", None)
        _refuse(options)
        return Gate.from_config(path, server)
    return _written_out(options)


#: The parameters of the one rule.
_RULE = (
    "ca",
    "leaf",
    "leaf_certificate_dir",
    "max_depth",
    "crl",
    "crl_dir",
    "crl_url",
    "crl_scope",
)


def _written_out(options: dict[str, str]) -> Gate:
    """:returns: the gate that the string itself describes, with one rule."""
    import attrs

    from mtlsgate.api.gate import Gate
    from mtlsgate.api.values import Allow, GateOptions, Rule

    missing = [name for name in ("certificate", "key") if not options.get(name)]
    if missing:
        raise ValueError(
            f"mtls: {' and '.join(missing)} missing: name the server's certificate and key, or "
            "a configuration file with config="
        )
    certificate, key = options.pop("certificate"), options.pop("key")
    rule = _taken(options, Rule.__init__, _RULE)
    allow = _taken(options, Allow.__init__, [one.name for one in attrs.fields(Allow)])
    rest = _taken(options, GateOptions, GateOptions.__annotations__)
    _refuse(options)
    name = rest.get("name", "gate")
    rules = []
    if rule or allow:
        rules = [Rule(name, **rule, allow=[Allow(**allow)] if allow else None)]
    return Gate(certificate=(certificate, key), rules=rules, **rest)


def _taken(options: dict[str, str], what: object, names: Sequence[str] | Any) -> dict[str, Any]:
    """:returns: the options of these names, out of the rest, each as its annotation says."""
    hints = typing.get_type_hints(what)
    return {
        name: _converted(name, options.pop(name), hints[name]) for name in names if name in options
    }


def _converted(name: str, text: str, hint: object) -> object:
    """:raises ValueError: if the text is not what the annotation asks for."""
    wanted = {hint, *typing.get_args(hint)}
    if bool in wanted:
        if text not in ("true", "false"):
            raise ValueError(f'mtls: {name} must be "true" or "false"')
        return text == "true"
    if str not in wanted and any(typing.get_args(one) == (str,) for one in wanted):
        return text.split(",")
    for kind, words in ((int, "a whole number"), (float, "a number")):
        if kind in wanted and str not in wanted:
            try:
                return kind(text)
            except ValueError:
                raise ValueError(f"mtls: {name} must be {words}") from None
    return text


def _refuse(options: Mapping[str, str]) -> None:
    """:raises ValueError: if any option is left."""
    if options:
        raise ValueError(f"mtls: unknown option {sorted(options)[0]!r}")


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ClientParser:
    """Parses ``mtls:…`` for `twisted.internet.endpoints.clientFromString`."""

    prefix = "mtls"

    def parseStreamClient(  # type: ignore[override]
        self, reactor: Any, host: str = "", port: str = "", **options: str
    ) -> IStreamClientEndpoint:
        """
        :param host: a name or an address; the server's certificate must be for it.
        :param options: ``ca``, a file or ``system``; ``certificate`` and ``key``;
            ``server_name``, which the certificate must be for instead; ``timeout`` of
            the connection, in seconds.
        :raises ValueError: if an option is wrong or unknown.
        :raises ConfigError: if a file is.
        """
        from mtlsgate.api.client import client_endpoint

        known = ("ca", "certificate", "key", "server_name", "timeout")
        given = {name: options.pop(name) for name in known if name in options}
        _refuse(options)
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("mtls: the port must be a number from 1 to 65535")
        try:
            timeout = float(given.pop("timeout", "30"))
        except ValueError:
            raise ValueError("mtls: timeout must be a number of seconds") from None
        return client_endpoint(reactor, host, int(port), timeout=timeout, **given)
