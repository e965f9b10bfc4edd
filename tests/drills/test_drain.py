"""
Drill: a gate that drains is asked for other things.
"""

from __future__ import annotations

import signal

import pytest

from tests.kits.drills import Site, echoes
from tests.kits.programs import gate

pytestmark = pytest.mark.slow


def test_a_reload_while_it_drains_is_refused(site: Site) -> None:
    """It is refused in a line: no other configuration takes over, and nobody who is connected
    notices. The gate ends with its last connection."""
    site.change("settings {", 'settings {\n  drain_timeout = "1h"')
    with gate(site.config) as running, site.connect(running.port("demo")) as live:
        assert echoes(live)
        running.process.send_signal(signal.SIGTERM)
        running.read_until("have 3600 s to end")
        site.change('"clients"', '"people"')
        running.process.send_signal(signal.SIGHUP)
        running.read_until("epoch 1 stays in force")
        assert echoes(live)
        live.close()
        assert running.process.wait(timeout=60) == 0
