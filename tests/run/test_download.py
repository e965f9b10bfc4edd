"""Downloads, over real sockets in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.proxy import Keys

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("measured")]

#: A server that answers as its paths say, and a downloader that asks it for each.
SCRIPT = """
import json, sys
from twisted.internet import reactor, ssl
from twisted.internet.defer import DeferredList
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from mtlsgate.config.urls import parse_url
from mtlsgate.run.download import Downloader, why_not

class Answers(Resource):
    isLeaf = True

    def render_GET(self, request):
        match request.path:
            case b"/good":
                return b"content"
            case b"/large":
                return b"x" * 1001
            case b"/endless":
                request.write(b"x" * 600)
                reactor.callLater(0.1, request.write, b"x" * 600)
                return NOT_DONE_YET
            case b"/moved":
                request.redirect(b"http://elsewhere.example/")
                return b""
            case b"/silent":
                return NOT_DONE_YET
            case b"/cut":
                request.setHeader(b"content-length", b"100")
                request.write(b"x")
                request.transport.loseConnection()
                return NOT_DONE_YET
        request.setResponseCode(404)
        return b"no"

site, directory = Site(Answers()), sys.argv[1]
plain = reactor.listenTCP(0, site, interface="127.0.0.1")
context = ssl.DefaultOpenSSLContextFactory(f"{directory}/target.key", f"{directory}/target.crt")
secure = reactor.listenSSL(0, site, context, interface="127.0.0.1")
urls = {
    path: f"http://127.0.0.1:{plain.getHost().port}/{path}"
    for path in ("good", "large", "endless", "moved", "silent", "cut", "missing")
}
urls["https"] = f"https://127.0.0.1:{secure.getHost().port}/good"
urls["other name"] = f"https://localhost:{secure.getHost().port}/good"
urls["plain"] = f"https://127.0.0.1:{plain.getHost().port}/good"
urls["refused"] = "http://127.0.0.1:1/good"
download, found = Downloader(reactor, most=1000, timeout=2.0), {}

def start(name):
    asked = download(parse_url(urls[name]))
    asked.addCallbacks(bytes.decode, lambda failure: "failed: " + why_not(failure.value))
    return asked.addCallback(lambda text: found.__setitem__(name, text))

DeferredList([start(name) for name in urls]).addCallback(lambda _: reactor.stop())
reactor.run()
print(json.dumps(found))
"""


def test_what_can_be_had_and_what_cannot(tmp_path: Path) -> None:
    """A document within the limits comes; whatever else happens ends in time, with a reason
    in one line."""
    Keys.write(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "SSL_CERT_FILE": str(tmp_path / "ca.crt")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("other name").startswith("failed: it is not localhost: ")
    assert found.pop("plain").startswith("failed: ")
    assert found == {
        "good": "content",
        "https": "content",
        "large": "failed: it is larger than 1000 bytes",
        "endless": "failed: it is larger than 1000 bytes",
        "moved": "failed: the server answers 302 Found; redirects are not followed, so name the "
        "URL itself: http://elsewhere.example/",
        "silent": "failed: no answer in time",
        "cut": "failed: the server ended the connection",
        "missing": "failed: the server answers 404 Not Found",
        "refused": "failed: connection refused",
    }
