// Three wallet libraries sign the messages of wallets.json; what they agree on is written there.
//
// Run it in a folder of its own, after: npm install ethers viem @metamask/eth-sig-util
//   node <this file>
// A message is what the library handed to a `Key.external`; this file changes none.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { isDeepStrictEqual } from "node:util";

const require = createRequire(`${process.cwd()}/`);
const names = ["ethers", "viem", "@metamask/eth-sig-util"];
const [ethers, viem, metamask] = names.map((name) => require(name));
const { privateKeyToAccount } = require("viem/accounts");
const version = metamask.SignTypedDataVersion.V4;
const path = new URL("wallets.json", import.meta.url);
const file = JSON.parse(readFileSync(path));
const privateKey = Buffer.from(file.secret.slice(2), "hex");

// ethers derives the domain's type from the domain and refuses to be told.
function withoutDomain({ EIP712Domain, ...types }) {
  return types;
}

async function byEthers({ domain, types, message }) {
  const own = withoutDomain(types);
  const signature = await new ethers.Wallet(file.secret).signTypedData(domain, own, message);
  return {
    digest: ethers.TypedDataEncoder.hash(domain, own, message),
    signature,
    signer: ethers.verifyTypedData(domain, own, message, signature),
    sent: ethers.TypedDataEncoder.getPayload(domain, own, message),
  };
}

async function byViem(document) {
  viem.validateTypedData(document);
  const signature = await privateKeyToAccount(file.secret).signTypedData(document);
  return {
    digest: viem.hashTypedData(document),
    signature,
    signer: await viem.recoverTypedDataAddress({ ...document, signature }),
    sent: JSON.parse(viem.serializeTypedData(document)),
  };
}

async function byMetaMask(data) {
  const signature = metamask.signTypedData({ privateKey, data, version });
  const signer = metamask.recoverTypedSignature({ data, signature, version });
  return { digest: hash(data), signature, signer: ethers.getAddress(signer), sent: data };
}

function hash(data) {
  return `0x${metamask.TypedDataUtils.eip712Hash(data, version).toString("hex")}`;
}

const { address } = new ethers.Wallet(file.secret);
for (const vector of file.vectors) {
  const [asked, document] = vector.params;
  const before = structuredClone(document);
  const results = [];
  for (const sign of [byEthers, byViem, byMetaMask]) {
    const { sent, ...result } = await sign(document);
    // What the library would send on to a wallet must be the same message.
    results.push({ ...result, sent: hash(sent) });
  }
  const [{ digest, signature }] = results;
  for (const result of results) {
    const expected = { digest, signature, signer: address, sent: digest };
    if (asked !== address || !isDeepStrictEqual(result, expected)) {
      throw new Error(`${vector.name}: ${JSON.stringify(results)}`);
    }
  }
  if (!isDeepStrictEqual(document, before)) throw new Error(`${vector.name} was changed`);
  Object.assign(vector, { digest, signature });
}

const installed = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;
file.libraries = Object.fromEntries(names.map((name) => [name, installed(name)]));
const { vectors, ...head } = file;
const lines = vectors.map((vector) => `  ${JSON.stringify(vector)}`).join(",\n");
const opening = JSON.stringify(head, null, 1).slice(0, -2);
writeFileSync(path, `${opening},\n "vectors": [\n${lines}\n ]\n}\n`);
console.log(`${vectors.length} messages, agreed on by`, file.libraries);
