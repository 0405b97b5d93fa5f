"""Patient-level bootstrap intervals, paired tests, and risk-coverage curves."""
