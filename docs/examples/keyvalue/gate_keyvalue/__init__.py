"""
``protocol "keyvalue"``: a small store for the clients of a gate.

Lines of text: ``GET key``, ``SET key value``, ``DEL key``, ``KEYS prefix``, ``QUIT``.
The configuration says what each rule may read and write, and how much a client
may keep.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from zope.interface import implementer

from gate_keyvalue.protocol import KeyValueFactory
from gate_keyvalue.store import Access, Store
from mtlsgate.config import Duration, Size
from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin

__all__ = ["AccessConfiguration", "KeyValueConfiguration", "KeyValuePlugin", "plugin"]


@frozen
class AccessConfiguration:
    """
    An ``access`` block.

    :ivar rule: the rule whose clients it is about.
    :ivar read: the beginnings of the keys that they may read.
    :ivar write: the same for writing; who may write may read, too.
    """

    rule: str
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


@frozen
class KeyValueConfiguration:
    """
    The ``protocol`` block.

    :ivar access: who may do what.
    :ivar max_keys: how many keys a client may keep.
    :ivar max_value_size: how long a value may be, in bytes.
    :ivar idle_timeout: how long a client may be silent, in seconds.
    """

    access: tuple[AccessConfiguration, ...]
    max_keys: int = 100
    max_value_size: Size = 1024
    idle_timeout: Duration = 300.0

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """What the annotations cannot say."""
        if not self.access:
            yield "access", "without an access block nobody may do anything"
        rules = [one.rule for one in self.access]
        for rule in sorted({one for one in rules if rules.count(one) > 1}):
            yield "access", f'two access blocks for rule "{rule}"'
        if self.max_keys < 1:
            yield "max_keys", "max_keys must be 1 or more"


@implementer(IProtocolPlugin)
@frozen
class KeyValuePlugin:
    """What the entry point names."""

    name: str = "keyvalue"
    configuration: type = KeyValueConfiguration

    def build(
        self, configuration: KeyValueConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """:returns: the factory behind the gate; nothing is opened here."""
        access = {one.rule: Access(one.read, one.write) for one in configuration.access}
        store = Store(configuration.max_keys)
        return KeyValueFactory(
            store,
            access,
            configuration.max_value_size,
            configuration.idle_timeout,
            environment.reactor,
        )


plugin = KeyValuePlugin()
