"""
What to say of names that are unknown where they stand.

A hint is right or absent: first comes what other programs call the same thing, then
where the name belongs, and last a slip of the keyboard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from functools import cache
from types import MappingProxyType

from mtlsgate.config.fields import fields_of
from mtlsgate.config.model import Configuration, Registry
from mtlsgate.config.tree import Body
from mtlsgate.errors import Position, did_you_mean
from mtlsgate.text import quoted

#: Names in ghostunnel, nginx, stunnel, HAProxy, Caddy, Envoy, openssl and in speech, in
#: lower case and with ``_`` for ``-``.
_SYNONYMS: Mapping[str, str] = MappingProxyType(
    {
        "ca_certificate_file": (
            "ca ca_bundle ca_cert ca_cert_file ca_certs ca_certificates ca_crt ca_file ca_files "
            "ca_path cacert cacert_file cafile client_ca client_ca_file root_ca root_ca_file "
            "ssl_ca ssl_client_certificate ssl_trusted_certificate tls_ca trust_anchor "
            "trust_pool trusted_ca trusted_ca_cert trusted_ca_cert_file trusted_ca_file "
            "cert cert_file certificate certificate_file"
        ),
        "leaf_certificate_file": (
            "client_cert client_cert_file client_certificate_file leaf leaf_cert leaf_cert_file "
            "leaf_file pin_file pinned_cert pinned_certificate trusted_leaf_cert "
            "trusted_leaf_cert_file cert cert_file certificate certificate_file"
        ),
        "server_ca_certificate_file": (
            "ca ca_bundle ca_cert ca_cert_file ca_certificate_file ca_certs ca_file cacert "
            "cacert_file cafile root_ca root_ca_file server_ca server_ca_file trusted_ca"
        ),
        "server_leaf_certificate_file": (
            "leaf_certificate_file pin pin_file pinned_certificate server_cert_file "
            "server_certificate_file"
        ),
        "client_certificate_file": (
            "cert cert_file cert_path certificate certificate_file certfile client_cert "
            "client_cert_file crt crt_file public_key_file tls_cert"
        ),
        "client_private_key_file": (
            "client_key client_key_file key key_file key_path keyfile private_key_file privkey "
            "tls_key"
        ),
        "client_private_key_passphrase": "passphrase password private_key_passphrase storepass",
        "server_name": "checkhost check_host override_server_name sni verify_hostname",
        "allow_uids": "allow_users uids users",
        "leaf_certificate_dir": "leaf_dir leaves_dir pin_dir pins_dir",
        "public_key_file": (
            "cert cert_file cert_path certificate certificate_file certfile chain_file crt "
            "crt_file fullchain server_cert server_cert_file server_certificate_file "
            "ssl_certificate ssl_cert tls_cert tls_cert_file tls_certificate public_cert"
        ),
        "private_key_file": (
            "key key_file key_path keyfile private_key_path privkey server_key server_key_file "
            "ssl_certificate_key ssl_key tls_key tls_key_file"
        ),
        "private_key_passphrase": (
            "key_passphrase key_password passphrase password private_key_password "
            "ssl_password ssl_password_file"
        ),
        "pkcs12_file": (
            "keystore keystore_file keystore_path p12 p12_file pfx pfx_file pkcs12_path"
        ),
        "pkcs12_passphrase": (
            "keystore_passphrase keystore_password p12_passphrase p12_password pfx_password "
            "pkcs12_password"
        ),
        "directory": "acme_url directory_url",
        "spiffe_trust_domain": "spiffe_domain trust_domain",
        "hosts": (
            "accept address addresses bind bind_address host interface listen listen_address "
            "listen_on listeners port ports"
        ),
        "target": (
            "backend backends connect destination forward forward_to proxy_pass remote "
            "reverse_proxy targets to upstream upstreams"
        ),
        "crl_file": "crl crl_files crlfile ssl_crl revocation_list",
        "crl_dir": "crl_path crlpath crls capath_crl",
        "crl_url": "crl_urls crl_uri crl_distribution_point",
        "ocsp_stapling": "ssl_stapling stapling ocsp",
        "max_depth": "depth ssl_verify_depth verify_depth",
        "min_version": (
            "min_tls_version minimum_version protocols ssl_min_ver ssl_protocols "
            "sslversion tls_min_version tls_version"
        ),
        "client_authentication": "client_auth ssl_verify_client verify verify_client verify_mode",
        "common_names": "allow_cn cn cns common_name",
        "organizations": "allow_o o organisation organisations organization",
        "organizational_units": "allow_ou ou ous organizational_unit organisational_units",
        "dns_names": "allow_dns dns dns_name dns_san san sans subject_alt_names",
        "uris": "allow_uri uri uri_san",
        "spiffe_ids": "spiffe spiffe_id",
        "email_addresses": "email email_address emails",
        "ip_addresses": "ip ip_address ips",
        "sha256": "fingerprint fingerprints sha256_fingerprint sha256_fingerprints thumbprint",
        "spki_sha256": "public_key_hash public_key_sha256 spki spki_hash",
        "serial_numbers": "serial serial_number serials",
        "issuers": "issuer issuer_dn issuer_name",
        "server_names": "server_name sni servername domain domains",
        "handshake_timeout": "ssl_handshake_timeout tls_timeout timeout_handshake",
        "idle_timeout": "keepalive_timeout timeout_client timeout_idle timeoutidle",
        "max_connections": "max_clients max_concurrent_conns max_conns maxconn",
        "max_connections_per_ip": "limit_conn max_connections_per_address",
        "session_resumption": "session_tickets ssl_session_tickets",
        "session_lifetime": "session_timeout ssl_session_timeout",
        "trusted_proxies": "real_ip_from set_real_ip_from trusted_proxy",
        "proxy_protocol": "accept_proxy",
        "drain_timeout": "grace_period shutdown_timeout",
        "retire_after": "expires not_after valid_until",
        "not_before": "valid_from",
        "server": "frontend gate listener service virtualhost",
        "protocol": "application backend handler location proxy upstream",
        "server_certificate": "certificate certificates keypair ssl",
        "client_certificate": "client_auth client_cert client_certs mtls rule",
        "allow": "accept allow_if match permit",
        "deny": "block deny_if forbid reject",
        "settings": "global globals options",
        "admin": "metrics stats status",
    }
)

#: Blocks of Couper for which the gate has no use.
_COUPERS = frozenset(
    {"api", "basic_auth", "cors", "definitions", "endpoint", "error_handler", "files", "jwt", "spa"}
)

#: Words that mean one thing only.
_CLEAR = frozenset(
    "backend bind cacert cn fingerprint listen maxconn ou san sni upstream".split(" ")  # noqa: SIM905
)

_TARGET = 'protocol "proxy" { … }'


def unknown_names(
    body: Body, attributes: Set[str], blocks: Set[str]
) -> Iterator[tuple[Position, str]]:
    """
    :param attributes: the names of the attributes that the body may have.
    :param blocks: those of its blocks.
    :returns: where it has others, and what may be meant.
    """
    known = frozenset(attributes | blocks)
    for attribute in body.attributes:
        name = attribute.name
        if name in attributes:
            continue
        if name in blocks:
            yield attribute.at, f"{name} is a block: write {name} {{ … }}"
        else:
            hint = _hint(name, known, attribute=True)
            yield attribute.at, f"unknown attribute {quoted(name)}{hint}"
    for block in body.blocks:
        name = block.type
        if name in blocks:
            continue
        if name in attributes:
            yield block.at, f"{name} is an attribute: write {name} = …"
        else:
            hint = _hint(name, known, attribute=False)
            if not hint and name in _COUPERS:
                hint = "; it is Couper's, and means nothing here"
            yield block.at, f"unknown block {quoted(name)}{hint}"


def _hint(name: str, known: frozenset[str], *, attribute: bool) -> str:
    meant = [one for one in _meant(name) if (one in _blocks()) != attribute or one == "target"]
    here = [one for one in meant if one in known]
    if here:
        return f"; did you mean {' or '.join(map(quoted, here))}?"
    if name in _places():
        return f"; it belongs in {_place_of(name)}"
    if slip := did_you_mean(name, known):
        return slip
    # A name of one word may mean anything in another block.
    elsewhere = [one for one in meant if one in _places() and ("_" in name or name in _CLEAR)]
    if len(elsewhere) == 1:
        (one,) = elsewhere
        return f"; did you mean {quoted(one)}, in {_place_of(one)}?"
    return ""


@cache
def _by_synonym() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for meant, synonyms in _SYNONYMS.items():
        for synonym in synonyms.split():
            found.setdefault(synonym, []).append(meant)
    return found


def _meant(name: str) -> list[str]:
    return _by_synonym().get(name.lower().replace("-", "_"), [])


@cache
def _blocks() -> frozenset[str]:
    return frozenset(name for name, _, is_block in _walk(Configuration, ()) if is_block)


@cache
def _places() -> dict[str, list[str]]:
    """:returns: for each name of the configuration, the blocks that it may stand in."""
    found: dict[str, list[str]] = {"target": [_TARGET]}
    for name, outer, _ in _walk(Configuration, ()):
        place = "the file itself, outside all blocks"
        if outer:
            place = " { ".join(outer) + " { … }" + " }" * (len(outer) - 1)
        found.setdefault(name, []).append(place)
    return {name: sorted(set(places)) for name, places in found.items()}


def _place_of(name: str) -> str:
    """:returns: the block that takes the name; of several, the innermost ones only."""
    places = _places()[name]
    if len(places) == 1:
        return places[0]
    blocks = [place.partition(" { … }")[0].rpartition("{ ")[2] for place in places]
    return " or ".join(f"{block} {{ … }}" for block in dict.fromkeys(blocks))


def _walk(cls: type, outer: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Yield each name with the blocks around it, and whether it is a block."""
    for one in fields_of(cls):
        if one.source in ("block", "blocks"):
            yield one.name, outer, True
            # What a registry's block has, as url and timeout, means other things elsewhere.
            if one.hint is not Registry:
                yield from _walk(one.hint, (*outer, one.name))
        elif one.source in ("attribute", "material"):
            yield one.name, outer, False
            if one.source == "material":
                yield f"{one.name}_file", outer, False
