"""
When the gate runs in its sandbox, what it allows, and what a reload cannot have.
"""

from __future__ import annotations

import mimetypes
import os
import shutil
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from attrs import evolve

from mtlsgate.acme.storage import Storage
from mtlsgate.acme.wanted import WantedCertificate
from mtlsgate.config import Located, model
from mtlsgate.errors import START, GateError
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.loading import load
from mtlsgate.load.reach import Reach
from mtlsgate.load.shadow import load_shadow
from mtlsgate.load.surroundings import Surroundings
from mtlsgate.run.landlock import Rights, landlock_abi
from mtlsgate.run.sandbox import Sandbox, SandboxChoice, choose_sandbox, make_directories
from mtlsgate.run.sandbox_rights import Allowed, python_directories
from tests.kits.logged import Logged
from tests.kits.programs import BIN, RUN, RunningGate, gate, lacking, program, run


def epoch(sandbox: bool | None = None, **reach: Any) -> Epoch:
    wanted = None if sandbox is None else Located(sandbox, START)
    settings = model.Settings(sandbox=wanted)
    return Epoch("gate.hcl", (), settings, None, (), reach=Reach(**reach))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that is no part of any other that is allowed."""
    with TemporaryDirectory() as name:
        yield Path(name).resolve()


# Whether


def test_it_is_on_where_only_the_gates_own_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where the kernel has it; a tracer such as coverage writes where nobody said."""
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    assert choose_sandbox(epoch(), None, lambda: 7) == SandboxChoice(7)
    found = choose_sandbox(epoch(user_code=('server "x": protocol "custom"',)), None, lambda: 7)
    assert found == SandboxChoice(0, 'server "x": protocol "custom" runs code of yours')
    assert choose_sandbox(epoch(), None, lambda: 0).abi == 0
    assert choose_sandbox(epoch(), {"profile": "x"}, lambda: 7).abi == 0
    monkeypatch.setattr(sys, "gettrace", lambda: print)
    assert choose_sandbox(epoch(), None, lambda: 7).abi == 0


def test_the_configuration_decides() -> None:
    """Also against the default; what the kernel has not is an error then."""
    found = choose_sandbox(epoch(True, user_code=("x",)), None, lambda: 7)
    assert found == SandboxChoice(7, is_required=True)
    assert choose_sandbox(epoch(False), None, lambda: 7).why_not == "sandbox = false"
    with pytest.raises(GateError, match=r"gate\.hcl:1:1: settings: sandbox: this kernel has no"):
        choose_sandbox(epoch(True), None, lambda: 0)


SERVER = """
server "door" {
  hosts = ["127.0.0.1:0"]
  protocol %s
  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }
    client_certificate "clients" {
      ca_certificate_file = "ca.crt"
    }
  }
}
"""


@pytest.mark.parametrize(
    ("protocol", "ports", "reads", "code"),
    [
        ('"echo" {}', [], [], 0),
        ('"whoami" {}', [], [], 0),
        ('"admin" {}', [], [], 0),
        ('"proxy" {\n target = ["127.0.0.1:5432", "unix:/run/x"]\n}', [5432], [], 0),
        ('"http" {\n target = "http://127.0.0.1:8000"\n}', [8000], [], 0),
        ('"web" {\n root = "www"\n}', [], ["www"], 0),
        ('"web" {\n wsgi = "wsgiref.simple_server:demo_app"\n}', [], [], 1),
        ('"custom" {\n factory = "twisted.internet.protocol:Factory"\n}', [], [], 1),
    ],
)
def test_protocols_say_what_they_need(
    demo: Path, protocol: str, ports: list[int], reads: list[str], code: int
) -> None:
    """Ports, directories, and whether they run code of the user's."""
    (demo / "www").mkdir(exist_ok=True)
    config = demo / "needs.hcl"
    config.write_text(SERVER % protocol)
    found = load(config).reach
    assert sorted(found.ports) == ports
    assert found.reads == {demo / name for name in reads}
    assert len(found.user_code) == code


def test_an_authorizer_is_code_of_the_users(demo: Path) -> None:
    """It is named."""
    config = demo / "asks.hcl"
    asks = '  authorize = "os:abort"\n  protocol "echo" {}'
    config.write_text(SERVER.replace("  protocol %s", asks))
    assert load(config).reach.user_code == ('server "door": authorize',)


