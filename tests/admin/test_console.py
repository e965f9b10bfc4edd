"""
The console in a real browser, with a real gate.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.request import Request, urlopen

import pytest

from mtlsgate.clock import utc_now
from mtlsgate.testing import Authority, Credential
from tests.kits.browser import Visit, chromium, visit
from tests.kits.programs import RunningGate, gate, lacking, program

pytestmark = pytest.mark.slow

TOKEN = "0123456789abcdef0123456789abcdef"
VIEWS = ["Overview", "Connections", "Rejections", "Expiry", "Try a certificate", "Dry run"]
#: Would run, or turn the page round, if a name ever became markup.
HOSTILE = '\u202e"><img src=x onerror="window.hacked=1"><script>x()'
CONFIG = """
settings {
  audit {
    file = "audit.log"
  }
}

admin {
  listen     = "127.0.0.1:0"
  token_file = "admin.token"
}

server "<b>devices</b>" {
  hosts = ["127.0.0.1:0"]

  protocol "echo" {}

  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }

    client_certificate "<i>fleet</i>" {
      ca_certificate_file = "ca.crt"

      deny {
        common_names = ["lost"]
      }
    }

    client_certificate "spare" {
      pin "<u>bench</u>" {
        leaf_certificate_file = "bench.crt"
      }
    }
  }
}
"""


class Place:
    """
    A directory with a configuration and clients.

    :ivar directory: where all is.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        now = utc_now()
        window: Any = {"not_before": now - timedelta(days=1), "not_after": now + timedelta(days=20)}
        ca = Authority.create("ca", **window)
        self.clients: dict[str, Credential] = {
            "good": ca.issue("good", **window),
            "lost": ca.issue("lost", **window),
            "hostile": ca.issue(
                HOSTILE, uris=["https://x/<script>window.hacked=1</script>"], **window
            ),
            "stranger": Authority.create(HOSTILE, **window).issue(HOSTILE, **window),
        }
        server = ca.issue("localhost", dns_names=["localhost"], usages=["server_auth"], **window)
        files = {
            "gate.hcl": CONFIG.encode(),
            "admin.token": TOKEN.encode(),
            "ca.crt": ca.pem,
            "server.crt": server.pem,
            "server.key": server.key_pem,
            "bench.crt": self.clients["stranger"].pem,
        }
        for name, client in self.clients.items():
            files |= {f"{name}.pem": client.pem + client.key_pem}
        for name, content in files.items():
            path = directory / name
            path.write_bytes(content)
            path.chmod(0o600)


@contextmanager
def running(place: Place) -> Iterator[RunningGate]:
    """Its gate, and where its admin endpoint is."""
    with gate(place.directory / "gate.hcl") as process:
        line = process.read_until("the admin endpoint answers at ")
        process.where["admin"] = [line.rsplit(maxsplit=1)[1]]
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("console"))


@pytest.fixture(scope="module")
def shared(place: Place) -> Iterator[RunningGate]:
    with running(place) as process:
        yield process


def address(process: RunningGate) -> str:
    return f"http://127.0.0.1:{process.port('admin')}"


@contextmanager
def opened(
    browser: Any, process: RunningGate, view: str = "Overview", **options: Any
) -> Iterator[Visit]:
    """The console with the token given, at one of its views."""
    with visit(browser, address(process), **options) as found:
        found.page.get_by_label("Token").fill(TOKEN)
        found.page.get_by_role("button", name="Open").click()
        found.page.get_by_role("link", name=view, exact=True).click()
        found.page.get_by_role("heading", name=view, level=1).wait_for()
        yield found
        found.check(address(process))
        assert found.page.evaluate("window.hacked") is None


