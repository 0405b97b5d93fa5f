"""The page on which a person reads images, generated and reference reports and their scores side by side."""
