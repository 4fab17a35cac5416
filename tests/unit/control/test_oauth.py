"""Consent to drive.mount without a page: OAuth 2 with PKCE, and what it withstands (reference rows 30 to 32)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from control_support import World

from hub.control.consent import CODE_LIFETIME, OUT_OF_BAND, TOKEN_SECONDS

AUTHORIZE, TOKEN = "/services/control/oauth/authorize", "/services/control/oauth/token"


def pkce() -> tuple[str, str]:
    verifier = secrets.token_urlsafe(48)
    return verifier, base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def link(runtime_id: str, challenge: str, **changes: str | None) -> str:
    query = {
        "response_type": "code",
        "client_id": runtime_id,
        "redirect_uri": OUT_OF_BAND,
        "scope": "drive.mount",
        "state": "s",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        **changes,
    }
    return f"{AUTHORIZE}?{urlencode({k: v for k, v in query.items() if v is not None})}"


async def get_code(here: World, runtime_id: str, challenge: str, user: str = "ada") -> str:
    status, page = await here.call(user, "POST", link(runtime_id, challenge), data={"decision": "allow"})
    assert status == 200, page
    found = re.search(r'id="code">([^<]+)<', page)
    assert found is not None
    return found[1]


async def exchange(here: World, **form: str) -> tuple[int, dict[str, Any]]:
    whole = {"grant_type": "authorization_code", "redirect_uri": OUT_OF_BAND, **form}
    return await here.call(None, "POST", TOKEN, data=whole)


class ForwardClock:
    """The consent store's clock, set forward."""

    def __init__(self, clock: Any, by: timedelta) -> None:
        self._clock, self._by = clock, by

    def now(self) -> Any:
        return self._clock.now() + self._by

    def boottime(self) -> float:
        return float(self._clock.boottime())


def later(here: World, by: timedelta) -> None:
    here.control.consent._clock = ForwardClock(here.control.clock, by)


async def test_consent_gives_a_code_the_code_a_token_and_the_token_the_mounts_of_that_runtime_only(
    here: World,
) -> None:
    runtime, other = (await here.ready())["id"], (await here.ready(file_id="nb-two"))["id"]
    verifier, challenge = pkce()
    status, page = await here.call("ada", "GET", link(runtime, challenge))
    assert status == 200
    assert "nb-ada.ipynb" in page
    code = await get_code(here, runtime, challenge)
    status, token = await exchange(here, code=code, client_id=runtime, code_verifier=verifier)
    assert (status, token["token_type"], token["scope"], token["expires_in"]) == (
        200,
        "Bearer",
        "drive.mount",
        TOKEN_SECONDS,
    )
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    mounts = f"runtimes/{runtime}/mounts"
    assert (await here.call(None, "POST", mounts, {"path": "/content/drive"}, headers=bearer))[0] == 201
    assert (await here.call(None, "GET", mounts, headers=bearer))[0] == 200
    for path in (f"runtimes/{other}/mounts", f"runtimes/{runtime}", "runtimes", "sessions", "accelerators"):
        assert (await here.call(None, "GET", path, headers=bearer))[0] == 401, path
    later(here, timedelta(seconds=TOKEN_SECONDS + 1))
    assert (await here.call(None, "GET", mounts, headers=bearer))[0] == 401
    events = [e[0] for e in here.control.sessions.ledger.events(runtime)]
    assert events == ["created", "ready", "consented", "mounted"]


async def test_a_code_used_twice_takes_back_the_token_it_gave(here: World) -> None:
    runtime = (await here.ready())["id"]
    verifier, challenge = pkce()
    code = await get_code(here, runtime, challenge)
    _, token = await exchange(here, code=code, client_id=runtime, code_verifier=verifier)
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    assert (await here.call(None, "GET", f"runtimes/{runtime}/mounts", headers=bearer))[0] == 200
    status, error = await exchange(here, code=code, client_id=runtime, code_verifier=verifier)
    assert (status, error["error"]) == (400, "invalid_grant")
    assert (await here.call(None, "GET", f"runtimes/{runtime}/mounts", headers=bearer))[0] == 401


