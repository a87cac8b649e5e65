"""Taking goods in: admit, stream, complete. Touches batches' files and the landing zone."""
