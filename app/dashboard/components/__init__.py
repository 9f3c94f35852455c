"""Custom browser components: an animated head grid, tokens that show attention, a graph of heads."""
