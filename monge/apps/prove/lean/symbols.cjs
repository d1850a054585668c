// Returns the value of a symbol in symbols.txt (a table slot or an address), or 0 if it is not there. The file has lines "name\tvalue", sorted by bytes.
"use strict";
const fs = require("fs");
const path = require("path");

const symbols = fs.readFileSync(path.join(__dirname, "symbols.txt"));
module.exports = (name) => {
  const key = Buffer.from(name + "\t");
  for (let low = 0, high = symbols.length; low < high; ) {
    const middle = (low + high) >> 1;
    const start = symbols.lastIndexOf(10, middle - 1) + 1;
    const tab = symbols.indexOf(9, start);
    const end = symbols.indexOf(10, tab);
    const order = Buffer.compare(symbols.subarray(start, tab + 1), key);
    if (order === 0) return Number(symbols.toString("latin1", tab + 1, end));
    if (order < 0) low = end + 1;
    else high = start;
  }
  return 0;
};
