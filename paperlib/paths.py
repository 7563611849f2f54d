"""Where things lie. Both wings read these; nothing here creates a folder."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = ROOT / "parameters"
NOTEBOOKS = ROOT / "notebooks"


def results() -> Path:
    """Folder of records and executed notebooks (``PAPERLIB_RESULTS`` moves it)."""
    return Path(os.environ.get("PAPERLIB_RESULTS", ROOT / "results")).resolve()


def reference() -> Path:
    """Folder of the records that the repository keeps (``PAPERLIB_REFERENCE`` moves it)."""
    return Path(os.environ.get("PAPERLIB_REFERENCE", ROOT / "results" / "reference")).resolve()


def reports() -> Path:
    """Folder of rendered HTML (``PAPERLIB_REPORTS`` moves it)."""
    return Path(os.environ.get("PAPERLIB_REPORTS", ROOT / "reports")).resolve()
