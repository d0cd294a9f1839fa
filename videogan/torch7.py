"""Files of Torch7 (`.t7`), in its binary format, read as data.

An object is its type, a 32-bit integer, and then its value. Tables and objects of Torch's classes have a number, under
which they may occur again. Functions, the one type that holds code, are refused.
"""

import re
from typing import NamedTuple

import numpy as np

NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN = range(6)
DTYPES = {"Byte": "u1", "Char": "i1", "Short": "<i2", "Int": "<i4", "Long": "<i8", "": "<f4", "Float": "<f4",
          "Double": "<f8"}


class Module(NamedTuple):
    """An object of one of Torch's classes: the class, without its package (nn and cudnn mean the same), its fields."""

    kind: str
    fields: dict


class Reader:
    """Reads the objects in bytes, uint8 (N,), one after the other; ValueError where that is not what they are."""

    def __init__(self, data):
        self.data, self.at, self.known = data, 0, {}

    def numbers(self, dtype, count):
        """The next numbers (count,) of this type."""
        start, self.at = self.at, self.at + count * np.dtype(dtype).itemsize
        if not start <= self.at <= len(self.data):
            raise ValueError("the file ends too early")
        return self.data[start : self.at].view(dtype)

    def int(self):
        return int(self.numbers("<i4", 1)[0])

    def string(self):
        return self.numbers("u1", self.int()).tobytes().decode("latin-1")

    def read(self):
        """The next object: None, float, str, bool, a table as dict, tensors and storages as arrays, or a Module."""
        kind = self.int()
        if kind == NIL:
            return None
        if kind == NUMBER:
            return float(self.numbers("<f8", 1)[0])
        if kind == STRING:
            return self.string()
        if kind == BOOLEAN:
            return self.int() == 1
        if kind not in (TABLE, TORCH):
            raise ValueError(f"an object of type {kind}")
        number = self.int()
        if number not in self.known:
            self.read_table(number) if kind == TABLE else self.read_torch(number)
        return self.known[number]

    def read_table(self, number):
        table = self.known[number] = {}  # known before its contents, which may refer to it
        for _ in range(self.int()):
            key = self.read()
            table[key] = self.read()

    def read_torch(self, number):
        name = self.string()
        if name.startswith("V "):  # the version, which the oldest files lack
            name = self.string()
        array = re.fullmatch(r"torch\.(?:Cuda)?(\w*?)(Tensor|Storage)", name)  # of torch.CudaTensor, floats
        if array and array[1] in DTYPES:
            read = self.tensor if array[2] == "Tensor" else self.storage
            self.known[number] = read(np.dtype(DTYPES[array[1]]))
        else:
            module = self.known[number] = Module(name.split(".")[-1], {})
            module.fields.update(self.read())

    def storage(self, dtype):
        return self.numbers(dtype, int(self.numbers("<i8", 1)[0]))

    def tensor(self, dtype):
        """A view of a storage, which other tensors may share."""
        dims = self.int()
        sizes, strides = (self.numbers("<i8", dims).tolist() for _ in range(2))
        start, storage = int(self.numbers("<i8", 1)[0]) - 1, self.read()
        if dims == 0:
            return np.empty(0, dtype)
        last = start + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if min(*sizes, start + 1) < 1 or min(strides) < 0 or last >= len(storage) or storage.dtype != dtype:
            raise ValueError("a tensor outside its storage")
        strides = [stride * dtype.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage[start:], sizes, strides, writeable=False)
