"""Everything needed to run the gateway: locally, in containers, on machines."""
