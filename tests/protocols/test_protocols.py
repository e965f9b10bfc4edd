from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from zope.interface import alsoProvides, implementer
from zope.interface.verify import verifyObject

from mtlsgate import protocols
from mtlsgate.config import Located, Material, Misconfigured
from mtlsgate.errors import Position
from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin
from mtlsgate.protocols import PluginError, ProtocolEnvironment, find_plugin
from mtlsgate.protocols.custom import CustomPlugin
from mtlsgate.protocols.echo import EchoPlugin
from mtlsgate.protocols.whoami import WhoAmIPlugin
from tests.kits.pki import Site, server


@frozen
class Settings:
    size: int = 1


@implementer(IProtocolPlugin)
@frozen
class Plugin:
    """A plugin; what it builds, or raises, can be said."""

    name: str = "mine"
    configuration: Any = Settings
    result: Any = None

    def build(self, configuration: Any, environment: IProtocolEnvironment) -> IProtocolFactory:
        if isinstance(self.result, BaseException):
            raise self.result
        built: IProtocolFactory = self.result or Factory.forProtocol(Protocol)
        return built


good = Plugin()
renamed = Plugin("other")
no_attrs_class = Plugin(configuration=dict)
an_instance = Plugin(configuration=Settings())
not_a_plugin = object()


class Hollow:
    """Says it is a plugin, and is none."""

    name = "mine"


hollow = Hollow()
alsoProvides(hollow, IProtocolPlugin)


class Nameless:
    """Fails when it is asked who it is."""

    @property
    def name(self) -> str:
        raise RuntimeError("boom")


