"""Mentions of earlier studies: found, and removed by rules."""
