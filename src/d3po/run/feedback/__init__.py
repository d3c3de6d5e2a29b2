"""The feedback phase: a reward, a vision-language model, people or imported votes compare a round's pictures; training reads the labels made of that."""
