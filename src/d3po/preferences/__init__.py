"""Who preferred what: the records that cross the walls, and how answers become comparisons and labels. Never imports torch: rating needs no GPU."""
