"""Floor 3: what a person touches."""
