"""Tables in Excel's own format (Office Open XML, transitional or strict), read as a stream within fixed limits.

No library reads these files without loss and within limits. Read-only openpyxl reads nothing of strict files, one cell
of files that state a wrong size, and formulas without value as empty cells. calamine allocates the rectangle of all
cells, which one far cell makes larger than the memory, and drops errors and blanks of formatted text. A table needs few
elements of the format, and the parser of the standard library streams them.
"""

from cxrreport.storage.table_formats.workbook.reader import refused_kind
from cxrreport.storage.table_formats.workbook.table import Limits, read_workbook

__all__ = ["Limits", "read_workbook", "refused_kind"]
