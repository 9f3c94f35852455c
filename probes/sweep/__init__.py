"""Plan, measure, write: from a series to a results folder."""
