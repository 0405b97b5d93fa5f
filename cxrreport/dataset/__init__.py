"""The data set that `ingest` writes and every later command reads: manifest, image store, covariates, pseudonyms."""
