"""The out-tray: work that must happen outside, written with the change that calls for it.

Knows no topic's meaning. Touches only its own table.
"""
