"""
What a configuration in the shadow costs a handshake.

    python benchmarks/shadow.py [--seconds N]

The same gate without a shadow, and with several, on one core; clients on another.  They take
short turns, so that whatever else the machine does hurts all of them.  The figure is the
median of the differences in CPU time, in microseconds for each handshake.  Exits 1 if the bar
is missed.
"""

import argparse
import contextlib
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import gate
import registry

from mtlsgate.testing import Authority

#: Microseconds.
BAR = 40.0
SETTINGS = 'settings {\n  shadow = "%s.hcl"\n}\n\n'
RULE = 'client_certificate "clients" {'
#: What the shadow has in place of the rule's first line.
SHADOWS = {
    "same": RULE,
    "listed": f'{RULE}\n      registry = "devices"',
    "denied": 'deny { common_names = ["client"] }\n    ' + RULE,
    "conditions": RULE + '\n      allow { dns_names = ["*.example"] }\n'
    '      allow { common_names = ["cli*", "client"] }',
    "elsewhere": 'client_certificate "others" { ca_certificate_file = "other.crt" }\n'
    '    client_certificate "pinned" { leaf_certificate_file = "stranger.crt" }\n',
}


def shadow_of(name, url):
    """Return the text of a configuration for the shadow.  A registry is at that URL."""
    text = gate.ECHO_CONFIG % {"port": 0}
    if name == "listed":
        text = f'registry "devices" {{\n  url = "{url}"\n}}\n{text}'
    if name == "elsewhere":
        begin = text.index(RULE)
        return text[:begin] + SHADOWS[name] + "  }\n}\n"
    return text.replace(RULE, SHADOWS[name])


def measure(directory, seconds):
    """Return whether the bar was missed."""
    (directory / "other.crt").write_bytes(Authority.create("Other").pem)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(registry.redis(directory))
        servers = [stack.enter_context(gate.running("gate", directory))]
        for name in SHADOWS:
            (directory / f"{name}-next.hcl").write_text(shadow_of(name, url))
            settings = SETTINGS % f"{name}-next"
            servers.append(stack.enter_context(gate.running(name, directory, settings)))
        allow = [gate.script("mtlsgate"), "registry", "allow", str(directory / "client.crt")]
        allow += ["--config", str(directory / "listed-next.hcl")]
        subprocess.run(allow, check=True, stdout=subprocess.DEVNULL)
        turns = round(seconds / gate.TURN)
        found = gate.run_turns(directory, "handshakes", gate.TURN, turns, "1.3", servers)
    costs = [[1e6 * turn.cpu / turn.count for turn in one] for one in found]
    missed = False
    print(f"{'':24}{'us each':>10}{'more':>10}{'bar':>10}")
    print(f"{'no shadow':24}{statistics.median(costs[0]):>10.0f}")
    for name, its in zip(SHADOWS, costs[1:], strict=True):
        more = statistics.median(one - base for one, base in zip(its, costs[0], strict=True))
        is_missed = more > BAR
        missed |= is_missed
        verdict = "MISSED" if is_missed else "ok"
        print(f"{name:24}{statistics.median(its):>10.0f}{more:>10.1f}{BAR:>10.0f}  {verdict}")
    return missed


def main():
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each (default 20)")
    seconds = parser.parse_args().seconds
    directory = Path(tempfile.mkdtemp(prefix="mtlsgate-bench-"))
    try:
        command = [gate.script("mtlsgate"), "init", str(directory)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        missed = measure(directory, seconds)
    finally:
        shutil.rmtree(directory)
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
