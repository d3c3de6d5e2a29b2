"""The recipe that trains the embedded model of 64x64 pixels. Run it with `make base-model`. Using d3po does not need it."""
