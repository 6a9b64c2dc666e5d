// Compiles the contracts and writes their artifacts; with --check it compiles, compares with the
// committed artifacts and exits 1 on a difference. Users of the library never need this: the artifacts
// are committed, and a test compares their source hashes with the files.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import solc from "solc";

const at = (path) => new URL(path, import.meta.url);
const artifacts = {
  "src/RunLedger.sol": "artifacts/RunLedger.json",
  "src/Openings.sol": "artifacts/Openings.json",
  "test/Rfc9162Batch.sol": "../crates/devchain/tests/vectors/Rfc9162Batch.json",
};
const settings = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 1000000 },
  viaIR: true,
  metadata: { appendCBOR: false, bytecodeHash: "none" },
};

// One compilation for each, so that an artifact names the sources it was made of and no others.
const compile = (source) => {
  const contents = {};
  const read = (name) => (contents[name] = readFileSync(at(name), "utf8"));
  const output = JSON.parse(solc.compile(JSON.stringify({
    language: "Solidity",
    sources: { [source]: { content: read(source) } },
    settings: { ...settings, outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } } },
  }), { import: (name) => ({ contents: read(name) }) }));
  if (output.errors?.length) {
    for (const problem of output.errors) console.error(problem.formattedMessage);
    process.exit(1);
  }
  const name = source.match(/(\w+)\.sol$/)[1];
  const contract = output.contracts[source][name];
  const hash = (name) => [name, createHash("sha256").update(contents[name]).digest("hex")];
  return JSON.stringify({
    contract: name,
    compiler: solc.version(),
    settings,
    sources: Object.fromEntries(Object.keys(contents).sort().map(hash)),
    abi: contract.abi,
    bytecode: `0x${contract.evm.bytecode.object}`,
    deployedBytecode: `0x${contract.evm.deployedBytecode.object}`,
  }, null, 2) + "\n";
};

for (const [source, target] of Object.entries(artifacts)) {
  const artifact = compile(source);
  if (!process.argv.includes("--check")) {
    writeFileSync(at(target), artifact);
  } else if (readFileSync(at(target), "utf8") !== artifact) {
    console.error(`${target} does not belong to contracts/src: run \`make contracts\``);
    process.exit(1);
  }
}
