"""One file per probe that gives one value, or a curve, per model."""
