from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from io import BytesIO

import pytest

from mtlsgate.admission.devices import Device, DeviceState, KeyKind
from mtlsgate.registry.fields import FIELDS
from mtlsgate.registry.formats import LONGEST_LINE, Fault, Format, Unstated, head, read, write

#: What a spreadsheet, a terminal or a shell would take for something else.
ODD = (
    *("=cmd|' /C calc'!A0", "a,b;c\td", 'say "no"', '"', "'", "\\", "\\n", " blanks ", "", "#"),
    *("line\nline", "line\r\nline\r", "\x1b[31mred", "\u202eright to left", "\u2028", "ünïcödé"),
    *("\U0001f512", "\ufeff", "null", "0", "x" * 4096),
)


def devices() -> list[Device]:
    found = [Device(f"device {n}", note=note) for n, note in enumerate(ODD)]
    found += [
        Device(f"attribute {n}", attributes={"tenant": text[:1024]}) for n, text in enumerate(ODD)
    ]
    found += [Device(key) for key in ODD if 0 < len(key) <= 512 and key.isprintable()]
    return [
        *found,
        Device(
            "everything",
            DeviceState.DENIED,
            datetime(2026, 1, 1, 1, 2, 3, 4, UTC),
            datetime(2027, 1, 1, tzinfo=UTC),
            "note",
            {"b": "2", "a": "1"},
        ),
        Device("most", attributes={f"a{n}": '"\x01\\' * 80 for n in range(64)}),
    ]


def lines_of(text: str) -> list[bytes]:
    """:returns: lines as a file of bytes has them: only a line feed ends one."""
    return list(BytesIO(text.encode()))


def faults(kind: Format, text: str | Iterable[bytes], key: KeyKind = KeyKind.COMMON_NAME) -> str:
    lines = lines_of(text) if isinstance(text, str) else text
    found = [f"{row.line}: {row.found.text}" for row in read(kind, lines, key)
             if isinstance(row.found, Fault)]  # fmt: skip
    assert all(one.isprintable() for one in found)
    return "\n".join(found)


@pytest.mark.parametrize("kind", Format)
def test_what_is_written_reads_as_the_same_devices(kind: Format) -> None:
    written = devices()
    text = head(kind) + write(kind, written)
    rows = list(read(kind, lines_of(text), KeyKind.COMMON_NAME))
    assert [row.found for row in rows] == written
    assert len({row.line for row in rows}) == len(written)


@pytest.mark.parametrize("kind", Format)
def test_devices_that_hold_as_much_as_may_be_can_be_read_again(kind: Format) -> None:
    """Quoting makes text longer; the limits leave room for that."""
    (most,) = [one for one in devices() if one.key == "most"]
    full = Device(most.key, note='"' * 4096, attributes={f"a{n}": "\x01" * 250 for n in range(64)})
    text = head(kind) + write(kind, [full])
    (row,) = read(kind, lines_of(text), KeyKind.COMMON_NAME)
    assert row.found == full


def test_a_fault_is_told_with_its_line_and_the_rest_is_read() -> None:
    text = (
        '{"key": "one"}\n'
        '{"key": "two"\n'
        "\n"
        '{"key": "three", "state": "maybe"}\r\n'
        '{"key": "four", "not_after": "tomorrow"}\n'
        '{"key": "five"}'
    )
    assert faults(Format.JSON_LINES, text) == (
        "2: is no JSON: Expecting ',' delimiter, at column 14\n"
        '4: state: must be "active" or "denied"\n'
        "5: not_after: is no instant: write it as 2027-01-31T12:00:00Z"
    )
    found = read(Format.JSON_LINES, lines_of(text), KeyKind.COMMON_NAME)
    good = [(row.line, row.found) for row in found if isinstance(row.found, Device)]
    assert good == [(1, Device("one")), (6, Device("five"))]


