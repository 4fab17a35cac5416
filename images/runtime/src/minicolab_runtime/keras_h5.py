"""Keras 3 and `model.save_weights('x.h5')`, which every older notebook writes and Keras 3 refuses after all the training.

Keras 3 still reads such files and still has the code that writes them; this sends names ending in `.h5` or `.hdf5` (but not
`.weights.h5`, which is Keras 3's own format) there. Nothing is imported before Keras is.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

TARGET = "keras.src.saving.saving_api"


def patch(saving_api: ModuleType) -> None:
    """Teach `saving_api.save_weights` the older format. Leaves a Keras that is not version 3 as it is."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        major = int(version("keras").split(".")[0])
    except (PackageNotFoundError, ValueError):
        return
    original = getattr(saving_api, "save_weights", None)
    if major != 3 or original is None:
        return

    def save_weights(
        model: Any, filepath: Any, overwrite: bool = True, max_shard_size: Any = None, **kwargs: Any
    ) -> None:
        name = os.fspath(filepath)
        if max_shard_size is not None or not is_older_format(name):
            original(model, filepath, overwrite=overwrite, max_shard_size=max_shard_size, **kwargs)
            return
        import h5py
        from keras.src.legacy.saving import legacy_h5_format

        path = Path(name)
        if not overwrite and path.exists():
            raise FileExistsError(f"{path} exists; pass overwrite=True to replace it.")
        beside = Path(f"{name}.{os.getpid()}.part")
        try:
            with h5py.File(beside, "w") as file:
                legacy_h5_format.save_weights_to_hdf5_group(file, model)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    save_weights.__doc__ = original.__doc__
    saving_api.save_weights = save_weights  # type: ignore[attr-defined]


def is_older_format(path: Any) -> bool:
    """Return whether a file name asks for the HDF5 format of Keras 2."""
    return isinstance(path, str) and path.endswith((".h5", ".hdf5")) and not path.endswith(".weights.h5")
