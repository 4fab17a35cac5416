"""JavaScript from Python, and Python from JavaScript."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from minicolab_runtime import page

_callbacks: dict[str, Callable[..., Any]] = {}


def evaluate(script: str, ignore_result: bool, timeout_sec: float | None) -> Any:
    """Run `script` in the running cell's output frame; see `google.colab.output.eval_js`."""
    page.require("cell_javascript_eval", "Running JavaScript in the output")
    body = {"script": script}
    if ignore_result:
        page.send("cell_javascript_eval", body)
        return None
    return page.ask("cell_javascript_eval", body, timeout_sec=timeout_sec)


def register_callback(function_name: str, callback: Callable[..., Any]) -> None:
    """Let JavaScript call `callback` with google.colab.kernel.invokeFunction(function_name, args, kwargs)."""
    if not callable(callback):
        raise TypeError("callback must be callable")
    _callbacks[function_name] = callback


def unregister_callback(function_name: str) -> None:
    """Forget a callback. Raises KeyError when there is none of this name."""
    del _callbacks[function_name]


def _invoke_function(function_name: str, json_args: str, json_kwargs: str) -> Any:
    """Call a registered callback; the page runs this when JavaScript invokes it."""
    callback = _callbacks.get(function_name)
    if callback is None:
        raise ValueError(f"Function not found: {function_name}")
    return callback(*json.loads(json_args or "[]"), **json.loads(json_kwargs or "{}"))
