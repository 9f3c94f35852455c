"""Floor 0: a place on disk becomes an ordered series of training steps. Importing it does not import torch."""

from byrote.checkpoints.errors import ByroteError as ByroteError
from byrote.checkpoints.errors import CheckpointError as CheckpointError
from byrote.checkpoints.opening import open_runs as open_runs
from byrote.checkpoints.opening import open_series as open_series
from byrote.checkpoints.series import Checkpoint as Checkpoint
from byrote.checkpoints.series import CheckpointSeries as CheckpointSeries
from byrote.checkpoints.series import Gap as Gap
from byrote.checkpoints.series import at_hand as at_hand
