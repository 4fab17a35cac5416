"""Strict JSON bodies: the hostile inputs, each with its exact answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.web.body import dump_json, int_argument, only_fields, parse_json, parse_json_object, text_field
from hub.web.errors import ApiError, printable
from hub.web.identity import safe_next

JSON = "application/json"


@pytest.mark.parametrize(
    ("raw", "content_type", "status", "code"),
    [
        pytest.param(b"[null,null]", JSON, 400, "bad_body", id="a-list"),
        pytest.param(b'"x"', JSON, 400, "bad_body", id="a-string"),
        pytest.param(b"5", JSON, 400, "bad_body", id="a-number"),
        pytest.param(b'{"a": "\xff"}', JSON, 400, "bad_utf8", id="not-utf8"),
        pytest.param(b'{"a": NaN}', JSON, 400, "bad_number", id="nan"),
        pytest.param(b'{"a": -Infinity}', JSON, 400, "bad_number", id="infinity"),
        pytest.param(b'{"a": 1e999}', JSON, 400, "bad_number", id="overflow"),
        pytest.param(b"[" * 100_000, JSON, 400, "too_deep", id="deep"),
        pytest.param(b'{"gpu":0,"gpu":8}', JSON, 400, "duplicate_key", id="duplicate"),
        pytest.param(b'{"a": "\\ud800"}', JSON, 400, "bad_unicode", id="surrogate"),
        pytest.param(b'{"\\ud800": 1}', JSON, 400, "bad_unicode", id="surrogate-key"),
        pytest.param(b"{}", "text/plain", 415, "bad_content_type", id="content-type"),
        pytest.param(b"{" + b" " * (1 << 20) + b"}", JSON, 413, "too_large", id="large"),
        pytest.param(b"{", JSON, 400, "bad_json", id="cut"),
        pytest.param(b"", JSON, 400, "bad_json", id="empty"),
    ],
)
def test_a_hostile_body_gets_its_precise_answer(
    raw: bytes, content_type: str, status: int, code: str
) -> None:
    with pytest.raises(ApiError) as refused:
        parse_json_object(raw, content_type)
    assert (refused.value.status, refused.value.code) == (status, code)


def test_brackets_inside_strings_are_not_depth() -> None:
    assert parse_json(b'{"a": "' + b"[" * 1000 + b'"}') == {"a": "[" * 1000}


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused_never_a_crash(raw: bytes) -> None:
    try:
        value = parse_json(raw)
    except ApiError as error:
        assert error.status == 400
    else:
        dump_json(value)


@pytest.mark.parametrize("text", ["-1", "abc", "1" + "0" * 30, "٣", "", "1.5", "0"])
def test_a_page_size_is_a_plain_number_in_range(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        int_argument(text, "limit", 1, 200, "bad_page")
    assert refused.value.code == "bad_page"


def test_fields_are_checked_by_name_and_type() -> None:
    with pytest.raises(ApiError, match="must be a string"):
        text_field({"name": 5}, "name")
    with pytest.raises(ApiError, match="is required"):
        text_field({}, "name")
    with pytest.raises(ApiError, match="longer than 3"):
        text_field({"name": "abcd"}, "name", max_length=3)
    with pytest.raises(ApiError, match="Unknown field: extra"):
        only_fields({"extra": 1}, {"name"})


def test_an_echo_in_an_error_is_short_and_printable() -> None:
    assert len(printable("x" * 500)) <= 80
    assert "\x1b" not in printable("\x1b[31mred")


@pytest.mark.parametrize(
    "path",
    [
        "//evil",
        "/\\evil",
        "///evil",
        "https:/evil",
        "javascript:1",
        "/%0d%0aSet-Cookie:a=b\r\n",
        "https://hub@evil",
        "/\tevil",
        "evil",
        "",
    ],
)
def test_a_next_address_never_leaves_this_host(path: str) -> None:
    assert safe_next(path) == "/"


@pytest.mark.parametrize("path", ["/drive", "/d/abc?x=1&y=2", "/d/a#scrollTo=1"])
def test_a_plain_next_path_is_kept(path: str) -> None:
    assert safe_next(path) == path
