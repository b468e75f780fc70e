"""Text for the demo's agents to read: articles, e-mails, invoices and pictures, the same for the same seed.

Used by the scenes, on both sides: for what tools return and for what the model says. Made, not quoted.
"""

import random
import struct
import zlib
from typing import Final

_OPENINGS: Final = (
    "According to the {year} filing of {company}, {subject} {verb} by {percent} percent in {region}.",
    "{company} told analysts that {subject} {verb} faster than planned, most of all in {region}.",
    "In {region}, {subject} {verb} for the {ordinal} quarter in a row, at an average of {amount} euros a unit.",
    "A survey of {count} households in {region} found that {percent} percent had postponed the purchase of {product}.",
    "Installers in {region} quote between {amount} and {amount2} euros for {product}, labour included.",
    "The regulator's note of {month} {year} asks {company} to publish how {subject} {verb} without subsidies.",
    "{person}, who runs procurement at {company}, expects that {subject} will have settled by {month} {year2}.",
    "Delivery times for {product} fell from {weeks} to {weeks2} weeks; {company} names a second plant.",
    "Two of {count2} distributors dispute the figure: by their count {subject} {verb} by {percent2} percent.",
    "The footnote to table {count2} matters, since {company} changed its definition of {subject} in {month} {year}.",
    "Prices of {product} in {region} now include the levy of {amount2} euros that came into force in {month} {year}.",
    "Asked about {product}, {person} pointed to {region}, where {percent} percent of orders are repeat orders.",
)
_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "company": ("Nordwind AG", "Helio Systems", "Brightwater", "Kestrel Home", "Ostara Group", "Valmont & Sons"),
    "subject": (
        "demand for heat pumps",
        "the attach rate of service plans",
        "average order value",
        "churn",
        "net margin",
    ),
    "verb": ("rose", "fell", "recovered", "slowed", "grew", "stagnated"),
    "region": ("Bavaria", "the Nordics", "northern Italy", "the Benelux countries", "Catalonia", "the Midlands"),
    "product": ("a 9 kW air-to-water unit", "battery storage", "a hybrid boiler", "smart thermostats", "wall boxes"),
    "person": ("Ines Okafor", "Jonas Lindqvist", "Maya Deshpande", "Piotr Zielinski", "Claire Fontaine"),
    "month": ("January", "March", "May", "July", "September", "November"),
    "ordinal": ("second", "third", "fourth", "fifth"),
}


class Prose:
    """A source of sentences. The same seed gives the same text on every machine."""

    def __init__(self, seed: object) -> None:
        self._random = random.Random(str(seed))  # noqa: S311 - for variety, not for secrets

    def sentence(self) -> str:
        """One sentence with figures in it."""
        pick = self._random
        numbers: dict[str, object] = {
            "year": pick.randint(2021, 2024),
            "year2": pick.randint(2025, 2027),
            "percent": pick.randint(2, 48),
            "percent2": pick.randint(2, 48),
            "amount": pick.randrange(1_200, 9_000, 50),
            "amount2": pick.randrange(9_000, 19_000, 50),
            "count": pick.randrange(400, 4_000, 20),
            "count2": pick.randint(3, 14),
            "weeks": pick.randint(14, 30),
            "weeks2": pick.randint(3, 12),
        }
        words = {name: pick.choice(choices) for name, choices in _WORDS.items()}
        return pick.choice(_OPENINGS).format(**numbers, **words)

    def paragraph(self, sentences: int = 5) -> str:
        """Some sentences in a row."""
        return " ".join(self.sentence() for _ in range(sentences))

    def text(self, chars: int) -> str:
        """Paragraphs of exactly `chars` characters together."""
        parts: list[str] = []
        length = 0
        while length < chars:
            part = self.paragraph() + "\n\n"
            parts.append(part)
            length += len(part)
        return ("".join(parts))[: chars - 1].rstrip().ljust(chars - 1, ".") + "\n"


def invoice_pdf(number: int, size: int) -> bytes:
    """A one-page PDF of exactly `size` bytes: an invoice with readable lines."""
    prose = Prose(f"invoice {number}")
    lines = [f"Invoice 2026-{number:04d}", "Kestrel Home GmbH", *(prose.sentence() for _ in range(40))]
    text = "BT /F1 9 Tf 40 800 Td 12 TL " + " ".join(f"({_escape(line)}) Tj T*" for line in lines) + " ET"
    padding = size - len(_pdf(text + "\n% "))
    # The stream's length is written in the document: with more padding it may take a digit more.
    document = _pdf(text + "\n% " + "-" * padding)
    document = _pdf(text + "\n% " + "-" * (padding - (len(document) - size)))
    if len(document) != size:
        raise ValueError(f"an invoice of {size} bytes cannot be made: {len(document)} bytes")
    return document


def picture_png(width: int, height: int, seed: int) -> bytes:
    """A PNG picture: a coloured gradient."""
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            rows += bytes(((x * 255 // width + seed * 40) % 256, y * 255 // height, (x + y + seed) % 256))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 6)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _escape(line: str) -> str:
    return line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def _pdf(content: str) -> bytes:
    stream = content.encode("ascii", "replace")
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources 5 0 R >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>",
    )
    document = bytearray(b"%PDF-1.4\n")
    offsets: list[int] = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(document))
        document += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(document)
    document += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for offset in offsets:
        document += b"%010d 00000 n \n" % offset
    document += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(document)