nameless = Nameless()
alsoProvides(nameless, IProtocolPlugin)

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Replace what is installed by entry points: a name and a value each."""

    def replace(**values: str) -> None:
        found = EntryPoints(
            EntryPoint(name.rstrip("_"), value, protocols.GROUP) for name, value in values.items()
        )
        monkeypatch.setattr(protocols, "entry_points", lambda group: found.select(group=group))

    return replace


def refusal(name: str) -> str:
    with pytest.raises(PluginError) as caught:
        find_plugin(name)
    assert str(caught.value).isprintable()
    return str(caught.value)


# Finding


@pytest.mark.parametrize(
    ("name", "kind"),
    [("echo", EchoPlugin), ("whoami", WhoAmIPlugin), ("custom", CustomPlugin)],
)
def test_the_built_in_protocols_are_found_as_anybodys(name: str, kind: type) -> None:
    found = find_plugin(name)
    assert type(found) is kind
    verifyObject(IProtocolPlugin, found)


def test_a_plugin_is_found_by_its_name(install: Install) -> None:
    install(mine=f"{__name__}:good", broken="nosuch:x")
    assert find_plugin("mine") is good


def test_the_same_entry_twice_is_one(install: Install) -> None:
    """As with an editable install beside its own metadata."""
    install(mine=f"{__name__}:good", mine_=f"{__name__}:good")
    assert find_plugin("mine") is good


@pytest.mark.parametrize(
    ("installed", "name", "expected"),
    [
        ({}, "mine", 'no protocol plugin "mine" (installed: none)'),
        (
            {"mine": "a:b", "other": "a:c"},
            "mien",
            'no protocol plugin "mien"; did you mean "mine"? (installed: mine, other)',
        ),
        ({"mine": "a:b"}, "xyz", 'no protocol plugin "xyz" (installed: mine)'),
        ({"mine": "a:b"}, "a\nb", 'no protocol plugin "a\\nb" (installed: mine)'),
        (
            {"mine": "b:x", "mine_": "a:x"},
            "mine",
            "a:x and b:x both claim the name; uninstall one",
        ),
        (
            {"mine": "nosuch_module:x"},
            "mine",
            "the plugin nosuch_module:x does not load: ModuleNotFoundError: No module named "
            "'nosuch_module'",
        ),
        (
            {"mine": f"{__name__}:nosuch"},
            "mine",
            f"the plugin {__name__}:nosuch does not load: AttributeError: module '{__name__}' has "
            "no attribute 'nosuch'",
        ),
        (
            {"mine": f"{__name__}:renamed"},
            "mine",
            f'the plugin {__name__}:renamed calls itself "other", but is installed as "mine"',
        ),
        (
            {"mine": f"{__name__}:no_attrs_class"},
            "mine",
            f"the configuration of the plugin {__name__}:no_attrs_class is no attrs class",
        ),
        (
            {"mine": f"{__name__}:an_instance"},
            "mine",
            f"the configuration of the plugin {__name__}:an_instance is no attrs class",
        ),
    ],
)
def test_a_plugin_that_is_not_there_or_is_broken_is_named(
    install: Install, installed: dict[str, str], name: str, expected: str
) -> None:
    install(**installed)
    assert refusal(name) == expected


@pytest.mark.parametrize("value", ["not_a_plugin", "hollow", "Plugin", "good.name"])
def test_what_does_not_provide_the_interface_is_no_plugin(install: Install, value: str) -> None:
    install(mine=f"{__name__}:{value}")
    expected = f"the plugin {__name__}:{value} does not provide IProtocolPlugin: "
    assert refusal("mine").startswith(expected)


def test_plugins_of_two_distributions_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        info = tmp_path / f"gate_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: gate-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mtlsgate.protocols]\nmine = gate_{name}:plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal("mine") == (
        "gate_one:plugin of gate-one and gate_two:plugin of gate-two both claim the name; "
        "uninstall one"
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("raise RuntimeError('a\\nb')", "does not load: RuntimeError: a\\nb"),
        ("import sys; sys.exit('bye')", "does not load: SystemExit: bye"),
        ("plugin = (", "does not load: SyntaxError: "),
        ("import nosuch_dependency", "does not load: ModuleNotFoundError: "),
    ],
)
def test_a_plugin_that_fails_to_import_is_an_error_of_its_block_alone(
    here: Site, install: Install, body: str, expected: str
) -> None:
    here.write("plugin_that_fails.py", body)
    sys.path.append(str(here.directory))
    install(mine="plugin_that_fails:plugin", echo="mtlsgate.protocols.echo:plugin")
    assert len(here.load(server()).servers) == 1
    (problem,) = here.problems(server() + server(protocol='protocol "mine" {}'))
    assert problem.startswith(
        f'10:1: protocol "mine": the plugin plugin_that_fails:plugin {expected}'
    )


# Building


@implementer(IProtocolNegotiationFactory)
class Negotiating(Factory):
    offered: Any = (b"one", b"two")

    def acceptableProtocols(self) -> list[bytes]:
        if isinstance(self.offered, Exception):
            raise self.offered
        return list(self.offered)


def problem_of(here: Site, install: Install, monkeypatch: pytest.MonkeyPatch, plugin: Any) -> str:
    monkeypatch.setattr(sys.modules[__name__], "good", plugin)
    install(mine=f"{__name__}:good")
    (problem,) = here.problems(server(protocol='protocol "mine" {}'))
    where = '3:1: protocol "mine": '
    assert problem.startswith(where)
    return problem.removeprefix(where)


class FailingOffer(Negotiating):
    offered = RuntimeError("no offer")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ValueError("the target is\nmissing"), "the target is\\nmissing"),
        (RuntimeError("boom\nbang"), "the plugin failed to build: RuntimeError: boom bang"),
        (KeyError("x"), "the plugin failed to build: KeyError: 'x'"),
        (SystemExit(3), "the plugin failed to build: SystemExit: 3"),
        (object(), "the plugin built a object, not a factory"),
        (Factory, "the plugin built a type, not a factory"),
        (FailingOffer(), "the plugin failed to build: RuntimeError: no offer"),
    ],
)
def test_a_plugin_that_fails_to_build_is_an_error_at_its_block(
    here: Site, install: Install, monkeypatch: pytest.MonkeyPatch, result: Any, expected: str
) -> None:
    assert problem_of(here, install, monkeypatch, Plugin(result=result)) == expected


def test_a_plugin_that_fails_when_looked_at_is_an_error_at_its_block(
    here: Site, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = problem_of(here, install, monkeypatch, nameless)
    assert "RuntimeError: boom" in found


def test_an_annotation_that_cannot_be_read_is_the_plugins_fault(
    here: Site, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    @frozen
    class Odd:
        x: bytes = b""

    monkeypatch.setattr(sys.modules[__name__], "good", Plugin(configuration=Odd))
    install(mine=f"{__name__}:good")
    (problem,) = here.problems(server(protocol='protocol "mine" { x = 1 }'))
    assert problem == (
        "3:1: protocol \"mine\": the plugin failed to build: TypeError: <class 'bytes'> is not an "
        "annotation that a block can be read by"
    )


def test_a_plugin_is_not_built_from_a_block_in_error(
    here: Site, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "good", Plugin(result=ValueError("built")))
    install(mine=f"{__name__}:good")
    for block, expected in (
        ('size = "x"', '3:26: protocol "mine": size: must be a whole number, not a string'),
        ("sise = 1", '3:19: protocol "mine": unknown attribute "sise"; did you mean "size"?'),
        ("size = env.X", None),
        ("size = 1 + true", None),
    ):
        (problem,) = here.problems(server(protocol=f'protocol "mine" {{ {block} }}'))
        assert expected is None or problem == expected
        assert "built" not in problem


def test_what_a_factory_negotiates_is_offered(
    here: Site, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "good", Plugin(result=Negotiating()))
    install(mine=f"{__name__}:good")
    (loaded,) = here.load(server(protocol='protocol "mine" {}')).servers
    assert loaded.gate.context.policy.alpn == (b"one", b"two")


def test_whoami_is_http_1_wherever_there_is_http_2(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is installed beside the gate does not make clients strangers."""
    monkeypatch.setattr("twisted.web.http.H2_ENABLED", True)
    (loaded,) = here.load(server(protocol='protocol "whoami" {}')).servers
    assert loaded.gate.context.policy.alpn == (b"http/1.1",)


