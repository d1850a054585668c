"""Mends Lean's WebAssembly build as it is shipped, so that Node runs it.

The module has 201,110 exports, more than Node accepts, and 89 MB of JavaScript that assigns them to variables. What the
interpreter looks up by name goes into the function table and a file of symbols; what JavaScript calls stays an export.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

EXPORT, TABLE, GLOBAL, IMPORT, ELEMENT = 7, 4, 6, 2, 9  # sections
FUNCTION, VARIABLE = 0, 3  # kinds of exports
SYSTEM = re.compile(rb"_*(emscripten|syscall|em_|uv_|dl|exec|fexec|v?fork|kill|socket|system$|popen|pthread)")
"""What the interpreter need not find by name: ways out of Lean."""


def patch(package: Path, out: Path) -> None:
    """Write lean.js, lean.wasm and symbols.txt to `out`. ValueError if the build is not the one that this knows."""
    script, called = script_of((package / "lean.js").read_text())
    module, symbols = module_of((package / "lean.wasm").read_bytes(), called)
    (out / "lean.js").write_text(script)
    (out / "lean.wasm").write_bytes(module)
    with (out / "symbols.txt").open("wb") as file:
        for name in sorted(symbols):
            file.write(name + b"\t%d\n" % symbols[name])


def script_of(text: str) -> tuple[str, set[str]]:
    """The script without the variables that nothing else in it names, and the exports that the rest stands for."""
    begin = text.index("function assignWasmExports(wasmExports){")
    end = text.index("var wasmImports;function assignWasmImports")
    declared = text.rindex("var _main,", 0, begin)
    head, names, body, tail = text[:declared], text[declared:begin], text[begin:end], text[end:]
    used = set(re.findall(r"[A-Za-z_$][\w$]*", head + tail))
    statements = body[body.index("{") + 1 : body.rindex("}")].split(";")
    kept = [s for s in statements if (found := re.match(r"([\w$]+)=", s)) is None or found[1] in used]
    variables = [name for name in names.strip().removeprefix("var ").rstrip(";").split(",") if name in used]
    text = f"{head}var {','.join(variables)};function assignWasmExports(wasmExports){{{';'.join(kept)}}}{tail}"
    called = set(re.findall(r'wasmExports\["([^"]+)"\]', text))
    for old, new in (
        ('var Module=typeof Module!="undefined"?Module:{};', "var Module=globalThis.__leanModule||{};"),
        (
            "var __dlsym_js=(handle,symbol,symbolIndex)=>{symbol=UTF8ToString(symbol);",
            "var __dlsym_js=(handle,symbol,symbolIndex)=>{symbol=UTF8ToString(symbol);"
            "return require('./symbols.cjs')(symbol);",
        ),
        ("var __emscripten_system=command=>{", "var __emscripten_system=command=>{return -1;"),
        # its main mounts folders of the host
        ('FS.mount(NODEFS,{root:"/home"},"/home");FS.mount(NODEFS,{root:"/tmp"},"/tmp");', "return;"),
        ("if(isNode){path=__filename}", 'if(isNode){path="/lib/lean"}'),
        ('process.binding("constants")["fs"]', 'require("fs").constants'),
    ):
        if old not in text:
            raise ValueError(f"lean.js: not the build that is known here: it lacks {old[:40]!r}")
        text = text.replace(old, new, 1)
    return text.replace("eval(", "(()=>{throw new Error('no scripts here')})("), called


def module_of(data: bytes, called: set[str]) -> tuple[bytes, dict[bytes, int]]:
    """The module with the exports that are called, and where all others are: slots of the table, or addresses."""
    sections = dict(_sections(data))
    imports = list(_imports(Reader(data, sections[IMPORT].start)))
    functions, offset = _elements(Reader(data, sections[ELEMENT].start))
    values = list(_globals(Reader(data, sections[GLOBAL].start)))
    first = sum(kind == VARIABLE for _, kind in imports)
    exports = list(_exports(Reader(data, sections[EXPORT].start)))
    names = {name for name, _, _ in exports}
    called = called | {name.decode() for name, _ in imports}
    slots = {function: offset + i for i, function in reversed(list(enumerate(functions)))}
    kept: list[tuple[bytes, int, int]] = []
    symbols: dict[bytes, int] = {}
    for name, kind, index in exports:
        hidden = SYSTEM.match(name)
        compiled = name.startswith((b"l_", b"lp_", b"_Z", b"initialize_", b"_init_"))
        if name.decode() in called or kind not in (FUNCTION, VARIABLE) or not compiled:
            kept.append((name, kind, index))
        if kind == VARIABLE and not hidden and index >= first and (value := values[index - first]) is not None:
            symbols[name] = value
        boxed = name.startswith(b"l_") and name + b"___boxed" in names  # the interpreter asks for the boxed one
        if kind == FUNCTION and not (hidden or boxed or name.startswith(b"_Z") or b"_spec__" in name):
            if index not in slots:
                slots[index] = offset + len(functions)
                functions.append(index)
            symbols[name] = slots[index]
    size = unsigned(offset + len(functions))
    bodies = {
        EXPORT: unsigned(len(kept))
        + b"".join(unsigned(len(name)) + name + bytes([kind]) + unsigned(index) for name, kind, index in kept),
        ELEMENT: b"\x01\x00\x41"
        + signed(offset)
        + b"\x0b"
        + unsigned(len(functions))
        + b"".join(map(unsigned, functions)),
        TABLE: b"\x01\x70\x00" + size,
    }
    found = [data[:8]]
    for kind, span in _sections(data):
        body = bodies.get(kind, data[span.start : span.stop])
        found += [bytes([kind]), unsigned(len(body)), body]
    return _sooner(b"".join(found)), symbols


def _sooner(module: bytes) -> bytes:
    """A thread that waits for another looks again after 0.05 ms, not after 1: file calls are such waits."""
    slow = b"\x44" + struct.pack("<d", 1.0) + b"\x44" + struct.pack("<d", 100.0)
    if slow not in module:
        raise ValueError("lean.wasm: not the build that is known here: it lacks the loop that waits")
    return module.replace(slow, b"\x44" + struct.pack("<d", 0.05) + slow[9:])


class Reader:
    """A place in a module. Numbers are LEB128."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place

    def byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def number(self, *, signed: bool = False) -> int:
        value, shift = 0, 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return value - (1 << shift) if signed and byte & 64 else value

    def name(self) -> bytes:
        length = self.number()
        self.place += length
        return self.data[self.place - length : self.place]


