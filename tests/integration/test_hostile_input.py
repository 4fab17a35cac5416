"""Hostile requests to a running installation, through its proxy: each gets its exact status and code, and changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.patience import PATIENCE
from support.service import Running

DOCUMENTS = "/services/documents/api/v1"
CONTROL = "/services/control/api/v1"
MANY = 10 << 30


class Answer:
    """What came back: `status`, `headers` in lower case, and the `code` of the body."""

    def __init__(self, raw: bytes) -> None:
        head, _, body = raw.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):
            head, _, body = body.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        self.text = body.decode("utf-8", "replace")
        start = self.text.find("{")
        model = json.loads(self.text[start : self.text.rfind("}") + 1]) if start >= 0 else {}
        self.code, self.field = model.get("code"), model.get("field")

    @property
    def told(self) -> tuple[int, str | None]:
        return self.status, self.code


def send(
    service: Running,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    end: bool = True,
) -> Answer:
    """Send bytes as they are, as `bob`; `end` False: the request is never finished."""
    lines = {
        "Host": urlsplit(service.url).netloc,
        "Authorization": f"Bearer {service.tokens['bob']}",
        "Content-Type": "application/json",
        "Connection": "close",
        **({"Content-Length": str(len(body))} if end else {}),
        **(headers or {}),
    }
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as to:
        raw = b""
        # Who refuses a body may hang up while it is still on its way. The answer is there all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            to.sendall(head.encode("latin-1") + body)
        with contextlib.suppress(ConnectionResetError):
            while chunk := to.recv(1 << 16):
                raw += chunk
                if not end and b'"code"' in raw:
                    break
    return Answer(raw)


@pytest.fixture
def file_id(service: Running) -> str:
    return str(service.make_file("bob")["id"])


def text_file(service: Running, content: str) -> dict[str, Any]:
    return service.make_file("bob", f"{secrets.token_hex(4)}.txt", kind="file", content=content)


@pytest.fixture(scope="module")
def drive(service: Running) -> Path:
    """The folder of bob's Drive on the disk."""
    name = text_file(service, "here")["name"]
    return next((service.state / "drive").glob(f"*/{name}")).parent


def bodies(service: Running) -> list[tuple[str, str]]:
    """Return one address for each kind of JSON body, those of a notebook named NB."""
    return [
        ("POST", f"{DOCUMENTS}/files"),
        ("PATCH", f"{DOCUMENTS}/files/NB"),
        ("POST", f"{DOCUMENTS}/files/NB/copy"),
        ("PUT", "/services/documents/api/collaboration/session/NB/x.ipynb"),
        ("PATCH", "/services/documents/api/contents/NB/x.ipynb"),
        ("POST", f"{CONTROL}/runtimes"),
    ]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"[null,null]", "bad_body"),
        (b'"x"', "bad_body"),
        (b"5", "bad_body"),
        (b"", "bad_json"),
        (b'{"name":"\xff"}', "bad_utf8"),
        (b'{"name":NaN}', "bad_number"),
        (b'{"name":-Infinity}', "bad_number"),
        (b'{"name":1e999}', "bad_number"),
        (b"[" * 100_000, "too_deep"),
        (b'{"name":"a","name":"b"}', "duplicate_key"),
        (b'{"name":"\\ud800"}', "bad_unicode"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_rows_1_2_4_5_a_body_that_is_no_clean_object(
    service: Running, file_id: str, raw: bytes, code: str
) -> None:
    for method, path in bodies(service):
        if raw == b"" and path.endswith("/copy"):
            continue  # a copy needs no body
        answer = send(service, method, path.replace("NB", file_id), raw)
        assert answer.told == (400, code), (method, path, answer.text)


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"type": "file", "name": [1]}, "bad_type", "name"),
        ({"type": {}}, "bad_type", "type"),
        ({"type": "disk"}, "bad_type", "type"),
        ({"type": "file", "parent": 1}, "bad_type", "parent"),
        ({"type": "file", "content": 1}, "bad_type", "content"),
        ({"type": "folder", "content": "x"}, "bad_type", "content"),
        ({}, "missing_field", "type"),
        ({"type": "file", "size": 1}, "unknown_field", "size"),
        ({"type": "file", "name": "x" * 300}, "name_too_long", "name"),
        ({"type": "file", "name": "a\nb.txt"}, "bad_file_name", "name"),
        ({"type": "file", "name": "nb.ipynb\u202e"}, "bad_file_name", "name"),
        ({"type": "file", "name": "x "}, "bad_file_name", "name"),
        ({"type": "file", "name": "x."}, "bad_file_name", "name"),
        ({"type": "file", "name": "a\u0000b"}, "bad_file_name", "name"),
        ({"type": "file", "name": "../x"}, "bad_file_name", "name"),
        ({"type": "file", "name": ".."}, "bad_file_name", "name"),
        ({"type": "notebook", "content": {"cells": 1, "nbformat": 4}}, "bad_notebook", "content"),
        ({"type": "notebook", "content": {"nbformat": 99, "cells": []}}, "bad_notebook", "content"),
        ({"type": "notebook", "content": "\x89PNG"}, "bad_notebook", "content"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_rows_3_20_21_24_a_field_that_makes_no_sense(
    service: Running, body: dict[str, Any], code: str, field: str
) -> None:
    before = service.api("bob", "GET", f"{DOCUMENTS}/files").json()["total"]
    answer = send(service, "POST", f"{DOCUMENTS}/files", json.dumps(body).encode())
    assert (*answer.told, answer.field) == (400, code, field)
    assert service.api("bob", "GET", f"{DOCUMENTS}/files").json()["total"] == before


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=abc", f"limit={10**30}", "limit=0", "limit=201", f"offset={2**63}", "limit="]
)
def test_row_6_a_page_that_is_none(service: Running, query: str) -> None:
    for path in (f"{DOCUMENTS}/files", f"{CONTROL}/runtimes", f"{CONTROL}/sessions"):
        assert send(service, "GET", f"{path}?{query}").told == (400, "bad_page")


