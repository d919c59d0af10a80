"""As much of HPACK (RFC 7541) as it takes to read the :path of a request: indexes, the dynamic table, strings without Huffman code.

gRPC's own encoder sends paths plainly. A Huffman string is kept as it is: only its place in the table matters.
"""

from __future__ import annotations

Table = list[tuple[bytes, bytes]]  # of one direction of one connection, newest first

_STATIC_COUNT = 61
_PATH_INDEXES = {4: b"/", 5: b"/index.html"}
_TABLE_BYTES = 4096


def path_of(block: bytes, table: Table) -> bytes:
    """The value of :path in a whole header block, or b"". Updates `table`."""
    path = b""
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:  # an indexed field
            index, at = _integer(block, at, 7)
            name, value = _field(index, table)
        elif first & 0xE0 == 0x20:  # the table's size: gRPC keeps 4096, or empties the table first
            size, at = _integer(block, at, 5)
            _trim(table, size)
            continue
        else:
            indexed = bool(first & 0x40)
            index, at = _integer(block, at, 6 if indexed else 4)
            if index:
                name = _field(index, table)[0]
            else:
                name, at = _string(block, at)
            value, at = _string(block, at)
            if indexed:
                table.insert(0, (name, value))
                _trim(table, _TABLE_BYTES)
        if name == b":path":
            path = value
    return path


def _field(index: int, table: Table) -> tuple[bytes, bytes]:
    if index > _STATIC_COUNT:
        return table[index - _STATIC_COUNT - 1]
    if index in _PATH_INDEXES:
        return b":path", _PATH_INDEXES[index]
    return b"static %d" % index, b""  # their names matter to nobody here, but for the bytes they take


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    length, at = _integer(block, at, 7)
    return block[at : at + length], at + length


def _trim(table: Table, size: int) -> None:
    while table and sum(len(name) + len(value) + 32 for name, value in table) > size:
        table.pop()
