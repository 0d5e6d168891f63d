"""Import paths that existing scripts use; the names themselves are stable and top-level."""
