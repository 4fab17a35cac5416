"""The Spawner JupyterHub calls: it hands a runtime's start to the backend and adopts living runtimes after a restart.

Only control starts servers (docs/architecture.md), so `user_options` are its words, not a user's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from jupyterhub.spawner import Spawner
from traitlets import Callable as TraitCallable

from spawner.model import PHASE_SENTENCES, EndReason, Phase, RuntimeSpec
from spawner.ports import BackendError, RuntimeBackend

PROGRESS = {Phase.QUEUED: 5, Phase.PREPARING: 10, Phase.SANDBOX: 30, Phase.SERVER: 60, Phase.READY: 95}
STOP_GRACE_SECONDS = 3.0


class RuntimeSpawner(Spawner):
    """Starts runtimes through a RuntimeBackend."""

    make_backend = TraitCallable(config=True, help="Returns the RuntimeBackend of this installation.")
    build_spec = TraitCallable(
        config=True, help="Returns the RuntimeSpec for (user name, base URL, user_options)."
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._phases: list[tuple[Phase, str]] = []
        self._changed = asyncio.Event()
        self._runtime_id = ""

    @property
    def backend(self) -> RuntimeBackend:
        backend: RuntimeBackend = self.make_backend()
        return backend

    async def start(self) -> str:
        """Start the runtime control asked for; return its URL once it answers. Raise SpawnException."""
        try:
            spec = self._spec()
            self._phases, self._runtime_id = [], spec.id
            endpoint = await self.backend.start(spec, self._on_phase)
        except BackendError as error:
            raise self._refusal(error) from error
        return endpoint.url

    def _spec(self) -> RuntimeSpec:
        runtime_id = self.user_options.get("runtime_id")
        if not isinstance(runtime_id, str) or runtime_id != self.name:
            raise BackendError(
                "not_allowed", "Runtimes are started through minicolab's pages or its control API."
            )
        try:
            spec: RuntimeSpec = self.build_spec(self.user.name, self.server.base_url, self.user_options)
        except (KeyError, TypeError, ValueError) as error:
            message = f"The options of this runtime can not be used: {error}"
            raise BackendError("bad_options", message) from error
        return spec

    def _refusal(self, error: BackendError) -> Exception:
        """Return what JupyterHub shows without a traceback: the sentence, with its code as the metric's reason."""
        from jupyterhub.spawner import SpawnException

        refusal: Exception = SpawnException(f"{error.code}: {error}", reason=error.code)
        return refusal

    def _on_phase(self, phase: Phase, sentence: str = "") -> None:
        self._phases.append((phase, sentence or PHASE_SENTENCES[phase]))
        self._changed.set()

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Yield a message for every phase, as it comes."""
        told = 0
        while True:
            while told < len(self._phases):
                phase, sentence = self._phases[told]
                told += 1
                yield {"progress": PROGRESS[phase], "message": sentence, "phase": phase}
                if phase is Phase.READY:
                    return
            self._changed.clear()
            await self._changed.wait()

    async def poll(self) -> int | None:
        """Return None while the runtime lives, 0 when it is gone. One that does not answer is not gone."""
        if not self._runtime_id:
            return 0
        try:
            return None if await self.backend.observe(self._runtime_id) is not None else 0
        except BackendError:
            return None

    async def stop(self, now: bool = False) -> None:
        if self._runtime_id:
            reason = EndReason("stopped", "The runtime was stopped.")
            await self.backend.stop(
                self._runtime_id, reason=reason, grace_seconds=0.0 if now else STOP_GRACE_SECONDS
            )

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "runtime_id": self._runtime_id}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self._runtime_id = state.get("runtime_id", "")

    def clear_state(self) -> None:
        super().clear_state()
        self._runtime_id = ""
