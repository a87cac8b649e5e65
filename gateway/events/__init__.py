"""What happened to a client's own objects, in order, for that client. Touches only its own tables."""
