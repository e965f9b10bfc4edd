"""
Forms out of bodies.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlsgate.http.forms import MAX_FIELDS, MAX_URLENCODED, is_form, longest_form, read_form
from mtlsgate.http.refusal import Refusal

URLENCODED = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data; boundary=XX"


def part(name: bytes, content: bytes) -> bytes:
    return b'--XX\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name, content)


def test_fields_in_a_url() -> None:
    assert read_form(URLENCODED, b"a=1&b=%20x&a=2&c=") == {
        b"a": [b"1", b"2"], b"b": [b" x"], b"c": [b""],
    }  # fmt: skip
    assert read_form(URLENCODED + b"; charset=utf-8", b"") == {}


def test_a_form_has_fields_and_files() -> None:
    """Fields and files, whatever else a part says; what is before and after is nothing."""
    body = (
        b"ignored\r\n" + part(b"a", b"1\r\n--X") + part(b"a", b"") + b"--XX\r\n"
        b"content-type: image/png\r\n"
        b'CONTENT-DISPOSITION: form-data; filename="x\\"; name=y"; name="f\\"ile"\r\n\r\n'
        b"\0\xff\r\n\r\n\r\n--XX--\r\nignored"
    )
    for kind in (MULTIPART, b'Multipart/Form-Data; charset=x; Boundary="XX"'):
        assert read_form(kind, body) == {b"a": [b"1\r\n--X", b""], b'f"ile': [b"\0\xff\r\n\r\n"]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        part(b"a", b"1"),
        b"--XX\r\n\r\n1\r\n--XX--",
        b"--XX\r\nContent-Disposition: form-data\r\n\r\n1\r\n--XX--",
        b'--XX\r\nContent-Disposition: attachment; name="a"\r\n\r\n1\r\n--XX--',
        b"--XX\r\nA: " + b"b" * 9000 + part(b"a", b"1").removeprefix(b"--XX") + b"--XX--",
        b"--XX\r\nno head--XX--",
    ],
)  # fmt: skip
def test_what_is_no_form(body: bytes) -> None:
    """400, and nothing of it is taken."""
    with pytest.raises(Refusal) as caught:
        read_form(MULTIPART, body)
    assert caught.value.status == 400


def test_no_boundary() -> None:
    with pytest.raises(Refusal) as caught:
        read_form(b"multipart/form-data", part(b"a", b"1") + b"--XX--")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (URLENCODED, b"&".join([b"a=1"] * (MAX_FIELDS + 1))),
        (URLENCODED, b";" * MAX_FIELDS),
        (MULTIPART, part(b"a", b"1") * (MAX_FIELDS + 1) + b"--XX--"),
        (MULTIPART, b"\r\n--XX" * 3_000_000),
    ],
)
def test_too_many_fields(kind: bytes, body: bytes) -> None:
    """413, before any of them is read."""
    with pytest.raises(Refusal) as caught:
        read_form(kind, body)
    assert caught.value.status == 413


def test_a_large_file_is_cut_out_once() -> None:
    content = bytes(range(256)) * 65536
    assert read_form(MULTIPART, part(b"f", content) + b"--XX--") == {b"f": [content]}


def test_what_is_a_form() -> None:
    assert is_form(b"Application/X-WWW-Form-URLencoded ; charset=utf-8")
    assert is_form(MULTIPART)
    assert not is_form(b"application/json")
    assert longest_form(URLENCODED, 1 << 30) == MAX_URLENCODED
    assert longest_form(MULTIPART, 1 << 30) == 1 << 30


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_form_or_refused(junk: bytes) -> None:
    for kind in (URLENCODED, MULTIPART, b"multipart/form-data; boundary=\r"):
        status = None
        try:
            read_form(kind, junk)
        except Refusal as refusal:
            status = refusal.status
        assert status in (None, 400, 413)
