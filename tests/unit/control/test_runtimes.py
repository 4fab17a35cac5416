"""Runtimes from request to end, over HTTP, with a stand-in hub and backend (control_support)."""

from __future__ import annotations

import asyncio
import re

import pytest
from control_support import World

from support.patience import PATIENCE, Stopwatch


async def test_a_runtime_goes_from_intent_to_ready_to_ended_and_the_record_keeps_why(here: World) -> None:
    status, made = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
    assert status == 202
    assert re.fullmatch(r"r-[a-z2-7]{12}", made["id"])
    ready = await here.until("ada", made["id"], lambda m: m["state"] == "ready")
    assert ready["deadline"] > ready["idle_deadline"] > ready["ready"] >= ready["created"]
    assert (ready["file_id"], ready["file_name"], ready["server_name"]) == (
        "nb-ada",
        "nb-ada.ipynb",
        made["id"],
    )
    status, ended = await here.call("ada", "DELETE", f"runtimes/{made['id']}")
    assert (status, ended["state"], ended["reason"]["code"]) == (200, "ended", "user_deleted")
    assert await here.backend.list_all() == []
    assert here.hub.servers == {}
    _, sessions = await here.call("ada", "GET", "sessions")
    assert [(s["id"], s["reason"]["code"]) for s in sessions["items"]] == [(made["id"], "user_deleted")]
    events = [e[0] for e in here.control.sessions.ledger.events(made["id"])]
    assert events == ["created", "ready", "stopping", "ended"]


async def test_asking_again_gives_the_live_one(here: World) -> None:
    ready = await here.ready()
    status, again = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
    assert (status, again["id"]) == (200, ready["id"])


async def test_twenty_requests_at_once_start_one_runtime(here: World) -> None:
    replies = await asyncio.gather(
        *(here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"}) for _ in range(20))
    )
    assert len({model["id"] for _, model in replies}) == 1
    await here.until("ada", replies[0][1]["id"], lambda m: m["state"] == "ready")
    assert here.hub.starts == 1


async def test_one_key_with_two_bodies_at_once_starts_one_runtime(here: World) -> None:
    headers = {"Idempotency-Key": "k"}
    replies = await asyncio.gather(
        here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"}, headers=headers),
        here.call("ada", "POST", "runtimes", {"file_id": "nb-two"}, headers=headers),
    )
    assert sorted(status for status, _ in replies) == [202, 409]
    assert [model["code"] for status, model in replies if status == 409] == ["key_reused"]
    assert len(here.control.sessions.ledger.live("ada")) == 1


async def test_the_limit_is_told_with_its_numbers(here: World) -> None:
    await here.ready(file_id="nb-ada")
    await here.ready(file_id="nb-two")
    status, refusal = await here.call("ada", "POST", "runtimes", {"file_id": "nb-three"})
    assert (status, refusal["code"], refusal["limit"], refusal["used"]) == (409, "too_many_runtimes", 2, 2)
    assert (await here.call("bob", "POST", "runtimes", {"file_id": "nb-bob"}))[0] == 202


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({}, 400, "missing_field", id="empty"),
        pytest.param([None], 400, "bad_body", id="list"),
        pytest.param({"file_id": None}, 400, "bad_type", id="null"),
        pytest.param({"file_id": "nb-ada", "accelerator": ["T4"]}, 400, "bad_type", id="list-accelerator"),
        pytest.param(
            {"file_id": "nb-ada", "accelerator": "Z9"}, 400, "unknown_accelerator", id="accelerator"
        ),
        pytest.param({"file_id": "nb-ada", "shape": "x" * 65}, 400, "too_long", id="long"),
        pytest.param({"file_id": "nb-ada", "shape": "HUGE"}, 400, "unknown_shape", id="shape"),
        pytest.param({"file_id": "nb-ada", "hours": 9}, 400, "unknown_field", id="unknown-field"),
        pytest.param({"file_id": "nb-bob"}, 404, "not_found", id="not-yours"),
        pytest.param({"file_id": "nothing"}, 404, "not_found", id="not-there"),
        pytest.param({"file_id": "../nb-ada"}, 404, "not_found", id="traversal"),
        pytest.param({"file_id": "nb\u0000ada"}, 404, "not_found", id="nul"),
    ],
)
async def test_a_bad_request_has_a_code_a_sentence_and_no_effect(
    here: World, body: object, status: int, code: str
) -> None:
    got, answer = await here.call("ada", "POST", "runtimes", body)
    assert (got, answer["code"]) == (status, code)
    assert answer["message"].endswith((".", ")"))
    assert here.control.sessions.ledger.live() == []


