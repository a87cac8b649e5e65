"""From one client file to everything a client needs; idempotent and resumable."""
