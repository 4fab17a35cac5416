"""The output of the running cell: clearing it, and JavaScript in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from google.colab.output import _js
from google.colab.output._js import register_callback as register_callback
from google.colab.output._js import unregister_callback as unregister_callback
from minicolab_runtime import page

__all__ = [
    "clear",
    "disable_custom_widget_manager",
    "enable_custom_widget_manager",
    "eval_js",
    "no_vertical_scroll",
    "redirect_to_element",
    "register_callback",
    "serve_kernel_port_as_iframe",
    "serve_kernel_port_as_window",
    "temporary",
    "to_default_area",
    "to_footer_area",
    "to_header_area",
    "unregister_callback",
    "use_tags",
]


def eval_js(script: str, ignore_result: bool = False, timeout_sec: float | None = None) -> Any:
    """Run JavaScript in the running cell's output and return the JSON of its awaited result.

    Raises MessageError when the page cannot run scripts, or the script fails.
    """
    return _js.evaluate(script, ignore_result, timeout_sec)


def clear(wait: bool = False, output_tags: str | Iterable[str] = ()) -> None:
    """Remove the running cell's outputs: all, or those that carry every one of `output_tags`."""
    tags = [output_tags] if isinstance(output_tags, str) else list(output_tags)
    kernel = page.kernel()
    content: dict[str, Any] = {"wait": wait}
    if tags:
        content["output_tags"] = tags
    kernel.session.send(
        kernel.iopub_socket, "clear_output", content, parent=kernel.get_parent("shell"), ident=b"clear_output"
    )


@contextlib.contextmanager
def temporary() -> Iterator[None]:
    """Show outputs made in this block only until it ends."""
    try:
        yield
    finally:
        clear()


@contextlib.contextmanager
def use_tags(tags: str | Iterable[str], append: bool = True) -> Iterator[None]:
    """Mark the outputs made in this block, for `clear(output_tags=…)`."""
    names = [tags] if isinstance(tags, str) else list(tags)
    _tag({"nodisplay": True, "add_tags": names} if append else {"nodisplay": True, "set_tags": names})
    try:
        yield
    finally:
        _tag({"nodisplay": True, "remove_tags": names})


def redirect_to_element(selector: str) -> contextlib.AbstractContextManager[None]:
    """Send outputs into an element of the cell's output frame. Raises MessageError where the page has no such frame."""
    return _area(selector)


def to_default_area() -> contextlib.AbstractContextManager[None]:
    """Send outputs where they go anyway."""
    return contextlib.nullcontext()


def to_header_area() -> contextlib.AbstractContextManager[None]:
    """Send outputs above the others."""
    return _area("#output-header")


def to_footer_area() -> contextlib.AbstractContextManager[None]:
    """Send outputs below the others."""
    return _area("#output-footer")


def no_vertical_scroll() -> None:
    """Show this cell's output at its full height."""
    if "cell_javascript_eval" in page.supported():
        _js.evaluate("google.colab.output.setIframeHeight(0, true, {maxHeight: 5000})", True, None)


def serve_kernel_port_as_iframe(
    port: int, path: str = "/", width: str = "100%", height: str = "400", cache_in_notebook: bool = False
) -> None:
    """Show a web server that runs in this runtime inside the cell."""
    page.require("kernel_port", "Showing a port of the runtime")
    page.send(
        "kernel_port", {"port": int(port), "path": path, "width": width, "height": height, "as": "iframe"}
    )


def serve_kernel_port_as_window(
    port: int, path: str = "/", anchor_text: str | None = None, skip_warning: bool = False
) -> None:
    """Show a link to a web server that runs in this runtime."""
    page.require("kernel_port", "Showing a port of the runtime")
    page.send(
        "kernel_port", {"port": int(port), "path": path, "anchor_text": anchor_text or "", "as": "window"}
    )


def enable_custom_widget_manager(version: str = "") -> None:
    """Nothing to do: widgets of other packages work here without a switch."""


def disable_custom_widget_manager() -> None:
    """Nothing to do: see enable_custom_widget_manager."""


@contextlib.contextmanager
def _area(selector: str) -> Iterator[None]:
    page.require("cell_javascript_eval", "Writing into an element of the output")
    _js.evaluate(f"google.colab.output.setActiveOutputArea(document.querySelector({selector!r}))", True, None)
    try:
        yield
    finally:
        _js.evaluate(
            "google.colab.output.setActiveOutputArea(google.colab.output.getDefaultOutputArea())", True, None
        )


def _tag(area: dict[str, Any]) -> None:
    from IPython.display import display

    publish: Callable[..., Any] = display
    publish({}, raw=True, metadata={"outputarea": area})