async def test_a_method_that_is_not_there_is_405_and_names_those_that_are(here: World) -> None:
    for path, allowed in (
        ("runtimes", "GET, POST"),
        ("sessions", "GET"),
        ("runtimes/r-aaaaaaaaaaaa", "GET, DELETE"),
    ):
        for method in ("PATCH", "TRACE", "PUT"):
            async with here.http.request(
                method,
                f"{here.url}/services/control/api/v1/{path}",
                headers={"Authorization": "Bearer ada-token"},
            ) as reply:
                assert (reply.status, reply.headers["Allow"]) == (405, allowed)


async def test_the_hub_is_asked_once_at_a_time_to_forget_a_server(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = await here.ready()
    real, asking, most = here.control.orchestrator.hub.remove, 0, 0

    async def remove(user: str, server: str) -> None:
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        await asyncio.sleep(0.02)
        await real(user, server)
        asking -= 1

    monkeypatch.setattr(here.control.orchestrator.hub, "remove", remove)
    await here.call("ada", "DELETE", f"runtimes/{ready['id']}")  # the watcher sees the same end
    assert most == 1


async def test_a_large_body_is_refused_before_it_is_read(here: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", here.service.ports.control)
    writer.write(
        b"POST /services/control/api/v1/runtimes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 10737418240\r\n\r\n{"
    )
    async with asyncio.timeout(PATIENCE):
        assert b" 413 " in await reader.readline()
    writer.close()


async def test_a_dead_hub_refuses_new_runtimes_and_disturbs_no_running_one(here: World) -> None:
    ready = await here.ready()
    here.hub_server.stop()
    await here.hub_server.close_all_connections()
    # documents is the same stand-in server, so the question for a new runtime is asked of the orchestrator's own client
    assert not await here.control.orchestrator.hub.answers()
    status, model = await here.call("ada", "GET", f"runtimes/{ready['id']}")
    assert (status, model["state"]) == (200, "ready")
    status, _ = await here.call("ada", "POST", f"runtimes/{ready['id']}/token", {})
    assert status == 200
    status, model = await here.call("ada", "DELETE", f"runtimes/{ready['id']}")
    assert (status, model["state"]) == (200, "ended")


async def test_a_new_runtime_while_the_hub_is_away_is_503_with_when_to_try_again(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        here.control.orchestrator.hub, "_url", f"http://127.0.0.1:{here.service.ports.public}/hub/api"
    )
    async with here.http.post(
        f"{here.url}/services/control/api/v1/runtimes",
        json={"file_id": "nb-ada"},
        headers={"Authorization": "Bearer ada-token"},
    ) as reply:
        assert reply.status == 503
        assert reply.headers["Retry-After"] == "5"
        assert (await reply.json())["code"] == "hub_unavailable"
    assert here.control.sessions.ledger.live() == []


async def test_a_failed_start_says_why_and_leaves_nothing(here: World) -> None:
    here.hub.refuse = "HTTP 500: Internal Server Error (sandbox_failed: No sandbox can be made here.)"
    _, made = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
    failed = await here.until("ada", made["id"], lambda m: m["state"] == "failed")
    assert failed["reason"] == {"code": "sandbox_failed", "message": "No sandbox can be made here."}
    assert await here.backend.list_all() == []
    here.hub.refuse = None
    assert (await here.ready())["id"] != made["id"]


async def test_stopping_a_runtime_that_is_still_starting_leaves_nothing_behind(here: World) -> None:
    here.hub.gate.clear()
    _, made = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
    await here.hub.asked.wait()
    status, ended = await here.call("ada", "DELETE", f"runtimes/{made['id']}")
    assert (status, ended["state"]) == (200, "ended")
    here.hub.gate.set()
    assert here.hub.pending == {}
    assert await here.backend.list_all() == []


async def test_a_notebook_whose_runtime_is_being_ended_gets_a_new_one(here: World) -> None:
    ready = await here.ready()
    delete, again = await asyncio.gather(
        here.call("ada", "DELETE", f"runtimes/{ready['id']}"),
        here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"}),
    )
    assert delete[1]["state"] == "ended"
    assert again[0] == 202
    assert again[1]["id"] != ready["id"]


async def test_a_runtime_that_ends_by_itself_is_told_at_once_with_its_reason(here: World) -> None:
    ready = await here.ready()
    following = asyncio.create_task(here.until("ada", ready["id"], lambda m: m["state"] == "ended"))
    with Stopwatch() as watch:
        here.backend.crash(ready["id"], "out_of_memory")
        assert (await following)["reason"]["code"] == "out_of_memory"
    assert watch.seconds < 2


async def test_a_runtime_nobody_asked_for_is_ended_by_the_next_look(here: World) -> None:
    await here.ready()
    here.backend.put("r-aaaaaaaaaaaa")
    await here.control.orchestrator.reconcile()
    assert [o.id for o in await here.backend.list_all()] != ["r-aaaaaaaaaaaa"]
    assert len(await here.backend.list_all()) == 1


async def test_the_list_shows_live_ones_and_with_all_past_ones_too(here: World) -> None:
    first = await here.ready()
    await here.call("ada", "DELETE", f"runtimes/{first['id']}")
    second = await here.ready()
    ids = [m["id"] for m in (await here.call("ada", "GET", "runtimes"))[1]["items"]]
    assert ids == [second["id"]]
    listed = (await here.call("ada", "GET", "runtimes?all=true&file_id=nb-ada"))[1]
    assert {m["id"] for m in listed["items"]} == {first["id"], second["id"]}
    assert listed["total"] == 2
    assert (await here.call("ada", "GET", "runtimes?all=true&limit=1&offset=1"))[1]["items"][0][
        "id"
    ] == first["id"]
    assert (await here.call("ada", "GET", "runtimes?state=ended"))[1]["total"] == 1
    for query in ("state=x", "limit=0", "limit=201", "offset=-1", "all=maybe", f"offset={10**30}"):
        assert (await here.call("ada", "GET", f"runtimes?{query}"))[0] == 400, query


async def test_another_users_runtime_looks_like_none_on_every_address(here: World) -> None:
    ready = await here.ready()
    addresses = [
        ("GET", ""), ("DELETE", ""), ("GET", "/events"), ("POST", "/token"), ("POST", "/keep"),
        ("GET", "/resources"), ("GET", "/mounts"), ("POST", "/mounts"), ("DELETE", "/mounts"),
    ]  # fmt: skip
    for method, tail in addresses:
        status, answer = await here.call(
            "bob", method, f"runtimes/{ready['id']}{tail}", {} if method == "POST" else None
        )
        unknown, same = await here.call(
            "bob", method, f"runtimes/r-aaaaaaaaaaaa{tail}", {} if method == "POST" else None
        )
        assert (status, answer) == (unknown, same) == (404, answer), (method, tail)
        assert (await here.call(None, method, f"runtimes/{ready['id']}{tail}"))[0] == 401, (method, tail)
    assert (await here.call("bob", "GET", "runtimes"))[1]["items"] == []
    assert (await here.call("bob", "GET", "sessions"))[1]["items"] == []
    assert (await here.call("bob", "GET", "sessions?user=ada"))[0] == 403
    assert (await here.call("bob", "GET", "admin/runtimes"))[0] == 403
    assert (await here.call("bob", "DELETE", f"admin/runtimes/{ready['id']}"))[0] == 403


async def test_an_administrator_ends_a_runtime_with_a_reason_its_user_can_read(here: World) -> None:
    ready = await here.ready()
    assert [m["id"] for m in (await here.call("root", "GET", "admin/runtimes"))[1]["items"]] == [ready["id"]]
    status, _ = await here.call(
        "root", "DELETE", f"admin/runtimes/{ready['id']}", {"reason": "maintenance at 5"}
    )
    assert status == 200
    _, model = await here.call("ada", "GET", f"runtimes/{ready['id']}")
    assert model["reason"] == {
        "code": "admin",
        "message": "An administrator ended the runtime: maintenance at 5",
    }
    assert (await here.call("root", "GET", "sessions?user=ada"))[1]["total"] == 1


async def test_a_ticket_is_given_for_a_ready_runtime_only(here: World) -> None:
    here.hub.gate.clear()
    _, made = await here.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
    status, answer = await here.call("ada", "POST", f"runtimes/{made['id']}/token", {})
    assert (status, answer["code"]) == (409, "not_ready")
    here.hub.gate.set()
    await here.until("ada", made["id"], lambda m: m["state"] == "ready")
    status, ticket = await here.call("ada", "POST", f"runtimes/{made['id']}/token", {})
    assert status == 200
    assert ticket["url"].endswith(f"/user/ada/{made['id']}/")
    assert "//ada.localhost" in ticket["browser_url"]
    from quota.ticket import runtime_key, verify

    key = runtime_key(here.service.key("ticket"), made["id"])
    assert verify(key, ticket["token"], 0).user == "ada"
    await here.call("ada", "DELETE", f"runtimes/{made['id']}")
    assert (await here.call("ada", "POST", f"runtimes/{made['id']}/token", {}))[0] == 410


async def test_mounts_are_made_listed_taken_away_and_recorded(here: World) -> None:
    ready = await here.ready()
    mounts = f"runtimes/{ready['id']}/mounts"
    assert await here.call("ada", "POST", mounts, {"path": "/content/drive"}) == (
        201,
        {"path": "/content/drive", "readonly": False},
    )
    assert (await here.call("ada", "POST", mounts, {"path": "/content/drive"}))[0] == 409
    assert (await here.call("ada", "GET", mounts))[1]["items"] == [
        {"path": "/content/drive", "readonly": False}
    ]
    assert (await here.call("ada", "DELETE", f"{mounts}?path=/content/drive"))[0] == 200
    assert (await here.call("ada", "DELETE", f"{mounts}?path=/content/drive"))[0] == 404
    events = [e[0] for e in here.control.sessions.ledger.events(ready["id"])]
    assert events[-2:] == ["mounted", "unmounted"]


@pytest.mark.parametrize(
    "path", ["/content", "/content/", "/content/..", "/content/a/../..", "/etc", "content/x", "/content/a b",
             "/content/a\tb", "/content/\u202ex", "/content/" + "x" * 300, "/contentx/y", ""]
)  # fmt: skip
async def test_a_mountpoint_outside_content_is_refused(here: World, path: str) -> None:
    ready = await here.ready()
    status, answer = await here.call("ada", "POST", f"runtimes/{ready['id']}/mounts", {"path": path})
    assert (status, answer["code"]) == (400, "bad_mountpoint")


async def test_what_a_runtime_that_just_vanished_is_asked_is_410_not_500(here: World) -> None:
    ready = await here.ready()
    here.backend._file(ready["id"]).unlink()
    for method, tail in (("POST", "keep"), ("GET", "resources"), ("GET", "mounts")):
        status, answer = await here.call(
            "ada", method, f"runtimes/{ready['id']}/{tail}", {} if method == "POST" else None
        )
        assert status == 410, answer


async def test_a_locked_database_is_503_and_tells_when_to_try_again(here: World) -> None:
    import sqlite3

    lock = sqlite3.connect(here.service.state / "databases" / "control.sqlite")
    lock.execute("BEGIN EXCLUSIVE")
    try:
        async with here.http.get(
            f"{here.url}/services/control/api/v1/runtimes", headers={"Authorization": "Bearer ada-token"}
        ) as reply:
            assert (reply.status, (await reply.json())["code"]) == (503, "db_busy")
            assert reply.headers["Retry-After"] == "2"
        assert (await here.call(None, "GET", "/services/control/healthz"))[0] == 503
        # A restart would mend nothing.
        assert (await here.call(None, "GET", "/services/control/livez"))[0] == 200
    finally:
        lock.rollback()
        lock.close()
    assert (await here.call("ada", "GET", "runtimes"))[0] == 200


async def test_what_one_may_choose_and_the_state_of_the_machine_are_shown(here: World) -> None:
    _, choice = await here.call("ada", "GET", "accelerators")
    assert choice["items"][0]["name"] == "NONE"
    assert choice["items"][0]["available"] is True
    assert choice["shapes"][0]["name"] == "STANDARD"
    assert (await here.call("ada", "GET", "environment"))[1]["state"] == "complete"
    assert (await here.call("ada", "GET", "isolation"))[1]["rung"] == "fake"
    assert await here.call(None, "GET", "/services/control/healthz") == (200, {"status": "ok"})
