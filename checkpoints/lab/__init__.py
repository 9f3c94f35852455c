"""The lab: trains small controlled series, so that a claim about training data can be tried in a minute.

Importing it does not import torch; only `train` does, when there is something to train.
"""

from byrote.checkpoints.lab.arms import Arm as Arm
from byrote.checkpoints.lab.config import LabConfig as LabConfig
from byrote.checkpoints.lab.source import SourceConfig as SourceConfig
from byrote.checkpoints.lab.trainer import train as train