def unsigned(value: int) -> bytes:
    """LEB128."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def signed(value: int) -> bytes:
    """Signed LEB128 of what is not negative: one more byte where the sign bit would be set."""
    found = bytearray(unsigned(value))
    if found[-1] & 64:
        found[-1] |= 128
        found.append(0)
    return bytes(found)


def _sections(data: bytes) -> Iterator[tuple[int, range]]:
    reader = Reader(data, 8)
    while reader.place < len(data):
        kind, size = reader.byte(), reader.number()
        yield kind, range(reader.place, reader.place + size)
        reader.place += size


def _imports(reader: Reader) -> Iterator[tuple[bytes, int]]:
    for _ in range(reader.number()):
        reader.name()
        name, kind = reader.name(), reader.byte()
        if kind in (1, 2):  # a table, a memory: limits
            if kind == 1:
                reader.byte()
            flags = reader.byte()
            reader.number()
            if flags & 1:
                reader.number()
        else:
            if kind == 4:
                reader.byte()
            reader.number()
            if kind == VARIABLE:
                reader.byte()
        yield name, kind


def _globals(reader: Reader) -> Iterator[int | None]:
    for _ in range(reader.number()):
        reader.place += 2
        value = None
        match reader.byte():
            case 0x41 | 0x42:
                value = reader.number(signed=True)
            case 0x23 | 0xD0:
                reader.number()
            case 0x43:
                reader.place += 4
            case 0x44:
                reader.place += 8
            case other:
                raise ValueError(f"lean.wasm: not the build that is known here: opcode {other:#x} in a global")
        reader.place += 1
        yield value


def _elements(reader: Reader) -> tuple[list[int], int]:
    if (reader.number(), reader.number(), reader.byte()) != (1, 0, 0x41):
        raise ValueError("lean.wasm: not the build that is known here: more than one table of functions")
    offset = reader.number(signed=True)
    reader.byte()
    return [reader.number() for _ in range(reader.number())], offset


def _exports(reader: Reader) -> Iterator[tuple[bytes, int, int]]:
    for _ in range(reader.number()):
        yield reader.name(), reader.byte(), reader.number()
