"""The recipe that trains the embedded emoji model. Run it with `make base-model`; nothing here is needed to use d3po."""
