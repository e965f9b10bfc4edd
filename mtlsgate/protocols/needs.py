"""
What a protocol needs, for plugins that need nothing.
"""

from __future__ import annotations

from zope.interface import implementer

from mtlsgate.interfaces import IProtocolNeeds


@implementer(IProtocolNeeds)
class NeedsNothing:
    """A plugin whose protocol is mtlsgate's own code, and runs on any reactor."""

    def needs_asyncio(self, configuration: object) -> bool:
        """:returns: False."""
        return False

    def runs_user_code(self, configuration: object) -> bool:
        """:returns: False."""
        return False
