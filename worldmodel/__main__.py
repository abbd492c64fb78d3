"""`python -m worldmodel`."""

import sys

from worldmodel.apps.cli import main

sys.exit(main())
