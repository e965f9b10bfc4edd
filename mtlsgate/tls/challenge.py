"""
The answer to a CA that validates a name of the gate (TLS-ALPN-01, RFC 8737).

The CA connects as a TLS client that offers the application protocol ``acme-tls/1`` and
nothing else.  It gets a handshake with a certificate made for it, which proves that the
gate asked for this, and then the connection ends.  No client certificate is asked for,
so nothing else may happen on such a connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from OpenSSL import SSL

from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.tls.contexts import new_context, use_credential
from mtlsgate.tls.engine import Engine
from mtlsgate.tls.handshake import EngineConnection
from mtlsgate.tls.openssl_private import use_elliptic_groups

#: The application protocol of such connections (RFC 8737, 6.2).
ACME_TLS = b"acme-tls/1"


def challenge_engine(credential: ServerCredential) -> Engine:
    """
    :param credential: the certificate made for the CA.
    :returns: an engine for the handshake.  Its sessions cannot be resumed.
    """
    context = new_context(SSL.TLS_SERVER_METHOD)
    # The session cache is off, too: with only one of the two, sessions can resume.
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_session_id(b"acme")
    use_elliptic_groups(context)
    use_credential(context, credential)
    context.set_alpn_select_callback(_only_acme)
    connection = EngineConnection(context)
    connection.set_accept_state()
    return Engine(connection)


def _only_acme(connection: SSL.Connection, theirs: Sequence[bytes]) -> Any:
    # The hello was read before.  After a HelloRetryRequest the client can send another one;
    # an empty answer ends the handshake.
    return ACME_TLS if list(theirs) == [ACME_TLS] else b""
