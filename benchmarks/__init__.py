"""Each module is one command, `python -m benchmarks.NAME`, that prints a table and keeps it in `results/`."""
