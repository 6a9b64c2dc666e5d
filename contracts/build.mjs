// Compiles the contracts and writes artifacts/RunLedger.json; with --check it compiles, compares with
// the committed artifact and exits 1 on a difference. Users of the library never need this: the artifact
// is committed, and a test compares its source hashes with the files.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import solc from "solc";

const at = (path) => new URL(path, import.meta.url);
const names = ["src/RunLedger.sol", "src/interfaces/IRunLedger.sol", "src/libraries/Rfc9162.sol"];
const contents = Object.fromEntries(names.map((name) => [name, readFileSync(at(name), "utf8")]));
const settings = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 1000000 },
  viaIR: true,
  metadata: { appendCBOR: false, bytecodeHash: "none" },
};

const output = JSON.parse(solc.compile(JSON.stringify({
  language: "Solidity",
  sources: Object.fromEntries(names.map((name) => [name, { content: contents[name] }])),
  settings: { ...settings, outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } } },
})));
if (output.errors?.length) {
  for (const problem of output.errors) console.error(problem.formattedMessage);
  process.exit(1);
}

const contract = output.contracts["src/RunLedger.sol"].RunLedger;
const artifact = JSON.stringify({
  contract: "RunLedger",
  compiler: solc.version(),
  settings,
  sources: Object.fromEntries(names.map((name) => [name, createHash("sha256").update(contents[name]).digest("hex")])),
  abi: contract.abi,
  bytecode: `0x${contract.evm.bytecode.object}`,
  deployedBytecode: `0x${contract.evm.deployedBytecode.object}`,
}, null, 2) + "\n";

const target = at("artifacts/RunLedger.json");
if (!process.argv.includes("--check")) {
  writeFileSync(target, artifact);
} else if (readFileSync(target, "utf8") !== artifact) {
  console.error("contracts/artifacts/RunLedger.json does not belong to contracts/src: run `make contracts`");
  process.exit(1);
}