def test_the_environment_tells_a_plugin_where_it_is(tmp_path: Path) -> None:
    """... and installs no reactor before one is asked for."""
    asked: list[str] = []

    def install_reactor() -> str:
        asked.append("reactor")
        return "reactor"

    verifyObject(IProtocolEnvironment, ProtocolEnvironment("devices", tmp_path, lambda: None))
    environment = ProtocolEnvironment("devices", tmp_path, install_reactor)
    assert (environment.server, environment.directory) == ("devices", tmp_path)
    assert asked == []
    assert environment.reactor == environment.reactor == "reactor"
    assert asked == ["reactor"]


def test_the_environment_reads_material(tmp_path: Path) -> None:
    """Inline or out of a file beside the configuration; what fails is located."""
    environment = ProtocolEnvironment("devices", tmp_path, lambda: None)
    at = Position(7, 5)
    (tmp_path / "ca.crt").write_bytes(b"what it holds")
    assert environment.read(Material("ca", at, text="inline")) == b"inline"
    assert environment.read(Material("ca_file", at, path=Path("ca.crt"))) == b"what it holds"
    with pytest.raises(Misconfigured) as caught:
        environment.read(Material("ca_file", at, path=Path("other.crt")))
    assert (caught.value.at, caught.value.text) == (at, 'ca_file: "other.crt" no such file')


@frozen
class Picky:
    word: Located[str]


@implementer(IProtocolPlugin)
@frozen
class PickyPlugin:
    name: str = "mine"
    configuration: Any = Picky

    def build(self, configuration: Picky, environment: IProtocolEnvironment) -> IProtocolFactory:
        raise Misconfigured(configuration.word.at, "word: not this one")


picky = PickyPlugin()


def test_a_plugin_can_say_where_it_is_misconfigured(here: Site, install: Install) -> None:
    """... by an error that knows its place."""
    install(mine=f"{__name__}:picky")
    (problem,) = here.problems(server(protocol='protocol "mine" {\n  word = "no"\n}'))
    assert problem == '4:10: protocol "mine": word: not this one'


# protocol "custom"

