"""The URLs of revocation lists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mtlsgate.config.urls import parse_url, parse_urls
from mtlsgate.testing import Authority
from tests.kits.pki import server, site


@pytest.mark.parametrize(
    ("text", "authority", "shown"),
    [
        ("http://ca.example/a.crl", "ca.example:80", "http://ca.example/a.crl"),
        ("https://ca.example", "ca.example:443", "https://ca.example"),
        ("HTTP://CA.example:8080/x", "ca.example:8080", "HTTP://CA.example:8080/x"),
        ("http://127.0.0.1:9/x?token=secret", "127.0.0.1:9", "http://127.0.0.1:9/x"),
        ("https://[::1]/x", "[::1]:443", "https://[::1]/x"),
    ],
)
def test_a_url_says_where_to_connect(text: str, authority: str, shown: str) -> None:
    """Its query, which may be a secret, is not shown."""
    url = parse_url(text)
    assert (url.text, url.authority, str(url)) == (text, authority, shown)
    assert url.is_https == text.startswith("https")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("ldap://ca.example/x", 'begins with "http://" or "https://"'),
        ("ca.example/x", 'begins with "http://" or "https://"'),
        ("file:///etc/passwd", 'begins with "http://" or "https://"'),
        ("http:///x", "has no host"),
        ("http://user:word@ca.example/x", "user name or a password"),
        ("http://ca.example:0/", "from 1 to 65535"),
        ("http://ca.example:99999/", "not a URL"),
        ("http://[::1/", "not a URL"),
        ("http://ca.example/a b", "without spaces"),
        ("http://ca.example/\n", "without spaces"),
        ("http://bücher.example/", "ASCII"),
        ("http://ca.example/#x", '"#"'),
        ([], "is empty"),
        ([5], "must be a string"),
        (True, "must be a string"),
        (["http://a.example/", "http://a.example/"], "listed twice"),
    ],
)
def test_what_is_no_url_is_an_error(value: Any, words: str) -> None:
    """The message does not repeat a password."""
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        parse_urls(value)
    assert "word@" not in str(caught.value)


def test_a_configuration_with_a_wrong_url_does_not_load(tmp_path: Path) -> None:
    here = site(tmp_path)
    (tmp_path / "ca.crt").write_bytes(Authority.create().pem)
    block = 'client_certificate {\nca_certificate_file = "ca.crt"\ncrl_url = "ftp://x/"\n}'
    [problem] = here.problems(server(tls=block))
    assert problem.endswith(
        'client_certificate: crl_url: a URL begins with "http://" or "https://"'
    )
    block = 'client_certificate {\nleaf_certificate_file = "ca.crt"\ncrl_url = "http://x/"\n}'
    assert any("crl_url needs a CA" in one for one in here.problems(server(tls=block)))
