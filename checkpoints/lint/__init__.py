"""Is this series what it claims to be? Facts about its steps, weights and files; what they mean is for the reader.

Importing it does not import torch, and linting a series of safetensors never does.
"""

from byrote.checkpoints.lint.report import KINDS as KINDS
from byrote.checkpoints.lint.report import Fact as Fact
from byrote.checkpoints.lint.report import LintReport as LintReport
from byrote.checkpoints.lint.report import lint_path as lint_path
from byrote.checkpoints.lint.report import read_lint as read_lint
from byrote.checkpoints.lint.report import write_lint as write_lint
from byrote.checkpoints.lint.run import lint as lint
