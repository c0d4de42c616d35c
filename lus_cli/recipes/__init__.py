"""Training recipes: complete, commented TOML files, one field a line."""