MODULE = """
    from attrs import frozen
    from twisted.internet.protocol import Factory, Protocol, ServerFactory
    from twisted.web.resource import Resource
    from twisted.web.server import Site
    from zope.interface import implementer
    from mtlsgate.interfaces import IProtocolPlugin

    class Mine(Protocol):
        pass

    class MyFactory(ServerFactory):
        protocol = Mine
        def __init__(self, greeting="none", size=0):
            self.told = (greeting, size)

    finished = MyFactory("finished")

    def make(**told):
        factory = MyFactory()
        factory.told = told
        return factory

    def site():
        return Site(Resource())

    def wrong():
        return Mine()

    def nothing():
        pass

    def refuse():
        raise ValueError("the greeting is missing")

    def fail():
        raise RuntimeError("two\\nlines")

    def leave():
        raise SystemExit("bye")

    def bare():
        raise RuntimeError

    class Holder:
        inner = finished

    text = "text"

    @frozen
    class Settings:
        greeting: str
        size: int = 3

    @implementer(IProtocolPlugin)
    class MyPlugin:
        name = "whatever"
        configuration = Settings
        def build(self, configuration, environment):
            if configuration.greeting == "fail":
                raise RuntimeError("no such greeting")
            if configuration.greeting == "wrong":
                return Mine()
            return MyFactory(configuration.greeting, (configuration.size, environment.server))

    plugin = MyPlugin()
"""


def custom(here: Site, factory: str, more: str = "", module: str = "my_gate_protocol") -> str:
    here.write(f"{module}.py", dedent(MODULE))
    return server(
        protocol=f'protocol "custom" {{\nfactory = "{factory}"\n{more}\n}}', label='"devices"'
    )


@pytest.mark.parametrize(
    ("attribute", "more", "told"),
    [
        ("finished", "", ("finished", 0)),
        ("Holder.inner", "", ("finished", 0)),
        ("MyFactory", "", ("none", 0)),
        ("MyFactory", 'greeting = "hi"\nsize = 7', ("hi", 7)),
        ("make", "", {}),
        ("make", "a = [1, { b = null }]\nc = env.SET", {"a": [1, {"b": None}], "c": "set"}),
        ("make", "a = null", {"a": None}),
        ("plugin", 'greeting = "hi"', ("hi", (3, "devices"))),
        ("plugin", 'greeting = "hi"\nsize = 7', ("hi", (7, "devices"))),
    ],
)
def test_a_protocol_of_ones_own_needs_no_packaging(
    here: Site, attribute: str, more: str, told: object
) -> None:
    """A factory, what makes one, or a plugin, in a module beside the configuration."""
    text = custom(here, f"my_gate_protocol:{attribute}", more)
    (loaded,) = here.load(text, environ={"SET": "set"}).servers
    assert getattr(loaded.gate.application, "told") == told  # noqa: B009 -- not in its interface


