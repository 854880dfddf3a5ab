"""Which model is how good, on photographs that no model and no setting was tuned on.

`pictures` has the photographs and makes them small, `measures` compares, `st_lpips` is one of the measures,
`sheets` puts crops side by side; `python -m benchmarks.quality` does all.
"""