def put_in_shadow(place: Place, process: RunningGate, text: str) -> None:
    """What ``ctl shadow`` does."""
    (place.directory / "next.hcl").write_text(text)
    request = Request(
        f"{address(process)}/shadow/put?file=next.hcl",
        method="POST",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    with urlopen(request) as answer:
        assert json.load(answer)["problems"] == []


@contextmanager
def connected(place: Place, process: RunningGate, name: str) -> Iterator[None]:
    """A client that stays."""
    port = process.port("<b>devices</b>")
    with subprocess.Popen(
        [
            program("openssl"), "s_client", "-quiet", "-connect", f"127.0.0.1:{port}",
            "-cert", place.directory / f"{name}.pem", "-key", place.directory / f"{name}.pem",
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as client:  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"hello\n")
        client.stdin.flush()
        # The echo of one who is admitted; the end of one who is not.
        client.stdout.readline()
        try:
            yield
        finally:
            client.kill()


def actions(place: Place) -> list[str]:
    lines = (place.directory / "audit.log").read_text().splitlines()
    return [one["action"] for one in map(json.loads, lines) if one["event"] == "operator"]


def test_the_token_is_asked_for_once_and_kept_in_memory(browser: Any, shared: RunningGate) -> None:
    """A wrong one is said to be wrong; a right one is neither stored nor in the address."""
    with visit(browser, address(shared)) as found:
        page = found.page
        page.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("That is not the token.").wait_for()
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Overview").wait_for()
        for name in VIEWS:
            page.get_by_role("link", name=name, exact=True).click()
            page.get_by_role("heading", name=name, level=1).wait_for()
        stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
        assert stored == "[{},{}]"
        assert page.context.cookies() == []
        assert TOKEN not in "".join([page.url, *found.requests])
        found.check(address(shared))


def test_it_follows_what_happens(browser: Any, place: Place, shared: RunningGate) -> None:
    """A client who comes is shown without a reload of the page, and so is its end."""
    with opened(browser, shared) as found:
        tile = found.page.locator("section.card", has_text="echo on")
        for admitted in range(2):
            tile.locator("dd").first.filter(has_text="0").wait_for()
            with connected(place, shared, "good"):
                tile.locator("dd").first.filter(has_text="1").wait_for()
                tile.get_by_text(f"{admitted + 1} admitted", exact=True).wait_for()
        found.page.get_by_role("link", name="Connections", exact=True).click()
        found.page.get_by_text("0 connections").wait_for()


def test_a_connection_is_closed_and_a_client_ejected(
    browser: Any, place: Place, shared: RunningGate
) -> None:
    """Each asks first; no is no; yes is in the audit log."""
    before = len(actions(place))
    with (
        opened(browser, shared, "Connections") as found,
        connected(place, shared, "good"),
        connected(place, shared, "hostile"),
    ):
        page = found.page
        page.get_by_label("Search").fill("CN=good")
        row = page.get_by_role("row", name="CN=good")
        row.wait_for()
        row.get_by_role("button", name="Close connection").click()
        page.keyboard.press("Escape")
        assert actions(place)[before:] == []
        row.get_by_role("button", name="Close connection").click()
        page.get_by_role("dialog").get_by_role("button", name="Close").click()
        page.get_by_role("dialog").get_by_text("is closed.").wait_for()
        page.get_by_role("dialog").get_by_role("button", name="Close").click()
        page.get_by_text("0 connections").wait_for()
        page.get_by_label("Search").fill("window.hacked")
        page.get_by_role("button", name="Eject the client").click()
        page.get_by_role("dialog").get_by_role("button", name="Eject").click()
        page.get_by_role("dialog").get_by_text("1 connection is closed.").wait_for()
    assert actions(place)[before:] == ["close", "eject"]


def test_connections_are_sorted(browser: Any, place: Place, shared: RunningGate) -> None:
    """By any column, either way, and the column says so."""
    with (
        connected(place, shared, "good"),
        connected(place, shared, "hostile"),
        opened(browser, shared, "Connections") as found,
    ):
        found.page.get_by_text("2 connections").wait_for()
        column = found.page.get_by_role("columnheader", name="client")
        names = []
        for order in ("ascending", "descending"):
            column.get_by_role("button").click()
            assert column.get_attribute("aria-sort") == order
            names.append(found.page.locator("tbody th").all_inner_texts())
        assert names[0] == names[1][::-1]


def test_a_rejection_is_explained(browser: Any, place: Place, shared: RunningGate) -> None:
    """What each rule makes of it, and the block that would admit it, to be copied."""
    with connected(place, shared, "lost"), connected(place, shared, "good"):
        pass
    with opened(browser, shared, "Rejections") as found:
        page = found.page
        page.locator("summary", has_text="CN=lost").first.click()
        page.get_by_text("What the rules make of this certificate now").wait_for()
        assert page.locator(".rule").count() == 2
        assert page.locator(".rule.nearest").count() == 1
        page.get_by_role("button", name="Copy").click()
        page.get_by_role("button", name="Copied").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith('pin "')
        assert copied == page.locator("pre").first.inner_text()


@pytest.mark.parametrize("form", ["paste", "PEM file", "DER file"])
def test_a_certificate_is_tried(
    browser: Any,
    place: Place,
    shared: RunningGate,
    tmp_path: Path,
    form: Literal["paste", "PEM file", "DER file"],
) -> None:
    """Pasted or as a file, now and at another time."""
    client = place.clients["good"]
    with opened(browser, shared, "Try a certificate") as found:
        page = found.page
        if form == "paste":
            page.locator("textarea").fill(client.pem.decode())
        else:
            file = tmp_path / "client.crt"
            file.write_bytes(client.pem if form == "PEM file" else client.der)
            page.get_by_label("File", exact=True).set_input_files(file)
            page.get_by_text("client.crt").wait_for()
        page.get_by_role("button", name="Explain").click()
        page.get_by_text("admitted by rule <i>fleet</i>").first.wait_for()
        later = client.certificate.not_valid_after_utc + timedelta(hours=1)
        page.get_by_label("At (empty for now)").fill(f"{later:%Y-%m-%dT%H:%M:%S}")
        page.get_by_role("button", name="Explain").click()
        page.get_by_text("rejected: ").first.wait_for()


def test_what_is_no_certificate_is_said_to_be_none(browser: Any, shared: RunningGate) -> None:
    """In words, and never as a failure of the page."""
    with opened(browser, shared, "Try a certificate") as found:
        for text in ("", "<script>window.hacked=1</script>"):
            found.page.locator("textarea").fill(text)
            found.page.get_by_role("button", name="Explain").click()
            found.page.get_by_text("the body must be a certificate").wait_for()


def test_what_is_in_the_shadow_is_shown(browser: Any, tmp_path: Path) -> None:
    """Who would be out is shown as it comes, and stays connected."""
    place = Place(tmp_path)
    with running(place) as process, opened(browser, process) as found:
        page = found.page
        assert page.get_by_text("In the shadow").count() == 0
        put_in_shadow(place, process, CONFIG.replace('["lost"]', '["good"]'))
        card = page.locator("section.card", has_text="In the shadow")
        card.get_by_text("would be out", exact=True).wait_for()
        with connected(place, process, "good"):
            row = card.get_by_role("row", name="CN=good")
            row.wait_for()
            assert row.get_by_role("cell").all_inner_texts()[2:5] == [
                "rule <i>fleet</i>", "denied", "1",
            ]  # fmt: skip
        card.locator("summary").click()
        card.locator("li", has_text="changed").wait_for()
    assert actions(place) == ["shadow"]


def test_a_dry_run_and_a_reload(browser: Any, tmp_path: Path) -> None:
    """What would change and whom it would drop; then it is done."""
    place = Place(tmp_path)
    with (
        running(place) as process,
        connected(place, process, "good"),
        opened(browser, process, "Dry run") as found,
    ):
        page, config = found.page, place.directory / "gate.hcl"
        config.write_text(CONFIG.replace('["lost"]', '["good"]'))
        page.get_by_role("button", name="Run").click()
        page.get_by_text("It would take over.").wait_for()
        page.locator("li", has_text="CN=good").wait_for()
        assert actions(place) == []
        page.get_by_role("button", name="Reload…").click()
        page.get_by_role("dialog").get_by_role("button", name="Reload").click()
        page.get_by_role("dialog").get_by_text("Epoch 2 is in force.").wait_for()
        page.get_by_role("dialog").get_by_role("button", name="Close").click()
        config.write_text(CONFIG.replace("echo", "ecko"))
        page.get_by_role("button", name="Run").click()
        page.get_by_text("It would be refused.").wait_for()
        assert page.get_by_role("button", name="Reload…").is_disabled()
        assert actions(place) == ["reload"]


def test_a_gate_that_ends_is_missed_calmly(browser: Any, tmp_path: Path) -> None:
    """Draining is shown; when nobody answers any more, the page says so."""
    place = Place(tmp_path)
    with running(place) as process:
        with (
            connected(place, process, "good"),
            visit(browser, address(process)) as found,
        ):
            page = found.page
            page.get_by_label("Token").fill(TOKEN)
            page.keyboard.press("Enter")
            page.get_by_role("button", name="Drain…").click()
            page.get_by_role("dialog").get_by_role("button", name="Drain").click()
            page.get_by_role("dialog").get_by_text("Draining").wait_for()
            page.get_by_role("dialog").get_by_role("button", name="Close").click()
            page.locator("#state", has_text="draining").wait_for()
            process.process.terminate()
            page.get_by_text("The gate does not answer. Trying again…").wait_for()
            assert found.errors == []
        assert actions(place) == ["drain"]


def test_by_keyboard(browser: Any, place: Place, shared: RunningGate) -> None:
    """Every view and action without a mouse; a question gives the focus back."""
    with connected(place, shared, "good"), opened(browser, shared) as found:
        page = found.page
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.blur(); document.body.focus()")
        page.get_by_role("link", name="Connections", exact=True).focus()
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Connections", level=1).wait_for()
        button = page.get_by_role("button", name="Close connection")
        button.wait_for()
        button.focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        dialog.wait_for()
        assert page.evaluate("document.activeElement.textContent") == "Cancel"
        page.keyboard.press("Enter")
        dialog.wait_for(state="hidden")
        assert "Close connection" in page.evaluate("document.activeElement.ariaLabel")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(
    browser: Any, place: Place, shared: RunningGate, scheme: Literal["light", "dark"]
) -> None:
    """In any view, with data in it."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        lacking("axe-playwright-python is not installed")
    with (
        connected(place, shared, "lost"),
        connected(place, shared, "hostile"),
        opened(browser, shared, scheme=scheme) as found,
    ):
        for name in VIEWS:
            found.page.get_by_role("link", name=name, exact=True).click()
            found.page.get_by_role("heading", name=name, level=1).wait_for()
            violations = Axe().run(found.page).response["violations"]
            serious = [
                (one["id"], [node["html"] for node in one["nodes"]])
                for one in violations
                if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], name


def test_a_narrow_screen_shows_all(browser: Any, place: Place, shared: RunningGate) -> None:
    """From 360 pixels up the page is never wider than the screen, whatever the names."""
    with (
        connected(place, shared, "lost"),
        connected(place, shared, "hostile"),
        opened(browser, shared, width=360) as found,
    ):
        for name in VIEWS:
            found.page.get_by_role("link", name=name, exact=True).click()
            found.page.get_by_role("heading", name=name, level=1).wait_for()
            for one in found.page.locator("summary").all()[:2]:
                one.click()
            assert found.page.evaluate("document.documentElement.scrollWidth") <= 360, name
