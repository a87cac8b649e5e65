"""The whole stack on one machine, on loopback, as private processes below ``.run/``.

``environments`` needs nothing but Python; the rest runs in the gateway's environment.
Nothing here is imported by ``gateway``.
"""
