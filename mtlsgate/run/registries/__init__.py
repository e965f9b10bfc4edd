"""
Registries while the gate runs: asking, remembering, following, and what an outage means.

`desk` has one registry, `desks` all of a service; `rechecks` judges live connections again
when something has changed.  `guest_loop` runs the stores' asyncio on any reactor.
"""
