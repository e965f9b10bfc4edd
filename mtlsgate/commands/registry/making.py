"""
``mtlsgate registry schema``: what a registry's database needs.
"""

from __future__ import annotations

from collections.abc import Callable

from mtlsgate.clock import utc_now
from mtlsgate.commands.registry.audit_trail import AuditTrail, operator
from mtlsgate.commands.registry.naming import RegistryError
from mtlsgate.commands.registry.session import Session
from mtlsgate.gate.events import RegistryChange
from mtlsgate.registry.postgresql_address import POSTGRESQL_SCHEMES
from mtlsgate.registry.schema import Table, schema_sql
from mtlsgate.registry.store import StoreError
from mtlsgate.text import quoted


def sql_of(session: Session) -> str:
    """
    :returns: the SQL that makes the registry; empty for one that needs none.
    :raises RegistryError: if its table can have no such name.
    """
    options = session.registry.options
    if options.url.partition("://")[0] not in POSTGRESQL_SCHEMES:
        return ""
    try:
        return schema_sql(Table.parse(options.prefix))
    except StoreError as error:
        raise RegistryError(f"registry {quoted(session.name)}: {error}") from None


async def apply(session: Session, trail: AuditTrail, say: Callable[[str], object]) -> None:
    """
    Make the registry, or bring it up to date.

    :raises RegistryError: if that fails; then nothing has changed.
    """
    # It needs an extra.
    from mtlsgate.registry.postgresql_store import PostgresqlStore

    async with session.store() as store:
        assert isinstance(store, PostgresqlStore)
        await store.apply_schema()
    trail.write(
        RegistryChange(at=utc_now(), action="schema", who=operator(), registry=session.name)
    )
    say(f"registry {quoted(session.name)}: made, or up to date, in {session.registry.place}")
