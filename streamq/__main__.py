"""`python -m streamq`: the same as the `streamq` command."""

import sys

from streamq.cli import main

if __name__ == "__main__":
    sys.exit(main())
