"""Who did what to what, and when: append-only and chained. Touches only its own tables."""
