"""The example shown where nothing has been measured yet: two small runs, unpacked once per server.

`example.tar.xz` holds what `byrote run` stores, without what can be made again from it (observations.parquet,
fingerprints.json). The series are those of `make demo`, measured at twelve steps with 16 sequences:

    byrote run runs/unique runs/repeated -p prefix_matching -p previous_token -p copying_logit -p induction
        -p offset_profile -p composition -p repeat_loss -p exact_match -p mem_gap -p recall_vs_copy
        --steps first,16,64,100,200,300,400,500,600,1k,1600,last --sequences 16 --save-attention -o results

Attention, and what heads write, is kept at step 2,400 alone.
"""

from __future__ import annotations

import atexit
import shutil
import tarfile
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from byrote.dashboard.library import Library, open_library

PACKED = Path(__file__).with_name("example.tar.xz")


def in_place_of(found: Library) -> Library:
    """The example's runs, with the folders that were asked for; the same library where it cannot be unpacked.

    Args:
        found: a library without runs.
    """
    folder = _unpacked()
    if folder is None:
        return found
    return replace(open_library([folder]), paths=found.paths, is_example=True)


@lru_cache(maxsize=1)
def _unpacked() -> Path | None:
    folder = Path(tempfile.mkdtemp(prefix="byrote-example-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        with tarfile.open(PACKED) as packed:
            packed.extractall(folder, filter="data")
    except (OSError, tarfile.TarError):
        return None
    return folder
