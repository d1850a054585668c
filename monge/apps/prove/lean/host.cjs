// node host.cjs BUILD MOUNTS -- LEAN_ARGUMENTS: runs Lean's WebAssembly build, which can access the mounted folders only.
// MOUNTS is JSON: [{"at": "/lib", "from": FOLDER, "write": false}, ...]. All of them are on Lean's search path.
"use strict";
const fs = require("fs");
const path = require("path");

const [build, mounts, , ...lean] = process.argv.slice(2);
const folders = JSON.parse(mounts);
const STACK = 64 << 20; // bytes; the build's own C stack for the main thread has 64 KiB
const EROFS = 69; // emscripten's number of this error

function write(fd, text) {
  const bytes = Buffer.from(text + "\n");
  for (let done = 0; done < bytes.length; ) {
    try {
      done += fs.writeSync(fd, bytes, done);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}
console.log = () => {}; // the build prints debugging output

function refuse() {
  throw new Module.FS.ErrnoError(EROFS);
}

// Lean can write to folders that are mounted as writable, and nowhere else.
function lock() {
  const { NODEFS, MEMFS } = Module.FS.filesystems;
  const writable = new Set(folders.filter((f) => f.write).map((f) => f.at));
  const inside = (node) => writable.has(node.mount.mountpoint);
  const guard = (ops, name, of) => {
    const original = ops[name];
    ops[name] = (...args) => (inside(of(...args)) ? original(...args) : refuse());
  };
  for (const name of ["setattr", "mknod", "rename", "unlink", "rmdir", "symlink"]) guard(NODEFS.node_ops, name, (node) => node);
  const open = NODEFS.stream_ops.open;
  NODEFS.stream_ops.open = (stream) => (stream.flags & 0o1003 && !inside(stream.node) ? refuse() : open(stream));
  for (const name of ["setattr", "mknod", "rename", "unlink", "rmdir", "symlink"]) MEMFS.ops_table.dir.node[name] = refuse;
  MEMFS.ops_table.file.stream.write = refuse;
}

const Module = {
  arguments: lean,
  print: (line) => write(1, line),
  printErr: (line) => write(2, line),
  preRun: [
    () => {
      for (const folder of folders) {
        Module.FS.mkdir(folder.at);
        Module.FS.mount(Module.FS.filesystems.NODEFS, { root: folder.from }, folder.at);
      }
      Module.ENV.LEAN_PATH = folders.map((f) => f.at).join(":");
      Module.FS.chdir(folders[folders.length - 1].at);
      Module.ENV.LEAN_ABORT_ON_PANIC = "1";
      Module.ENV.LLVM_PROFILE_FILE = "/dev/null"; // the build is instrumented for profiling
    },
  ],
  onRuntimeInitialized() {
    const block = Module._malloc(STACK);
    if (!block) throw new Error("no memory for the stack");
    Module._emscripten_stack_set_limits(block + STACK, block);
    Module.__emscripten_stack_restore(block + STACK);
    lock();
    const input = Module.FS.getStream(0);
    const pause = new Int32Array(new SharedArrayBuffer(4));
    input.stream_ops = {
      ...input.stream_ops,
      read(stream, buffer, offset, length) {
        const bytes = Buffer.alloc(Math.min(length, 65536));
        for (;;) {
          try {
            const count = fs.readSync(0, bytes, 0, bytes.length, null);
            buffer.set(bytes.subarray(0, count), offset);
            return count;
          } catch (error) {
            if (error.code === "EOF") return 0;
            if (error.code !== "EAGAIN") throw error;
            Atomics.wait(pause, 0, 0, 1);
          }
        }
      },
    };
  },
};
globalThis.__leanModule = Module;
require(path.join(build, "lean.js"));
