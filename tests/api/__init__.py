"""The public surface: names, signatures and config fields."""
