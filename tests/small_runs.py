"""The smallest configuration of the lab that arms are made from in tests."""

from byrote.checkpoints.lab import LabConfig, SourceConfig

SOURCE = SourceConfig(d_vocab=10, n_ctx=8, block_min=2, block_max=3)
BASE = LabConfig(
    source=SOURCE, d_model=8, n_heads=2, d_head=4, batch=4, n_held_out=8, steps=12, every=6, warmup_steps=2, lr=0.05
)  # fmt: skip
