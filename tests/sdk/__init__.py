"""The client SDK against a gateway on loopback."""
