"""What is done once per server. The script itself is read anew at every run of a page, and with it whatever it remembers."""

from __future__ import annotations

import gc
from functools import lru_cache

import numpy as np
from PIL import Image


@lru_cache(maxsize=1)
def settle() -> None:
    """Libraries stay for good: Streamlit's full collection after every run need not walk through them again and again.

    Once only: what is frozen while a page of it is on screen would never be collected.
    """
    gc.collect()
    gc.freeze()


@lru_cache(maxsize=1)
def icon() -> Image.Image:
    """Four heads, one of them strong: drawn here, because Streamlit's own icons come over the network."""
    tones = np.array([[[0, 48, 110], [96, 99, 110]], [[52, 71, 107], [253, 231, 55]]], dtype=np.uint8)
    return Image.fromarray(tones.repeat(16, axis=0).repeat(16, axis=1))