def test_client_gates_reach_their_targets(demo: Path) -> None:
    """And write their sockets."""
    config = demo / "client.hcl"
    config.write_text(
        'client "redis" {\n  hosts = ["unix:/run/redis/gate.sock"]\n'
        '  target = "gate.example:8443"\n  tls {\n    server_ca_certificate_file = "ca.crt"\n'
        '    client_certificate_file = "client.crt"\n    client_private_key_file = "client.key"\n'
        "  }\n}\n"
        'settings {\n  audit {\n    file = "log/audit.log"\n  }\n}\n'
    )
    found = load(config).reach
    assert found.ports == {8443}
    assert found.writes == {Path("/run/redis/gate.sock"), demo / "log/audit.log"}


@pytest.mark.parametrize(
    ("url", "reach"),
    [
        ("redis://r.example:7000/1", ({7000}, False)),
        ("rediss://r.example", ({6379}, False)),
        ("unix:///run/redis.sock", (set(), False)),
        ("redis+sentinel://a,b:7000/main", (set(), True)),
        ("redis+cluster://a,b:7000", (set(), True)),
        ("postgresql://a,[::1],b:7000/devices", ({5432, 7000}, False)),
        ("postgresql://%2Frun%2Fpostgresql/devices", (set(), False)),
        ("postgresql:///devices?host=a", (set(), True)),
    ],
)
def test_registries_are_reached(demo: Path, url: str, reach: tuple[set[int], bool]) -> None:
    """At all ports where servers name others."""
    config = demo / "registry.hcl"
    block = f'registry "devices" {{\n  url = "{url}"\n}}\n'
    config.write_text(block + SERVER % '"echo" {}')
    found = load(config).reach
    assert (set(found.ports), found.any_port) == reach


# What it allows


def test_the_directories_of_what_was_read(place: Path) -> None:
    """And those that links lead to: either may be renamed over."""
    for name in ("gate", "live", "elsewhere"):
        (place / name).mkdir()
    (place / "live" / "key").touch()
    (place / "gate" / "key").symlink_to(place / "live" / "key")
    allowed = Allowed.by(Reach(), [place / "gate" / "key", place / "gate" / "missing"])
    assert allowed.rights.read == {place / "gate", place / "live"}
    assert allowed.may_read(place / "live" / "another")
    assert not allowed.may_read(place / "elsewhere" / "x")


@pytest.mark.parametrize("name", ["/etc/hostname", "/gate.hcl", "/root/gate.hcl", "/tmp/gate.hcl"])
def test_of_a_directory_with_more_than_the_gates_only_the_file(name: str) -> None:
    """Nobody means all of /etc with a file in it; nor a home directory."""
    allowed = Allowed.by(Reach(), [Path(name)])
    assert allowed.rights.read == {Path(name).resolve()}
    home = Allowed.by(Reach(), [Path("/srv/alice/gate.hcl")], home=Path("/srv/alice"))
    assert home.rights.read == {Path("/srv/alice/gate.hcl")}


