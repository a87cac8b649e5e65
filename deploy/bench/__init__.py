"""The benchmark of the upload doors, with the peers they are compared with.

``install`` brings the peers in; ``client`` is the one program that sends to every server, made of
``wire``; ``ours`` and ``peers`` start the servers and say how a file is sent to each; ``large``,
``small`` and ``load`` measure; ``table`` makes ratios of what they found.
"""
