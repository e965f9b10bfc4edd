"""
What others may rely on: the interfaces, who provides them, and the list in api.md.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from zope.interface import Interface, implementer
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyClass, verifyObject

from mtlsgate import interfaces
from mtlsgate.interfaces import (
    IAuthorizer,
    IGate,
    IPreparable,
    IProtocolEnvironment,
    IProtocolNeeds,
    IProtocolPlugin,
    ITlsFacts,
    IVerifiedPeer,
)
from mtlsgate.peer import TlsFacts, VerifiedPeer
from mtlsgate.protocols import GROUP, ProtocolEnvironment, find_plugin
from mtlsgate.protocols.web.asgi import AsgiServer
from mtlsgate.run.control import Control
from mtlsgate.testing import Authority

API = Path(__file__).parent.parent / "docs" / "api.md"


def built_in() -> list[str]:
    """:returns: the names of the protocols of this distribution."""
    return sorted(
        one.name for one in entry_points(group=GROUP) if one.module.startswith("mtlsgate.")
    )


def test_the_built_in_protocols_are_there() -> None:
    """The tests below find what they are to test."""
    assert {"custom", "echo", "web", "whoami"} <= set(built_in())


@pytest.mark.parametrize("name", built_in())
def test_every_built_in_protocol_is_a_plugin_like_any(name: str) -> None:
    plugin = find_plugin(name)
    assert verifyObject(IProtocolPlugin, plugin)
    assert verifyClass(IProtocolPlugin, type(plugin))
    if name != "custom":
        # Nobody knows what that one runs.
        assert verifyObject(IProtocolNeeds, plugin)
        assert verifyClass(IProtocolNeeds, type(plugin))


def test_the_peer_that_applications_get_is_as_promised() -> None:
    """Every attribute, on an instance."""
    peer = VerifiedPeer(
        path=(Authority.create().issue("alice").certificate,),
        rule="rule",
        address=IPv4Address("TCP", "127.0.0.1", 1),
        server_name=None,
        tls_version="TLSv1.3",
        cipher="TLS_AES_128_GCM_SHA256",
        group=None,
        alpn=None,
    )
    assert verifyObject(IVerifiedPeer, peer)
    assert verifyClass(IVerifiedPeer, VerifiedPeer, tentative=True)


def test_the_environment_that_plugins_get_is_as_promised() -> None:
    clock = Clock()
    environment = ProtocolEnvironment("server", Path(), lambda: clock)
    assert verifyObject(IProtocolEnvironment, environment)
    assert environment.reactor is clock


def test_what_tls_agreed_on_is_as_promised() -> None:
    assert verifyObject(ITlsFacts, TlsFacts(None, "TLSv1.3", "TLS_AES_128_GCM_SHA256"))
    assert verifyClass(ITlsFacts, TlsFacts)


@implementer(IAuthorizer)
class Doorman:
    """An authorizer as anybody writes one."""

    def authorize(self, peer: IVerifiedPeer) -> bool:
        return str(peer.rule) == "rule"


def test_an_authorizer_is_what_the_interface_says() -> None:
    """With the type of its answer said, which the type checker looks at."""
    assert verifyObject(IAuthorizer, Doorman())
    assert verifyClass(IAuthorizer, Doorman)


def test_the_gate_that_plugins_can_ask_is_as_promised() -> None:
    assert verifyClass(IGate, Control)


def test_the_server_of_an_asgi_application_can_be_prepared() -> None:
    assert verifyClass(IPreparable, AsgiServer)


def test_no_interface_is_without_such_a_test() -> None:
    """Whatever is added to the module is added here."""
    found = {
        name
        for name, one in vars(interfaces).items()
        if isinstance(one, InterfaceClass) and one.__module__ == interfaces.__name__
    }
    assert found == {
        "IAuthorizer",
        "IGate",
        "IPreparable",
        "IProtocolEnvironment",
        "IProtocolNeeds",
        "IProtocolPlugin",
        "IRetirable",
        "ITlsFacts",
        "IVerifiedPeer",
    }
    assert Interface not in found


def listed() -> Iterator[tuple[str, list[str]]]:
    """Yield each module in the list of api.md, and its names."""
    if not API.exists():
        return
    text = API.read_text().partition("## What is public")[2].partition("Public as well")[0]
    for line in text.splitlines():
        module, *names = re.findall(r"`([\w.]+)`", line) or [""]
        if module:
            yield module, names


@pytest.mark.skipif(not API.exists(), reason="installed without its docs")
def test_there_is_a_list() -> None:
    assert {"mtlsgate.config", "mtlsgate.interfaces", "mtlsgate.testing"} <= {
        module for module, _ in listed()
    }


@pytest.mark.parametrize(("module", "names"), list(listed()), ids=[one for one, _ in listed()])
def test_the_list_of_what_is_public_is_what_the_code_says(module: str, names: list[str]) -> None:
    """The same names, all of which are there, in the documentation too."""
    imported = importlib.import_module(module)
    assert names == sorted(imported.__all__)
    for name in names:
        assert getattr(imported, name) is not None
