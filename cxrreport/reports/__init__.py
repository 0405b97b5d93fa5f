"""The text of reports: sections, sentences, placeholders, near duplicates, and mentions of prior studies."""
