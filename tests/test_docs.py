"""
The documentation is true: every sample in it is loaded or run.

How a page is written so that it can be:

- A ``hcl`` block is a whole file.  Where it is not, a comment in front of it says
  so: ``<!-- hcl: inside tls -->`` (or ``beside a server``, ``inside server``,
  ``inside rule``, which has a CA and nothing else) has the rest made around it,
  ``<!-- hcl: refused -->`` says that it is in error, as the ``text`` block after it
  says.  Files that it names are made for it.
- A ``console`` or ``sh`` block is run, all of a page in order, in one directory.
  In ``console`` commands follow ``$``, and what follows them is what they print,
  ``...`` standing for anything.  ``<!-- before: command -->`` prepares something.
  Gates are started in the background, on another port than 8443.
- A block in any language with ``<!-- hcl: file NAME -->`` (or ``python:``, ``text:``) in
  front of it is written to that file, for the commands after it.
- A ``python`` block is run, its tests too.  ``<!-- python: module name -->`` names a
  module of the page's, and an ``ini`` block the entry points that go with these.
"""

from __future__ import annotations

import base64
import configparser
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import pytest
from attrs import frozen
from sphinx.search.en import SearchEnglish
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface.interface import InterfaceClass

from mtlsgate import interfaces
from mtlsgate.config import model
from mtlsgate.config.expressions import evaluate
from mtlsgate.config.fields import fields_of
from mtlsgate.config.functions import FUNCTIONS
from mtlsgate.config.scope import Scope
from mtlsgate.config.syntax import parse
from mtlsgate.errors import ConfigError, Report
from mtlsgate.http.refusal import REASONS
from mtlsgate.load.loading import load
from mtlsgate.reasons import About, Cause, Reason
from mtlsgate.testing import Authority, Client, gate, self_signed
from tests.kits.docs import DOCS, PAGES, README, ROOT, make_files, sections
from tests.kits.samples import BEFORE, Sample, samples
from tests.kits.shell import Shell, commands, is_test_command

CHAT = DOCS / "examples" / "chat"

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its docs")


def test_there_are_samples() -> None:
    """The tests below find what they are to test."""
    for language, least in (("hcl", 10), ("console", 10), ("sh", 2), ("python", 4)):
        assert len(samples(language)) >= least


# HCL


def whole(sample: Sample) -> str:
    """:returns: the sample, with what is around it."""
    if "inside server" in sample.note:
        rest = "" if 'protocol "' in sample.text else '  protocol "echo" {}\n'
        # At the margin, or indented as in a server; deeper, it is that of a protocol.
        if not re.search(r"^(?:  )?tls \{", sample.text, re.MULTILINE):
            rest += '  tls {\n    client_certificate { ca_certificate_file = "ca.crt" }\n  }\n'
        return f'server {{\n  hosts = ["127.0.0.1:0"]\n{rest}{sample.text}}}\n'
    if "beside a server" in sample.note:
        rule = 'client_certificate { ca_certificate_file = "ca.crt" }'
        server = f'hosts = ["127.0.0.1:0"]\nprotocol "echo" {{}}\ntls {{\n{rule}\n}}\n'
        return f"{sample.text}server {{\n{server}}}\n"
    if "inside rule" in sample.note:
        inner = f'client_certificate {{\nca_certificate_file = "ca.crt"\n{sample.text}}}\n'
        return f'server {{\nhosts = ["127.0.0.1:0"]\nprotocol "echo" {{}}\ntls {{\n{inner}}}\n}}\n'
    if "inside tls" in sample.note:
        return (
            'server {\n  hosts = ["127.0.0.1:0"]\n  protocol "echo" {}\n'
            f"  tls {{\n{sample.text}  }}\n}}\n"
        )
    return sample.text


ENVIRONMENT = {"LAPTOP_CERTIFICATE": base64.b64encode(self_signed("laptop").der).decode()}


