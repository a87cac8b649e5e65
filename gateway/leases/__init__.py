"""Credentials for data systems, for one run of one task each.

The room owns its ledger of leases. Each data system is spoken to by one driver in ``resources``. It
reads jobs, to know whose task asks and when a job has ended, and changes nothing about them.
"""
