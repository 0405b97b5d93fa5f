"""From files as hospitals and data sets keep them to a manifest, images for the model, and a ledger of the rest."""
