"""What a run costs: counted from its settings, measured on this machine, read off its journal."""
