"""Which devices there are, before anything is loaded on one. torch is imported for others than "cpu" only."""

from __future__ import annotations

from byrote.checkpoints.errors import ByroteError


def require_device(device: str, *, dtype: str = "float32") -> None:
    """Refuse a device that is not there; "cpu" checks nothing and imports nothing.

    Args:
        device: "cpu", "cuda", "cuda:N" or "mps".
        dtype: what its parameters are to be.

    Raises:
        ByroteError: an unknown device, or one this machine or dtype does not have.
    """
    if device == "cpu":
        return
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise ByroteError(f"there is no device {device!r}", help="use cpu, cuda, cuda:N or mps")
    import torch

    if kind == "mps" and dtype == "float64":
        raise ByroteError("mps has no float64", help="use float32, or the device cpu")
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}[kind]
    if int(index or 0) >= count:
        raise ByroteError(
            f"torch sees {count} {kind} devices here, not {device}",
            help="use the device cpu; `byrote doctor --torch` lists the devices that torch sees",
        )
