"""Patches Lean's published WebAssembly build so that Node can run it.

The module has 201,110 exports, more than Node 20 accepts (100,000), and 89 MB of JavaScript that assigns them to variables.
Functions that the interpreter looks up by name are added to the function table; their slots, and the addresses of variables,
are written to symbols.txt. Compiled Lean and C++ symbols that JavaScript does not call are then no longer exported.

Each thread would read the whole table at its start to find the slots of the exports; they are read from slots.json instead.
One thread, instead of four, is started in advance: Lean with -j1 needs no more, and others are started on demand.
"""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

EXPORT, TABLE, GLOBAL, IMPORT, ELEMENT = 7, 4, 6, 2, 9  # sections
FUNCTION, VARIABLE = 0, 3  # kinds of exports
SYSTEM = re.compile(rb"_*(emscripten|syscall|em_|uv_|dl|exec|fexec|v?fork|kill|socket|system$|popen|pthread)")
"""Symbols that the interpreter cannot look up: they would give Lean programs access to the system."""


def patch(package: Path, out: Path) -> None:
    """Write lean.js, lean.wasm, symbols.txt and slots.json to `out`. ValueError for any other build than the expected one."""
    script, called = script_of((package / "lean.js").read_text())
    module, symbols, slots = module_of((package / "lean.wasm").read_bytes(), called)
    (out / "lean.js").write_text(script)
    (out / "lean.wasm").write_bytes(module)
    (out / "slots.json").write_text(json.dumps(slots))
    with (out / "symbols.txt").open("wb") as file:
        for name in sorted(symbols):
            file.write(name + b"\t%d\n" % symbols[name])


def script_of(text: str) -> tuple[str, set[str]]:
    """The script without unused variables for exports, and the names of the exports that it still uses."""
    begin = text.index("function assignWasmExports(wasmExports){")
    end = text.index("var wasmImports;function assignWasmImports")
    declared = text.rindex("var _main,", 0, begin)
    head, names, body, tail = text[:declared], text[declared:begin], text[begin:end], text[end:]
    used = set(re.findall(r"[A-Za-z_$][\w$]*", head + tail))
    statements = body[body.index("{") + 1 : body.rindex("}")].split(";")
    kept = [s for s in statements if (match := re.match(r"([\w$]+)=", s)) is None or match[1] in used]
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
        # main() would mount folders of the host
        ('FS.mount(NODEFS,{root:"/home"},"/home");FS.mount(NODEFS,{root:"/tmp"},"/tmp");', "return;"),
        ("if(isNode){path=__filename}", 'if(isNode){path="/lib/lean"}'),
        ('process.binding("constants")["fs"]', 'require("fs").constants'),
        ("var pthreadPoolSize=4;", "var pthreadPoolSize=1;"),
        ("functionsInTableMap=new WeakMap;updateTableMap(0,wasmTable.length)", "functionsInTableMap=new WeakMap"),
        (
            "return functionsInTableMap.get(func)||0};",  # the name of an exported function is its index
            "return functionsInTableMap.get(func)||exportSlots.get(func.name)||0};"
            'var exportSlots=new Map(Object.entries(require("./slots.json")));',
        ),
    ):
        if old not in text:
            raise ValueError(f"lean.js: unknown build, without {old[:40]!r}")
        text = text.replace(old, new, 1)
    return text.replace("eval(", "(()=>{throw new Error('eval is disabled')})("), called


def module_of(data: bytes, called: set[str]) -> tuple[bytes, dict[bytes, int], dict[int, int]]:
    """The module with fewer exports, the values of its symbols (table slots of functions, addresses of variables), and the
    table slots of the functions that it exports, by index.

    An export stays if JavaScript calls it, or if its name is not that of a compiled Lean or C++ symbol.
    """
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
        boxed = name.startswith(b"l_") and name + b"___boxed" in names  # the interpreter looks up the boxed version
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
    result = [data[:8]]
    for kind, span in _sections(data):
        body = bodies.get(kind, data[span.start : span.stop])
        result += [bytes([kind]), unsigned(len(body)), body]
    exported = {index: slots[index] for _, kind, index in kept if kind == FUNCTION and index in slots}
    return _with_shorter_waits(b"".join(result)), symbols, exported


def _with_shorter_waits(module: bytes) -> bytes:
    """The module whose main thread, while it waits, handles calls from other threads every 0.05 ms instead of every 1 ms.

    File operations of other threads are such calls.
    """
    slow = b"\x44" + struct.pack("<d", 1.0) + b"\x44" + struct.pack("<d", 100.0)
    if slow not in module:
        raise ValueError("lean.wasm: unknown build, without the expected wait loop")
    return module.replace(slow, b"\x44" + struct.pack("<d", 0.05) + slow[9:])


class Reader:
    """A position in a module. Numbers are encoded as LEB128."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position

    def byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

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
        self.position += length
        return self.data[self.position - length : self.position]


def unsigned(value: int) -> bytes:
    """A non-negative number as unsigned LEB128."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def signed(value: int) -> bytes:
    """A non-negative number as signed LEB128, with a zero byte at the end if the sign bit would be set otherwise."""
    encoded = bytearray(unsigned(value))
    if encoded[-1] & 64:
        encoded[-1] |= 128
        encoded.append(0)
    return bytes(encoded)


def _sections(data: bytes) -> Iterator[tuple[int, range]]:
    reader = Reader(data, 8)
    while reader.position < len(data):
        kind, size = reader.byte(), reader.number()
        yield kind, range(reader.position, reader.position + size)
        reader.position += size


def _imports(reader: Reader) -> Iterator[tuple[bytes, int]]:
    for _ in range(reader.number()):
        reader.name()
        name, kind = reader.name(), reader.byte()
        if kind in (1, 2):  # a table or a memory, described by its limits
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
        reader.position += 2
        value = None
        match reader.byte():
            case 0x41 | 0x42:
                value = reader.number(signed=True)
            case 0x23 | 0xD0:
                reader.number()
            case 0x43:
                reader.position += 4
            case 0x44:
                reader.position += 8
            case other:
                raise ValueError(f"lean.wasm: unknown build, with opcode {other:#x} in a global")
        reader.position += 1
        yield value


def _elements(reader: Reader) -> tuple[list[int], int]:
    if (reader.number(), reader.number(), reader.byte()) != (1, 0, 0x41):
        raise ValueError("lean.wasm: unknown build, without a single active element segment")
    offset = reader.number(signed=True)
    reader.byte()
    return [reader.number() for _ in range(reader.number())], offset


def _exports(reader: Reader) -> Iterator[tuple[bytes, int, int]]:
    for _ in range(reader.number()):
        yield reader.name(), reader.byte(), reader.number()
