"""Review page: accept or reject tags label by label, set thresholds, and apply both."""
