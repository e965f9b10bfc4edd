"""
Every public interface.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IProtocolFactory
from zope.interface import Attribute, Interface

__all__ = [
    "IAuthorizer",
    "IGate",
    "IPreparable",
    "IProtocolEnvironment",
    "IProtocolNeeds",
    "IProtocolPlugin",
    "IRetirable",
    "ITlsFacts",
    "IVerifiedPeer",
]


class IVerifiedPeer(Interface):
    """
    The client at the other end of an admitted connection.

    Had from the transport: ``IVerifiedPeer(self.transport)`` in an
    application's protocol, from `connectionMade` on, also after the connection is
    lost.  It is captured when the handshake ends.  A reload that keeps the client by
    another rule puts another one in its place, with that rule.
    """

    leaf = Attribute(
        "The client's certificate, a `cryptography.x509.Certificate`.  `ValueError` if it has a "
        "field that cryptography cannot read."
    )
    certificates = Attribute(
        "The verified path, leaf first, a tuple of "
        "`mtlsgate.certificates.certificate.Certificate`: as the gate reads it."
    )
    identity = Attribute(
        "The SHA-256 digest of what the leaf's issuer signed, 32 bytes.  A client can change its "
        "certificate's fingerprint, but not its identity."
    )
    path = Attribute("The verified path, a tuple of certificates, the leaf first.")
    rule = Attribute("The label of the rule that admits it, a str.")
    sha256 = Attribute("The SHA-256 fingerprint of the leaf, 64 lower-case hex digits.")
    subject = Attribute("The leaf's subject as an RFC 4514 string.")
    issuer = Attribute("The leaf's issuer as an RFC 4514 string.")
    common_name = Attribute("The subject's last common name, or None.")
    dns_names = Attribute("The DNS names of the subject alternative name, a tuple of str.")
    uris = Attribute("Its URIs, a tuple of str.")
    email_addresses = Attribute("Its email addresses, a tuple of str.")
    ip_addresses = Attribute("Its IP addresses, a tuple of str.")
    spiffe_id = Attribute("The SPIFFE ID, if the leaf's only URI is one, or None.")
    serial = Attribute("The leaf's serial number, an int.")
    not_before = Attribute("When the leaf's validity begins, an aware datetime.")
    not_after = Attribute("When the leaf's validity ends, an aware datetime.")
    server_name = Attribute("The name the client asked for (SNI), or None.")
    tls_version = Attribute('"TLSv1.2" or "TLSv1.3".')
    cipher = Attribute("The cipher suite, in OpenSSL's spelling.")
    group = Attribute("The key exchange group, in OpenSSL's spelling, or None.")
    alpn = Attribute("The negotiated application protocol, a str, or None.")
    resumed = Attribute("Whether it resumed a session; it was then judged again.")
    attributes = Attribute(
        "What the registry of its rule knows of it, a mapping of str to str; empty without one."
    )
    address = Attribute(
        "Where the client connects from, an IAddress; behind a proxy what the PROXY header says."
    )

    def to_dict() -> dict[str, object]:
        """
        :returns: all of it, ready for JSON, with Couper's field names where
            Couper has them.
        """


class ITlsFacts(Interface):
    """
    What a TLS handshake agreed on, whether or not the client has a certificate.

    A protocol gets it from its transport, ``ITlsFacts(self.transport)``, from
    `connectionMade` on.  It stays the same after the connection is lost.
    """

    server_name = Attribute("The name the client asked for (SNI), a str, or None.")
    tls_version = Attribute('"TLSv1.2" or "TLSv1.3".')
    cipher = Attribute("The cipher suite, in OpenSSL's spelling.")
    certificate = Attribute(
        "The gate's own certificate on this connection, a "
        "`mtlsgate.certificates.certificate.Certificate`, or None."
    )


class IProtocolEnvironment(Interface):
    """What a protocol plugin gets besides its own attributes."""

    server = Attribute("The name of the server block, a str.")
    server_names = Attribute(
        "The names that the server declares, a tuple of str; a leading ``*.`` matches one label."
    )
    names_elsewhere = Attribute(
        "Names that such a ``*.`` would match, but that another server on the same address "
        "declares, a tuple of str."
    )
    directory = Attribute(
        "The configuration file's directory, a `pathlib.Path`; relative paths start there."
    )
    client_authentication = Attribute(
        'Whether the server verifies its clients: "required", or "none" if it admits anyone.'
    )
    starttls = Attribute(
        'How the server\'s clients ask for TLS: "postgres", "smtp" or "imap"; None if TLS begins '
        "at once.  After SMTP's and IMAP's STARTTLS a server does not greet again: the gate has."
    )
    gate = Attribute(
        "A callable without arguments that returns the running gate, an `IGate`; it raises "
        "LookupError while none runs, as in `build`."
    )
    reactor = Attribute(
        "The reactor, for clocks and connections; installed on first use, so do not touch it "
        "at import time."
    )

    target_states = Attribute(
        "What is known of the targets of all servers, in this epoch and those before, a "
        "`mtlsgate.upstream.state.TargetStates`."
    )

    agents = Attribute(
        "What SPIFFE agents have delivered, a `mtlsgate.spiffe.agents.Agents`; it changes while "
        "the gate runs."
    )

    def read(material: Any) -> bytes:
        """
        :param material: the value of an attribute that is inline or a file, a
            `mtlsgate.config.Material`.
        :returns: its content.  Files that are read this way are known to the gate
            as dependencies of the configuration.
        :raises Misconfigured: at the attribute, if the file cannot be read.
        """


class IProtocolPlugin(Interface):
    """
    The plugin for a ``protocol "NAME"`` block.

    It is found by the entry point group ``mtlsgate.protocols``, whose entries are
    objects that provide this, or it is named by ``protocol "custom"``.
    """

    name = Attribute("What the block's label must be, a str; the entry point's name is the same.")
    configuration = Attribute(
        "An attrs class with a field for each attribute of the block; see `mtlsgate.config`."
    )

    def build(configuration: Any, environment: IProtocolEnvironment) -> IProtocolFactory:
        """
        :param configuration: an instance of the `configuration` class, read
            from the block.
        :param environment: an `IProtocolEnvironment`.
        :returns: the application's protocol factory.  Its
            ``buildProtocol`` is called for verified connections only, with the
            client's address.  If it provides ``IProtocolNegotiationFactory``,
            its ``acceptableProtocols`` are offered by ALPN.
        :raises ValueError: with one line for the author of the block, if it asks
            for something impossible; `mtlsgate.config.Misconfigured` also names
            the place.
        """


class IProtocolNeeds(Interface):
    """
    A protocol plugin may also provide this, to say what its protocol needs.  A plugin
    that does not is taken to run code of its user's, and to do without asyncio.
    """

    def needs_asyncio(configuration: Any) -> bool:
        """
        :param configuration: an instance of the plugin's `configuration` class.
        :returns: whether the gate must run on an asyncio event loop.
        """

    def runs_user_code(configuration: Any) -> bool:
        """
        :param configuration: an instance of the plugin's `configuration` class.
        :returns: whether it runs code, in the gate's process, that is not mtlsgate's.
        """

    def reads(configuration: Any) -> Any:
        """
        :param configuration: an instance of the plugin's `configuration` class.
        :returns: the names of files and directories that it opens while it runs, relative
            to the configuration's directory; not what it opens in `build` only.
        """

    def connects_to(configuration: Any) -> Any:
        """
        :param configuration: an instance of the plugin's `configuration` class.
        :returns: the TCP ports that it connects to.
        """


class IRetirable(Interface):
    """
    A protocol's factory may also provide this, if its connections could stay open
    forever, as those of HTTP can.
    """

    def retire() -> None:
        """
        No more connections come, because the gate is ending or another epoch took
        over.  Existing ones may end as soon as nothing is underway on them.  After
        the last one has ended, the factory is stopped.
        """


class IPreparable(Interface):
    """
    The factory of a protocol that needs asyncio may also provide this, if something that
    takes time comes before its first connection.
    """

    def prepare(before: Any) -> Any:
        """
        Called once, before the factory is started.

        :param before: the factory of the server of the same name that is in force; None if
            there is none.  It goes on until its last connection has ended.
        :returns: a coroutine.  The server takes connections when it is done.
        :raises Exception: any, if the configuration cannot take over, or the gate not
            start.
        """

    def discard() -> Any:
        """
        It was prepared, and is never started: another part of the configuration could not
        take over.

        :returns: a coroutine.
        """


class IGate(Interface):
    """
    The running gate, for protocols that show or control it.

    ``who`` is for the log: it says who asked.  Returned values have ``to_dict()``.

    With several workers, `status`, `exposition`, `history`, `rejected_leaf`, `close`,
    `end_shadow` and `eject` return a Deferred with what is described here: the answer takes all of
    them.  `twisted.internet.defer.maybeDeferred` calls them either way.
    """

    not_ready = Attribute("Why no connection is accepted, in a few words, or None.")

    def status(selection: Any = ...) -> Any:
        """
        :param selection: which connections to include, a
            `mtlsgate.observe.connection_status.ConnectionSelection`; by default none.
        :returns: the gate's state now, a `mtlsgate.observe.status.Status`.
        """

    def exposition() -> Any:
        """:returns: the metrics' media type, and the metrics."""

    def history() -> Any:
        """
        :returns: how many clients came in each minute of the last hour, a
            `mtlsgate.observe.server_status.HistoryStatus`.
        """

    def changed(after: int, seconds: float) -> Any:
        """
        :param after: the number of changes known so far; 0 to learn it.
        :param seconds: how long to wait at most.
        :returns: a Deferred that fires with the number of changes so far as soon as that is
            another one, or when the time is over.
        """

    def periods() -> Any:
        """
        :returns: a Deferred with the periods in which certificates, pins and revocation lists
            count, a tuple of `mtlsgate.observe.server_status.PeriodStatus`.
        """

    def explain(chain: Any, server: Any, at: Any) -> Any:
        """
        :param chain: `mtlsgate.certificates.certificate.Certificate` objects, as a client would
            present them, the leaf first.
        :param server: the name of a server, or None for all that ask for certificates.
        :param at: the time to judge by, an aware datetime; None for now.
        :returns: a Deferred with what each makes of it, a tuple of objects with ``to_dict()``.
        """

    def rejected_leaf(id: int) -> Any:
        """
        :param id: of a `mtlsgate.observe.connection_status.RejectionStatus`.
        :returns: the server's name and the leaf; None if it is not remembered.
        """

    def reload(who: str, *, is_trial: bool = False) -> Any:
        """
        Reload the configuration.

        :param is_trial: only report what would change.
        :returns: a Deferred with the result, a `mtlsgate.observe.status.ReloadStatus`.
        """

    def shadow_report() -> Any:
        """
        :returns: a Deferred with what the configuration in the shadow has found out, a
            `mtlsgate.observe.shadow_status.ShadowReport`; None if there is none.
        """

    def put_in_shadow(file: str, who: str) -> Any:
        """
        Let another configuration judge every client, too, and change nothing.

        :param file: its path on the gate's machine; a relative one starts at the directory of
            the configuration.
        :returns: a Deferred with what came of it, a
            `mtlsgate.observe.shadow_status.ShadowAttempt`.
        """

    def end_shadow(who: str) -> Any:
        """
        End that.

        :returns: whether a configuration was in the shadow.
        """

    def drain(who: str) -> None:
        """Accept no more, let connections end, and end the gate."""

    def close(number: int, who: str) -> Any:
        """
        End a connection at once.

        :returns: whether there was a connection with this number.
        """

    def eject(sha256: str, who: str) -> Any:
        """
        End all connections of a client at once.  It may connect again: to keep it out, deny it.

        :param sha256: the fingerprint of its leaf, 64 lower-case hex digits.
        :returns: how many there were.
        """


class IAuthorizer(Interface):
    """
    User code that decides about clients that the rules admit: ``authorize`` in a
    ``server`` block.

    A plain callable works as well.  An entry point in the group
    ``mtlsgate.authorizers`` gives either one a name.
    """

    def authorize(peer: IVerifiedPeer) -> Any:
        """
        :param peer: a client that a rule admits.
        :returns: True or False, or a Deferred, coroutine or asyncio future with one of
            them.  The client is rejected if the answer is anything else, raises an
            exception, or comes too late.
        """
