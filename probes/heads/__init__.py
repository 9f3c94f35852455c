"""One file per probe that gives one value per (layer, head)."""
