"""The applications of the peers that are libraries; they run in the peers' environment."""
