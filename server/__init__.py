"""The task server: one socket, JSON arrays of tasks in, each task's answer the moment it is done."""
