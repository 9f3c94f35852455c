"""Claims of papers: what would show them on small runs, and verdicts by rules fixed beforehand. No torch until something is trained."""
