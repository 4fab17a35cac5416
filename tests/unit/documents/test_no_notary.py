"""Documents keeps no list of trusted notebooks, so none can be damaged and hold up a save (F33)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
ASK = """
import sys
import hub.documents.__main__, hub.documents.app
print([name for name in sys.modules if name.startswith(("nbformat.sign", "jupyter_server"))])
"""


def test_the_service_has_no_notary_and_no_database_of_signatures() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
