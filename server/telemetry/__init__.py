"""What the server reports of itself: log, metrics, traces, readiness."""
