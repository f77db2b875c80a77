"""A process of its own that starts a stack, for tests that kill it.

Run as `python supervisor.py DATA [no-death-signal]`. Prints one line of JSON when both servers are
ready, and stops them when its standard input is closed.
"""

import json
import sys
from pathlib import Path

from client.embedded import processes
from client.embedded.stack import EmbeddedStack


def main() -> None:
    if "no-death-signal" in sys.argv:
        processes._C_LIBRARY = None  # as on macOS
    with EmbeddedStack(Path(sys.argv[1])) as stack:
        facts = {
            "database_url": stack.database_url,
            "redis_url": stack.redis_url,
            "process_ids": stack.process_ids,
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
