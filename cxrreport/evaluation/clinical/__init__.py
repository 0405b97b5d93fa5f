"""Findings as reports state them (CheXpert's 14), and how far two reports agree on them."""
