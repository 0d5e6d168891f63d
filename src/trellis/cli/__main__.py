"""`python -m trellis.cli` is `trellis`."""

from . import main

raise SystemExit(main())