@pytest.mark.parametrize(
    # A gate runs with what is written to a file, see the commands.
    "sample",
    [one for one in samples("hcl") if "hcl: file" not in one.note],
    ids=str,
)
def test_configurations_load(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration loads, without a warning, or is refused as the page says."""
    install_modules(sample.page, tmp_path, monkeypatch)
    text = whole(sample)
    for directory in (tmp_path, tmp_path / "pki"):
        make_files(directory, text)
    config = tmp_path / "gate.hcl"
    config.write_text(text)
    if "refused" not in sample.note:
        assert load(str(config), ENVIRONMENT).warnings == ()
        return
    with pytest.raises(ConfigError) as caught:
        load(str(config), ENVIRONMENT)
    said, expected = str(caught.value).replace(str(config), "gate.hcl"), sample.after.rstrip()
    if "inside" in sample.note:
        said, expected = (re.sub(r":\d+:\d+:", ":", one) for one in (said, expected))
    assert said == expected


# Python


def write_modules(page: Path, directory: Path) -> set[str]:
    """
    Write the modules of a page, and as a distribution what its ``ini`` block
    says of entry points.

    :returns: the modules' names.
    """
    names = set()
    for sample in samples("python"):
        named = re.match(r"python: module (\w+)", sample.note)
        if sample.page == page and named:
            names.add(named[1])
            (directory / f"{named[1]}.py").write_text(sample.text)
    for sample in samples("ini"):
        parsed = configparser.ConfigParser(interpolation=None)
        parsed.read_string(sample.text)
        if sample.page == page and parsed.has_section("options.entry_points"):
            metadata = directory / "sample-1.dist-info"
            metadata.mkdir()
            (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sample\nVersion: 1\n")
            groups = parsed.items("options.entry_points")
            (metadata / "entry_points.txt").write_text(
                "\n".join(f"[{group}]{lines}" for group, lines in groups)
            )
    return names


def install_modules(page: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the modules of a page importable, and its plugins known."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in write_modules(page, directory):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(directory)


@pytest.mark.slow
@pytest.mark.parametrize("sample", samples("python"), ids=str)
def test_python_samples_run(sample: Sample, tmp_path: Path) -> None:
    """A Python sample imports, and what tests it holds pass."""
    write_modules(sample.page, tmp_path)
    (tmp_path / "test_sample.py").write_text(sample.text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    nothing_collected = 5
    assert done.returncode in (0, nothing_collected), done.stdout + done.stderr
    assert ("def test_" in sample.text) == (done.returncode == 0)


@frozen
class FakeEnvironment:
    """An `IProtocolEnvironment` whose reactor is a clock."""

    reactor: Clock
    server: str = "test"
    directory: Path = Path()


def test_the_plugin_on_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The countdown of plugins.md counts down, and then says goodbye."""
    install_modules(DOCS / "plugins.md", tmp_path, monkeypatch)
    countdown = importlib.import_module("countdown")
    clock, transport = Clock(), StringTransport()
    configuration = countdown.CountdownConfiguration(start=3, every=0.5)
    factory = countdown.plugin.build(configuration, FakeEnvironment(clock))
    factory.buildProtocol(None).makeConnection(transport)
    clock.pump([0.5, 0.5])
    assert transport.value() == b"3\n2\n1\n"
    assert transport.disconnecting
    sys.modules.pop("countdown")


# The tutorial's example


@pytest.fixture
def chat_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the example, which it is imported from."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "chat", raising=False)
    shutil.copytree(CHAT, tmp_path, dirs_exist_ok=True)
    make_files(tmp_path, (CHAT / "gate.hcl").read_text())
    yield tmp_path / "gate.hcl"
    sys.modules.pop("chat", None)


def test_the_tutorials_chat_runs(chat_config: Path) -> None:
    """The example's configuration loads as it is, and its chat greets a member by name."""
    authority = Authority.create("Chat CA")
    (chat_config.parent / "ca.crt").write_bytes(authority.pem)
    clock = Clock()
    client = Client(gate(chat_config, clock), authority.issue("Alice"), clock=clock)
    client.handshake()
    assert client.receive() == b"Welcome, Alice!\n"


@pytest.mark.slow
def test_the_tutorials_own_tests_pass(tmp_path: Path) -> None:
    """docs/examples/chat/test_chat.py, as its reader would run it."""
    shutil.copytree(CHAT, tmp_path, dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


_BEFORE_AND_NOTES = re.compile(r"<!--.*?-->\n?")


# Shell


def is_run_for_readme(page: Path, command: str) -> bool:
    """:returns: whether it installs as the README does, whose own command is run."""
    installed = "pip install" in command and page != README
    return installed and any(command in one.text for one in samples("sh") if one.page == README)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty directory."""
    made = Shell(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def pages_with_commands() -> list[Path]:
    return list(dict.fromkeys(sample.page for sample in samples("sh", "console")))


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with_commands(), ids=lambda page: page.name)
def test_commands_do_what_the_page_says(page: Path, shell: Shell) -> None:
    """All of a page's commands, in order, print what it shows."""
    if page == README:
        copy_checkout(shell.directory)
    for command in BEFORE.findall(page.read_text()):
        shell.run(command, None)
    for sample in samples():
        if sample.page != page:
            continue
        if named := re.search(r"\bfile ([\w./-]+)", sample.note):
            shell.write(named[1], sample.text)
        elif sample.language in ("sh", "console"):
            for command, expected in commands(sample):
                if not (is_test_command(command) or is_run_for_readme(page, command)):
                    shell.run(command, expected)


def copy_checkout(directory: Path) -> None:
    """What a fresh clone has."""
    made = ("venv", ".venv", "build", "dist", "demo", "*.egg-info", "_build", "__pycache__")
    caches = (
        ".git",
        ".*_cache",
        ".hypothesis",
        ".coverage*",
        "dropin.cache",
        "twistd.log*",
        "twistd.pid",
    )
    shutil.copytree(
        ROOT, directory, ignore=shutil.ignore_patterns(*made, *caches), dirs_exist_ok=True
    )


def test_the_first_two_commands_are_run_and_test() -> None:
    """The README begins with one line to run it, and one line to test it."""
    run, test = (sample.text.splitlines() for sample in samples("sh") if sample.page == README)
    assert len(run) == len(test) == 1
    assert run[0].endswith("venv/bin/twistd -n mtlsgate --config demo/gate.hcl")
    assert is_test_command(test[0])
    assert '".[test]"' in test[0]
    assert run[0].startswith("python3 -m venv venv && ")
    assert test[0].startswith("python3 -m venv venv && ")
    assert README.read_text().index(test[0]) < 2000
    script = ROOT / ".ci" / "run"
    assert not script.exists() or test[0] in script.read_text()


@pytest.mark.slow
def test_the_systemd_unit_starts_a_gate(shell: Shell) -> None:
    """What the unit runs is a gate that listens."""
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "contrib" / "systemd" / "mtlsgate.service")
    shell.run("mtlsgate init demo", None)
    command = unit["Service"]["ExecStart"].replace("/opt/mtlsgate/venv/bin/", "")
    shell.run(command.replace("/etc/mtlsgate/gate.hcl", "demo/gate.hcl"), "...")
    assert shell.gate is not None


# Nothing is left out


def test_every_reason_has_a_section() -> None:
    """reasons.md describes all reasons and causes, and no others, each with what to do."""
    described = sections(DOCS / "reasons.md", 3)
    assert set(described) == set(Reason)
    chapters = sections(DOCS / "reasons.md", 2)
    found = [set(re.findall(r"^### `(\w+)`$", each, re.MULTILINE)) for each in chapters.values()]
    for about in About:
        assert {reason for reason in Reason if reason.about is about} in found
    causes = chapters["Why a connection ended"]
    assert set(re.findall(r"^\| `(\w+)` \|", causes, re.MULTILINE)) == set(Cause)
    links = set(re.findall(r"\(reasons\.md#(\w+)\)", (DOCS / "logging.md").read_text()))
    assert links == set(Reason)
    for name, text in described.items():
        for part in ("Client sees", "Check", "Do"):
            assert f"- **{part}:**" in text, (name, part)


def test_the_http_gates_own_status_codes_are_described() -> None:
    """http.md has all of them and no others."""
    text = sections(DOCS / "http.md", 2)["Status codes"]
    assert set(map(int, re.findall(r"^\| ([0-9]{3}) \|", text, re.MULTILINE))) == set(REASONS)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_is_closed_and_says_what_it_is(page: Path) -> None:
    """Or text becomes code from there on, and the sample is neither loaded nor run."""
    fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
    assert all(fences[::2])
    assert not any(fences[1::2])
    assert len(fences) % 2 == 0


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page not in (README, DOCS / "index.md")],
    ids=lambda p: p.name,
)
def test_a_page_says_for_whom_it_is(page: Path) -> None:
    """In its first line; and the index leads to it."""
    text = _BEFORE_AND_NOTES.sub("", page.read_text())
    assert re.match(r"\s*# [^\n]+\n\n+This page is for (you|operators) ", text)
    name = page.relative_to(DOCS).with_suffix("")
    assert f"\n{name}\n" in (DOCS / "index.md").read_text()


