"""The rating app: a small server and plain pages. It shares nothing with the trainer but the store and the pictures' files."""
