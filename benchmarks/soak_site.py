"""
What the soak runs against: certificates, and policies that follow each other.

Four servers: ``plain``; ``alpha`` and ``beta``, which share a port by their names;
and ``tickets``, whose sessions resume.  Each policy is one configuration, and
knows whom it admits.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mtlsgate.certificates.development_ca import Authority

#: Seconds that a client has for its handshake.
HANDSHAKE_TIMEOUT = 8

#: The address that a server's clients come from, and the name that they ask for.
SERVERS = {
    "plain": ("127.0.0.11", "localhost"),
    "alpha": ("127.0.0.12", "alpha.test"),
    "beta": ("127.0.0.13", "beta.test"),
    "tickets": ("127.0.0.14", "localhost"),
}

STEADY = tuple(f"steady-{number}" for number in range(4))
FICKLE = tuple(f"fickle-{number}" for number in range(6))
DEVICES = STEADY + FICKLE

#: Those that nobody may ever admit, and the reasons there are for it.
BAD = {
    "stranger": {"unknown_ca", "bad_signature"},
    "not-pinned": {"leaf_mismatch", "not_allowed", "denied"},
    "expired": {"expired"},
    "nobody": {"no_certificate"},
    "appending": {"unknown_ca", "bad_signature", "leaf_mismatch"},
}


@dataclass(frozen=True)
class Policy:
    """
    One configuration.

    `pinned` and `named` are devices: those that the rules with pins admit, and those that
    the one of ``beta`` does, which goes by names.  `denied` ones are not admitted anyhow.
    """

    number: int
    pinned: frozenset
    named: frozenset
    denied: frozenset
    has_extra: bool

    @classmethod
    def choose(cls, number, random):
        """Return any, whose steady devices are admitted everywhere."""

        def some(odds):
            return {one for one in FICKLE if random.random() < odds}

        return cls(
            number,
            frozenset({*STEADY, *some(0.7)}),
            frozenset({*STEADY, *some(0.7)}),
            frozenset(some(0.2)),
            random.random() < 0.5,
        )

    @classmethod
    def base(cls, number):
        """Return the one whose gate is measured."""
        return cls(number, frozenset(DEVICES), frozenset(DEVICES), frozenset(), False)

    def admits(self, server, who):
        """Return whether a server lets somebody in."""
        return who in (self.named if server == "beta" else self.pinned) - self.denied


def issue(directory):
    """Write the certificates, and return the fingerprints of the devices."""
    authority, other = Authority.create("Soak CA"), Authority.create("Soak CA")
    now = datetime.now(UTC)
    server = authority.issue(
        "localhost", dns_names=["localhost", "alpha.test", "beta.test"], usages=["server_auth"]
    )
    made = {name: authority.issue(name) for name in (*DEVICES, "not-pinned")}
    made["stranger"] = other.issue(STEADY[0])
    made["expired"] = authority.issue("expired", not_after=now - timedelta(hours=1))
    files = {"ca.crt": authority.pem, "server.crt": server.pem, "server.key": server.key_pem}
    for name, one in made.items():
        files[f"{name}.crt"], files[f"{name}.key"] = one.pem, one.key_pem
    # A stranger that sends a pin along.
    files["appending.crt"] = made["stranger"].pem + made[STEADY[0]].pem
    files["appending.key"] = made["stranger"].key_pem
    for name, content in files.items():
        path = directory / name
        path.write_bytes(content)
        path.chmod(0o600)
    return {name: made[name].sha256 for name in DEVICES}


def configuration(policy, ports, fingerprints):
    """Return the text for a policy; `ports` are those of the servers."""

    def server(name, tls, names=None):
        return _server(name, ports.get(name, 0), policy, fingerprints, tls, names)

    pins = "\n".join(
        f'      pin "{name}" {{ leaf_certificate_file = "{name}.crt" }}'
        for name in (*sorted(policy.pinned), "expired")
    )
    pinned = f"""
    client_certificate "pinned" {{
      ca_certificate_file = "ca.crt"
{pins}
    }}"""
    names = ", ".join(f'"{name}"' for name in sorted(policy.named))
    named = f"""
    client_certificate "named" {{
      ca_certificate_file = "ca.crt"
      allow {{ common_names = [{names}, "expired"] }}
    }}"""
    resumption = "\n    session_resumption = true"
    blocks = [
        server("plain", pinned),
        server("alpha", pinned, '["alpha.test"]'),
        server("beta", named, '["beta.test"]'),
        server("tickets", resumption + pinned),
    ]
    if policy.has_extra:
        blocks.append(server("extra", pinned))
    return _settings(policy.number) + "\n".join(blocks)


def _settings(number):
    # Limits that change, and that this many clients do not reach.
    return f"""\
settings {{
  handshake_timeout           = "{HANDSHAKE_TIMEOUT}s"
  max_connections             = {5000 + number % 3}
  max_connections_per_ip      = {4000 + number % 5}
  max_handshakes              = {3000 + number % 7}
  handshake_bytes             = {65536 + number % 2}
  handshakes_per_second_per_ip = {100000 + number % 11}
  idle_timeout                = {'"1h"' if number % 2 else "null"}
}}
"""


def _server(name, port, policy, fingerprints, tls, names):
    denied = ", ".join(f'"{fingerprints[one]}"' for one in sorted(policy.denied))
    deny = f"\n    deny {{ sha256 = [{denied}] }}" if denied else ""
    shared = "" if names is None else f"\n  server_names = {names}"
    return f"""
server "{name}" {{
  hosts = ["127.0.0.1:{port}"]{shared}

  protocol "echo" {{}}

  tls {{
    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}{deny}{tls}
  }}
}}
"""
