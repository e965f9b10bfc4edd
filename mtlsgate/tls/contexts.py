"""
The settings that every `SSL.Context` of the gate shares, for clients and for
targets: versions, cipher suites, options.
"""

from __future__ import annotations

import os
import warnings
from typing import Literal

from OpenSSL import SSL

from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.certificates.token import TokenKey
from mtlsgate.tls.trust import openssl_certificate

MinVersion = Literal["1.2", "1.3"]

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

#: TLS 1.2: ephemeral ECDH with AEAD only.  OpenSSL's level 2 (112 bits of security)
#: is set here because builds have different defaults.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"

_OPTIONS = (
    SSL.OP_NO_COMPRESSION  # CRIME, CVE-2012-4929
    | SSL.OP_NO_RENEGOTIATION  # CVE-2009-3555, CVE-2011-1473
    | SSL.OP_SINGLE_ECDH_USE
)

#: SSL_MODE_NO_AUTO_CHAIN, for which pyOpenSSL has no name: send the chain exactly as
#: configured, and do not complete it from the trusted CAs.
_NO_AUTO_CHAIN = 0x8

#: SSL_MODE_ENABLE_PARTIAL_WRITE, which pyOpenSSL sets.  With it a write of several
#: records needs a call for each, though a memory BIO has room for all.
_PARTIAL_WRITE = 0x1


def new_context(method: int, min_version: MinVersion = "1.2") -> SSL.Context:
    """
    :param method: ``SSL.TLS_SERVER_METHOD`` or ``SSL.TLS_CLIENT_METHOD``.
    :param min_version: the oldest TLS version allowed.
    :returns: a context that keeps no sessions.  It has no certificate and
        verifies nothing yet.
    """
    context = SSL.Context(method)
    context.set_min_proto_version(_VERSIONS[min_version])
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _NO_AUTO_CHAIN)
    context.clear_mode(_PARTIAL_WRITE)
    context.set_cipher_list(_CIPHERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


def use_credential(context: SSL.Context, credential: ServerCredential) -> None:
    """
    Use this certificate and its key.

    :raises SSL.Error: if OpenSSL refuses them.
    """
    leaf, *intermediates = map(openssl_certificate, credential.chain)
    with warnings.catch_warnings():
        # pyOpenSSL prefers cryptography's objects, but cryptography cannot read
        # every certificate that OpenSSL can.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.use_certificate(leaf)
        for intermediate in intermediates:
            context.add_extra_chain_cert(intermediate)
    if isinstance(credential.private_key, TokenKey):
        _use_token(context, credential.private_key)
    else:
        context.use_privatekey(credential.private_key)
    context.check_privatekey()


def _use_token(context: SSL.Context, key: TokenKey) -> None:
    """:raises SSL.Error: if OpenSSL loads no provider that has the key."""
    # pyOpenSSL takes what is not cryptography's from a file only.
    descriptor = os.memfd_create("mtlsgate-key", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.pem)
        file.flush()
        context.use_privatekey_file(f"/proc/self/fd/{descriptor}")


def openssl_version() -> str:
    """:returns: as ``4.0.3``."""
    return SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii").split(" ")[1]
