"""
``protocol "web"``: a Python web application, or files; it is built on `mtlsgate.http`.

`asgi` runs ASGI applications, with uvicorn's protocols on an asyncio transport:
`asgi_connection` is a client's connection, `asgi_websocket` a WebSocket, `asgi_lifespan` the
application's start and end, `asgi_scope` what it is told of the client (pure), `asgi_logging`
what it and uvicorn log.

============  ==========================================================
`site`        the server of resources and files
`access`      one log event for each request
`wsgi`        calls a WSGI application
`wsgi_call`   one call of it: its answer, and an end in good order
`threads`     where it runs
`variables`   what its environ says of the client (pure)
`files`       shows what is below a directory
`paths`       which file a URL means, and whether it may be seen
`conditions`  conditional requests and ranges (pure)
`encodings`   which encoding a client takes (pure)
`sending`     sends parts of a file
============  ==========================================================
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.web.resource import IResource
from zope.interface import implementer

from mtlsgate.config import Located, Misconfigured
from mtlsgate.http.server import served_names
from mtlsgate.http2.versions import VERSIONS, versions
from mtlsgate.interfaces import IProtocolEnvironment, IProtocolNeeds, IProtocolPlugin
from mtlsgate.protocols.importing import call, resolve
from mtlsgate.protocols.web import paths, threads
from mtlsgate.protocols.web.configuration import FORM_SIZE, THREADS, WebConfiguration
from mtlsgate.protocols.web.files import FileRules, Files
from mtlsgate.protocols.web.paths import Directory, NotThere
from mtlsgate.protocols.web.site import FileSite, WebSite
from mtlsgate.protocols.web.threads import Workers
from mtlsgate.protocols.web.wsgi import WsgiApplication, WsgiSite
from mtlsgate.text import quoted

__all__ = ["WebConfiguration", "WebPlugin", "plugin"]


@implementer(IProtocolPlugin, IProtocolNeeds)
@frozen
class WebPlugin:
    """The plugin behind ``protocol "web"``."""

    name: str = "web"
    configuration: type = WebConfiguration

    def needs_asyncio(self, configuration: WebConfiguration) -> bool:
        """:returns: whether it runs an ASGI application."""
        return configuration.asgi is not None

    def runs_user_code(self, configuration: WebConfiguration) -> bool:
        """:returns: whether it shows something other than files."""
        return configuration.root is None

    def reads(self, configuration: WebConfiguration) -> tuple[str, ...]:
        """:returns: the directory with the files."""
        return () if configuration.root is None else (configuration.root.value,)

    def connects_to(self, configuration: WebConfiguration) -> tuple[int, ...]:
        """:returns: nothing."""
        return ()

    def build(
        self, configuration: WebConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """
        :returns: the factory of connections.
        :raises Misconfigured: at the attribute that names what cannot be had.
        """
        if configuration.asgi is not None:
            return _asgi_server(configuration.asgi, configuration, environment)
        options: dict[str, Any] = {
            "name": environment.server,
            "limits": configuration.limits,
            "clock": environment.reactor,
            "serves": served_names(environment),
            "access_log": configuration.access_log,
            "versions": versions(configuration.http_versions or VERSIONS),
        }
        if configuration.wsgi is not None:
            return _wsgi_site(configuration.wsgi, configuration, environment, options)
        if configuration.resource is not None:
            resource = _resource(configuration.resource, environment.directory)
            return WebSite(
                resource, max_form_size=configuration.max_form_size or FORM_SIZE, **options
            )
        assert configuration.root is not None
        root = _directory(configuration.root, environment.directory)
        directory = Directory(os.fspath(root), bool(configuration.dot_files))
        rules = configuration.file_rules
        _check_files(configuration.root, directory, rules)
        return FileSite(Files(directory, rules), **options)


def _imported(name: Located[str], directory: Path, attribute: str) -> Any:
    try:
        return resolve(name.value, directory)
    except ValueError as error:
        raise Misconfigured(name.at, f"{attribute}: {error}") from error


def _asgi_server(
    name: Located[str], configuration: WebConfiguration, environment: IProtocolEnvironment
) -> IProtocolFactory:
    try:
        from mtlsgate.protocols.web.asgi import asgi_server
    except ModuleNotFoundError as error:
        text = f"{error.name} is not installed: pip install 'mtlsgate[asgi]'"
        raise Misconfigured(name.at, f"asgi: {text}") from error
    application = _imported(name, environment.directory, "asgi")
    try:
        return asgi_server(name, application, configuration, environment)
    except ValueError as error:
        raise Misconfigured(name.at, str(error)) from error


def _wsgi_site(
    name: Located[str],
    configuration: WebConfiguration,
    environment: IProtocolEnvironment,
    options: dict[str, Any],
) -> WsgiSite:
    application = _imported(name, environment.directory, "wsgi")
    if not callable(application):
        kind = type(application).__name__
        raise Misconfigured(name.at, f"wsgi: {name.value} is a {kind}, not a WSGI application")
    reactor = environment.reactor
    make = partial(threads.make_pool, configuration.threads or THREADS, environment.server)
    workers = Workers(reactor, make)
    resource = WsgiApplication(
        application, workers, reactor, environment.server, configuration.remote_user
    )
    return WsgiSite(resource, workers, **options)


def _resource(name: Located[str], directory: Path) -> IResource:
    found = _imported(name, directory, "resource")
    origin = name.value
    if isinstance(found, type) or not IResource.providedBy(found):
        if not callable(found):
            raise Misconfigured(name.at, f"resource: {_not_a_resource(origin, found)}")
        try:
            found = call(found, {}, origin)
        except ValueError as error:
            raise Misconfigured(name.at, f"resource: {error}") from error
        origin = f"what {origin} returned"
    if isinstance(found, type) or not IResource.providedBy(found):
        raise Misconfigured(name.at, f"resource: {_not_a_resource(origin, found)}")
    return found


def _not_a_resource(origin: str, found: object) -> str:
    return f"{origin} is a {type(found).__name__}, not a twisted.web resource"


def _check_files(root: Located[str], directory: Directory, rules: FileRules) -> None:
    """:raises Misconfigured: if a file that is to be shown in another's place is not there."""
    shown = [("error_pages", names) for names in rules.error_pages.values()]
    if rules.fallback is not None:
        shown.append(("fallback", rules.fallback))
    for attribute, names in shown:
        path = "/".join(names)
        try:
            directory.names([name.encode() for name in names])
            found = directory.open(names)
        except NotThere:
            text = f"{attribute}: {quoted(path)} is not there, or cannot be shown"
            raise Misconfigured(root.at, text) from None
        found.close()
        if not found.is_file:
            raise Misconfigured(root.at, f"{attribute}: {quoted(path)} is not a file")


def _directory(name: Located[str], base: Path) -> Path:
    if not Path(paths.DESCRIPTORS).is_dir():
        text = f"files are shown only where {paths.DESCRIPTORS} tells which: mount /proc"
        raise Misconfigured(name.at, f"root: {text}")
    root = base / name.value
    try:
        with_files = root.is_dir()
        if with_files:
            next(root.iterdir(), None)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Misconfigured(
            name.at, f"root: {quoted(name.value)} cannot be read: {reason}"
        ) from None
    if not with_files:
        what = "is not a directory" if root.exists() else "no such directory"
        raise Misconfigured(name.at, f"root: {quoted(name.value)} {what}")
    if base.resolve().is_relative_to(root.resolve()):
        text = "the configuration is in it, and what is beside that: use a directory of its own"
        raise Misconfigured(name.at, f"root: {quoted(name.value)}: {text}")
    return root


plugin = WebPlugin()