def test_every_block_is_in_the_reference() -> None:
    """No block that a file may hold is missing."""
    named = " ".join(sections(DOCS / "configuration.md", 2)).split()
    for block in (model.Configuration, model.Server, model.Tls, model.ClientCertificate):
        for one in fields_of(block):
            if one.source in ("block", "blocks"):
                assert one.name in named
    assert attrs.has(model.Protocol)


def test_every_public_attribute_of_a_peer_is_described() -> None:
    """plugins.md has all of what the interfaces promise."""
    text = (DOCS / "plugins.md").read_text()
    for one in (interfaces.IVerifiedPeer, interfaces.IProtocolEnvironment):
        assert isinstance(one, InterfaceClass)
        for name in one:
            assert re.search(rf"`{name}(\(.*\))?`", text), name


def test_the_tests_that_standards_name_exist() -> None:
    """standards.md points at test modules that exist."""
    named = set(re.findall(r"`([\w/]*\btest_\w+)`", (DOCS / "standards.md").read_text()))
    assert len(named) > 40
    for name in named:
        assert (ROOT / "tests" / f"{name}.py").is_file(), name


def test_the_tests_that_drills_name_exist() -> None:
    """operations.md names tests that exist, one at least for each drill."""
    text = sections(DOCS / "operations.md", 2)["Drills"]
    rows = re.findall(r"^\| (?!-|drill|behaviour)(.*) \|$", text, re.MULTILINE)
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"`([\w/]*\btest_\w+)::(test_\w+)`", row)
        assert named, row
        for module, name in named:
            path = ROOT / "tests" / f"{module}.py"
            assert path.is_file(), row
            assert re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE), (module, name)


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("[A-Z]*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files that are there, and headings that are in them."""
    for target in re.findall(r"\]\(([^):]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, target


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("[A-Z]*.md")], ids=lambda page: page.name)
def test_links_to_other_sites_are_well_formed(page: Path) -> None:
    """With https, a host that may exist, and nothing that belongs to the sentence around."""
    for target in re.findall(r"\]\(([^)]*:[^)]*)\)", page.read_text()):
        parts = urlsplit(target)
        assert parts.scheme == "https", target
        assert re.fullmatch(r"(?:[a-z0-9-]+\.)+[a-z]{2,}", parts.netloc), target
        assert not parts.netloc.endswith((".example", ".test", ".local")), target
        assert re.fullmatch(r"[!-~]*[\w/]", target), target
        assert "/" in parts.path, target


