#!/usr/bin/env node
// The command-line compiler that forge and slither ask for, by the npm package, so that nothing is
// downloaded beside it: `--version`, and `--standard-json` with the sources on standard input.
import { readFileSync } from "node:fs";
import solc from "solc";

const options = process.argv.slice(2);
if (options.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}`);
} else if (options.includes("--standard-json")) {
  process.stdout.write(solc.compile(readFileSync(0, "utf8")));
} else {
  console.error(`solc.mjs knows --version and --standard-json, not ${options.join(" ")}`);
  process.exit(1);
}
