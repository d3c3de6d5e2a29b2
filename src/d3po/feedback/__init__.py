"""Where preferences come from: measured rewards through a simulated annotator (people and model judges write to the same store)."""
