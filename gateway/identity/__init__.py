"""The hallway: who is asking, for which client, and what they may do.

The only room that speaks LDAP (``directory``) and signs or verifies tokens (``tokens``).
"""
