"""
OpenSSL features that pyOpenSSL does not expose: key exchange groups, and the alert
for a rejected certificate.

Only this module uses private names of pyOpenSSL: `Context._context`, the pointer to
OpenSSL's context; `Context._verify_helper`, which holds the callback that OpenSSL
calls; `Connection._reverse_mapping` and `X509._from_raw_x509_ptr`, which turn
OpenSSL's pointers into the objects that the callback gets.
``tests/tls/test_openssl_private.py`` fails if they change.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL
from OpenSSL.crypto import X509

_binding = Binding()
_lib, _ffi = _binding.lib, _binding.ffi

#: From OpenSSL's pointers to pyOpenSSL's connections, and where a certificate store's
#: context keeps the pointer.
_CONNECTIONS = SSL.Connection._reverse_mapping
_OF_CONNECTION = _lib.SSL_get_ex_data_X509_STORE_CTX_idx()

#: OpenSSL's default groups without those over finite fields, which cost the server
#: twenty times as much as the client.  The second form is for OpenSSL before 3.5.
_GROUPS = (
    b"DEFAULT:-ffdhe2048:-ffdhe3072:-ffdhe4096:-ffdhe6144:-ffdhe8192",
    b"X25519:P-256:X448:P-384:P-521",
)

#: X509_V_ERR_CERT_REJECTED, whose alert is bad_certificate.
CERTIFICATE_REJECTED = 28

#: A callback for one certificate.  It returns 0 to go on, or an X509_V_ERR_….
VerifyCallback = Callable[[SSL.Connection, X509, int, int, int], int]


def forget_errors() -> None:
    """
    Empty OpenSSL's error queue of this thread, after an error that is dealt with.

    OpenSSL before 4.0 takes what is left there for an error of the next connection,
    whoever's that is (SSL_get_error(3)).
    """
    _lib.ERR_clear_error()


def use_elliptic_groups(context: SSL.Context) -> None:
    """
    Negotiate no key exchange over a finite field (ffdhe2048 and the like).

    :raises SSL.Error: if OpenSSL refuses the list.
    """
    for groups in _GROUPS:
        if _lib.SSL_CTX_set1_curves_list(context._context, groups) == 1:
            return
        _lib.ERR_clear_error()
    raise SSL.Error([("", "", "OpenSSL takes no list of key exchange groups")])


def set_verify(context: SSL.Context, mode: int, callback: VerifyCallback) -> None:
    """
    Set a verify callback that can choose the alert, by the error that it returns.
    With `SSL.Context.set_verify` the alert is always internal_error if OpenSSL itself
    found no error.

    :param callback: must not raise.
    """

    def verify(ok: int, store: object) -> int:
        # OpenSSL owns the certificate, but pyOpenSSL's object will free it: take a reference.
        pointer = _lib.X509_STORE_CTX_get_current_cert(store)
        _lib.X509_up_ref(pointer)
        certificate = X509._from_raw_x509_ptr(pointer)
        connection = _CONNECTIONS[_lib.X509_STORE_CTX_get_ex_data(store, _OF_CONNECTION)]
        error = _lib.X509_STORE_CTX_get_error(store)
        depth = _lib.X509_STORE_CTX_get_error_depth(store)
        refused_with = callback(connection, certificate, error, depth, ok)
        if refused_with == 0:
            if not ok:
                forget_errors()
            _lib.X509_STORE_CTX_set_error(store, _lib.X509_V_OK)
            return 1
        if ok:
            _lib.X509_STORE_CTX_set_error(store, refused_with)
        return 0

    # pyOpenSSL sets up its own callback, which is never called.
    context.set_verify(mode, lambda *_: False)
    helper = context._verify_helper
    assert helper is not None
    # Connections keep the helper alive, and so this callback.  If it raises, it
    # returns 0, which rejects.
    helper.callback = _ffi.callback("int (*)(int, X509_STORE_CTX *)", verify, error=0)
    _lib.SSL_CTX_set_verify(context._context, mode, helper.callback)
