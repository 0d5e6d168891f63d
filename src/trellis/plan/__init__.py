"""Before a run: what the data holds (`check`), and which method and settings suit it (`advise`)."""
