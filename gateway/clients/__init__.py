"""Clients, their projects, contracts and quotas. Touches only its own tables."""
