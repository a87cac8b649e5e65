"""Doors for administrators and auditors."""
