"""Who preferred what: records, the store, and which pairs to ask. Never imports torch: rating needs no GPU."""
