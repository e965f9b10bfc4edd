"""
``mtlsgate run``: twistd, in the foreground, with what suits a person and a supervisor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import ServiceMaker
from twisted.python.usage import UsageError
from twisted.scripts.twistd import (  # type: ignore[attr-defined]
    ServerOptions,
    runApp,
)

from mtlsgate.errors import GateError
from mtlsgate.run.log_output import STDERR
from mtlsgate.run.twistd import STANDARD_LOG
from mtlsgate.text import first_line

_NAME = "mtlsgate"
#: As in ``twisted/plugins``; it imports the wiring when it is used.
_GATE = ServiceMaker(_NAME, "mtlsgate.tap", "The gate.", _NAME)


class RunError(GateError):
    """An option that twistd does not take, in one line."""


class _RunOptions(ServerOptions):
    """
    twistd's options, with the gate as the only thing to run: no plugin is looked for.

    :ivar loadedPlugins: where twistd looks for what makes the service.
    """

    subCommands = ((_NAME, None, lambda: _GATE.options(), _GATE.description),)

    def __init__(self) -> None:
        super().__init__()
        self.loadedPlugins = {_NAME: _GATE}
        self[STANDARD_LOG] = STDERR


def run(config: Sequence[str], options: Sequence[str] = ()) -> None:
    """
    Run the gate until it ends.

    :param config: files and directories, as for ``twistd mtlsgate --config``.
    :param options: more of twistd's options.
    :raises RunError: if twistd does not take an option.
    :raises SystemExit: with status 1 if the gate cannot start; it has said why.
    """
    twistd: Any = _RunOptions()
    given = [word for name in config for word in ("--config", name)]
    try:
        twistd.parseOptions(["--nodaemon", "--pidfile=", *options, _NAME, *given])
    except UsageError as error:
        raise RunError(f"mtlsgate run: {first_line(error)}") from None
    except KeyError:
        # Twisted's own reader of --uid and --gid.
        raise RunError(f"mtlsgate run: no such user or group: {' '.join(options)}") from None
    runApp(twistd)
