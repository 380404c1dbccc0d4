"""Write a table as a PDF that a person would like to read: A4, title, facts, a ruled table, page numbers.

The layout needs all rows at once, so a PDF takes at most `MAX_ROWS`; larger tables are for CSV and XLSX. The built-in
font has the letters of western Europe; for others name a TrueType font in STREAMQ_PDF_FONT (a file).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, BinaryIO
from xml.sax.saxutils import escape

from reportlab.lib import colors  # type: ignore[import-untyped]
from reportlab.lib.enums import TA_RIGHT  # type: ignore[import-untyped]
from reportlab.lib.pagesizes import A4, landscape  # type: ignore[import-untyped]
from reportlab.lib.styles import ParagraphStyle  # type: ignore[import-untyped]
from reportlab.lib.units import mm  # type: ignore[import-untyped]
from reportlab.pdfbase import pdfmetrics  # type: ignore[import-untyped]
from reportlab.pdfbase.ttfonts import TTFont  # type: ignore[import-untyped]
from reportlab.platypus import LongTable, Paragraph, SimpleDocTemplate, Spacer, TableStyle  # type: ignore[import-untyped]

from streamq.errors import Unrecoverable
from streamq.processors.writers import Kind, Row, Sheet, cell_text

MAX_ROWS = 5_000
_INK, _PALE = colors.HexColor("#1F2D3D"), colors.HexColor("#52616F")
_RULE, _SHADE, _HEAD = colors.HexColor("#C9D3DD"), colors.HexColor("#F3F6F9"), colors.HexColor("#E8EEF4")
_WEIGHT = {Kind.TEXT: 2.2, Kind.MONEY: 1.5, Kind.INTEGER: 1.4, Kind.DATE: 1.2}
_NUMERIC = (Kind.MONEY, Kind.INTEGER)


class _Styles:
    """The paragraph styles, in the built-in font or the one of STREAMQ_PDF_FONT."""

    def __init__(self) -> None:
        self.font, bold = "Helvetica", "Helvetica-Bold"
        if path := os.environ.get("STREAMQ_PDF_FONT"):
            pdfmetrics.registerFont(TTFont("streamq", path))
            self.font = bold = "streamq"
        self.title = ParagraphStyle("title", fontName=bold, fontSize=17, leading=21, textColor=_INK)
        self.fact = ParagraphStyle("fact", fontName=self.font, fontSize=9, leading=12, textColor=_PALE)
        self.cell = ParagraphStyle("cell", fontName=self.font, fontSize=8, leading=10, textColor=_INK)
        self.number = ParagraphStyle("number", parent=self.cell, alignment=TA_RIGHT)
        self.bold = ParagraphStyle("bold", parent=self.cell, fontName=bold)
        self.bold_number = ParagraphStyle("bold number", parent=self.bold, alignment=TA_RIGHT)


class PdfWriter:
    """Collects the rows and lays them out at the end."""

    def __init__(self, file: BinaryIO, sheet: Sheet) -> None:
        self._file, self._sheet, self._style = file, sheet, _Styles()
        self._rows: list[Row] = []

    def write(self, rows: Iterable[Row]) -> None:
        """Add rows.

        Raises:
            Unrecoverable: The table has grown over `MAX_ROWS`.
        """
        self._rows.extend(rows)
        if len(self._rows) > MAX_ROWS:
            raise Unrecoverable(f"a PDF takes at most {MAX_ROWS:,} rows; choose csv or xlsx for this report")

    def finish(self, totals: Row | None = None) -> None:
        sheet = self._sheet
        page = landscape(A4) if len(sheet.columns) > 6 else A4
        document = SimpleDocTemplate(
            self._file, pagesize=page, title=sheet.title, author="streamq", leftMargin=16 * mm, rightMargin=16 * mm,
            topMargin=16 * mm, bottomMargin=18 * mm,
        )  # fmt: skip
        story: list[Any] = [Paragraph(escape(sheet.title), self._style.title), Spacer(1, 2 * mm)]
        story += [Paragraph(f"{escape(key)}: {escape(value)}", self._style.fact) for key, value in sheet.facts]
        story += [Spacer(1, 5 * mm), self._table(document.width, totals)]
        if not self._rows:
            story += [
                Spacer(1, 4 * mm),
                Paragraph("Nothing was found for this period and these filters.", self._style.fact),
            ]
        document.build(story, onFirstPage=self._footer, onLaterPages=self._footer)

    def abort(self) -> None:
        self._rows.clear()

    def _table(self, width: float, totals: Row | None) -> Any:
        kinds = [column.kind for column in self._sheet.columns]
        share = width / sum(_WEIGHT[kind] for kind in kinds)
        lines = [self._line(self._sheet.headings, kinds, bold=True)]
        lines += [self._line(row, kinds) for row in self._rows]
        style = [
            ("BACKGROUND", (0, 0), (-1, 0), _HEAD),
            ("LINEBELOW", (0, 0), (-1, -1), 0.4, _RULE),
            ("ROWBACKGROUNDS", (0, 1), (-1, -1), [colors.white, _SHADE]),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("TOPPADDING", (0, 0), (-1, -1), 3),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
        ]
        if totals is not None:
            lines.append(self._line(totals, kinds, bold=True))
            style += [("LINEABOVE", (0, -1), (-1, -1), 1, _INK), ("BACKGROUND", (0, -1), (-1, -1), colors.white)]
        table = LongTable(lines, colWidths=[share * _WEIGHT[kind] for kind in kinds], repeatRows=1)
        table.setStyle(TableStyle(style))
        return table

    def _line(self, row: Row, kinds: list[Kind], *, bold: bool = False) -> list[Any]:
        style = self._style
        number, text = (style.bold_number, style.bold) if bold else (style.number, style.cell)
        return [
            Paragraph(escape(cell_text(kind, cell)), number if kind in _NUMERIC else text)
            for kind, cell in zip(kinds, row, strict=True)
        ]

    def _footer(self, canvas: Any, document: Any) -> None:
        canvas.saveState()
        canvas.setFont(self._style.font, 8)
        canvas.setFillColor(_PALE)
        canvas.drawString(document.leftMargin, 10 * mm, document.title)
        canvas.drawRightString(document.pagesize[0] - document.rightMargin, 10 * mm, f"Page {document.page}")
        canvas.restoreState()
