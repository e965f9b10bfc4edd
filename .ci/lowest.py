"""Print, as pip constraints, the lowest versions that setup.cfg allows."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

EXTRAS = ("test",)


def main() -> None:
    config = ConfigParser()
    config.read(Path(__file__).parent.parent / "setup.cfg")
    listed = config["options"]["install_requires"].splitlines()
    for extra in EXTRAS:
        listed += config["options.extras_require"][extra].splitlines()
    for line in filter(None, map(str.strip, listed)):
        found = re.fullmatch(r"([\w.-]+)(?:\[\w+\])? >= ([\w.]+)", line)
        if found is None:
            raise SystemExit(f"setup.cfg: no lower bound in {line!r}")
        print(f"{found[1]}=={found[2]}")  # noqa: T201


if __name__ == "__main__":
    main()
