"""Statistics of annotators' votes: agreement, reliability, rankings, which pairs to ask next; and a simulated annotator. Never imports torch."""
