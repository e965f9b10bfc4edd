"""
setup.cfg says it all, but for the man pages and the completion of shells: they are made of the
command's own help with each build.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from setuptools import Distribution, setup

install_data = Distribution().get_command_class("install_data")

ROOT = Path(__file__).parent
#: Where each shell looks below a prefix.
COMPLETIONS = {
    "bash": "share/bash-completion/completions/mtlsgate",
    "zsh": "share/zsh/site-functions/_mtlsgate",
    "fish": "share/fish/vendor_completions.d/mtlsgate.fish",
}


class InstallData(install_data):
    """Makes the files before it installs them."""

    def run(self) -> None:
        made = Path(self.get_finalized_command("build").build_temp) / "data"
        version = self.distribution.get_version()
        for name, text in (*man_pages(version), *completions()):
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            self.data_files.append((str(Path(name).parent), [str(path)]))
        super().run()


def man_pages(version: str) -> Iterator[tuple[str, str]]:
    """Yield (file, text) of the page of each command."""
    import click
    from click_man.core import generate_man_page

    def below(command: click.Command, name: str, parent: click.Context | None):
        # click-man cuts it to 45 characters otherwise.
        command.short_help = (command.help or "").partition("\n\n")[0].replace("\n", " ")
        context = click.Context(command, info_name=name, parent=parent)
        commands = getattr(command, "commands", {})
        for one, sub in commands.items():
            yield from below(sub, one, context)
        title = context.command_path.replace(" ", "-")
        text = generate_man_page(context, version=version)
        # It names the pages of a subcommand's commands with a space.
        text = text.replace(rf"\fB{context.command_path}-", rf"\fB{title}-")
        yield f"share/man/man1/{title}.1", text

    yield from below(cli(), "mtlsgate", None)


def completions() -> Iterator[tuple[str, str]]:
    """Yield (file, text) of what each shell sources."""
    from click.shell_completion import get_completion_class

    for shell, name in COMPLETIONS.items():
        kind = get_completion_class(shell)
        assert kind is not None
        made = kind(cli(), {}, "mtlsgate", "_MTLSGATE_COMPLETE")
        yield name, made.source_template % made.source_vars()


def cli():
    """:returns: the command as it is in this checkout."""
    # Where a build is isolated, the checkout is not in the path.
    sys.path.insert(0, str(ROOT))
    try:
        from mtlsgate.commands.cli import main
    finally:
        sys.path.remove(str(ROOT))
    return main


# Something must be listed for the command to be run.
setup(cmdclass={"install_data": InstallData}, data_files=[("share/man/man1", [])])