def test_pictures_are_small_and_used() -> None:
    """Each is at most 150 kB, and a page shows it."""
    shown = " ".join(page.read_text() for page in PAGES)
    for picture in (DOCS / "images").iterdir():
        assert picture.stat().st_size <= 150_000, picture
        assert f"images/{picture.name}" in shown, picture


# The site


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:returns: a directory with the pages as HTML."""
    built = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(DOCS), str(built)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return built


class _Text(HTMLParser):
    """Collects what stands outside of code and pictures, and how many rows tables have."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.rows = 0
        self._within: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.rows += tag == "tr"
        if tag in ("pre", "code", "script", "style", "svg", "title"):
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._within and self._within[-1] == tag:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if not self._within:
            self.text += data


@pytest.mark.slow
def test_every_table_is_a_table(html: Path) -> None:
    """A table that a blank line splits would show as raw text."""
    pages = [page for page in PAGES if page != README]
    for page in pages:
        read = _Text()
        read.feed((html / page.relative_to(DOCS).with_suffix(".html")).read_text())
        raw = re.search(r"^\s*\|.*|.*\|\s*--.*", read.text, re.MULTILINE)
        assert raw is None, (page.name, raw.group())
        written = page.read_text()
        fenced = re.sub(r"^```.*?^```", "", written, flags=re.MULTILINE | re.DOTALL)
        lines = re.findall(r"^ *(\|.*\|)$", fenced, re.MULTILINE)
        rules = [line for line in lines if re.fullmatch(r"\|(?:\s*:?-+:?\s*\|)+", line)]
        assert read.rows == len(lines) - len(rules), page.name


