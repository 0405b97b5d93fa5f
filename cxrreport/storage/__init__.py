"""Files and folders that are whole or absent whenever a run is stopped, and Arrow tables."""
