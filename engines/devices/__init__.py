"""What networks run on: CPUs and GPUs, by one runtime or another."""
