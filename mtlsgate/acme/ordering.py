"""
Orders a certificate from a CA, by the ``acme`` library.

Everything here blocks: it runs in a thread of its own.  The CA is asked at the one URL
that the configuration names, and at those that its directory names.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any

import requests
from acme import errors, messages
from acme.challenges import (
    Challenge,
    ChallengeResponse,
    KeyAuthorizationChallenge,
    KeyAuthorizationChallengeResponse,
)
from acme.client import ClientNetwork, ClientV2
from acme.crypto_util import make_csr
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC
from twisted.logger import Logger

from mtlsgate.acme.problems import order_failed
from mtlsgate.acme.schedule import ASK_EVERY, LONGEST, Life
from mtlsgate.acme.steps import OrderFailed, Suggestion
from mtlsgate.acme.storage import parse_kept
from mtlsgate.acme.wanted import WantedCertificate
from mtlsgate.certificates.parsing import parse_private_key
from mtlsgate.clock import utc_now
from mtlsgate.errors import CredentialError
from mtlsgate.text import loggable

_log = Logger("mtlsgate.acme")

#: The most seconds for one answer.
_TIMEOUT = 20
#: The most time for validation and for issuance.
_PATIENCE = timedelta(seconds=90)
#: How often a request is repeated whose nonce the CA refuses.
_NONCES = 8
#: A certificate that is not valid by the gate's clock is not ordered again soon.
_WRONG_CLOCK = LONGEST * 6


@ChallengeResponse.register
class _TlsAlpnResponse(KeyAuthorizationChallengeResponse):
    typ = "tls-alpn-01"


@Challenge.register
class TlsAlpnChallenge(KeyAuthorizationChallenge):
    """The challenge of RFC 8737, which the library leaves to its users."""

    response_cls = _TlsAlpnResponse
    typ = _TlsAlpnResponse.typ

    def validation(self, account_key: JWK, **_: Any) -> bytes:
        """:returns: the digest of the key authorization, for the certificate."""
        return hashlib.sha256(self.key_authorization(account_key).encode()).digest()


def order(wanted: WantedCertificate) -> None:
    """
    Get a certificate with a new key, and keep it.

    :raises OrderFailed: if there is none.
    """
    conversation = _Conversation(wanted)
    try:
        conversation.order()
    except Exception as error:
        raise order_failed(error, conversation.asked_to_wait) from error


def suggestion(wanted: WantedCertificate, certificate: bytes) -> Suggestion:
    """
    :param certificate: the certificate that there is, in PEM.
    :returns: when the CA wants it to be renewed.  What fails counts as no answer.
    """
    conversation = _Conversation(wanted)
    try:
        at, again = conversation.client().renewal_time(certificate)
    except Exception as error:  # noqa: BLE001 -- it is no more than advice
        cause = error.__cause__ if isinstance(error, errors.ARIError) else error
        if isinstance(cause, Exception):
            _log.debug("{names}: no renewal info: {why!r}", names=str(wanted), why=cause)
        return Suggestion(None, ASK_EVERY)
    # The library tells the local time, without its offset.
    return Suggestion(at, again - datetime.now())


class _Network(ClientNetwork):
    """Repeats a request whose nonce the CA refuses more than once, as the library does not."""

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Post; the CA may refuse a nonce, and gives another with that (RFC 8555, 6.5)."""
        for _ in range(_NONCES):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)


