"""
Makes the pictures in docs/images: the console with a gate and clients of its own, a terminal
with the first commands of the README, and three pages of the documentation.

    python docs/pictures.py

Needs Chromium, curl, openssl, and what the tests and the documentation need.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from math import dist
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kits.browser import chromium, visit
from tests.kits.programs import BIN, gate

IMAGES = Path(__file__).parent / "images"
TOKEN = "0123456789abcdef0123456789abcdef"
MORE = """
admin {
  listen     = "127.0.0.1:0"
  token_file = "admin.token"
}

server "sensors" {
  hosts = ["127.0.0.1:0"]

  protocol "echo" {}

  tls {
    server_certificate {
      public_key_file  = "old/server.crt"
      private_key_file = "old/server.key"
    }

    client_certificate "fleet" {
      ca_certificate_file = "ca.crt"

      allow {
        common_names = ["sensor-1", "sensor-2"]
      }
    }

    client_certificate "bench" {
      pin "laptop-2026" {
        leaf_certificate_file = "stranger.crt"
        retire_after          = "RETIRED"
      }
      pin "laptop-2027" {
        leaf_certificate_file = "old/client.crt"
        not_before            = "BEGINS"
      }
    }
  }
}
"""


def _client(directory: Path, port: int, name: str) -> subprocess.Popen[bytes]:
    """:returns: a client that stays, if it is admitted."""
    certificate = [] if not name else ["-cert", f"{name}.crt", "-key", f"{name}.key"]
    client = subprocess.Popen(
        ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{port}", *certificate],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(b"hello\n")
    client.stdin.flush()
    client.stdout.readline()
    return client


#: Returns a picture's size, and its pixels in base64: red, green, blue and alpha.
_PIXELS = """
async (png) => {
  const picture = new Image();
  picture.src = `data:image/png;base64,${png}`;
  await picture.decode();
  const { width, height } = picture;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(picture, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  let text = "";
  for (let at = 0; at < pixels.length; at += 32768) {
    text += String.fromCharCode(...pixels.subarray(at, at + 32768));
  }
  return [width, height, btoa(text)];
}
"""


def _save(page: Any, name: str, **options: Any) -> None:
    """Save what a page shows as a PNG of 256 colours, which is less than half as large."""
    taken = base64.b64encode(page.screenshot(**options)).decode()
    width, height, encoded = page.context.new_page().evaluate(_PIXELS, taken)
    raw = base64.b64decode(encoded)
    pixels = list(zip(raw[::4], raw[1::4], raw[2::4], strict=True))
    kinds: dict[tuple[int, ...], tuple[int, int, int]] = {}
    for colour, _ in Counter(pixels).most_common():
        # The commonest of those that are alike: a few green letters are to stay green.
        kinds.setdefault(tuple(one >> 4 for one in colour), colour)
    colours = list(kinds.values())[:256]
    number = {colour: at for at, colour in enumerate(colours)}
    for colour in set(pixels) - set(colours):
        number[colour] = min(range(len(colours)), key=lambda at: dist(colours[at], colour))
    numbers = bytes(number[pixel] for pixel in pixels)
    rows = (numbers[at : at + width] for at in range(0, len(numbers), width))
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(chain.from_iterable(colours))),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 9)),
        (b"IEND", b""),
    )
    picture = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts:
        picture += struct.pack(">I", len(data)) + kind + data
        picture += struct.pack(">I", zlib.crc32(kind + data))
    (IMAGES / f"{name}.png").write_bytes(picture)


def _in_days(days: int) -> str:
    """:returns: the instant, as a configuration has it."""
    return f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"


def _open(page: Any, view: str) -> None:
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_role("link", name=view, exact=True).click()
    page.get_by_role("heading", name=view, level=1).wait_for()


@contextmanager
def _demo() -> Iterator[Path]:
    """A directory that is gone afterwards.  Its name is in the pictures."""
    made = Path(tempfile.gettempdir()) / "mtlsgate-demo"
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made)


def _console() -> None:
    """Make the pictures of the console."""
    with _demo() as directory, chromium() as browser:
        for made, days in ((directory, "365"), (directory / "old", "120")):
            init = [str(BIN / "mtlsgate"), "init", "--days", days, str(made)]
            subprocess.run(init, check=True, capture_output=True)
        config = directory / "gate.hcl"
        text = config.read_text().replace("localhost:8443", "127.0.0.1:0")
        more = MORE.replace("RETIRED", _in_days(45)).replace("BEGINS", _in_days(20))
        config.write_text(text.replace('"whoami"', '"echo"') + more)
        (directory / "admin.token").write_text(TOKEN)
        (directory / "admin.token").chmod(0o600)
        with gate(Path("gate.hcl"), cwd=directory) as running:
            line = running.read_until("the admin endpoint answers at ")
            url = f"http://{line.rsplit(maxsplit=1)[1]}"
            demo, sensors = running.port("demo"), running.port("sensors")
            clients = [
                _client(directory, port, name)
                for port, name in [
                    *[(demo, "client")] * 4, *[(demo, "not-pinned")] * 2, (demo, ""),
                    *[(sensors, "stranger")] * 2, (sensors, "client"),
                ]
            ]  # fmt: skip
            for name, view, width, scheme in (
                ("overview", "Overview", 1200, "light"),
                ("rejections", "Rejections", 960, "light"),
                ("expiry", "Expiry", 1200, "light"),
                ("phone", "Overview", 360, "dark"),
            ):
                with visit(browser, url, width, scheme) as found:  # type: ignore[arg-type]
                    _open(found.page, view)
                    if view == "Rejections":
                        found.page.locator("summary", has_text="CN=client").first.click()
                        found.page.get_by_role("button", name="Copy").wait_for()
                    _save(found.page, f"console-{name}", full_page=True)
            for client in clients:
                client.kill()
                client.communicate()


def _terminal() -> None:
    """Make the picture of a terminal: what happens is real."""
    lines = [
        ("cyan", "$ mtlsgate init demo && mtlsgate run --config demo/gate.hcl &"),
        ("yellow", "demo: listening on localhost:8443; admits by rule clients (1 pin)"),
    ]
    with tempfile.TemporaryDirectory() as made:
        subprocess.run([BIN / "mtlsgate", "init", f"{made}/demo"], check=True, capture_output=True)
        config = Path(made) / "demo" / "gate.hcl"
        config.write_text(config.read_text().replace("localhost:8443", "127.0.0.1:0"))
        with gate(config, cwd=Path(made)) as running:
            port = str(running.port("demo"))
            for name, word in (("client", "admitted"), ("not-pinned", "rejected")):
                shown = f"--cert demo/{name}.crt --key demo/{name}.key"
                command = f"curl -sS --cacert demo/ca.crt {shown} https://localhost:8443/"
                real = ["sh", "-c", command.replace("8443", port)]
                done = subprocess.run(real, cwd=made, capture_output=True, text=True, check=False)
                logged = running.read_until(word).partition("] ")[2].replace(port, "8443")
                lines += [("", ""), ("cyan", f"$ {command}")]
                lines += [("", line) for line in (done.stdout + done.stderr).splitlines()[:4]]
                lines.append(("yellow", logged.partition(" [")[0].strip()))
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=100, file=nowhere)
        for colour, line in lines:
            console.print(Text(line, style=colour))
        picture = console.export_svg(title="mtlsgate", theme=MONOKAI)
    # The theme names a font of somebody else's server.
    picture = re.sub(r"<!--.*?-->", "", picture)
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    (IMAGES / "terminal.svg").write_text(picture.replace("Fira Code", "monospace"))


def _pages() -> None:
    """Make the pictures of pages."""
    with tempfile.TemporaryDirectory() as built, chromium() as browser:
        command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(IMAGES.parent), built]
        subprocess.run(command, check=True)
        for name, page in (
            ("home", "index.html"),
            ("how-to", "how-to/redis.html"),
            ("reasons", "reasons.html"),
        ):
            with visit(browser, f"file://{built}/{page}", 1100) as found:
                area = {"x": 0, "y": 0, "width": 1100, "height": 700}
                _save(found.page, f"page-{name}", clip=area)


def main() -> None:
    """Make them all."""
    _terminal()
    _console()
    _pages()


if __name__ == "__main__":
    main()
