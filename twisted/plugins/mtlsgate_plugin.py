"""
Makes ``mtlsgate`` a command of twistd and twist, and ``mtls:`` an endpoint.

The variables' names are for ever: plugin caches hold them.
"""

from twisted.application.service import ServiceMaker

from mtlsgate.api.endpoint_strings import ClientParser, ServerParser

mtlsgate = ServiceMaker(
    "mtlsgate",
    "mtlsgate.tap",
    "An mTLS gate: lets in known TLS client certificates, and nobody else.",
    "mtlsgate",
)
mtls_server = ServerParser()
mtls_client = ClientParser()
