"""One file per probe about how heads work together: pairs of heads, and circuits of several."""