#: What people search for, and the page that helps them.
SEARCHED = {
    "kubernetes": "kubernetes",
    "docker": "container",
    "podman": "container",
    "ghostunnel": "how-to/moving",
    "stunnel": "how-to/moving",
    "nginx": "how-to/moving",
    "couper": "how-to/moving",
    "grpc": "grpc",
    "psql": "how-to/postgresql",
    "redis-cli": "how-to/redis",
    "mosquitto": "how-to/mqtt",
    "fastapi": "how-to/fastapi",
    "flask": "how-to/flask",
    "haproxy": "how-to/balancers",
    "step-ca": "how-to/ca",
    "prometheus": "how-to/monitoring",
    "systemd": "systemd",
}


@pytest.mark.slow
def test_search_finds_what_people_look_for(html: Path) -> None:
    """As the site's search does it: every stem of a word, in the index of the built pages."""
    written = (html / "searchindex.js").read_text()
    index = json.loads(written[written.index("(") + 1 : written.rindex(")")])
    language = SearchEnglish({})
    for words, page in SEARCHED.items():
        for word in language.split(words):
            pages: set[str] = set()
            for kind in ("terms", "titleterms"):
                found = index[kind].get(language.stem(word.lower()), [])
                numbers = found if isinstance(found, list) else [found]
                pages |= {index["docnames"][number] for number in numbers}
            assert page in pages, (word, pages)


def test_every_function_does_what_the_page_says(tmp_path: Path) -> None:
    """The table of functions has all of them, with examples that are true."""
    (tmp_path / "motd").write_text("Hello\n")
    scope = Scope({}, lambda name: (tmp_path / name).read_bytes())

    def value(text: str) -> object:
        body = parse(f"x = {text}\n".encode(), Report("f"))
        assert body is not None, text
        return evaluate(body.attributes[0].expression, scope).plain()

    page = (DOCS / "configuration.md").read_text()
    table = page.partition("### Functions")[2].partition("```")[0]
    named: set[str] = set()
    for line in re.findall(r"^\| `.*$", table, re.MULTILINE):
        functions, _, example, expected = line.strip("| ").split(" | ")
        named |= set(re.findall(r"`(\w+)\(", functions))
        assert value(example.strip("`")) == value(expected.strip("`")), line
    assert named == {*FUNCTIONS, "can", "coalesce", "default"}
