"""The training phase: the votes become labels, and the labels become updates of the policy."""
