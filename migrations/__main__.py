"""`python -m migrations upgrade`: bring the database of BONSAI_DATABASE_URL up to date."""

import sys

from jobs.settings import Settings
from migrations import upgrade

if sys.argv[1:] != ["upgrade"]:
    sys.exit(f"usage: python -m migrations upgrade (got {' '.join(sys.argv[1:])!r})")
upgrade(Settings().database_url)