async def test_of_ten_exchanges_of_one_code_at_once_at_most_one_succeeds(here: World) -> None:
    runtime = (await here.ready())["id"]
    verifier, challenge = pkce()
    code = await get_code(here, runtime, challenge)
    replies = await asyncio.gather(
        *(exchange(here, code=code, client_id=runtime, code_verifier=verifier) for _ in range(10))
    )
    assert sorted(status for status, _ in replies) == [200] + [400] * 9


async def test_a_code_lives_five_minutes(here: World) -> None:
    runtime = (await here.ready())["id"]
    verifier, challenge = pkce()
    code = await get_code(here, runtime, challenge)
    later(here, CODE_LIFETIME + timedelta(seconds=1))
    status, error = await exchange(here, code=code, client_id=runtime, code_verifier=verifier)
    assert (status, error["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"redirect_uri": "http://evil.example/"}, id="other-host"),
        pytest.param({"redirect_uri": OUT_OF_BAND + "?a"}, id="query"),
        pytest.param({"redirect_uri": OUT_OF_BAND + "#f"}, id="fragment"),
        pytest.param({"redirect_uri": OUT_OF_BAND.upper()}, id="case"),
        pytest.param({"redirect_uri": "javascript:alert(1)"}, id="javascript"),
        pytest.param({"code_challenge": None}, id="no-challenge"),
        pytest.param({"code_challenge": "short"}, id="short-challenge"),
        pytest.param({"code_challenge": "a" * 5000}, id="long-challenge"),
        pytest.param({"code_challenge_method": "plain"}, id="plain"),
        pytest.param({"code_challenge_method": None}, id="no-method"),
        pytest.param({"scope": "drive.mount admin"}, id="more-scope"),
        pytest.param({"client_id": "r-aaaaaaaaaaaa"}, id="unknown-client"),
        pytest.param({"client_id": None}, id="no-client"),
        pytest.param({"client_id": "r-\u0000"}, id="nul"),
        pytest.param({"response_type": "token"}, id="implicit"),
        pytest.param({"response_type": None}, id="no-type"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_wrong_request_is_a_page_with_400_never_a_redirect(
    here: World, changes: dict[str, str | None], method: str
) -> None:
    runtime = (await here.ready())["id"]
    kwargs: dict[str, Any] = {"data": {"decision": "allow"}} if method == "POST" else {}
    status, page = await here.call(
        "ada", method, link(runtime, pkce()[1], **changes), allow_redirects=False, **kwargs
    )
    assert status == 400, page
    assert page.startswith("<!DOCTYPE html>")
    assert "Traceback" not in page


@pytest.mark.parametrize(
    "form",
    [
        pytest.param({"code_verifier": "x" * 50}, id="wrong-verifier"),
        pytest.param({"code_verifier": ""}, id="empty-verifier"),
        pytest.param({"code": "nothing"}, id="unknown-code"),
        pytest.param({"client_id": "OTHER"}, id="other-runtime"),
        pytest.param({"client_id": "r-aaaaaaaaaaaa"}, id="unknown-client"),
        pytest.param({"redirect_uri": "http://evil.example/"}, id="other-redirect"),
        pytest.param({"grant_type": "password"}, id="password-grant"),
        pytest.param({"grant_type": "refresh_token"}, id="refresh-grant"),
        pytest.param({"grant_type": "client_credentials"}, id="client-credentials"),
    ],
)
async def test_a_wrong_exchange_is_an_error_of_rfc_6749_and_gives_nothing(
    here: World, form: dict[str, str]
) -> None:
    runtime, other = (await here.ready())["id"], (await here.ready("bob", "nb-bob"))["id"]
    verifier, challenge = pkce()
    code = await get_code(here, runtime, challenge)
    right = {"code": code, "client_id": runtime, "code_verifier": verifier}
    wrong = {k: other if v == "OTHER" else v for k, v in form.items()}
    status, error = await exchange(here, **{**right, **wrong})
    assert status in (400, 401)
    assert error["error"] in {
        "invalid_grant", "invalid_client", "invalid_request", "unsupported_grant_type", "unauthorized_client",
        "mismatching_redirect_uri",
    }  # fmt: skip
    assert "access_token" not in error
    assert (await exchange(here, **right))[0] == 200, "a wrong guess does not spoil the right one"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"", "application/x-www-form-urlencoded", id="empty"),
        pytest.param(b"grant_type", "application/x-www-form-urlencoded", id="no-value"),
        pytest.param(b"a=%zz&b=%ff", "application/x-www-form-urlencoded", id="bad-escapes"),
        pytest.param(b"\xff\xfe=1", "application/x-www-form-urlencoded", id="bytes"),
        pytest.param(b"x=" + b"y" * 9000, "application/x-www-form-urlencoded", id="long"),
        pytest.param(
            b"&".join([b"grant_type=authorization_code"] * 3), "application/x-www-form-urlencoded", id="twice"
        ),
        pytest.param(b'{"grant_type": "authorization_code"}', "application/json", id="json"),
        pytest.param(b"grant_type=authorization_code", "", id="no-type"),
    ],
)
async def test_a_form_that_can_not_be_read_is_400(here: World, body: bytes, content_type: str) -> None:
    status, error = await here.call(None, "POST", TOKEN, data=body, headers={"Content-Type": content_type})
    assert status == 400, error
    assert error["error"] in {"invalid_request", "unsupported_grant_type"}


