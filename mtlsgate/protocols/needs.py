"""
What a protocol needs, for plugins that need nothing.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mtlsgate.interfaces import IProtocolNeeds


@implementer(IProtocolNeeds)
class NeedsNothing:
    """A plugin whose protocol is mtlsgate's own code, and runs on any reactor."""

    def needs_asyncio(self, configuration: Any) -> bool:
        """:returns: False."""
        return False

    def runs_user_code(self, configuration: Any) -> bool:
        """:returns: False."""
        return False

    def reads(self, configuration: Any) -> tuple[str, ...]:
        """:returns: nothing."""
        return ()

    def connects_to(self, configuration: Any) -> tuple[int, ...]:
        """:returns: nothing."""
        return ()
