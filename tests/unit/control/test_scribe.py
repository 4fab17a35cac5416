"""Control brings what cells print to documents: as it comes, once more after any restart, and before an end is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from control_support import World, make_service
from fake_hub import CONTROL_TOKEN
from tornado import web
from tornado.httpserver import HTTPServer

from hub.control import scribe as module
from hub.control.scribe import FOLDER, MAX_RUNS, Notes, Scribe
from hub.installation import free_port
from hub.settings import Service
from quota.clock import SystemClock
from quota.model import Session
from quota.ticket import runtime_key, verify
from spawner.model import Endpoint, Observed
from support.patience import PATIENCE, until_async
from tests.unit.quota.session_support import a_session

RUNTIME = "r-aaaaaaaaaaaa"


def execution(run: str, text: str, *, version: int = 1, state: str = "running") -> dict[str, Any]:
    outputs = [{"output_type": "stream", "name": "stdout", "text": text}]
    return {
        "msg_id": run,
        "cell_id": f"cell-{run}",
        "submitted": f"2026-01-01T00:00:{version:02}",
        "state": state,
        "changed": version,
        "outputs": outputs,
    }


def session(runtime_id: str = RUNTIME) -> Session:
    return a_session(
        id=runtime_id, file_id="nb-ada", file_name="nb-ada.ipynb", backend="fake", last_activity=None
    )


@dataclass
class Desk:
    """A runtime and documents, as far as a scribe sees them. `wants` and `settles` are documents' answers."""

    service: Service
    port: int
    executions: list[dict[str, Any]] = field(default_factory=list)
    number: int = 0
    instance: str = "one"
    asked: list[dict[str, str]] = field(default_factory=list)
    posts: list[dict[str, Any]] = field(default_factory=list)
    wants: set[str] = field(default_factory=set)
    settles: set[str] = field(default_factory=set)
    runtime_says: bytes | None = None
    documents_status: int = 200
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, *executions: dict[str, Any]) -> None:
        self.executions = list(executions)
        self.number += 1
        self.changed.set()
        self.changed = asyncio.Event()

    async def observe(self, runtime_id: str) -> Observed | None:
        return Observed(runtime_id, "ada", "nb-ada", "ready", Endpoint("127.0.0.1", self.port), 1.0)

    def heads(self) -> list[list[str]]:
        """The runs of each message, with their outputs' text where these were sent."""
        return [
            [
                e["msg_id"] + ("" if "outputs" not in e else f"={e['outputs'][0]['text']}")
                for e in body["executions"]
            ]
            for body in self.posts
        ]


class _Changes(web.RequestHandler):
    async def get(self, user: str, runtime_id: str) -> None:
        desk: Desk = self.settings["desk"]
        ticket = self.request.headers["Authorization"].removeprefix("Bearer ")
        key = runtime_key(desk.service.key("ticket"), runtime_id)
        assert verify(key, ticket, SystemClock().now().timestamp()).user == user
        desk.asked.append({name: self.get_query_argument(name, "") for name in ("after", "wait", "instance")})
        if desk.runtime_says is not None:
            self.finish(desk.runtime_says)
            return
        after = int(self.get_query_argument("after"))
        if self.get_query_argument("instance", desk.instance) != desk.instance:
            after = -1
        if after >= desk.number:
            try:
                async with asyncio.timeout(float(self.get_query_argument("wait"))):
                    await desk.changed.wait()
            except TimeoutError:
                pass
        found = desk.executions if desk.number > after else []
        self.finish(json.dumps({"instance": desk.instance, "number": desk.number, "executions": found}))


