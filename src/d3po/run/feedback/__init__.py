"""The feedback phase: who compares a round's pictures (a reward, a vision-language model, people, files of votes), and what training reads of it."""
