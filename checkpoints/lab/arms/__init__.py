"""What the lab's runs are trained on: arms, and the parts they are made of. No numpy: help reads it too."""

from byrote.checkpoints.lab.arms.arm import Arm
from byrote.checkpoints.lab.arms.described import arm_rank, describe_arm, unequal_data
from byrote.checkpoints.lab.arms.part import Part
from byrote.checkpoints.lab.arms.registry import ARMS, arms, part_kind

__all__ = ["ARMS", "Arm", "Part", "arm_rank", "arms", "describe_arm", "part_kind", "unequal_data"]