class _Outputs(web.RequestHandler):
    def post(self, file_id: str) -> None:
        desk: Desk = self.settings["desk"]
        assert (file_id, self.request.headers["Authorization"]) == ("nb-ada", f"Bearer {CONTROL_TOKEN}")
        if desk.documents_status != 200:
            self.set_status(desk.documents_status)
            return
        body = json.loads(self.request.body)
        desk.posts.append(body)
        ids = {e["msg_id"] for e in body["executions"]}
        lacking = {e["msg_id"] for e in body["executions"] if "outputs" not in e}
        self.finish(
            {"settled": sorted(ids & desk.settles - desk.wants), "wanted": sorted(desk.wants & lacking)}
        )


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(module, "FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(module, "SHORTEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "TELL_SECONDS", 0.2)
    service = make_service(tmp_path / "state")
    it = Desk(service, free_port())
    runtime = HTTPServer(
        web.Application(
            [(r"/user/([^/]+)/([^/]+)/minicolab/executions/changes", _Changes)],
            desk=it,
            log_function=lambda _: None,
        )
    )
    runtime.listen(it.port, "127.0.0.1")
    documents = HTTPServer(
        web.Application(
            [(r"/services/documents/api/v1/files/([^/]+)/outputs", _Outputs)],
            desk=it,
            log_function=lambda _: None,
        )
    )
    documents.listen(service.ports.documents, "127.0.0.1")
    yield it
    for server in (runtime, documents):
        server.stop()
        await server.close_all_connections()


@pytest.fixture
async def scribe(desk: Desk) -> AsyncIterator[Scribe]:
    it = make_scribe(desk)
    it.start()
    yield it
    await it.close()


def make_scribe(desk: Desk) -> Scribe:
    documents = f"http://127.0.0.1:{desk.service.ports.documents}"
    return Scribe(desk.service, documents, desk, SystemClock())  # type: ignore[arg-type]  # all of a backend it uses


async def test_changes_are_told_without_outputs_until_documents_wants_them(
    desk: Desk, scribe: Scribe
) -> None:
    scribe.follow(session())
    scribe.follow(session())  # twice is once
    desk.say(execution("m1", "one"))
    await until_async(lambda: len(desk.posts) >= 2)
    assert {tuple(ids) for ids in desk.heads()} == {("m1",)}
    desk.wants = {"m1"}
    await until_async(lambda: ["m1=one"] in desk.heads())
    desk.say(execution("m1", "one two", version=2, state="done"))
    await until_async(lambda: ["m1=one two"] in desk.heads())
    before = desk.heads().index(["m1=one two"])
    assert ["m1"] not in desk.heads()[before - 1 : before]  # known to be wanted: sent at once
    desk.wants, desk.settles = set(), {"m1"}
    count = len(desk.posts)
    await until_async(lambda: len(desk.posts) > count)
    asked = len(desk.asked)
    desk.say(execution("m1", "a thread prints on", version=3, state="done"))
    await until_async(lambda: len(desk.asked) > asked + 1)
    assert ["m1=a thread prints on"] not in desk.heads()
    assert desk.posts[0]["user"] == "ada"
    assert desk.posts[0]["ended"] is False


async def test_what_documents_lost_in_a_restart_is_sent_again(desk: Desk, scribe: Scribe) -> None:
    desk.wants = {"m1"}
    scribe.follow(session())
    desk.say(execution("m1", "one"))
    await until_async(lambda: ["m1=one"] in desk.heads())
    desk.documents_status = 502
    await asyncio.sleep(0)
    desk.posts.clear()
    desk.documents_status = 200
    await until_async(lambda: ["m1=one"] in desk.heads())


async def test_a_new_scribe_learns_everything_again(desk: Desk) -> None:
    first, second = make_scribe(desk), make_scribe(desk)
    desk.wants = {"m1"}
    desk.say(execution("m1", "one"))
    first.follow(session())
    await until_async(lambda: ["m1=one"] in desk.heads())
    await first.close()
    desk.posts.clear()
    second.follow(session())
    await until_async(lambda: ["m1=one"] in desk.heads())
    await second.close()


async def test_a_server_that_was_started_again_counts_from_the_beginning(desk: Desk, scribe: Scribe) -> None:
    desk.wants = {"m1", "m2"}
    scribe.follow(session())
    for number in range(5):
        desk.say(execution("m1", f"{number}", version=number))
    await until_async(lambda: ["m1=4"] in desk.heads())
    desk.instance, desk.number = "two", 0
    desk.say(execution("m2", "new"))
    await until_async(lambda: any("m2=new" in ids for ids in desk.heads()))