def test_such_a_file_is_not_another_of_its_name(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel holds the file, and not its name."""
    (place / "gate.hcl").touch()
    allowed = Allowed.by(Reach(), [place / "gate.hcl"], home=place)
    assert allowed.may_read(place / "gate.hcl")
    (place / "new").touch()
    (place / "new").replace(place / "gate.hcl")
    assert not allowed.may_read(place / "gate.hcl")


def test_logs_and_sockets_are_made_in_their_directories(place: Path) -> None:
    """Also in /run; of /etc only the file itself can be written."""
    reach = Reach(writes=frozenset(map(Path, ("/run/gate.sock", "/etc/x.log", f"{place}/a.log"))))
    allowed = Allowed.by(reach, ())
    assert allowed.rights.write == {Path("/run").resolve(), Path("/etc/x.log"), place}


def test_names_are_looked_up_only_for_targets() -> None:
    """Without a target nothing is connected to, not even a name server."""
    assert Allowed.by(Reach(), ()).rights.ports == frozenset()
    assert Allowed.by(Reach(ports=frozenset([5432])), ()).rights.ports == {53, 5432}


def test_where_nobody_knows_the_ports_none_is_given_up(place: Path) -> None:
    """Of files it allows no more than otherwise."""
    allowed = Allowed.by(Reach(any_port=True), [place / "gate.hcl"])
    assert allowed.rights.any_port
    assert list(allowed.missing(Reach(ports=frozenset([5432])), ())) == []
    assert [*Allowed.by(Reach(), ()).missing(Reach(any_port=True), ())] == [
        "registry: the gate's sandbox does not allow to connect to all ports"
    ]
    assert not allowed.may_read(Path("/etc/shadow"))


def test_what_python_reads_is_not_everything() -> None:
    """Whatever is in sys.path: the directory where the gate was started may be /."""
    read, listed = python_directories()
    assert not {Path("/"), Path("/etc"), Path.home(), Path.cwd()} & set(read)
    assert not {Path("/"), Path("/etc")} & set(listed)
    # Python fails if one of these is there and cannot be read: a reload may import it.
    assert set(map(Path, mimetypes.knownfiles)) <= set(read)


# Entering it


def test_it_is_entered_once_and_says_what_it_allows(place: Path) -> None:
    """Before privileges are dropped, if twistd does that; threads that end are waited for."""
    entered: list[Rights] = []
    allowed = Allowed.by(Reach(ports=frozenset([5432])), [place / "gate.hcl"])
    threads = iter([2, 2, 1])

    def enter(rights: Rights, abi: int) -> None:
        entered.append(rights)

    sandbox = Sandbox(SandboxChoice(7), allowed, enter, lambda: next(threads), no_pause)
    with Logged("mtlsgate.service") as logged:
        sandbox.privilegedStartService()
        sandbox.startService()
    [rights] = entered
    assert place in rights.read
    assert Path("/proc") in rights.read
    assert logged.events[0]["ports"] == "53, 5432"


def no_pause(seconds: float) -> None:
    """Time goes by at once."""


def refuse(rights: Rights, abi: int) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_sandbox_that_cannot_be_entered() -> None:
    """By default the gate runs without, and says so; one that must have it does not start."""
    nothing = Allowed.by(Reach(), ())
    with_threads = Sandbox(SandboxChoice(7), nothing, refuse, lambda: 2, no_pause)
    refused = Sandbox(SandboxChoice(7), nothing, refuse, lambda: 1)
    for sandbox, why in ((with_threads, "other threads"), (refused, "not permitted")):
        with Logged("mtlsgate.service") as logged:
            sandbox.startService()
        assert logged.events[0]["log_level"].name == "warn"
        assert why in logged.events[0]["why"]
        assert sandbox.status.startswith("off: ")
        assert sandbox.allowed is None
    required = Sandbox(SandboxChoice(7, is_required=True), nothing, refuse, lambda: 1)
    with pytest.raises(SystemExit, match="sandbox: Operation not permitted; settings"):
        required.startService()


def test_without_it_the_log_says_why() -> None:
    """And the status does."""
    sandbox = Sandbox(SandboxChoice(why_not="x runs code of yours"), Allowed.by(Reach(), ()))
    with Logged("mtlsgate.service") as logged:
        sandbox.startService()
    assert logged.events[0]["why"] == "x runs code of yours"
    assert sandbox.status == "off: x runs code of yours"
    assert Sandbox(SandboxChoice(7), Allowed.by(Reach(), ())).status == "on (Landlock 7)"


# Reloads


def reloaded(sandbox: Sandbox, epoch: Epoch, *seen: Path) -> Epoch:
    return sandbox.guarded(lambda _: epoch, lambda: dict.fromkeys(seen))(False)


def test_a_reload_that_needs_more_is_refused(place: Path) -> None:
    """Each line says what, and that it takes a restart; the sandbox cannot be widened."""
    (place / "gate").mkdir()
    (place / "new").mkdir()
    sandbox = Sandbox(SandboxChoice(7), Allowed.by(Reach(), [place / "gate" / "gate.hcl"]))
    fine = epoch()
    assert reloaded(sandbox, fine, place / "gate" / "other.hcl") is fine
    with pytest.raises(GateError) as caught:
        reloaded(
            sandbox,
            epoch(
                reads=frozenset([place / "new"]),
                writes=frozenset([place / "new" / "x.log"]),
                ports=frozenset([5432]),
                user_code=('server "x": authorize',),
            ),
        )
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert all(line.endswith(": restart the gate") for line in lines)
    assert lines[2].startswith("the gate's sandbox does not allow to connect to port 5432")


def test_a_load_that_fails_for_want_of_rights_says_so(place: Path) -> None:
    """ "Permission denied" alone would not lead to the sandbox."""
    (place / "gate").mkdir()
    (place / "key").touch()
    sandbox = Sandbox(SandboxChoice(7), Allowed.by(Reach(), [place / "gate" / "gate.hcl"]))

    def fail(_: bool) -> Epoch:
        raise GateError("gate.hcl:1:1: key: permission denied")

    with pytest.raises(GateError) as caught:
        sandbox.guarded(fail, lambda: {place / "key": None})(False)
    assert str(caught.value).splitlines() == [
        f"{place}/key: the gate's sandbox does not allow to read it: restart the gate",
        "gate.hcl:1:1: key: permission denied",
    ]
    with pytest.raises(GateError) as caught:
        sandbox.guarded(fail, dict)(False)
    assert "sandbox" not in str(caught.value)


def test_a_reload_cannot_switch_it() -> None:
    """Neither on nor off; with the default, a gate outside stays outside."""
    on = Sandbox(SandboxChoice(7), Allowed.by(Reach(), ()))
    off = Sandbox(SandboxChoice(why_not="x"), Allowed.by(Reach(), ()))
    for sandbox, wanted in ((on, False), (off, True)):
        with pytest.raises(GateError, match=r"gate\.hcl:1:1: settings: sandbox: .*restart it"):
            reloaded(sandbox, epoch(wanted))
    for sandbox in (on, off):
        reloaded(sandbox, epoch())
    reloaded(on, epoch(True))
    reloaded(off, epoch(False))
    reloaded(off, epoch(user_code=("x",), ports=frozenset([1])))
    reloaded(on, epoch(True, user_code=("x",)))


# The real program


#: Of coverage, which writes its file where the sandbox does not let it.
_UNTRACED = (program("env"), "-u", "COVERAGE_PROCESS_START")


@pytest.fixture
def site(demo: Path, place: Path) -> Path:
    """A gate that shows files, among them a link to what is outside."""
    if not landlock_abi():
        lacking("this kernel has no Landlock")
    here = place / "etc"
    here.mkdir()
    for path in demo.iterdir():
        if path.is_file():
            shutil.copy(path, here)
    (here / "www").mkdir()
    (here / "www" / "inside.txt").write_text("inside")
    (here / "secret").mkdir()
    (here / "secret" / "key").write_text("secret")
    (place / "outside.txt").write_text("outside")
    return here


def configured(site: Path, protocol: str, settings: str = "sandbox = true") -> Path:
    config = site / "gate.hcl"
    config.write_text(f"settings {{\n{settings}\n}}\n{SERVER % protocol}")
    return config


def fetched(running: RunningGate, site: Path, path: str) -> str:
    """:returns: the status and the body."""
    return run(
        program("curl"), "-sS", "-w", "%{http_code}", "--cacert", site / "ca.crt",
        "--cert", site / "client.crt", "--key", site / "client.key",
        f"https://localhost:{running.port('door')}/{path}",
    )[1]  # fmt: skip


@pytest.mark.slow
def test_a_running_gate_reads_nothing_outside(site: Path) -> None:
    """A protocol with a hole: it opens whatever file a client names. Of /etc/shadow and of a
    directory beside the gate's it gets nothing, as root; of the gate's own it gets all."""
    (site / "hole.py").write_text(
        "from twisted.internet.protocol import Factory, Protocol\n"
        "from twisted.web.resource import Resource\n"
        "class Hole(Resource):\n"
        "    isLeaf = True\n"
        "    def render_GET(self, request):\n"
        "        try:\n"
        "            with open(b'/' + b'/'.join(request.postpath), 'rb') as file:\n"
        "                return b'read ' + file.read(3)\n"
        "        except OSError as error:\n"
        "            return str(error.errno).encode()\n"
        "hole = Hole()\n"
    )
    config = configured(site, '"web" {\n  resource = "hole:hole"\n}')
    with gate(config, (*_UNTRACED, str(BIN / RUN[0]), *RUN[1:])) as running:
        assert "in a sandbox: reads" in "".join(running.lines)
        assert fetched(running, site, "etc/shadow") == "13200"
        assert fetched(running, site, f"{site.parent}/outside.txt"[1:]) == "13200"
        assert fetched(running, site, f"{site}/ca.crt"[1:]) == "read ---200"
        running.process.send_signal(signal.SIGHUP)
        running.read_until("epoch 2 is in force")
        assert "Traceback" not in running.stop()


@pytest.mark.slow
def test_a_running_gate_follows_no_link_outside(site: Path) -> None:
    """Files of the directory are shown, also those that come later; and a reload reads what
    was renamed into place, writes the logs, removes the pid file."""
    config = configured(
        site,
        '"web" {\n  root = "www"\n}',
        'audit {\n  file = "audit.log"\n}\nlog {\n  file = "gate.log"\n}\nsandbox = true',
    )
    command = (
        *_UNTRACED,
        str(BIN / "twistd"),
        "-n",
        f"--pidfile={site.parent}/gate.pid",
        "--logfile=-",
    )
    with gate(config, command) as running:
        assert fetched(running, site, "inside.txt") == "inside200"
        (site / "www" / "later.txt").write_text("later")
        assert fetched(running, site, "later.txt") == "later200"
        text = config.read_text()
        (site / "new").write_text(text.replace('"gate.log"', '"other.log"'))
        (site / "new").replace(config)
        running.process.send_signal(signal.SIGHUP)
        running.read_until("epoch 2 is in force")
        (site / "audit.log").rename(site / "audit.log.1")
        running.process.send_signal(signal.SIGUSR1)
        running.read_until("the audit log goes on in")
        proxy = text.replace('"web"', '"proxy"').replace('root = "www"', 'target = "127.0.0.1:9"')
        config.write_text(proxy)
        running.process.send_signal(signal.SIGHUP)
        assert "does not allow to connect to port 9" in running.read_until("restart the gate")
        running.read_until("epoch 2 stays in force")
        assert (site.parent / "gate.pid").exists()
        assert "Traceback" not in running.stop()
    assert not (site.parent / "gate.pid").exists()


def test_what_only_root_may_see_keeps_no_worker_from_its_sandbox(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins as the gate's user."""

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    allowed = Allowed.by(Reach(), [place / "gate.hcl"])
    assert allowed.rights.read == {place}
    assert list(allowed.missing(Reach(), [place / "gate.hcl"])) == []


def test_what_only_root_may_see_counts_as_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After privileges were dropped, the reader of root's files reads it for the gate."""
    allowed = Allowed.by(Reach(), [place / "gate.hcl"])

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    assert list(allowed.missing(Reach(), [place / "key"])) == []
    (line,) = allowed.missing(Reach(), [Path("/nowhere/key")])
    assert line.startswith("/nowhere/key: ")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as somebody else")
@pytest.mark.parametrize("directory_owner", [(12345, 54321), (0, 0)])
def test_what_the_gate_writes_to_is_its_users(directory_owner: tuple[int, int]) -> None:
    """Made while it is still root, in a directory of theirs and in one of root's.  What was there
    before stays whose it is."""
    user = (12345, 54321)
    with TemporaryDirectory() as name:
        os.chown(name, *directory_owner)
        os.chmod(name, 0o755)
        places = Path(name) / "new" / "acme", Path(name) / "old"
        places[1].mkdir(0o700)
        wanted = [
            WantedCertificate(directory="https://ca/", names=("a",), storage=Storage(place))
            for place in places
        ]
        make_directories(evolve(epoch(), wanted=tuple(wanted)), user)
        new, old = (place.stat() for place in places)
    assert ((new.st_uid, new.st_gid), stat.S_IMODE(new.st_mode)) == (user, 0o700)
    assert old.st_uid == 0


def test_a_shadow_that_the_sandbox_does_not_allow_to_read(place: Path) -> None:
    """It is not in the shadow, and it says what to do; the configuration in force is."""
    (place / "far").mkdir()
    far = place / "far" / "next.hcl"
    far.write_text("server {")
    allowed = Allowed.by(Reach(), [place / "near" / "gate.hcl"])
    sandbox = Sandbox(SandboxChoice(7), allowed)
    found = sandbox.guarded_shadow(lambda path: load_shadow(path, Surroundings()))(far)
    assert found.epoch is None
    assert found.problems[0] == (
        f"{far}: the gate's sandbox does not allow to read it: name it in settings {{ shadow }} "
        "and restart the gate, or put it beside gate.hcl"
    )
    named = evolve(epoch(), shadow=found)
    kept = sandbox.guarded(lambda _: named, dict)(False)
    assert kept.shadow is not None
    assert kept.shadow.problems[0] == found.problems[0]


def test_a_shadow_whose_registry_the_sandbox_does_not_allow_to_ask(demo: Path) -> None:
    """It judges all the same, and says what it cannot ask.  A gate that starts with it may."""
    registry = 'registry "devices" {\n  url = "redis://127.0.0.1:6379"\n}\n'
    server = SERVER.replace('"ca.crt"', '"ca.crt"\n      registry = "devices"') % '"echo" {}'
    config = demo / "next.hcl"
    config.write_text(registry + server)
    shadow = load_shadow(config, Surroundings())
    narrow = Sandbox(SandboxChoice(7), Allowed.by(Reach(), shadow.seen))
    expected = (
        "the gate's sandbox does not allow to connect to port 6379: name the file in "
        "settings { shadow } and restart the gate",
    )
    found = narrow.guarded_shadow(lambda _: shadow)(config)
    assert (found.epoch, found.barred) == (shadow.epoch, expected)
    named = evolve(epoch(), shadow=shadow)
    kept = narrow.guarded(lambda _: named, dict)(False)
    assert kept.shadow is not None
    assert kept.shadow.barred == expected
    wide = Sandbox(SandboxChoice(7), Allowed.by(named.reach_with_shadow, shadow.seen))
    assert wide.guarded_shadow(lambda _: shadow)(config).barred == ()
