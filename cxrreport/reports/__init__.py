"""The text of reports: sections, sentences, placeholders, and mentions of earlier studies."""
