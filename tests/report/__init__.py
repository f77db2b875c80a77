"""The report of a prune, from its numbers to the page in a browser."""
