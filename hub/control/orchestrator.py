"""Carry a runtime from intent to end: intent → act → observe.

The row is committed before the hub is asked. What happens afterwards is found by looking: at the hub's progress while it
starts, at the supervisor's connection while it lives. Every few seconds, and after a restart, rows, the machine and the hub
are compared, and what does not fit is ended or taken up again (R1), so a step that was lost is repeated whoever died.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any

from hub.control.claims import ClaimCarrier
from hub.control.drives_at_start import DrivesAtStart
from hub.control.ends import Ends
from hub.control.events import Channel, Channels
from hub.control.hub_client import HubClient, HubDown
from hub.control.scribe import Scribe
from hub.control.snapshots import Snapshots
from hub.control.starts import HUB_PATIENCE_SECONDS, StartFailed, Starts
from hub.settings import Service
from quota import policy
from quota.model import LIVE, Reason, Session, State
from quota.ports import Fenced
from quota.service import Sessions
from quota.together import Together
from spawner.model import EndReason, Observed, Phase
from spawner.ports import BackendError, RuntimeBackend

log = logging.getLogger(__name__)

TICK_SECONDS = 5.0
RECOVER_SECONDS = 15.0
STOP_GRACE_SECONDS = 3.0
OUTPUTS_SECONDS = (
    2.0  # how long the news of an end waits for the last outputs, so that who hears it sees them
)
LOST = "lost"
LEFT_BEHIND_KEPT = timedelta(days=1)

USER_DELETED = Reason("user_deleted", "The runtime was ended by its user.")
MACHINE_RESTARTED = Reason("machine_restarted", "The computer the runtime ran on was restarted.")
STOPPED_STATES = (State.ENDED, State.FAILED)


class Orchestrator:
    """The living runtimes of one installation. One instance acts at a time (hub.control.lease)."""

    def __init__(
        self,
        service: Service,
        sessions: Sessions,
        backend: RuntimeBackend,
        hub: HubClient,
        snapshots: Snapshots,
        drives_at_start: DrivesAtStart,
        scribe: Scribe,
        epoch: int,
        claims: ClaimCarrier | None = None,
    ) -> None:
        self._claims = claims
        self._snapshots, self._scribe = snapshots, scribe
        self._sessions = sessions
        self._together = Together(sessions.ledger)
        self.backend = backend
        self.hub = hub
        self._channels = Channels(epoch)
        self._carried: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[str, asyncio.Task[Session]] = {}
        self.ends = Ends(
            service.settings.quota, sessions, self._together, backend, self._publish, self._carry_stop
        )
        self._starts = Starts(
            service,
            sessions,
            backend,
            hub,
            self.ends,
            claims,
            drives_at_start,
            self.snapshot_bytes,
            self._phase,
        )
        self._to_forget: set[tuple[str, str]] = set()  # (user, server) the hub has not forgotten yet
        self._forgetting: set[str] = set()
        self._background: list[asyncio.Task[None]] = []
        self._background_stops: set[asyncio.Task[Session]] = set()
        self._tended: set[asyncio.Task[None]] = set()
        self.fenced = asyncio.Event()

    # -- what handlers call ------------------------------------------------------------------------------------

    def snapshot_bytes(self, user: str) -> int:
        """Return how much of /content is kept when a runtime of this user ends."""
        return self.snapshot_max if self._sessions.ledger.keeps_content(user) else 0

    @property
    def snapshot_max(self) -> int:
        """The most of /content that is kept of any runtime here; 0: nothing is."""
        return self.ends.quota.snapshot_max if self.backend.keeps_content else 0

    async def keep_content_of_running(self, user: str) -> None:
        """Tell a user's running runtimes whether /content is to be kept."""
        kept = self.snapshot_bytes(user)
        for session in self._sessions.ledger.live(user):
            if session.state is State.READY:
                await self.backend.set_snapshot(session.id, snapshot_bytes=kept)

    def channel(self, session_id: str) -> Channel:
        return self._channels.of(session_id)

    def model(self, session: Session) -> dict[str, Any]:
        """Return the session as the API shows it now."""
        return self.ends.model(session)

    def start(self, session: Session) -> None:
        """Begin to carry out the intent of a new session."""
        self._carry(session.id, self._run(session))

    async def stop(self, session: Session, reason: Reason) -> Session:
        """End a runtime; return once nothing of it is left. Who asks again meanwhile waits for the same end."""
        task = self._stops.get(session.id)
        if task is None:
            task = asyncio.create_task(self._stop(session.id, reason), name=f"stop {session.id}")
            self._stops[session.id] = task
            task.add_done_callback(lambda _: self._stops.pop(session.id, None))
        return await asyncio.shield(task)  # a caller that goes away does not keep the runtime alive

    async def wait_stopped(self, session: Session, seconds: float) -> None:
        """Return once a runtime that is being ended has ended, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self.stop(session, session.reason or USER_DELETED)
        except (TimeoutError, BackendError):
            return

    # -- life of one runtime -----------------------------------------------------------------------------------

    def _carry(self, session_id: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"runtime {session_id}")
        self._carried[session_id] = task

        def forget(done: asyncio.Task[None]) -> None:
            if self._carried.get(session_id) is done:
                del self._carried[session_id]
            if done.cancelled() or (error := done.exception()) is None:
                return
            if isinstance(error, Fenced):
                self.fenced.set()
            else:  # the next look finds the row without a task, and takes it up again
                log.error("carrying runtime %s failed", session_id, exc_info=error)

        task.add_done_callback(forget)

    async def _run(self, session: Session) -> None:
        try:
            await self._starts.run(session)
        except StartFailed as failed:
            await self.backend.stop(
                session.id, reason=EndReason("failed", failed.reason.message), grace_seconds=0.0
            )
            await self._finish(session.id, failed.reason, failed=True)
            return
        observed = await self.backend.observe(session.id)
        ready_at = observed.ready_boottime if observed is not None else None
        ready = await self._together.write(lambda: self._sessions.ready(session.id, ready_at))
        if ready.state is State.READY:
            await self._publish("ready", ready)
            self.ends.look_soon()
            await self._watch(ready)

    async def _watch(self, session: Session) -> None:
        """Follow what the runtime's cells print, wait for its end, and record that at once."""
        self._scribe.follow(session)
        while True:
            reason = await self.backend.wait_end(session.id)
            # Only a connection was lost when nobody gave a reason and the runtime still answers.
            if reason.code != LOST or await self.backend.observe(session.id) is None:
                await self._finish(
                    session.id, Reason(reason.code, reason.message), ended_boottime=reason.boottime
                )
                return

    async def _stop(self, session_id: str, reason: Reason) -> Session:
        def begin() -> tuple[Session | None, Session]:
            return self._sessions.ledger.get(session_id), self._sessions.stopping(session_id, reason)

        before, stopping = await self._together.write(begin)
        if stopping.state in STOPPED_STATES:
            return stopping
        await self._publish("phase", stopping)
        if before is None or before.state is not State.READY:
            # A start may be under way: give it up here, then in the hub, then end what there is.
            task = self._carried.get(session_id)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await self._forget(stopping.user, session_id)
        why = stopping.reason or reason
        await self.backend.stop(
            session_id, reason=EndReason(why.code, why.message), grace_seconds=STOP_GRACE_SECONDS
        )
        return await self._finish(session_id, why)

    async def _finish(
        self,
        session_id: str,
        reason: Reason,
        *,
        failed: bool = False,
        ended_boottime: float | None = None,
    ) -> Session:
        def end() -> tuple[Session, bool]:
            known = self._sessions.ledger.get(session_id)
            if known is not None and known.state not in LIVE:
                return known, False  # the end was seen twice
            ended = self._sessions.end(session_id, reason, failed=failed, ended_boottime=ended_boottime)
            return ended, True

        session, first = await self._together.write(end)
        if first:
            brought = asyncio.Event()
            self._tend(self._take_over(session, brought))
            self.ends.look_soon()
            with suppress(TimeoutError):
                async with asyncio.timeout(OUTPUTS_SECONDS):
                    await brought.wait()
            await self._publish("ended", session)
            self._channels.close(session_id)
            if self._claims is not None:
                self._claims.look_soon()
        await self._forget(session.user, session_id)
        return session

    def _tend(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background that a restart would do again."""
        task = asyncio.create_task(work)
        self._tended.add(task)

        def done(ended: asyncio.Task[None]) -> None:
            self._tended.discard(ended)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                log.error("taking over what a runtime left failed", exc_info=error)

        task.add_done_callback(done)

    async def _take_over(self, session: Session, brought: asyncio.Event | None = None) -> None:
        """Keep what an ended runtime left: outputs in its document (then `brought` is set), files in its user's Drive."""
        try:
            left = await self.backend.left_behind(session.id)
            await self._scribe.settled(session, left.executions if left is not None else ())
        finally:
            if brought is not None:
                brought.set()
        if left is None:
            return
        note = await asyncio.to_thread(self._snapshots.take, session, left)
        if note:
            self._sessions.ledger.record(session.id, "snapshot", note, self._sessions.moment().wall)
        await self.backend.forget(session.id)

    async def _forget(self, user: str, server: str) -> None:
        """Have the hub forget the server; what it does not do now is asked again later."""
        if server in self._forgetting:
            return  # the end was seen twice; asked twice at once, the hub stumbles
        self._to_forget.add((user, server))
        self._forgetting.add(server)
        try:
            await self.hub.remove(user, server)
            self._to_forget.discard((user, server))
        except HubDown as down:
            log.warning("the hub has not forgotten runtime %s yet: %s", server, down)
        finally:
            self._forgetting.discard(server)

    # -- telling -----------------------------------------------------------------------------------------------

    async def _phase(self, session_id: str, phase: Phase, message: str) -> None:
        session = await self._together.write(lambda: self._sessions.phase(session_id, phase, message))
        await self._publish("phase", session)

    async def _publish(self, name: str, session: Session, **more: object) -> None:
        await self.channel(session.id).publish(name, {**self.model(session), **more})

    # -- looking -----------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up what an earlier instance left: every row is carried again, and what nobody asked for is ended."""
        self._scribe.start()
        try:
            async with asyncio.timeout(RECOVER_SECONDS):
                await self.reconcile()
        except (BackendError, TimeoutError) as error:
            log.error("the runtimes can not be listed yet (%s); they are looked for again", error)
        self._background = [
            asyncio.create_task(self._clean_hub(), name="forget old servers"),
            asyncio.create_task(self._watch_ends(), name="ends"),
        ]
        if self._claims is not None:
            self._background.append(asyncio.create_task(self._claims.look_for_ever(), name="accelerators"))
        since = self._sessions.moment().wall - LEFT_BEHIND_KEPT
        for session in self._sessions.ledger.metered(since):
            if session.state not in LIVE:
                self._tend(self._take_over(session))  # an earlier instance may not have come to it

    async def _watch_ends(self) -> None:
        try:
            await self.ends.watch_for_ever()
        except Fenced:
            self.fenced.set()

    async def tick_for_ever(self) -> None:
        """Compare rows, machine and hub every few seconds. What fails is logged, and the next time tries again."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.reconcile()
                for user, server in list(self._to_forget):
                    await self._forget(user, server)
            except Fenced:
                self.fenced.set()
                return
            except Exception:
                log.exception("looking at the runtimes failed; the next look is in %.0f s", TICK_SECONDS)

    async def reconcile(self) -> None:
        """Make rows and the machine agree (R1): end what has no row, carry on what has a row and nobody who does."""
        real = {observed.id: observed for observed in await self.backend.list_all()}
        rows = {
            session.id: session for session in self._sessions.ledger.live()
        }  # after the machine was listed
        for session in rows.values():
            if session.id not in self._carried and session.id not in self._stops:
                self._carry(session.id, self._resume(session, real.get(session.id)))
        await asyncio.gather(*(self._end_orphan(i) for i in real.keys() - rows.keys()))

    async def _end_orphan(self, runtime_id: str) -> None:
        log.warning("runtime %s has no live session: ending it", runtime_id)
        try:
            await self.backend.stop(
                runtime_id, reason=EndReason("orphan", "Nobody asked for this runtime."), grace_seconds=0.0
            )
        except BackendError as error:
            log.error("runtime %s could not be ended: %s", runtime_id, error)

    async def _resume(self, session: Session, observed: Observed | None) -> None:
        # What runs on a cluster does not end with the computer that control is on.
        here = session.backend != "kubernetes"
        if observed is None and here and policy.outlived_by_boot(session, self._sessions.moment()):
            await self._finish(session.id, MACHINE_RESTARTED, failed=session.state is State.STARTING)
        elif session.state is State.STOPPING:
            await self.stop(session, session.reason or USER_DELETED)
        elif session.state is State.READY:
            # wait_end returns at once, with the reason that was left behind, for a runtime that is gone.
            await self._watch(session)
        else:
            if observed is not None and not await self._starts.known_to_hub(session):
                await self._starts.undo(session)
            await self._run(session)

    async def _clean_hub(self) -> None:
        """Have the hub forget servers of runtimes that ended while nobody told it."""
        try:
            if not await self.hub.wait_until_it_answers(HUB_PATIENCE_SECONDS):
                return
            known = await self.hub.servers()
        except HubDown as down:
            log.warning("the hub's servers could not be listed: %s", down)
            return
        live = {session.id for session in self._sessions.ledger.live()}  # after the hub was asked
        for user, server in known:
            if server not in live and self._sessions.ledger.get(server) is not None:
                log.info("the hub still knows runtime %s, which has ended", server)
                await self._forget(user, server)

    def _carry_stop(self, session: Session, reason: Reason) -> None:
        """End a runtime that is overdue, without waiting for it; a stop that fails is taken up by the next look."""
        if session.id in self._stops:
            return
        log.warning("runtime %s is overdue: %s", session.id, reason.message)
        task = asyncio.create_task(self.stop(session, reason), name=f"overdue {session.id}")

        def told(done: asyncio.Task[Session]) -> None:
            self._background_stops.discard(done)
            if not done.cancelled() and done.exception() is not None:
                log.error("ending runtime %s failed", session.id, exc_info=done.exception())

        self._background_stops.add(task)
        task.add_done_callback(told)

    async def close(self) -> None:
        """Let go of everything; the runtimes go on."""
        tasks: list[asyncio.Task[Any]] = [
            *self._carried.values(),
            *self._stops.values(),
            *self._background_stops,
            *self._background,
            *self._tended,
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._scribe.close()
        await self.hub.close()
