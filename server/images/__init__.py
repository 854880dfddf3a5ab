"""Images: where their bytes lie, and what a task's input is."""
