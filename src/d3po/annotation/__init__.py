"""What annotators say, weighed: agreement, reliability, rankings, which pairs to ask next, and a simulated annotator. Never imports torch."""