def test_any_plain_twisted_factory_will_do(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twisted.web.http.H2_ENABLED", False)
    (loaded,) = here.load(custom(here, "my_gate_protocol:site")).servers
    assert loaded.gate.context.policy.alpn == (b"http/1.1",)


NOT_A_FACTORY = "not a Twisted protocol factory; for a Protocol class write Factory.forProtocol(…)"
M = "my_gate_protocol"


@pytest.mark.parametrize(
    ("factory", "more", "expected"),
    [
        ("", "", "4:11: factory: is empty: write a value, or remove it"),
        (M, "", f'3:1: "{M}" is not of the form "package.module:attribute"'),
        (f"{M}:", "", f'3:1: "{M}:" is not of the form "package.module:attribute"'),
        (":x", "", '3:1: ":x" is not of the form "package.module:attribute"'),
        ("a\\nb", "", '3:1: "a\\nb" is not of the form "package.module:attribute"'),
        (f"{M}:nosuch", "", f"3:1: {M} has no attribute nosuch"),
        (f"{M}:Holder.nosuch", "", f"3:1: {M} has no attribute Holder.nosuch"),
        (f"{M}:a:b", "", f"3:1: {M} has no attribute a:b"),
        (
            "nosuch_module:x",
            "",
            "3:1: no module named nosuch_module: install it, or put it beside the configuration",
        ),
        (
            f"{M}.sub:x",
            "",
            f"3:1: no module named {M}.sub: install it, or put it beside the configuration",
        ),
        (".relative:x", "", "3:1: importing .relative failed: TypeError: "),
        ("a\\u0000b:x", "", "3:1: "),
        (f"{M}:text", "", f"3:1: {M}:text is a str, {NOT_A_FACTORY}"),
        (f"{M}:Mine", "", f"3:1: what {M}:Mine returned is a Mine, {NOT_A_FACTORY}"),
        (f"{M}:wrong", "", f"3:1: what {M}:wrong returned is a Mine, {NOT_A_FACTORY}"),
        (f"{M}:nothing", "", f"3:1: what {M}:nothing returned is a NoneType, {NOT_A_FACTORY}"),
        (f"{M}:refuse", "", "3:1: the greeting is missing"),
        (f"{M}:fail", "", f"3:1: {M}:fail failed: RuntimeError: two\\nlines"),
        (f"{M}:leave", "", f"3:1: {M}:leave failed: SystemExit: bye"),
        (f"{M}:bare", "", f"3:1: {M}:bare failed: RuntimeError"),
        (
            f"{M}:MyFactory",
            "colour = 1",
            f"3:1: {M}:MyFactory failed: TypeError: MyFactory.__init__() got an unexpected keyword "
            "argument 'colour'",
        ),
        (f"{M}:finished", "size = 1", '5:1: unknown attribute "size"'),
        (f"{M}:make", "more {}", '5:1: unknown block "more"'),
        (f"{M}:make", "a = env.UNSET", "5:5: a: environment variable UNSET is not set; "),
        (f"{M}:make", "a = 1 + true", '5:9: a: "+" takes numbers, not a boolean'),
        (f"{M}:plugin", "", "3:1: greeting is missing"),
        (
            f"{M}:plugin",
            "greeting = 1",
            "5:12: greeting: must be a string, not a whole number: put it in quotes",
        ),
        (
            f"{M}:plugin",
            'greeting = "a"\nsice = 1',
            '6:1: unknown attribute "sice"; did you mean "size"?',
        ),
        (
            f"{M}:plugin",
            'greeting = "fail"',
            f"3:1: {M}:plugin failed: RuntimeError: no such greeting",
        ),
        (f"{M}:plugin", 'greeting = "wrong"', f"3:1: what {M}:plugin built is a Mine, "),
    ],
)
def test_a_protocol_of_ones_own_that_cannot_be_had_is_an_error(
    here: Site, factory: str, more: str, expected: str
) -> None:
    (problem,) = here.problems(custom(here, factory, more))
    place, _, text = expected.partition(": ")
    assert problem.startswith(f'{place}: protocol "custom": {text}')


def test_the_factory_must_be_named(here: Site) -> None:
    assert here.problems(server(protocol='protocol "custom" {}')) == [
        '3:1: protocol "custom": factory is missing'
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two\\nlines"),
        ("raise SystemExit", "SystemExit"),
        ("x = (", "SyntaxError: "),
        ("x = '\0'", ""),
    ],
)
def test_a_module_that_fails_to_import_is_an_error(here: Site, source: str, expected: str) -> None:
    here.write("my_failing_module.py", source)
    (problem,) = here.problems(
        server(protocol='protocol "custom" { factory = "my_failing_module:x" }')
    )
    assert problem.startswith(
        f'3:1: protocol "custom": importing my_failing_module failed: {expected}'
    )


def test_a_module_that_lacks_another_says_which(here: Site) -> None:
    here.write("my_needy_module.py", "import nosuch_dependency")
    (problem,) = here.problems(
        server(protocol='protocol "custom" { factory = "my_needy_module:x" }')
    )
    assert problem == (
        '3:1: protocol "custom": no module named nosuch_dependency: install it, or put it beside '
        "the configuration"
    )


def test_nothing_beside_the_configuration_shadows_what_is_installed(here: Site) -> None:
    here.write("json.py", "raise RuntimeError('shadowed')")
    assert here.problems(server(protocol='protocol "custom" { factory = "json:nosuch" }')) == [
        '3:1: protocol "custom": json has no attribute nosuch'
    ]
    assert sys.path[-1] == str(here.directory)
