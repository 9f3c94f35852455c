"""Floor 0: a place on disk becomes an ordered series of training steps. Importing it does not import torch."""

from checkpoints.errors import CheckpointError as CheckpointError
from checkpoints.errors import RoteError as RoteError
from checkpoints.runs import open_runs as open_runs
from checkpoints.series import Checkpoint as Checkpoint
from checkpoints.series import CheckpointSeries as CheckpointSeries
from checkpoints.series import Gap as Gap
from checkpoints.series import at_hand as at_hand
from checkpoints.series import open_series as open_series