def test_a_row_of_csv_begins_where_its_first_line_is() -> None:
    text = 'key,note\none,"two\nlines"\n\n,empty\nlast,more,columns\n'
    assert faults(Format.CSV, text) == ("5: key: is empty\n6: has 3 columns, and the first line 2")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[]", "is no JSON object"),
        ("7", "is no JSON object"),
        ("{}", "key: is missing"),
        ('{"key": null}', "key: is missing"),
        ('{"key": 7}', "key: must be a text, in quotes"),
        ('{"key": "a", "key": "b"}', "a name is there twice"),
        ('{"key": "a", "sate": "denied"}', 'has no field "sate"; did you mean "state"?'),
        ('{"key": "a", "state": true}', "state: must be a text"),
        ('{"key": "a", "attributes": []}', "attributes: must be an object"),
        ('{"key": "a", "attributes": {"tenant": 7}}', "attributes: tenant: must be a text"),
        ('{"key": "a", "attributes": {"a": "1", "a": "2"}}', "a name is there twice"),
        ('{"key": "a", "note": "\\u0000"}', "note: has a NUL"),
        ('{"key": "\\ud800"}', "key: has characters that cannot be printed"),
        ("[" * 200_000, "is no JSON"),
        ("x" * (LONGEST_LINE + 1), "is longer than"),
        (
            '{"key": "a", "not_before": "2027-01-01T00:00:00Z", '
            '"not_after": "2026-01-01T00:00:00Z"}',
            "not_after: is before not_before",
        ),
    ],
    ids=range(16),
)
def test_json_that_is_not_clear_is_a_fault(line: str, why: str) -> None:
    assert why in faults(Format.JSON_LINES, line)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "1: has no first line with the columns: key,state"),
        ("\n\n", "has no first line"),
        ("one\ntwo\n", '1: has no column "key"'),
        ("key;state\none;active\n", "with commas between them"),
        ("key,key\n", "two columns of the same name"),
        ("key,sate\n", 'has no field "sate"; did you mean "state"?'),
        ("key,attributes.a b\n", "attributes: a name has letters"),
        ('key,note\none,"two\n', "2: is no CSV: unexpected end of data"),
        ('key,note\none,"two"three\n', "2: is no CSV"),
        ("key,attributes\none,tenant=north\n", "2: attributes: is no JSON object"),
        (
            'key,attributes,attributes.a\none,"{""a"":""1""}",2\n',
            "2: attributes: a: is there twice",
        ),
    ],
    ids=range(11),
)
def test_csv_that_is_not_clear_is_a_fault(text: str, why: str) -> None:
    assert why in faults(Format.CSV, text)


@pytest.mark.parametrize("kind", Format)
def test_what_is_no_text_is_a_fault_with_its_line(kind: Format) -> None:
    first = b"key\r\n" if kind is Format.CSV else b'{"key": "one"}\n'
    assert faults(kind, [first, b"\xff\n"]) == "2: is not UTF-8"
    assert faults(kind, ["key\n".encode("utf-16")]).startswith("1: is text in UTF-16")
    assert faults(kind, [b"\x1f\x8b\x08\x00\n"]) == "1: is compressed: unpack it"


@pytest.mark.parametrize("kind", Format)
def test_a_byte_order_mark_is_skipped(kind: Format) -> None:
    text = "\ufeffkey\none\n" if kind is Format.CSV else '\ufeff{"key": "one"}\n'
    (row,) = read(kind, lines_of(text), KeyKind.COMMON_NAME)
    assert row.found == Device("one")


def test_an_attribute_may_have_a_column_of_its_own() -> None:
    text = "state,key,attributes.tenant,attributes.site\nactive,a,north,\nactive,b,,7\n"
    rows = read(Format.CSV, lines_of(text), KeyKind.COMMON_NAME)
    assert [row.found for row in rows] == [
        Device("a", attributes={"tenant": "north"}),
        Device("b", attributes={"site": "7"}),
    ]


@pytest.mark.parametrize("kind", Format)
def test_what_a_file_does_not_say_is_as_stated_for_all(kind: Format) -> None:
    unstated = Unstated(DeviceState.DENIED, note="stolen", attributes={"by": "me", "tenant": "?"})
    own = Device("a", DeviceState.ACTIVE, note="found", attributes={"tenant": "north"})
    text = {
        Format.CSV: 'key,state,note,attributes\na,active,found,"{""tenant"":""north""}"\nb,,,\n',
        Format.JSON_LINES: write(Format.JSON_LINES, [own]) + '{"key": "b"}\n',
    }[kind]
    rows = read(kind, lines_of(text), KeyKind.COMMON_NAME, unstated)
    assert [row.found for row in rows] == [
        Device("a", note="found", attributes={"by": "me", "tenant": "north"}),
        Device("b", DeviceState.DENIED, note="stolen", attributes={"by": "me", "tenant": "?"}),
    ]


def test_keys_become_what_the_gate_looks_for() -> None:
    colons = ":".join(["AB"] * 32)
    (row,) = read(Format.CSV, lines_of(f"key\n{colons}\n"), KeyKind.IDENTITY)
    assert row.found == Device("ab" * 32)
    assert faults(Format.CSV, "key\nsensor-1\n", KeyKind.IDENTITY).startswith(
        "2: key: is no identity"
    )


def test_the_columns_are_the_fields_of_the_layout() -> None:
    assert head(Format.CSV) == ",".join(FIELDS) + "\r\n"