class _Conversation:
    """
    One conversation with a CA.

    :ivar asked_to_wait: how long its latest answer asks to wait, or None.
    """

    def __init__(self, wanted: WantedCertificate) -> None:
        self._wanted = wanted
        self.asked_to_wait: timedelta | None = None

    def _network(self, key: JWK | None = None) -> ClientNetwork:
        wanted = self._wanted
        # The library hands this to requests, which takes a file of CAs as well.
        verify: Any = True
        if wanted.authorities:
            verify = str(wanted.storage.put_authorities(wanted.account_name, wanted.authorities))
        network = _Network(
            key,
            alg=ES256,
            verify_ssl=verify,
            user_agent=f"mtlsgate/{version('mtlsgate')}",
            timeout=_TIMEOUT,
        )
        # No proxies and no trusted CAs of the environment: the configuration says.
        network.session.trust_env = False
        network.session.max_redirects = 0
        network.session.hooks["response"].append(self._note_wait)
        return network

    def _note_wait(self, response: requests.Response, **_: Any) -> None:
        self.asked_to_wait = None
        if not response.ok and "Retry-After" in response.headers:
            until = ClientV2.retry_after(response, 0)
            # The library tells the local time, without its offset.
            self.asked_to_wait = until - datetime.now()

    def client(self, key: JWK | None = None) -> ClientV2:
        """:returns: a client of the CA, without an account."""
        network = self._network(key)
        return ClientV2(ClientV2.get_directory(self._wanted.directory, network), network)

    def order(self) -> None:
        """Raises whatever goes wrong."""
        wanted, account = self._wanted, self._account_key()
        client = self.client(account)
        self._log_in(client)
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        order = client.new_order(make_csr(pem, list(wanted.names)))
        deadline = datetime.now() + _PATIENCE
        try:
            self._answer(client, account, order.authorizations)
            order = client.poll_authorizations(order, deadline)
        finally:
            for name in wanted.names:
                wanted.storage.drop_challenge(name)
        deadline = datetime.now() + _PATIENCE
        order = client.finalize_order(order, deadline)
        found = pem + (order.fullchain_pem or "").encode()
        _check(found, wanted)
        wanted.storage.put_certificate(wanted.file_name, found)

    # The account.

    def _account_key(self) -> JWKEC:
        storage, name = self._wanted.storage, self._wanted.account_name
        found = storage.account(name)
        if found is None:
            key = ec.generate_private_key(ec.SECP256R1())
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            storage.put_account(name, pem)
            return JWKEC(key=key)
        try:
            known = parse_private_key(found)
        except CredentialError as error:
            raise OrderFailed(
                f"{name}.pem, the key of the account, {error}: remove it to make another account"
            ) from None
        return JWKEC(key=known)

    def _log_in(self, client: ClientV2) -> None:
        """Find the account of the key, or make one."""
        contact = self._wanted.contact
        try:
            account = client.query_registration(
                messages.RegistrationResource(body=messages.NewRegistration())
            )
        except messages.Error as error:
            if error.code != "accountDoesNotExist":
                raise
            self._register(client, contact)
            return
        if tuple(account.body.contact) != contact:
            client.update_registration(account, messages.Registration(contact=contact))

    def _register(self, client: ClientV2, contact: tuple[str, ...]) -> None:
        wanted, binding = self._wanted, None
        key = client.net.key
        assert key is not None
        if wanted.binding is not None:
            binding = messages.ExternalAccountBinding.from_data(
                key.public_key(),
                wanted.binding.key_id,
                wanted.binding.hmac_key,
                client.directory,
            )
        elif client.external_account_required():
            raise OrderFailed(
                "the CA wants to know its customer: set eab_key_id and eab_hmac_key_file, which "
                "it gives you"
            )
        terms = client.directory.meta.terms_of_service
        client.new_account(
            messages.NewRegistration(
                contact=contact,
                terms_of_service_agreed=True,
                external_account_binding=binding,
            )
        )
        _log.info(
            "made an account with the CA at {directory}{terms}",
            directory=wanted.directory,
            terms="" if terms is None else f"; its terms of service: {loggable(terms)}",
        )

    # The challenges.

    def _answer(
        self,
        client: ClientV2,
        account: JWK,
        authorizations: Iterable[messages.AuthorizationResource],
    ) -> None:
        """Prepare the answers for the CA, then ask it to connect."""
        found = [
            (one, self._challenge_of(one))
            for one in authorizations
            if one.body.status != messages.STATUS_VALID
        ]
        storage = self._wanted.storage
        for authorization, body in found:
            name, digest = authorization.body.identifier.value, body.chall.validation(account)
            storage.put_challenge(name, digest, time.time())
        for _, body in found:
            client.answer_challenge(body, body.chall.response(account))

    def _challenge_of(self, one: messages.AuthorizationResource) -> messages.ChallengeBody:
        name = one.body.identifier.value
        if name not in self._wanted.names:
            raise OrderFailed(f"the CA wants to validate {loggable(name)}, which is not ours")
        for body in one.body.challenges:
            if isinstance(body.chall, TlsAlpnChallenge):
                return body
        kinds = ", ".join(
            sorted(loggable(str(each.to_partial_json()["type"])) for each in one.body.challenges)
        )
        raise OrderFailed(
            f"the CA does not validate {name} by TLS-ALPN-01, the one way that the gate knows; "
            f"it offers {kinds or 'nothing'}"
        )


def _check(found: bytes, wanted: WantedCertificate) -> None:
    """:raises OrderFailed: if the CA issued something else."""
    try:
        credential = parse_kept(found)
    except CredentialError as error:
        raise OrderFailed(f"the CA issued something else: {error}") from None
    leaf = credential.chain[0]
    missing = set(wanted.names) - {one.lower() for one in credential.dns_names}
    if missing:
        raise OrderFailed(f"the CA issued a certificate without {', '.join(sorted(missing))}")
    now = utc_now()
    if not Life(leaf.not_before, leaf.not_after).counts(now):
        raise OrderFailed(
            f"the CA issued a certificate that is valid from {leaf.not_before:%Y-%m-%d %H:%M:%SZ} "
            f"to {leaf.not_after:%Y-%m-%d %H:%M:%SZ}, but by the gate's clock it is "
            f"{now:%Y-%m-%d %H:%M:%SZ}: check the clock",
            _WRONG_CLOCK,
        )
