"""
What goes wrong between the gate and a CA, in one line for people.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator
from datetime import timedelta

import requests
from acme import errors, messages
from josepy.errors import Error as JoseError

from mtlsgate.acme.schedule import UNREACHABLE
from mtlsgate.acme.steps import OrderFailed
from mtlsgate.errors import CredentialError
from mtlsgate.text import loggable, printable

#: If the CA does not say how long to wait when it limits a client's rate.
_RATE_LIMITED = timedelta(hours=1)


def order_failed(error: Exception, asked: timedelta | None) -> OrderFailed:
    """
    :param error: what was raised while ordering.
    :param asked: how long the CA's latest answer asks to wait, or None.
    """
    match error:
        case OrderFailed():
            return error
        case errors.ValidationError():
            return OrderFailed("; ".join(_validations(error.failed_authzrs)), asked=asked)
        case errors.IssuanceError():
            return OrderFailed(f"the CA issues no certificate: {_document(error.error)}")
        case messages.Error():
            if error.code == "rateLimited" and asked is None:
                asked = _RATE_LIMITED
            return OrderFailed(f"the CA refuses: {_document(error)}", asked=asked)
        case errors.TimeoutError():
            return OrderFailed("the CA did not come to an end in time", asked=asked)
        case requests.RequestException():
            return OrderFailed(f"the CA cannot be reached: {_reached(error)}", UNREACHABLE, asked)
        case errors.ClientError():
            return OrderFailed(f"the CA's answer makes no sense: {_answer(error)}", asked=asked)
        case OSError():
            text = error.strerror or str(error)
            return OrderFailed(f"the storage fails: {printable(text)}", UNREACHABLE)
        case CredentialError():
            return OrderFailed(loggable(str(error)))
        case errors.Error() | JoseError() | KeyError() | ValueError():
            return OrderFailed(f"the CA's answer makes no sense: {loggable(str(error))}")
    # The library takes an answer's JSON for what it should be.
    return OrderFailed(f"the CA's answer makes no sense: {loggable(repr(error))}")


def _validations(failed: Iterable[messages.AuthorizationResource]) -> Iterator[str]:
    """:returns: for each name that the CA could not validate, why."""
    for one in failed:
        name = loggable(str(one.body.identifier.value))
        for challenge in one.body.challenges:
            if challenge.error is not None:
                yield f"the CA does not believe that {name} is ours: {_document(challenge.error)}"


def _document(error: messages.Error) -> str:
    """:returns: a problem document (RFC 8555, 6.7)."""
    kind = loggable(str(error.typ).removeprefix(messages.ERROR_PREFIX))
    text = f"{kind}: {loggable(error.detail)}" if error.detail else kind
    for one in (error.subproblems or ())[:5]:
        name = "" if one.identifier is None else f"{loggable(one.identifier.value)}: "
        text += f"; {name}{_document(one)}"
    return text


def _reached(error: requests.RequestException) -> str:
    """:returns: why there is no answer; the library wraps it several times."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    cause: object = error
    while True:
        inner = getattr(cause, "reason", None) or next(
            (one for one in getattr(cause, "args", ()) if isinstance(one, BaseException)), None
        )
        if inner is None or inner is cause or isinstance(inner, str):
            break
        cause = inner
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate: {loggable(cause.verify_message)}; ca_file names its CAs"
    if isinstance(cause, OSError) and cause.strerror:
        return loggable(cause.strerror)
    # urllib3 puts more in front of what the system says.
    said = re.search(r"\[Errno -?[0-9]+\] ([^)]+)\)?\Z", str(cause))
    return loggable(said[1] if said else str(cause) or type(cause).__name__)


def _answer(error: errors.ClientError) -> str:
    response = error.args[0] if error.args else None
    if isinstance(response, requests.Response):
        return f"status {response.status_code} {loggable(response.reason or '')}".rstrip()
    return loggable(str(error))
