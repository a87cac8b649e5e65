"""The client's side: deliver files, watch their processing, prove what was delivered.

Owns the client for the gateway's public HTTP contract and the ``gateway send``,
``gateway status`` and ``gateway receipt`` commands. It runs on a client's own machine from
the light install, so it imports nothing else of ``gateway``: only httpx (HTTP), typer
(command line, with rich for progress) and joserfc (verifying a receipt's ES256 signature).

=============  ============================================================================
``problems``   every failure a caller can meet
``records``    what the gateway answers, as frozen dataclasses
``transport``  one HTTP exchange, and when and how often it is repeated
``login``      access tokens: fetched when needed, renewed before they lapse
``client``     :class:`~gateway.sdk.client.GatewayClient`, one method for each call
``files``      local files: their digests, and streaming them unchanged
``receipt``    verifying a receipt, with or without a network
``tus``        one large file, in pieces: resumed where it stopped
``journal``    what a delivery notes on this machine, to survive its sender
``sending``    the files of a batch, several at a time
``delivery``   a whole delivery: create or resume, send, seal, verify
``follow``     watching a job to its end
``watching``   the same from an event loop: many jobs, one thread
``display``    telling a person what happens
``options``    options the commands share
``results``    what a command prints at the end, and its exit code
``cli``        the commands
=============  ============================================================================
"""
