"""
What the verdict on one client costs, among rules that are not for it.

    python benchmarks/verdicts.py [--count RULES]

In memory and without a handshake: the CPU time from the path that OpenSSL verified
to the verdict on it, with one rule and with many.
"""

import argparse
import time
from datetime import UTC, datetime

from mtlsgate.admission import AdmissionPolicy, Rule
from mtlsgate.admission.conditions import Condition, clause, read_value
from mtlsgate.testing import Authority
from mtlsgate.tls.judge import Judge

#: Seconds of CPU that each figure is the mean of.
SECONDS = 0.5

ROOT = Authority.create("Root CA")
MIDDLE = ROOT.intermediate("Issuing CA")
CLIENT = MIDDLE.issue(
    "client",
    dns_names=["client.site.example"],
    uris=["spiffe://example/site/client"],
    ip_addresses=["10.0.0.1"],
)
PATH = tuple(one.certificate for one in (CLIENT, MIDDLE, ROOT))

#: What each of many rules allows: somebody else.
ALLOWED = {
    "common_names": "client {n}",
    "dns_names": "*.site-{n}.example",
    "spiffe_ids": "spiffe://example/site-{n}/**",
    "ip_addresses": "10.1.{n}.0/24",
}


def allow(attribute, text):
    return (Condition((clause(attribute, {text: read_value(attribute, text)}),)),)


def one_authority(attribute, count):
    """Return so many rules on the client's CA."""
    for n in range(count):
        text = ALLOWED[attribute].format(n=n % 256 if attribute == "ip_addresses" else n)
        yield Rule(f"rule {n}", (ROOT.certificate,), allow=allow(attribute, text))


def many_authorities(authorities):
    """Return a rule for each of other CAs, without conditions."""
    for n, authority in enumerate(authorities):
        yield Rule(f"rule {n}", (authority.certificate,))


def admitting(count):
    """Return many rules, of which the last admits the client."""
    yield from one_authority("common_names", count - 1)
    yield Rule("last", (ROOT.certificate,), allow=allow("common_names", "client"))


def cost(rules):
    """Return microseconds for one verdict."""
    judge = Judge(AdmissionPolicy(tuple(rules)), lambda: datetime.now(UTC))
    judge.on_path(PATH)
    begin, count = time.process_time(), 0
    while time.process_time() - begin < SECONDS:
        judge.on_path(PATH)
        count += 1
    return (time.process_time() - begin) / count * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="rules, default 1000")
    count = parser.parse_args().count
    authorities = [Authority.create(f"Other CA {n}") for n in range(count)]
    series = {
        **{
            f"rejected, each allows other {attribute}": lambda n, by=attribute: one_authority(by, n)
            for attribute in ALLOWED
        },
        "rejected, each on another CA": lambda n: many_authorities(authorities[:n]),
        "admitted, by the last of them": admitting,
    }
    print(f"{'us for a verdict':40}{'1 rule':>10}{f'{count} rules':>14}")
    for name, rules in series.items():
        print(f"{name:40}{cost(rules(1)):>10.0f}{cost(rules(count)):>14.0f}")


if __name__ == "__main__":
    main()
