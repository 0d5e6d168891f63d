"""From TRL to here: scripts, notebooks, recipes and command lines rewritten without being run."""

from .files import diff, files_of, migrate_file
from .notes import CannotRead, Migrated, Note

__all__ = ["CannotRead", "Migrated", "Note", "diff", "files_of", "migrate_file"]
