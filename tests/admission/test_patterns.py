"""The pattern language of ``allow`` and ``deny``, as decision tables."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsgate.admission.patterns import (
    DnsPattern,
    UriPattern,
    dns_pattern,
    spiffe_pattern,
    uri_pattern,
)
from mtlsgate.certificates.server_names import canonical


def dns(pattern: str, name: str, wide: bool = False) -> bool:
    """:returns: whether a name in a certificate matches."""
    read = dns_pattern(pattern)
    return (
        read.matches(canonical(name), wide)
        if isinstance(read, DnsPattern)
        else read == canonical(name)
    )


def uri(pattern: str, value: str, wide: bool = False) -> bool:
    """:returns: whether a URI in a certificate matches."""
    read = spiffe_pattern(pattern) if pattern.startswith("spiffe:") else uri_pattern(pattern)
    return read.matches(value, wide) if isinstance(read, UriPattern) else read == value


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("a.example", "a.example", True),
        ("a.example", "A.Example.", True),
        ("A.EXAMPLE.", "a.example", True),
        ("a.example", "b.a.example", False),
        ("a.example", "a.example.evil.example", False),
        ("a.example", "a.example..", False),
        ("a.example", "aXexample", False),
        ("*.b.example", "a.b.example", True),
        ("*.b.example", "A.B.EXAMPLE.", True),
        ("*.B.example.", "a.b.example", True),
        ("*.b.example", "a-1_x.b.example", True),
        ("*.b.example", "xn--bcher-kva.b.example", True),
        ("*.b.example", "b.example", False),
        ("*.b.example", ".b.example", False),
        ("*.b.example", "x.a.b.example", False),
        ("*.b.example", "ab.example", False),
        ("*.b.example", "a.b.example.evil.example", False),
        ("*.b.example", "*.b.example", False),
        ("*.b.example", "evil\0.b.example", False),
        ("*.b.example", "evil\n.b.example", False),
        ("*.b.example", "a b.b.example", False),
        ("*.b.example", "a/b.b.example", False),
        ("*.b.example", "bücher.b.example", False),
        ("*.b.example", "a" * 63 + ".b.example", True),
        ("*.b.example", "a" * 64 + ".b.example", False),
        ("*.example", "b.example", True),
        ("*.example", "", False),
        ("*.example", "example", False),
    ],
)
def test_dns_names(pattern: str, name: str, matches: bool) -> None:
    """One leading ``*.`` is exactly one label; case and one trailing dot do not count."""
    assert dns(pattern, name) is matches


@pytest.mark.parametrize("name", ["\N{KELVIN SIGN}.example", "b\N{KELVIN SIGN}.k.example"])
def test_only_ascii_has_case(name: str) -> None:
    """The Kelvin sign, whose lower case is a "k", is no "k"."""
    plain = name.replace("\N{KELVIN SIGN}", "k")
    assert not dns(plain, name)
    assert not dns("*." + plain.partition(".")[2], name)
    with pytest.raises(ValueError, match="not ASCII"):
        dns_pattern(name)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "is empty"),
        (".", "is empty"),
        ("*", 'a "*" is one whole label, and the first'),
        ("*.", 'a "*" is one whole label, and the first'),
        ("*..", "would match everything"),
        ("**", 'a "*" is one whole label'),
        ("*.*", 'a "*" is one whole label'),
        ("*.*.example", 'a "*" is one whole label'),
        ("**.example", 'a "*" is one whole label'),
        ("a.*.example", 'a "*" is one whole label'),
        ("a.*", 'a "*" is one whole label'),
        ("a*.example", 'a "*" is one whole label'),
        ("*a.example", 'a "*" is one whole label'),
        ("bücher.example", "xn--"),
    ],
)
def test_refused_dns_names(pattern: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        dns_pattern(pattern)


TD = "spiffe://td.example"

URIS: list[tuple[str, str, bool]] = [
    (f"{TD}/a", f"{TD}/a", True),
    (f"{TD}/a", f"{TD}/a/", False),
    (f"{TD}/a", f"{TD}/A", False),
    (f"{TD}/a", "spiffe://TD.example/a", False),
    (f"{TD}/a", f"{TD}/%61", False),
    (f"{TD}/a", f"{TD}/a?", False),
    (f"{TD}/a", f"{TD}/a#", False),
    (f"{TD}/*", f"{TD}/a", True),
    (f"{TD}/*", f"{TD}/A-z_0.9~!$&'()+,;=:@", True),
    (f"{TD}/*", f"{TD}/b%20c", True),
    (f"{TD}/*", f"{TD}/%C3%BC", True),
    (f"{TD}/*", f"{TD}/a/b", False),
    (f"{TD}/*", f"{TD}/", False),
    (f"{TD}/*", TD, False),
    (f"{TD}/*", f"{TD}//", False),
    (f"{TD}/*/b", f"{TD}/a/b", True),
    (f"{TD}/*/b", f"{TD}/a/c", False),
    (f"{TD}/*/b", f"{TD}//b", False),
    (f"{TD}/*/b", f"{TD}/a/a/b", False),
    (f"{TD}/a/*/c/*", f"{TD}/a/b/c/d", True),
    (f"{TD}/a/*/c/*", f"{TD}/a/b/x/d", False),
    (f"{TD}/**", f"{TD}/a", True),
    (f"{TD}/**", f"{TD}/a/b/c", True),
    (f"{TD}/**", TD, False),
    (f"{TD}/**", f"{TD}/", False),
    (f"{TD}/**", f"{TD}/a/", False),
    (f"{TD}/**", f"{TD}/a//b", False),
    (f"{TD}/**", "spiffe://td.example.evil/a", False),
    (f"{TD}/**", "spiffe://evil/td.example/a", False),
    (f"{TD}/**", "spiffe://td.example@evil/a", False),
    (f"{TD}/**", "spiffe://td.example:80/a", False),
    (f"{TD}/**", "SPIFFE://td.example/a", False),
    (f"{TD}/**", "https://td.example/a", False),
    (f"{TD}/**", f"x{TD}/a", False),
    (f"{TD}/**", f"{TD}/a\n", False),
    (f"{TD}/a/**/z", f"{TD}/a/z", False),
    (f"{TD}/a/**/z", f"{TD}/a/b/z", True),
    (f"{TD}/a/**/z", f"{TD}/a/b/c/z", True),
    (f"{TD}/a/**/z", f"{TD}/a/b/c", False),
    (f"{TD}/a/**/z", f"{TD}/a/z/z", True),
    (f"{TD}/**/**", f"{TD}/a", False),
    (f"{TD}/**/**", f"{TD}/a/b", True),
    (f"{TD}/**/*", f"{TD}/a/b/c", True),
    ("https://h/a/*", "https://h/a/b", True),
    ("https://h/a/*", "https://h/a/b?q", False),
    ("https://h/a/*", "https://h/a/b#f", False),
    ("https://h/a/*", "https://h?/a/b", False),
    ("https://h/a/*", "https://h/a/", False),
    ("https://u@h:1/*", "https://u@h:1/b", True),
    ("https://u@h:1/*", "https://h:1/b", False),
    ("urn:dev:/*", "urn:dev:/b", True),
    ("urn:dev/*", "urn:dev/b", True),
    ("file:/**", "file:/a/b", True),
    ("file:/**", "file://a/b", False),
]


@pytest.mark.parametrize(("pattern", "value", "matches"), URIS)
def test_wildcards_in_uris_stay_in_the_path(pattern: str, value: str, matches: bool) -> None:
    """``*`` is one segment, ``**`` one or more, and never of scheme, host or query."""
    assert uri(pattern, value) is matches


#: What no wildcard stands for, and why.
ODD = {
    "an encoded slash": "b%2Fc",
    "an encoded slash in lower case": "b%2fc",
    "one that is encoded twice": "b%252fc",
    "a backslash": "b\\c",
    "an encoded backslash": "b%5cc",
    "the directory itself": ".",
    "the one above": "..",
    "the same, encoded": "%2e%2e",
    "the same, half encoded": ".%2E",
    "an encoded query": "b%3fq",
    "an encoded fragment": "b%23f",
    "a NUL": "b\0c",
    "an encoded NUL": "b%00c",
    "a line end": "b\nc",
    "an encoded line end": "b%0Ac",
    "a blank": "b c",
    "an escape": "b\x1bc",
    "a star": "*",
    "no ASCII": "bü",
    "a direction override": "b\N{RIGHT-TO-LEFT OVERRIDE}c",
    "a broken encoding": "b%2",
    "no encoding": "b%zz",
    "an encoded delete": "b%7f",
}


@pytest.mark.parametrize("segment", ODD.values(), ids=list(ODD))
@pytest.mark.parametrize("pattern", ["/a/*", "/a/**", "/*/b", "/**/b"])
def test_odd_segments(pattern: str, segment: str) -> None:
    """
    A wildcard stands for nothing that a reader could take for something else,
    unless it is in a ``deny``, where not to match would let it in.
    """
    path = re.sub(r"\*+", lambda _: segment, pattern)
    assert not uri(TD + pattern, TD + path)
    assert uri(TD + pattern, TD + path, wide=True)
    # As it is written, it matches in any case.
    if segment != "*":
        assert uri(TD + path, TD + path)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*.b.example", "*.b.example"),
        ("*.b.example", "evil\0.b.example"),
        ("*.b.example", ".b.example"),
        ("*.b.example", "bü.b.example"),
    ],
)
def test_odd_labels(pattern: str, name: str) -> None:
    assert not dns(pattern, name)
    assert dns(pattern, name, wide=True)


@pytest.mark.parametrize("wide", [False, True])
def test_never_wider_than_documented(wide: bool) -> None:
    """The wide reading is about odd characters: one label stays one, one segment one."""
    assert not dns("*.b.example", "x.a.b.example", wide)
    assert not dns("*.b.example", "b.example", wide)
    assert not uri(f"{TD}/*", f"{TD}/a/b", wide)
    assert not uri(f"{TD}/**", "spiffe://evil/a", wide)
    assert not uri(f"{TD}/**", TD, wide)


EVERYTHING, FRONT = "would match everything", 'a "*" may only stand in the path'
WHOLE = 'a "*" or "**" is a whole segment'


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("*", EVERYTHING),
        ("**", EVERYTHING),
        ("**/*", EVERYTHING),
        ("/**", EVERYTHING),
        ("//**", EVERYTHING),
        ("urn:**", "would match everything of its scheme"),
        ("urn:*/a", "would match everything of its scheme"),
        ("*:a", FRONT),
        ("*://h/a", FRONT),
        ("https://*", FRONT),
        ("https://*/a", FRONT),
        ("https://*.h/a", FRONT),
        ("https://h*/a", FRONT),
        ("https://h:*/a", FRONT),
        ("https://h?*", FRONT),
        ("https://h/a?q/*", FRONT),
        ("https://h/a?*", FRONT),
        ("https://h/a#*", FRONT),
        ("https://h/*?q=*", FRONT),
        ("a/*", FRONT),
        ("https://h/a*", WHOLE),
        ("https://h/*a", WHOLE),
        ("https://h/***", WHOLE),
        ("https://h/a/*.b/c", WHOLE),
        ("https://h/*?q", WHOLE),
    ],
)
def test_refused_uris(pattern: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        uri_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "is no SPIFFE ID"),
        ("*", "is no SPIFFE ID"),
        ("**", "is no SPIFFE ID"),
        ("https://td.example/a", "is no SPIFFE ID"),
        ("SPIFFE://td.example/a", "is no SPIFFE ID"),
        ("spiffe:td.example/a", "is no SPIFFE ID"),
        ("spiffe://*", "never crosses trust domains"),
        ("spiffe://*/a", "never crosses trust domains"),
        ("spiffe://**", "never crosses trust domains"),
        ("spiffe://**/a", "never crosses trust domains"),
        ("spiffe://*.example/a", "never crosses trust domains"),
        ("spiffe://td*/a", "never crosses trust domains"),
        ("spiffe:///a", "the trust domain is not one"),
        ("spiffe://", "the trust domain is not one"),
        ("spiffe://TD/a", "the trust domain is not one"),
        ("spiffe://td:1/a", "the trust domain is not one"),
        ("spiffe://u@td/a", "the trust domain is not one"),
        ("spiffe://td?/a", "the trust domain is not one"),
        ("spiffe://td\n/a", "the trust domain is not one"),
        ("spiffe://td/a*", WHOLE),
        ("spiffe://td/?*", FRONT),
    ],
)
def test_refused_spiffe_ids(pattern: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        spiffe_pattern(pattern)


# Properties

SEGMENTS = st.sampled_from(["a", "b", "a.b", "..", ".", "", "%2F", "a%20", "é", "?q", "x*"])
WILD = st.sampled_from(["a", "b", "*", "**", ".."])
AUTHORITIES = st.sampled_from(["spiffe://td", "spiffe://td2", "spiffe://evil.td", "https://td"])


def reference(pattern: str) -> re.Pattern[str]:
    """:returns: the same in the words of `re`; may take exponential time."""
    one = r"(?!\.{1,2}(?:/|\Z))(?:[a-zA-Z0-9.]|%20)+"
    scheme, _, rest = pattern.partition("://")
    parts = {"*": one, "**": f"{one}(?:/{one})*"}
    domain, *path = rest.split("/")
    text = "/".join([re.escape(domain), *(parts.get(part, re.escape(part)) for part in path)])
    return re.compile(f"{scheme}://{text}")


@pytest.mark.slow
@given(
    front=AUTHORITIES,
    pattern=st.lists(WILD, min_size=1, max_size=6),
    other=AUTHORITIES,
    value=st.lists(SEGMENTS, max_size=8),
)
@settings(max_examples=500)
def test_as_a_regular_expression_has_it(
    front: str, pattern: list[str], other: str, value: list[str]
) -> None:
    written, presented = "/".join([front, *pattern]), "/".join([other, *value])
    expected = reference(written).fullmatch(presented) is not None
    assert uri(written, presented) is expected
    if expected:
        assert front == other
        assert uri(written, presented, wide=True)


@given(
    text=st.text(alphabet=st.characters(exclude_characters="*", codec="utf-8"), min_size=1),
    other=st.text(min_size=1),
)
def test_without_a_star_it_matches_itself(text: str, other: str) -> None:
    """... and nothing else."""
    read = uri_pattern(text)
    assert read == text
    assert uri(text, text)
    assert uri(text, other) is (text == other)


@given(st.lists(st.sampled_from(list("ab/.%2Fé?#\0 :")), max_size=12).map("".join))
def test_a_star_is_one_segment(rest: str) -> None:
    """``*`` never stands for a slash, and neither star for anything of the host."""
    value = f"spiffe://td/{rest}"
    if uri("spiffe://td/*", value):
        assert rest
        assert "/" not in rest
    assert not uri("spiffe://td/**", f"spiffe://td{rest.partition('/')[0]}x/a")


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text(pattern: str, value: str) -> None:
    """Nothing but a ValueError, and nothing that matches all there is."""
    for read in (dns_pattern, uri_pattern, spiffe_pattern):
        try:
            found = read(pattern)
        except ValueError:
            continue
        if isinstance(found, DnsPattern | UriPattern):
            assert not (found.matches("a.example") and found.matches("spiffe://td/a"))
            found.matches(value)
            found.matches(value, wide=True)


@pytest.mark.parametrize("pattern", ["/**" * 300, "/**/a" * 150 + "/b", "/**/*" * 150])
@pytest.mark.parametrize("value", ["/a" * 2000, "/a" * 2000 + "/c", "/" * 4000])
def test_a_pattern_of_stars_costs_no_more_than_the_product_of_lengths(
    pattern: str, value: str
) -> None:
    """Stars upon stars cost the product of both lengths, and no more."""
    # With a cost in a power of the stars this would never end.
    uri(TD + pattern, TD + value)
