"""`python -m trellis VERB …` is `trellis VERB …`."""

from .cli import main

raise SystemExit(main())
