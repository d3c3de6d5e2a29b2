"""Import and export of votes: file formats, and the conversion between files and the store. Never imports torch."""
