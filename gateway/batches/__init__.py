"""The ledger of deliveries: batches, their files, the seal, manifest and receipt.

Touches its own tables, jobs, the out-tray, the event feed and the audit trail, and writes a
sealed batch's manifest and receipt into the landing zone.
"""
