"""
The servers of a URL, with all that libpq needs to connect to each.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import certifi
import psycopg
from attrs import field, frozen
from psycopg.conninfo import conninfo_to_dict

from mtlsgate.errors import did_you_mean
from mtlsgate.registry.postgresql_address import VERIFYING, query_names
from mtlsgate.registry.store import StoreError, StoreOptions

#: libpq's parameters that name files.
FILES = frozenset({"sslrootcert", "sslcert", "sslkey"})
#: Values of libpq's ``sslmode``.
_SSLMODES = ("disable", "allow", "prefer", "require", *VERIFYING)


@frozen
class Host:
    """
    One server of a URL.

    :ivar name: for people.
    :ivar parameters: libpq's, with the password.
    """

    name: str
    parameters: Mapping[str, str] = field(repr=False)


def hosts_of(options: StoreOptions) -> tuple[Host, ...]:
    """
    :returns: the servers of the URL, at least one.
    :raises StoreError: if the URL or what is stated beside it cannot work.
    """
    parameters = _parameters(options)
    hosts = parameters.get("host", "").split(",")
    ports = parameters.get("port", "").split(",")
    addresses = parameters.get("hostaddr", "").split(",")
    count = max(len(hosts), len(addresses))
    if len(ports) == 1:
        ports *= count
    if len(addresses) == 1 and not addresses[0]:
        addresses *= count
    if len(hosts) == 1 and not hosts[0]:
        hosts *= count
    if not len(hosts) == len(ports) == len(addresses):
        raise StoreError("the URL has not as many ports or addresses as hosts")
    return tuple(
        Host(
            ":".join(filter(None, (host or address or "the default host", port))),
            {
                **parameters,
                **{
                    name: value
                    for name, value in (("host", host), ("port", port), ("hostaddr", address))
                    if value or name in parameters
                },
            },
        )
        for host, port, address in zip(hosts, ports, addresses, strict=True)
    )


def _parameters(options: StoreOptions) -> dict[str, str]:
    """:returns: libpq's parameters of the URL and of what is stated beside it."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    for name in query_names(options.url):
        if name not in known:
            near = did_you_mean(name, known)
            raise StoreError(f"the URL has a parameter that libpq does not know{near}")
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(options.url).items()}
    except psycopg.Error:
        # Its text may have the password.
        raise StoreError(
            "the URL cannot be read: write %XX for special characters in user and password"
        ) from None
    mode = found.get("sslmode", "prefer")
    if mode not in _SSLMODES:
        raise StoreError(f"the URL's sslmode must be one of {', '.join(_SSLMODES)}")
    if options.password is not None and "password" in found:
        raise StoreError("the password is stated twice, in the URL too")
    beside = {
        "sslrootcert": options.ca_file,
        "sslcert": options.certificate_file,
        "sslkey": options.key_file,
        "password": options.password,
    }
    found |= {name: value for name, value in beside.items() if value is not None}
    if options.ca_file is not None and found.setdefault("sslmode", "verify-full") not in VERIFYING:
        raise StoreError("with ca_file, sslmode must be verify-full or verify-ca, or not stated")
    if found.get("sslmode") in VERIFYING and "sslrootcert" not in found:
        found["sslrootcert"] = ssl.get_default_verify_paths().cafile or certifi.where()
    # A look for Kerberos tickets may block.
    return {"gssencmode": "disable", "fallback_application_name": "mtlsgate", **found} | {
        "client_encoding": "UTF8"
    }