async def test_nobody_consents_for_another_and_no_is_no(here: World) -> None:
    runtime = (await here.ready())["id"]
    challenge = pkce()[1]
    assert (await here.call("bob", "GET", link(runtime, challenge)))[0] == 404
    assert (await here.call("bob", "POST", link(runtime, challenge), data={"decision": "allow"}))[0] == 404
    for decision in ("deny", "", "ALLOW"):
        status, page = await here.call("ada", "POST", link(runtime, challenge), data={"decision": decision})
        assert status == 200
        assert 'id="code"' not in page
    status, _ = await here.call(
        None, "POST", link(runtime, challenge), data={"decision": "allow"}, allow_redirects=False
    )
    assert status == 302


async def test_a_browser_consents_from_our_own_page_only(here: World) -> None:
    from tornado.web import create_signed_value

    runtime = (await here.ready())["id"]
    value = create_signed_value(here.service.key("session"), "minicolab-session", "ada-token").decode()
    cookie = {"Cookie": f"minicolab-session={value}"}
    url = link(runtime, pkce()[1])
    for headers, expected in (
        ({"Origin": here.service.app_origin}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": here.service.runtime_origin("ada")}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({}, 403),
    ):
        status, _ = await here.call(
            None, "POST", url, data={"decision": "allow"}, headers={**cookie, **headers}
        )
        assert status == expected, headers


async def test_the_request_of_an_ended_runtime_is_refused(here: World) -> None:
    runtime = (await here.ready())["id"]
    verifier, challenge = pkce()
    code = await get_code(here, runtime, challenge)
    await here.call("ada", "DELETE", f"runtimes/{runtime}")
    assert (await here.call("ada", "GET", link(runtime, challenge)))[0] == 400
    assert (await exchange(here, code=code, client_id=runtime, code_verifier=verifier))[0] in (400, 401)


async def test_pages_of_other_hosts_lead_to_the_app_and_nowhere_else(here: World) -> None:
    port, app = here.service.ports.control, here.service.app_origin

    async def ask(host: str, target: str, accept: str = "text/html") -> tuple[int, str | None]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
        location = re.search(r"(?mi)^Location: (\S+)", head)
        return int(head.split()[1]), location[1] if location is not None else None

    assert await ask("127.0.0.1:8000", "/d/abc?x=1") == (302, f"{app}/d/abc?x=1")
    assert await ask("127.0.0.1:8000", "//evil.example/") == (302, f"{app}/evil.example/")
    assert await ask("127.0.0.1:8000", "/d/abc", "application/json") == (404, None)
    assert await ask("localhost:8000", "/nothing") == (404, None), "the app's own host is not sent to itself"
    assert await ask("evil.example", "/d/abc") == (404, None)
    assert await ask("ada.localhost:8000", "/d/abc") == (404, None)
