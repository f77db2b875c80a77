"""What schemathesis does not know by itself."""

import schemathesis

# Lines of JSON go over the wire as any text does.
schemathesis.serializer.alias("application/jsonl", "text/plain")
