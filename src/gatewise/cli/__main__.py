"""`python -m gatewise.cli` is `gatewise`."""

import sys

from gatewise.cli.main import main

sys.exit(main())
