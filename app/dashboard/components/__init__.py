"""The views Plotly cannot be: a head grid that plays in the browser, tokens that show attention, a graph of heads."""