async def test_rubbish_from_a_runtime_hurts_nobody(desk: Desk, scribe: Scribe) -> None:
    desk.wants = {"m1"}
    scribe.follow(session())
    for rubbish in (
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"instance": 1, "number": 1, "executions": []}',
        b'{"instance": "a", "number": true, "executions": []}',
        b'{"instance": "a", "number": 1, "executions": {}}',
    ):
        desk.runtime_says = rubbish
        asked = len(desk.asked)
        await until_async(lambda asked=asked: len(desk.asked) > asked)  # type: ignore[misc]
    assert desk.posts == []
    desk.runtime_says = None
    desk.say(*[{"msg_id": 1}, {"cell_id": "c"}, 3, None, execution("m1", "still here")])  # type: ignore[list-item]
    await until_async(lambda: ["m1=still here"] in desk.heads())


def test_how_much_is_remembered_of_a_runtime_is_bounded() -> None:
    notes = Notes(RUNTIME, "ada", "nb-ada")
    notes.take(execution(f"m{i}", "x") for i in range(MAX_RUNS + 10))
    assert len(notes.runs) == MAX_RUNS


async def test_the_last_outputs_wait_on_the_disk_until_documents_has_them(desk: Desk) -> None:
    desk.documents_status = 503
    first = make_scribe(desk)
    first.start()
    await first.settled(session(), [execution("m1", "last", state="running")])
    kept = desk.service.state / FOLDER / f"{RUNTIME}.json"
    assert json.loads(kept.read_text())["executions"][0]["outputs"][0]["text"] == "last"
    assert kept.stat().st_mode & 0o077 == 0
    await first.close()

    desk.documents_status, desk.wants, desk.settles = 200, {"m1"}, set()
    second = make_scribe(desk)
    second.start()
    await until_async(lambda: ["m1=last"] in desk.heads())
    assert desk.posts[-1]["ended"] is True
    assert kept.exists()  # sent, but not settled yet
    desk.wants, desk.settles = set(), {"m1"}
    await until_async(lambda: not kept.exists())
    await second.close()


async def test_what_can_never_be_brought_is_not_kept(desk: Desk, scribe: Scribe) -> None:
    desk.documents_status = 404
    await scribe.settled(session(), [execution("m1", "last")])
    assert list((desk.service.state / FOLDER).glob("*")) == []


async def test_what_was_told_while_it_lived_is_brought_at_the_end_without_a_word_left(
    desk: Desk, scribe: Scribe
) -> None:
    scribe.follow(session())
    desk.say(execution("m1", "one"))
    await until_async(lambda: ["m1"] in desk.heads())
    desk.wants = {"m1"}
    await scribe.settled(session(), ())
    assert ["m1=one"] in desk.heads()
    assert desk.posts[-1]["ended"] is True


# -- in the service ---------------------------------------------------------------------------------------------------


async def test_an_end_is_told_once_the_last_outputs_are_in_the_document(here: World) -> None:
    model = await here.ready()
    here.backend.say(model["id"], [execution("m1", "last", state="done")])
    async with asyncio.timeout(PATIENCE):
        async for _, told in here.events("ada", model["id"]):
            if told["state"] == "ready":
                here.backend.crash(model["id"])  # who listens hears of it from now on
            if told["state"] == "ended":
                break
    file_id, body = here.hub.brought[-1]
    assert (file_id, body["user"], body["ended"]) == ("nb-ada", "ada", True)
    assert body["executions"][0]["outputs"][0]["text"] == "last"
    await until_async(lambda: here.backend.left_nothing(model["id"]))


async def test_an_end_does_not_wait_for_documents_that_are_away(here: World) -> None:
    model = await here.ready()
    here.hub.documents_away = True
    here.backend.say(model["id"], [execution("m1", "last", state="done")])
    here.backend.crash(model["id"])
    await here.until("ada", model["id"], lambda m: m["state"] == "ended")
    assert here.hub.brought == []
    here.hub.documents_away = False
    await until_async(lambda: here.hub.brought)
    assert here.hub.brought[-1][1]["executions"][0]["msg_id"] == "m1"
