"""One trainer for every objective, its data, its reference, its guards."""
