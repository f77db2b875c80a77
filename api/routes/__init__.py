"""The endpoints, one file for each noun of the path."""
