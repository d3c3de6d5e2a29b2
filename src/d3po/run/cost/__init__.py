"""The cost of a run: counted from its settings, measured on this machine, and read from its journal."""
