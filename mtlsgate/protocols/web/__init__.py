"""
``protocol "web"``: a Python web application, or files.

- ``site`` is the HTTP server: limits of size and time, one log event for each request,
- ``wsgi`` calls a WSGI application,
- ``threads`` is where it runs,
- ``variables`` is what its environ says of the client,
- ``files`` sends what is below a directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.web.resource import IResource
from zope.interface import implementer

from mtlsgate.config import Duration, Located, Misconfigured, Size
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.server import served_names
from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin
from mtlsgate.protocols.importing import call, resolve
from mtlsgate.protocols.web import files, threads
from mtlsgate.protocols.web.files import Files
from mtlsgate.protocols.web.site import WebSite
from mtlsgate.protocols.web.threads import Workers
from mtlsgate.protocols.web.wsgi import WsgiApplication, WsgiSite
from mtlsgate.text import quoted

#: How many requests a WSGI application answers at once, by default.
THREADS = 20
#: Bytes of a form, by default.
FORM_SIZE = 1 << 20
#: Seconds for a client that was refused to end its connection.
REFUSED_TIMEOUT = 15.0

RemoteUser = Literal["common_name", "subject", "sha256", "spiffe_id", "rule"]


@frozen
class WebConfiguration:
    """
    :ivar wsgi: a WSGI application, as ``package.module:attribute``.
    :ivar resource: a twisted.web resource, or what makes one.
    :ivar root: a directory.
    :ivar threads: how many requests the WSGI application answers at once.
    :ivar remote_user: what of the client its REMOTE_USER is.
    :ivar listing: whether directories without an index show what is in them.
    :ivar dot_files: whether to show files whose names begin with a dot.
    :ivar max_form_size: bytes of a form that becomes a resource's ``request.args``.
    :ivar max_header_size: bytes of a request's line and headers.
    :ivar max_body_size: bytes of a request's body.
    :ivar header_timeout: seconds for a request's headers to come.
    :ivar keep_alive_timeout: seconds that a connection may be silent.
    :ivar send_timeout: seconds that a client may not read its answer.
    :ivar access_log: whether to log each request.
    """

    wsgi: Located[str] | None = None
    resource: Located[str] | None = None
    root: Located[str] | None = None
    threads: int | None = None
    remote_user: RemoteUser | None = None
    listing: bool | None = None
    dot_files: bool | None = None
    max_form_size: Size | None = None
    max_header_size: Size = 16384
    max_body_size: Size = 16 << 20
    header_timeout: Duration = 10.0
    keep_alive_timeout: Duration = 60.0
    send_timeout: Duration = 60.0
    access_log: bool = True

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield what does not go together."""
        given = [one for one in ("wsgi", "resource", "root") if getattr(self, one) is not None]
        if len(given) != 1:
            yield (given[1] if given else None), "set exactly one of wsgi, resource and root"
            return
        for name, belongs in (
            ("threads", "wsgi"),
            ("remote_user", "wsgi"),
            ("max_form_size", "resource"),
            ("listing", "root"),
            ("dot_files", "root"),
        ):
            if getattr(self, name) is not None and given != [belongs]:
                yield name, f"{name} goes with {belongs} alone"
        if self.threads is not None and not 1 <= self.threads <= 1000:
            yield "threads", "threads must be from 1 to 1000"

    @property
    def limits(self) -> HttpLimits:
        """Those of the HTTP server."""
        return HttpLimits(
            head_size=self.max_header_size,
            body_size=self.max_body_size,
            first_timeout=self.keep_alive_timeout,
            head_timeout=self.header_timeout,
            body_timeout=self.keep_alive_timeout,
            idle_timeout=self.keep_alive_timeout,
            send_timeout=self.send_timeout,
            close_timeout=self.keep_alive_timeout,
            refused_timeout=REFUSED_TIMEOUT,
        )


@implementer(IProtocolPlugin)
@frozen
class WebPlugin:
    """The plugin behind ``protocol "web"``."""

    name: str = "web"
    configuration: type = WebConfiguration

    def build(
        self, configuration: WebConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """
        :returns: a twisted.web site.
        :raises Misconfigured: at the attribute that names what cannot be had.
        """
        options: dict[str, Any] = {
            "name": environment.server,
            "limits": configuration.limits,
            "clock": environment.reactor,
            "serves": served_names(environment),
            "access_log": configuration.access_log,
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
        found = Files(root, bool(configuration.listing), bool(configuration.dot_files))
        return WebSite(found, **options)


def _imported(name: Located[str], directory: Path, attribute: str) -> Any:
    try:
        return resolve(name.value, directory)
    except ValueError as error:
        raise Misconfigured(name.at, f"{attribute}: {error}") from error


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


def _directory(name: Located[str], base: Path) -> Path:
    if not Path(files.DESCRIPTORS).is_dir():
        text = f"files are shown only where {files.DESCRIPTORS} tells which: mount /proc"
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