def test_row_7_a_body_that_is_too_large_is_refused_before_it_arrives(service: Running, file_id: str) -> None:
    announced = {"Content-Length": str(MANY)}
    addresses = [*bodies(service), ("POST", f"{DOCUMENTS}/files/upload?name=x&parent=root")]
    for method, path in addresses:
        for headers in (announced, {**announced, "Expect": "100-continue"}):
            answer = send(
                service, method, path.replace("NB", file_id), b" " * 70_000, headers=headers, end=False
            )
            assert answer.told == (413, "too_large"), (method, path, headers)
            assert answer.headers["connection"] == "close"
    endless = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    for method, path in addresses[1:-1]:
        chunked = {"Transfer-Encoding": "chunked"}
        answer = send(service, method, path.replace("NB", file_id), endless * 40, headers=chunked, end=False)
        assert answer.told == (413, "too_large"), (method, path)
    assert service.api("bob", "GET", f"{DOCUMENTS}/me").status_code == 200


def test_row_8_only_json_is_json(service: Running, file_id: str) -> None:
    for method, path in bodies(service):
        if "/api/v1/" in path:  # the addresses of Jupyter's page library declare no type
            plain = {"Content-Type": "text/plain"}
            answer = send(service, method, path.replace("NB", file_id), b"{}", headers=plain)
            assert answer.told == (415, "bad_content_type"), (method, path)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/a%FFb", (400, "bad_path")),
        ("/%c0%ae", (400, "bad_path")),
        ("/a%", (400, "bad_path")),
        ("/a%00b", (400, "bad_path")),
        ("/a%0ab", (400, "bad_path")),
        ("/" + "a" * 8200, (414, "uri_too_long")),
        ("/%2e%2e", (404, "not_found")),
        ("/..%2f..%2fetc%2fpasswd", (404, "not_found")),
        ("/%2e%2e/", (404, "not_found")),
        ("/..%5c", (404, "not_found")),
        ("/%252e", (404, "not_found")),
        ("//etc", (404, "not_found")),
        ("/C:%5C", (404, "not_found")),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_rows_9_16_a_path_that_leads_nowhere(service: Running, path: str, told: tuple[int, str]) -> None:
    for method, tree in (
        ("GET", f"{DOCUMENTS}/files"),
        ("DELETE", f"{DOCUMENTS}/trash"),
        ("GET", f"{CONTROL}/runtimes"),
    ):
        answer = send(service, method, tree + path)
        assert answer.told == told, (method, tree)
        assert "etc" not in answer.text


@pytest.mark.parametrize("method", ["TRACE", "QUERY", "PROPFIND", "PUT", "OPTIONS"])
def test_row_9_a_method_an_address_does_not_have(service: Running, method: str) -> None:
    for path, methods in (
        (f"{DOCUMENTS}/files", "GET, POST"),
        (f"{DOCUMENTS}/files/upload", "POST"),
        (f"{CONTROL}/runtimes", "GET, POST"),
        ("/services/documents/healthz", "GET"),
    ):
        answer = send(service, method, path, b"abc")
        assert answer.told == (405, "method_not_allowed"), path
        assert answer.headers["allow"] == methods


def test_row_10_an_idempotency_key_means_one_request(service: Running) -> None:
    def make(name: str) -> Answer:
        body = json.dumps({"type": "file", "name": name}).encode()
        return send(service, "POST", f"{DOCUMENTS}/files", body, headers={"Idempotency-Key": "row-10"})

    first, again = make("row-10.txt"), make("row-10.txt")
    assert (first.status, again.status) == (201, 201)
    assert json.loads(first.text)["id"] == json.loads(again.text)["id"]
    assert make("row-10-other.txt").told == (409, "key_reused")


def swapped(service: Running, drive: Path, make: Any) -> str:
    """Return the id of a file in whose place `make` put something else."""
    file = text_file(service, "mine")
    path = drive / file["name"]
    path.unlink()
    make(path)
    return str(file["id"])


