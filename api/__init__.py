"""Turns HTTP into job rows, and job rows into HTTP.

`app` puts it together, `routes` are the endpoints, `schemas` what goes over the wire, `problems`
how errors look. Nothing here knows torch, Celery or a table.
"""
