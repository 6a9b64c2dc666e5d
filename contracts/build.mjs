// Compiles the contracts and writes their artifacts; with --check it compiles, compares with the
// committed artifacts and exits 1 on a difference. Users of the library never need this: the artifacts
// are committed, and a test compares their source hashes with the files.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import solc from "solc";

const at = (path) => new URL(path, import.meta.url);
const artifacts = {
  "src/RunLedger.sol": { target: "artifacts/RunLedger.json", runs: 1000000 },
  "src/Openings.sol": { target: "artifacts/Openings.json", runs: 1000000 },
  // Its creation holds the code of five contracts, and must fit into the 49,152 bytes of EIP-3860.
  "src/market/Market.sol": { target: "artifacts/Market.json", runs: 200 },
  "src/market/DataListing.sol": { target: "artifacts/DataListing.json", runs: 200 },
  // Created by the market: their code is in its code.
  "src/market/StakeVault.sol": { target: "artifacts/StakeVault.json" },
  "src/market/JobEscrow.sol": { target: "artifacts/JobEscrow.json" },
  "src/market/Challenge.sol": { target: "artifacts/Challenge.json" },
  "src/market/Disputes.sol": { target: "artifacts/Disputes.json" },
  "src/market/WorkSortition.sol": { target: "artifacts/WorkSortition.json" },
  "test/Rfc9162Batch.sol": { target: "../crates/devchain/tests/vectors/Rfc9162Batch.json", runs: 1000000 },
  "test/Till.sol": { target: "../crates/devchain/tests/vectors/Till.json", runs: 1000000 },
};
const settings = (runs) => ({
  evmVersion: "cancun",
  optimizer: { enabled: true, runs },
  viaIR: true,
  metadata: { appendCBOR: false, bytecodeHash: "none" },
});

// One compilation for each, so that an artifact names the sources it was made of and no others.
const compile = (source, runs) => {
  const hasCode = runs !== undefined;
  const chosen = settings(runs ?? 200);
  const wanted = hasCode ? ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] : ["abi"];
  const contents = {};
  const read = (name) => (contents[name] = readFileSync(at(name), "utf8"));
  const output = JSON.parse(solc.compile(JSON.stringify({
    language: "Solidity",
    sources: { [source]: { content: read(source) } },
    settings: { ...chosen, outputSelection: { "*": { "*": wanted } } },
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
    settings: chosen,
    sources: Object.fromEntries(Object.keys(contents).sort().map(hash)),
    abi: contract.abi,
    ...(hasCode && {
      bytecode: `0x${contract.evm.bytecode.object}`,
      deployedBytecode: `0x${contract.evm.deployedBytecode.object}`,
    }),
  }, null, 2) + "\n";
};

for (const [source, { target, runs }] of Object.entries(artifacts)) {
  const artifact = compile(source, runs);
  if (!process.argv.includes("--check")) {
    writeFileSync(at(target), artifact);
  } else if (readFileSync(at(target), "utf8") !== artifact) {
    console.error(`${target} does not belong to contracts/src: run \`make contracts\``);
    process.exit(1);
  }
}