@pytest.mark.parametrize("target", ["/etc/passwd", "/proc/self/root/etc/passwd", "/proc/self/fd/0", "loop"])
def test_rows_17_20_a_link_is_not_followed(
    service: Running, drive: Path, tmp_path: Path, target: str
) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("theirs")
    for place in (target, str(outside)):
        file_id = swapped(
            service, drive, lambda path, place=place: path.symlink_to(path if place == "loop" else place)
        )
        for method, path in (("GET", "/content"), ("GET", "/download"), ("GET", ""), ("PUT", "/content")):
            star = {"If-Match": "*"} if method == "PUT" else {}
            answer = send(service, method, f"{DOCUMENTS}/files/{file_id}{path}", b"", headers=star)
            assert answer.told == (404, "not_found"), (method, path)
        assert send(service, "POST", f"{DOCUMENTS}/files/{file_id}/copy", b"{}").told == (404, "not_found")
    assert outside.read_text() == "theirs"


def test_row_19_what_is_no_regular_file(service: Running, drive: Path) -> None:
    def make_socket(path: Path) -> None:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path may have 108 bytes only
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(path.name)
        finally:
            os.chdir(here)

    for make in (os.mkfifo, make_socket):
        file_id = swapped(service, drive, make)
        for path in ("/content", ""):
            answer = send(service, "GET", f"{DOCUMENTS}/files/{file_id}{path}")
            assert answer.told == (400, "not_regular")
    sparse = text_file(service, "")
    os.truncate(drive / sparse["name"], 1 << 40)
    path = f"{DOCUMENTS}/files/{sparse['id']}"
    assert service.api("bob", "GET", path).json()["size"] == 1 << 40
    assert send(service, "POST", f"{path}/copy", b"{}").told == (507, "disk_full")
    (drive / sparse["name"]).unlink()


def test_row_20_a_path_that_is_too_long_and_a_tree_that_is_too_deep(
    service: Running, drive: Path, request: pytest.FixtureRequest
) -> None:
    folder = "root"
    for _ in range(15):
        folder = service.make_file("bob", "d" * 250, kind="folder", parent=folder)["id"]
    body = json.dumps({"type": "folder", "name": "d" * 250, "parent": folder}).encode()
    assert send(service, "POST", f"{DOCUMENTS}/files", body).told == (400, "path_too_long")
    top = service.make_file("bob", "deep", kind="folder")["id"]
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", drive / "deep"], check=False))
    here = os.open(drive / "deep", os.O_RDONLY)
    for _ in range(2100):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    for path in ("search?q=nothing", "recent", f"files?parent={top}"):
        assert send(service, "GET", f"{DOCUMENTS}/{path}").status == 200
    assert send(service, "POST", f"{DOCUMENTS}/files/{top}/copy", b"{}").told == (400, "path_too_long")
    assert send(service, "DELETE", f"{DOCUMENTS}/files/{top}").status == 200
    assert send(service, "DELETE", f"{DOCUMENTS}/trash/{top}").status == 204
    assert list((drive.parents[1] / "trash" / drive.name).iterdir()) == []


def test_row_21_two_spellings_of_one_name(service: Running) -> None:
    for name, told in (
        ("né.txt", (201, None)),
        (unicodedata.normalize("NFD", "né.txt"), (409, "name_taken")),
    ):
        body = json.dumps({"type": "file", "name": name}).encode()
        assert send(service, "POST", f"{DOCUMENTS}/files", body).told == told


@pytest.mark.parametrize(
    "raw",
    [
        b'{"cells":[{"cell_type":"raw","metadata":{},"source":"\\ud800"}],"metadata":{},"nbformat":4,"nbformat_minor":5}',
        b'{"cells":[],"metadata":{"a":NaN},"nbformat":4,"nbformat_minor":5}',
        b'{"cells":1,"metadata":{},"nbformat":4,"nbformat_minor":5}',
        b'{"cells":[],"metadata":{},"nbformat":99,"nbformat_minor":5}',
        b"\x89PNG\r\n",
        b"",
    ],
)
def test_row_22_what_is_no_notebook_does_not_replace_one(service: Running, file_id: str, raw: bytes) -> None:
    path = f"{DOCUMENTS}/files/{file_id}/content"
    before = service.api("bob", "GET", path)
    etag = {"If-Match": before.headers["ETag"]}
    assert send(service, "PUT", path, raw, headers=etag).told == (400, "bad_notebook")
    after = service.api("bob", "GET", path)
    assert (after.content, after.headers["ETag"]) == (before.content, before.headers["ETag"])


def test_row_23_a_save_names_the_version_it_replaces(service: Running, file_id: str) -> None:
    path = f"{DOCUMENTS}/files/{file_id}/content"
    before = service.api("bob", "GET", path)
    assert send(service, "PUT", path, before.content).told == (428, "if_match_required")
    assert send(service, "PUT", path, before.content, headers={"If-Match": '"v0-0"'}).told == (412, "changed")
    assert service.api("bob", "GET", path).content == before.content
