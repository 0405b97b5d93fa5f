"""What `storage.tables` reads a table with: texts with delimiters, workbooks of Excel, names of columns."""
