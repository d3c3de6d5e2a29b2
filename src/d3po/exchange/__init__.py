"""Votes in files: formats in and out, and their way into and out of the store. Never imports torch."""
