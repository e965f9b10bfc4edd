"""
The gate among clients of every kind, while its configuration changes.

    python benchmarks/soak.py [--handshakes N] [--seconds S] [--seed N]
    python benchmarks/soak.py --http [--seconds S] [--seed N]

A real ``twistd mtlsgate``, and clients in a process of their own: good, bad, reset, slow,
dawdling, stalled and resuming ones, and some that stay; now and then a reload.  Whom the gate may
admit is told by what was in force from before a client came until after it was gone.

Between rounds all is quiet, and what the gate holds is measured.  Exits 1 if a client
was wrongly let in or wrongly turned away, if the log does not tell of every connection
exactly once, if a file descriptor or more than 5 MB stays, or if anything went wrong in the log.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import soak_site
from soak_clients import IDLERS, PATIENCE, Crowd, Resident, Visitor, plan
from soak_gate import RunningGate, free_ports
from soak_site import BAD, FICKLE, SERVERS, STEADY, Policy

#: The first warms up.
ROUNDS = 4
#: Clients that come and go at a time, and that stay, apart from those that stall.
WORKERS = 16
RESIDENTS = 8

#: What may stay after the first round, in MB.
BAR = 5

#: How many problems are printed in full.
MOST_TOLD = 20


@dataclass
class Problem:
    """Something that must not be: `bar` is the one that it misses."""

    bar: str
    what: str
    visitor: Visitor | None = None


class Ledger:
    """
    Which policies may be in force.

    `policies` are all there were, `first` the oldest that may be in force now, `last` the
    newest: between the signal and the gate's word for it there are two.
    """

    def __init__(self, policy):
        self.policies = [policy]
        self.first = self.last = 0

    def announce(self, policy):
        self.policies.append(policy)
        self.last += 1

    def confirm(self):
        self.first = self.last

    def may_admit(self, visitor):
        """Return whether a policy lets somebody in that may have had the last word."""
        return any(self._verdicts(visitor, visitor.final))

    def must_admit(self, visitor):
        """Return whether all policies do that may have been in force meanwhile."""
        return all(self._verdicts(visitor, visitor.first))

    def _verdicts(self, visitor, first):
        judges = self.policies[first : visitor.last + 1]
        return [policy.admits(visitor.server, visitor.who) for policy in judges]


class Gate(RunningGate):
    """The gate, and the policies that it follows."""

    def __init__(self, directory):
        self.fingerprints = soak_site.issue(directory)
        plain, shared, tickets = free_ports(3)
        self.ports = {"plain": plain, "alpha": shared, "beta": shared, "tickets": tickets}
        self.directory = directory
        self.ledger = Ledger(Policy.base(0))
        self._write(soak_site.configuration(self.ledger.policies[0], self.ports, self.fingerprints))
        super().__init__(directory)

    def _write(self, text):
        beside = self.directory / "gate.new"
        beside.write_text(text)
        beside.replace(self.directory / "gate.hcl")

    async def reload(self, policy):
        """
        Let another policy take over; None is one that cannot.

        Return whether what should have become of it did.
        """
        seen = len(self.log.reloads)
        if policy is None:
            current = self.directory / "gate.hcl"
            self._write(current.read_text().replace("ca.crt", "nowhere.crt"))
        else:
            self._write(soak_site.configuration(policy, self.ports, self.fingerprints))
            self.ledger.announce(policy)
        self.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE):
            while len(self.log.reloads) == seen:
                await asyncio.sleep(0.02)
                self.log.read()
        took_over = self.log.reloads[-1]
        if took_over:
            self.ledger.confirm()
        return took_over is (policy is not None)


class Soak:
    """
    All of it.

    `problems` are what was wrong, in lines; `measured` what the gate held after each round.
    """

    def __init__(self, gate, options):
        self.gate, self.options = gate, options
        self.crowd = Crowd(gate.directory, gate.ports, gate.ledger)
        self.random = random.Random(options.seed)
        self.visitors = plan(random.Random(options.seed))
        self.problems = []
        self.measured = []
        self.residents = set()
        self.reloads = 0
        self._idling = set()
        self._begun = time.monotonic()

    async def run(self):
        await self.gate.listens(len(SERVERS))
        for number in range(1, ROUNDS + 1):
            await self._round(number)
            await self._quiet(number)

    # One round.

    async def _round(self, number):
        count = self.options.handshakes * number // ROUNDS
        end = time.monotonic() + self.options.seconds / ROUNDS
        leaving = asyncio.Event()
        changing = asyncio.create_task(self._change(leaving))
        staying = [asyncio.create_task(self._inhabit(leaving)) for _ in range(RESIDENTS)]
        await asyncio.gather(*(self._come_and_go(count, end) for _ in range(WORKERS)))
        leaving.set()
        await asyncio.gather(changing, *staying, *self._idling)

    async def _come_and_go(self, count, end):
        while len(self.crowd.seen) < count and time.monotonic() < end:
            visitor = next(self.visitors)
            if visitor.kind in IDLERS:
                task = asyncio.create_task(self.crowd.visit(visitor))
                self._idling.add(task)
                task.add_done_callback(self._idling.discard)
            else:
                await self.crowd.visit(visitor)

    async def _inhabit(self, leaving):
        """Be at home, again and again, until it is time to leave."""
        while not leaving.is_set():
            visitor = Visitor(
                "resident",
                self.random.choice(list(SERVERS)),
                self.random.choice(STEADY + FICKLE),
                self.random.choice(["1.2", "1.3"]),
            )
            resident = Resident(self.crowd, visitor)
            self.residents.add(resident)
            await resident.stay(leaving)
            self.residents.discard(resident)
            await asyncio.sleep(0.2)

    async def _change(self, leaving):
        """Load the configuration anew, again and again, and see who has to leave."""
        while not leaving.is_set():
            await asyncio.sleep(self.random.uniform(0.2, 2.0))
            policy = Policy.choose(len(self.gate.ledger.policies), self.random)
            await self._reload(None if self.random.random() < 0.1 else policy)

    async def _reload(self, policy):
        self.reloads += 1
        if not await self.gate.reload(policy):
            self.problems.append(Problem("reloads", f"not as it should have been: {policy}"))
        if policy is None:
            return
        for one in list(self.residents):
            if one.visitor.address and not policy.admits(one.visitor.server, one.visitor.who):
                try:
                    await asyncio.wait_for(one.gone.wait(), PATIENCE)
                except TimeoutError:
                    self.problems.append(Problem("admitted", "denied, and stays", one.visitor))

    # In between.

    async def _quiet(self, number):
        """Measure what the gate holds when nobody is there."""
        await self._reload(Policy.base(len(self.gate.ledger.policies)))
        expected = self.measured[0][0] if self.measured else None
        end = time.monotonic() + PATIENCE
        # It comes to rest when the log tells of everybody.
        while time.monotonic() < end:
            await asyncio.sleep(0.5)
            self.gate.log.read()
            descriptors = self.gate.descriptors()
            told = self.gate.log.count >= len(self.crowd.seen)
            if told and (expected is None or descriptors == expected):
                break
        await asyncio.sleep(1)
        self.measured.append((self.gate.descriptors(), self.gate.memory()))
        print(
            f"round {number}: {len(self.crowd.seen)} connections, {self.reloads} reloads, "
            f"{time.monotonic() - self._begun:.0f} s; at rest "
            f"{self.measured[-1][0]} descriptors, {self.measured[-1][1]:.1f} MB",
            flush=True,
        )

    # Judging.

    def judge(self):
        """Look for everything that was wrong."""
        self.gate.log.read()
        told = {address: iter(found) for address, found in self.gate.log.verdicts.items()}
        for visitor in self.crowd.seen:
            verdict = next(told.get(visitor.address, iter(())), None)
            self.problems += (Problem(*found, visitor) for found in self._wrong(visitor, verdict))
        self.problems += (Problem("log", line) for line in self.gate.log.wrong)

    def _wrong(self, visitor, told):
        if told is None:
            yield "log", "says nothing of it"
            return
        verdict, reason, _ = told
        ledger = self.gate.ledger
        if (visitor.echoed or verdict == "admitted") and not ledger.may_admit(visitor):
            yield "admitted", f"{verdict} in the log, {'' if visitor.echoed else 'not '}by the echo"
        if visitor.echoed and verdict != "admitted":
            yield "log", f"was let in, and logged as {reason}"
        if visitor.was_turned_away and ledger.must_admit(visitor):
            yield "refused", f"{verdict} in the log: {reason}"
        if visitor.kind == "bad" and reason not in BAD[visitor.who]:
            yield "reasons", f"rejected as {reason}"
        if visitor.kind == "stalled" and (reason != "handshake_timeout" or visitor.error):
            yield "reasons", f"stalled, and rejected as {reason}"
        if "TimeoutError" in visitor.error:
            yield "hung", "no answer"

    def report(self):
        """Print all there is to tell, and return whether it was good."""
        seen = self.crowd.seen
        verdicts = [one for found in self.gate.log.verdicts.values() for one in found]
        print(f"\nseed {self.options.seed}: {len(seen)} connections, {self.reloads} reloads")
        for what, counted in (
            ("clients", Counter(one.kind for one in seen)),
            ("whom nobody may admit", Counter(one.who for one in seen if one.may_never_enter)),
            ("verdicts", Counter(reason or verdict for verdict, reason, _ in verdicts)),
            ("resumed, by TLS version", Counter(one.version for one in seen if one.resumed)),
        ):
            print(f"  {what}: {', '.join(f'{n} {name}' for name, n in counted.most_common())}")
        found = Counter(one.bar for one in self.problems)
        descriptors = [one for one, _ in self.measured]
        spread = max(descriptors) - min(descriptors)
        growth = max(memory for _, memory in self.measured[1:]) - self.measured[0][1]
        lacking = abs(len(seen) - len(verdicts))
        bars = [
            ("wrong admissions", found["admitted"], 0),
            ("good clients refused", found["refused"], 0),
            ("clients that could not connect", len(self.crowd.kept_out), 0),
            ("rejected for a wrong reason", found["reasons"], 0),
            ("left without an answer", found["hung"], 0),
            ("connections without a log event, or with two", lacking, 0),
            ("wrong lines in the log", found["log"], 0),
            ("reloads that were not as they should be", found["reloads"], 0),
            ("file descriptors, most less fewest", spread, 0),
            ("MB more than after the warm-up", round(growth, 1), BAR),
            ("exit status of the gate", self.gate.process.returncode, 0),
        ]
        for what, figure, bar in bars:
            verdict = "ok" if figure <= bar else "MISSED"
            print(f"{what:46}{figure:>8}{f'<= {bar}':>8}  {verdict}")
        for problem in self.problems[:MOST_TOLD]:
            print(f"  {problem}")
        if len(self.problems) > MOST_TOLD:
            print(f"  ... and {len(self.problems) - MOST_TOLD} more")
        return not self.problems and all(figure <= bar for _, figure, bar in bars)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("--handshakes", type=int, default=50_000, help="at most (default 50000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of load, at most")
    parser.add_argument("--seed", type=int, default=1, help="for what clients do (default 1)")
    parser.add_argument(
        "--http", action="store_true", help="soak HTTP instead (10 minutes, or --seconds)"
    )
    return parser.parse_args()


def main():
    options = parse_arguments()
    print(f"seed {options.seed}", flush=True)
    if options.http:
        # It needs more programs.
        import soak_http

        soak_http.main(options)
    directory = Path(tempfile.mkdtemp(prefix="mtlsgate-soak-"))
    try:
        with Gate(directory) as gate:
            soak = Soak(gate, options)
            asyncio.run(soak.run())
            gate.stop()
        soak.judge()
        good = soak.report()
    finally:
        shutil.rmtree(directory)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
