"""
Makes ``mtlsgate`` a command of twistd and twist.

The variable's name is for ever: plugin caches hold it.
"""

from twisted.application.service import ServiceMaker

mtlsgate = ServiceMaker(
    "mtlsgate",
    "mtlsgate.tap",
    "An mTLS gate: lets in known TLS client certificates, and nobody else.",
    "mtlsgate",
)
