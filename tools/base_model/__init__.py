"""The recipe that trains the embedded model of 64x64 pixels. Run it with `make base-model`; nothing here is needed to use d3po."""
