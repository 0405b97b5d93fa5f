"""What an evaluation scores: predictions and references of files, and the studies that every system is scored on."""
