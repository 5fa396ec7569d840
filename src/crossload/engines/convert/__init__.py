"""Code conversion: find an application's cloud calls, and rewrite them to a portable form without touching the rest.

    found = scan(folder, reading)                        # every call in neutral words, with what cannot be carried
    conversion = convert(folder, reading, writings)      # edits, the adapter, the diff; nothing is written
    conversion.write(folder)                             # refused when a file changed since the scan

`reading` and `writings` are tables that providers offer (`crossload.ports.code`). The grammar's packages are an extra:
`grammar.MISSING` names what is not installed, and only reading code raises Unsupported without it."""

from crossload.engines.convert.calls import Argument, NeutralCall, Origin
from crossload.engines.convert.convert import Conversion, convert
from crossload.engines.convert.scan import Scan, scan

__all__ = ["Argument", "Conversion", "NeutralCall", "Origin", "Scan", "convert", "scan"]
