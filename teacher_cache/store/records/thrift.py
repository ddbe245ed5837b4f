"""A parser of Thrift's compact protocol for Parquet's footers and page headers, with a limit on fields and elements.

A native parser creates objects of hundreds of bytes from fields of one byte, so fields are counted here first.
Source: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from typing import Any, Final

_TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 12
_DEEPEST: Final = 16
"""Maximum nesting depth of structs and lists; Parquet's are less deep."""
_LONGEST_INTEGER: Final = 10
"""Most bytes of an encoded 64-bit integer."""


class ThriftError(ValueError):
    """The bytes are not a struct, or the struct has too many fields."""


def read_struct(data: memoryview, start: int, most: int) -> tuple[dict[int, Any], int]:
    """Parse the struct at `start`; returns field number -> value, and the position after it. Strings are views of
    `data`.

    Raises:
        ThriftError: there is no struct, or it has more than `most` fields and elements.
    """
    parser = _Parser(data, start, most)
    try:
        return parser.struct(0), parser.at
    except IndexError:
        raise ThriftError("ends early") from None


class _Parser:
    def __init__(self, data: memoryview, at: int, left: int) -> None:
        self._data, self.at, self._left = data, at, left

    def struct(self, depth: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            kind, step = head & 15, head >> 4
            number = number + step if step else self._signed()
            if number in fields:
                raise ThriftError(f"has field {number} twice")
            self._count(1)
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ThriftError("has too many fields or elements")
        if kind in (_BYTE, _TRUE, _FALSE):
            return self._byte()
        if _BYTE < kind <= _I64:
            return self._signed()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BINARY:
            return self._take(self._unsigned())
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ThriftError(f"has a field of unknown type {kind}")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        length = head >> 4 if head >> 4 < 15 else self._unsigned()
        self._count(length)
        return [self._value(head & 15, depth + 1) for _ in range(length)]

    def _count(self, more: int) -> None:
        """Count fields or elements before they are parsed."""
        self._left -= more
        if self._left < 0:
            raise ThriftError("has too many fields or elements")

    def _byte(self) -> int:
        value = self._data[self.at]
        self.at += 1
        return value

    def _take(self, length: int) -> memoryview:
        end = self.at + length
        if end > len(self._data):
            raise ThriftError("ends early")
        part, self.at = self._data[self.at : end], end
        return part

    def _unsigned(self) -> int:
        value = 0
        for position in range(_LONGEST_INTEGER):
            byte = self._byte()
            value |= (byte & 127) << 7 * position
            if byte < 128:
                return value
        raise ThriftError("has an integer of more than 64 bits")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
