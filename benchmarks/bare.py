"""
What the gate is measured against: Twisted's own TLS and nothing else.

    python bare.py DIRECTORY PORTFILE

An echo server on `reactor.listenSSL`.  Its Context is made as the gate's is,
from the same files, but its verify callback passes on what OpenSSL says.
"""

import sys
from pathlib import Path

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from mtlsgate.admission import AdmissionPolicy, Rule
from mtlsgate.certificates.names import bearing
from mtlsgate.certificates.parsing import pair, parse_certificates, parse_private_key
from mtlsgate.clock import utc_now
from mtlsgate.tls import server as gate_context
from mtlsgate.tls.ca_names import ca_names
from mtlsgate.tls.contexts import use_credential
from mtlsgate.tls.judge import Judge
from mtlsgate.tls.trust import fill


class Echo(Protocol):
    def connectionMade(self):
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data):
        self.transport.write(data)


@implementer(IOpenSSLContextFactory)
class OneContext:
    """A context factory as `listenSSL` wants it."""

    def __init__(self, context):
        self._context = context

    def getContext(self):
        return self._context


def pass_through(connection, certificate, error, depth, ok):
    return bool(ok)


def new_context(directory):
    def certificates(name):
        return parse_certificates((directory / name).read_bytes())

    credential = pair(
        certificates("server.crt"), parse_private_key((directory / "server.key").read_bytes())
    )
    rule = Rule("clients", certificates("ca.crt"), certificates("admitted.crt"))
    admission = AdmissionPolicy((rule,))
    # The gate's own making of a Context, up to where its verify callback comes in.
    context = gate_context._new_context(gate_context.TlsPolicy((credential,), admission))
    context.set_session_id(b"bare")
    use_credential(context, credential)
    judge = Judge(admission, utc_now)
    fill(context.get_cert_store(), judge.anchors, judge.flags)
    gate_context._name_authorities(context, map(bearing, ca_names(admission.rules)))
    context.set_verify(
        SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT | SSL.VERIFY_CLIENT_ONCE, pass_through
    )
    return context


def main():
    directory, port_file = Path(sys.argv[1]), Path(sys.argv[2])
    factory = Factory.forProtocol(Echo)
    factory.noisy = False
    port = reactor.listenSSL(
        0, factory, OneContext(new_context(directory)), backlog=1024, interface="127.0.0.1"
    )
    port_file.write_text(f"{port.getHost().port}\n")
    reactor.run()


if __name__ == "__main__":
    main()
