"""Processing attempts of sealed batches: their states, steps, row counts and rejects.

Touches its own tables, the event feed and the audit trail.
"""
