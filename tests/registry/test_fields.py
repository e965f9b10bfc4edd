from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mtlsgate.admission.devices import Device, DeviceState, KeyKind
from mtlsgate.registry.fields import (
    FieldError,
    attributes_text,
    device_of,
    fields_of,
    instant_text,
    parse_attributes,
    read_instant,
    read_key,
    read_note,
)

DIGEST = "0123456789abcdef" * 4


def fault(read: object, *given: object) -> str:
    with pytest.raises(FieldError) as caught:
        read(*given)  # type: ignore[operator]
    text = str(caught.value)
    assert text.isprintable()
    return text


def test_a_device_is_the_same_after_a_store_had_it() -> None:
    device = Device(
        DIGEST,
        DeviceState.DENIED,
        datetime(2026, 1, 2, 3, 4, 5, 600, UTC),
        datetime(2027, 1, 2, tzinfo=UTC),
        'two\nlines, "quoted", ünïcödé \U0001f512',
        {"tenant": "north", "b": "", "a": "\u202e"},
    )
    assert device_of(device.key, fields_of(device)) == device
    assert fields_of(Device(DIGEST)) == {
        "state": "active",
        "not_before": "",
        "not_after": "",
        "note": "",
        "attributes": "{}",
    }
    assert device_of(DIGEST, {"state": "active"}) == Device(DIGEST)


@pytest.mark.parametrize(
    "kind", [KeyKind.IDENTITY, KeyKind.SHA256, KeyKind.SPKI_SHA256], ids=lambda kind: str(kind)
)
def test_a_digest_may_be_written_as_tools_print_it(kind: KeyKind) -> None:
    colons = ":".join(DIGEST[at : at + 2] for at in range(0, 64, 2)).upper()
    assert read_key(kind, colons) == read_key(kind, DIGEST) == DIGEST
    assert fault(read_key, kind, DIGEST[1:]).startswith(f"key: is no {kind.value}")
    assert "key: " in fault(read_key, kind, "")


def test_the_digest_of_a_key_may_be_in_base64() -> None:
    assert read_key(KeyKind.SPKI_SHA256, "A" * 43 + "=") == "0" * 64


def test_names_are_keys_as_the_gate_looks_for_them() -> None:
    assert read_key(KeyKind.DNS_NAME, "Sensor-1.Example") == "sensor-1.example"
    assert read_key(KeyKind.COMMON_NAME, "Sensor 1") == "Sensor 1"
    assert read_key(KeyKind.SPIFFE_ID, "spiffe://plants.example/a") == "spiffe://plants.example/a"
    assert "spiffe://" in fault(read_key, KeyKind.SPIFFE_ID, "plants.example/a")
    assert "is no DNS name" in fault(read_key, KeyKind.DNS_NAME, ".")
    assert "xn--" in fault(read_key, KeyKind.DNS_NAME, "b\xfccher.example")
    assert "empty" in fault(read_key, KeyKind.COMMON_NAME, "")
    assert "printed" in fault(read_key, KeyKind.COMMON_NAME, "a\nb")
    assert "longer" in fault(read_key, KeyKind.COMMON_NAME, "a" * 513)


def test_instants_are_exact_and_in_utc() -> None:
    assert read_instant("not_after", "2027-01-31T12:00:00+02:00") == datetime(
        2027, 1, 31, 10, tzinfo=UTC
    )
    assert instant_text(datetime(2027, 1, 31, tzinfo=UTC)) == "2027-01-31T00:00:00Z"
    for wrong in (
        *("", "tomorrow", "2027-01-31", "2027-01-31T12:00:00", "2027-02-30T12:00:00Z"),
        *("0001-01-01T00:00:00+23:00", "2027-01-31T25:00:00Z", "2027-01-31T12:00:00Z\n"),
    ):
        assert fault(read_instant, "not_after", wrong).startswith("not_after: is no instant")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "7", "null", "{", '{"a": 1}', '{"a": null}', '{"": "b"}', '{"a b": ""}'),
        *('{"a": "1", "a": "2"}', '{"a": "\\u0000"}', '{"a": "\\ud800"}', "[" * 100_000),
        '{"a": "' + "x" * 1025 + '"}',
        "{" + ",".join(f'"a{n}": ""' for n in range(65)) + "}",
        "{" + ",".join(f'"a{n}": "{"x" * 1000}"' for n in range(17)) + "}",
    ],
    ids=range(16),
)
def test_attributes_that_are_not_clear_are_refused(text: str) -> None:
    assert fault(parse_attributes, text).startswith("attributes: ")


def test_equal_attributes_are_written_alike() -> None:
    one, other = {"b": "2", "a": "ü"}, {"a": "ü", "b": "2"}
    assert attributes_text(one) == attributes_text(other) == '{"a":"ü","b":"2"}'
    assert parse_attributes(attributes_text(one)) == one


@pytest.mark.parametrize(
    "fields",
    [
        *({}, {"state": ""}, {"state": "ACTIVE"}, {"state": "active "}),
        {"state": "active", "not_before": "soon"},
        {"state": "active", "attributes": "no"},
        {"state": "active", "note": "a\0b"},
    ],
    ids=range(7),
)
def test_a_hand_written_device_that_is_not_clear_is_none(fields: dict[str, str]) -> None:
    assert fault(device_of, DIGEST, fields)


def test_a_note_is_what_every_store_can_keep() -> None:
    assert read_note("a\nb\tü") == "a\nb\tü"
    for wrong in ("a\0", "\ud800", "x" * 4097):
        assert fault(read_note, wrong).startswith("note: ")
