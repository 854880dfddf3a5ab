"""How many, how fast and who first: limits at the edge, fair shares within."""
