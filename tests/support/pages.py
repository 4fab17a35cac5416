"""Pages of the documentation as tests read them."""

from __future__ import annotations

import re
from pathlib import Path

KUBERNETES = Path(__file__).parents[2] / "docs" / "kubernetes.md"
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of a language, as they are on the page."""
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def block_with(page: Path, language: str, word: str) -> str:
    """Return the one block of a language that has a word in it."""
    (found,) = [text for text in blocks(page, language) if word in text]
    return found


def shell_lines(page: Path) -> list[str]:
    """Return the commands of a page's shell blocks, without comments, continued lines joined."""
    lines = []
    for block in blocks(page, "sh"):
        text = block.replace("\\\n", " ")
        lines += [re.sub(r"\s+#.*$", "", line).strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
