"""The report of a prune: `report.json`, and the same as one page, `report.html`."""
