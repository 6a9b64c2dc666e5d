// Compares what slither found with findings.json, which gives a reason for each finding: fails on a new
// one and on a reason that nothing needs any more. Usage: node findings.mjs <slither's JSON>
import { readFileSync } from "node:fs";

const reasons = JSON.parse(readFileSync(new URL("findings.json", import.meta.url), "utf8"));
const report = JSON.parse(readFileSync(process.argv[2], "utf8"));
if (!report.success) throw new Error(`slither failed: ${report.error}`);

const problems = [];
const seen = new Set();
for (const { check, elements, description } of report.results.detectors ?? []) {
  const { name, type, type_specific_fields: fields } = elements[0];
  const place = type === "function" ? `${fields.parent.name}.${fields.signature}` : name;
  const finding = `${check} ${place}`;
  seen.add(finding);
  if (!(finding in reasons)) problems.push(`new: ${finding}\n${description}`);
}
for (const finding of Object.keys(reasons)) {
  if (!seen.has(finding)) problems.push(`no longer found, so its reason must go: ${finding}`);
}
for (const problem of problems) console.error(problem);
if (problems.length) process.exit(1);
console.log(`slither: ${seen.size} findings, each with its reason in contracts/findings.json`);
