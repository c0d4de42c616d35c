"""Training recipes: the default one is complete, the others list what differs, with the reason."""
