"""Several processes that train one model: the first measures, the others wait for what it found. torch on first use."""

from __future__ import annotations

from collections.abc import Callable


def is_first() -> bool:
    """Whether this process is the one that measures: rank 0, or the only one."""
    return not _several() or _rank() == 0


def first_decides(decide: Callable[[], bool]) -> bool:
    """What rank 0 finds, in every process; the others wait meanwhile. Every process has to call it.

    Args:
        decide: called in rank 0 alone; it must not raise.
    """
    if not _several():
        return decide()
    import torch
    from torch import distributed

    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    found = torch.tensor([decide() if _rank() == 0 else False], dtype=torch.uint8, device=device)
    distributed.broadcast(found, src=0)
    return bool(found.item())


def _several() -> bool:
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _rank() -> int:
    from torch import distributed

    return int(distributed.get_rank())
