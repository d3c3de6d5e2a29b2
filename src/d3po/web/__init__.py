"""The rating page and the dashboard: a small server and plain pages. It shares only the store and the picture files with the trainer."""
