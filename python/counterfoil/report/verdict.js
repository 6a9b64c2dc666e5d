// The verdict as it stands in the page: green only for what this browser found itself.

const SIGNS = { verified: "✓", refuted: "✕", undecided: "?" };
const LINES = [
  ["integrity", "Integrity", (verdict) => !verdict.integrity.intact],
  ["signer", "Signer", (verdict, asked) => asked.signer !== null && !verdict.signer.pinned],
  ["time", "Time", () => false],
  [
    "transition",
    "Transition",
    (verdict, asked) =>
      verdict.transition.mismatches.length > 0 || (asked.recipe !== null && !verdict.transition.recipe_pinned),
  ],
];

function linesOf(verdict, asked) {
  return LINES.flatMap(([name, title, isBad]) => [
    element("dt", {}, title),
    element("dd", { class: isBad(verdict, asked) ? "bad" : null, "data-line": name }, verdict[name].line),
  ]);
}

// `byBrowser`: whether this browser found it; else it is what the writer of the page says.
function showVerdict(answer, asked, byBrowser, source, places) {
  const { headline, verdict } = answer;
  const isClaimed = !byBrowser && verdict.status === "verified";
  byId("verdict").className = `verdict ${isClaimed ? "waiting" : verdict.status}`;
  byId("badge").textContent = isClaimed ? "not checked here" : SIGNS[verdict.status];
  byId("headline").textContent = isClaimed ? `claimed by this page: ${headline}` : headline;
  byId("source").textContent = source;
  fill("lines", ...linesOf(verdict, asked));
  const demands = Object.entries(asked.require).filter(([, value]) => value);
  const told = demands.map(([name, value]) => (value === true ? name : `${name} ${value}`)).join(", ");
  byId("requirement").textContent = `Requirement: ${verdict.requirement}${told === "" ? "" : ` (${told})`}`;
  fill("missing", ...verdict.missing.map((text) => element("p", { class: "missing" }, `Missing: ${text}`)));
  fill("notes", ...(verdict.notes.length > 0 ? [element("h3", {}, "Notes"), list(verdict.notes)] : []));
  fill("not-shown-list", ...verdict.not_shown.map((text) => element("li", {}, text)));
  showEdges(places);
}

// A bundle that this browser cannot open has no four lines.
function showDamage(answer) {
  byId("verdict").className = "verdict refuted";
  byId("badge").textContent = SIGNS.refuted;
  byId("headline").textContent = "damaged: the bundle in this page cannot be opened";
  byId("source").textContent = "Found by this browser. There is no verdict: nothing below is shown by evidence.";
  fill("lines");
  byId("requirement").textContent = "";
  fill("missing");
  fill("notes");
  const edge = { edge: "bundle", expected: "a bundle that can be opened", actual: answer.message };
  showEdges([{ edge, worker: null, receipt: null, anchor: null, what: "" }]);
}

function showEdges(places) {
  byId("broken").hidden = places.length === 0;
  const item = ({ edge }) =>
    element(
      "li",
      { "data-edge": edge.edge },
      element("p", { class: "place" }, edge.edge),
      element(
        "dl",
        {},
        element("dt", {}, "expected"),
        element("dd", { class: "code" }, edge.expected),
        element("dt", {}, "actual"),
        element("dd", { class: "code" }, edge.actual),
      ),
    );
  fill("edges", ...places.map(item));
}

// What a chain said can be told, and not found out again without it.
function showChain(report) {
  if (report.chain === null) return;
  const { headline, verdict } = report.recorded;
  fill(
    "chain",
    element(
      "div",
      { class: "claimed" },
      element("p", {}, element("strong", {}, `With ${report.chain}, the program that wrote this page found: ${headline}`)),
      element("p", {}, "A chain cannot be asked from here, so this is what the page says, not what this browser found."),
      element("dl", { class: "lines" }, ...linesOf(verdict, report.judgement)),
    ),
  );
}

function canonical(value) {
  if (Array.isArray(value)) return value.map(canonical);
  if (value === null || typeof value !== "object") return value;
  const names = Object.keys(value).sort();
  return Object.fromEntries(names.map((name) => [name, canonical(value[name])]));
}

function isSame(one, other) {
  return JSON.stringify(canonical(one)) === JSON.stringify(canonical(other));
}

// A page that says something else than its bundle is not green, whatever the bundle is worth.
function showDispute() {
  byId("verdict").className = "verdict refuted";
  byId("badge").textContent = "page and bundle differ";
}

function differences(recorded, found) {
  if (recorded === null) return ["the page says nothing of the bundle that it holds"];
  if (found.error !== undefined) return [`page: ${recorded.headline}`, `this browser: ${found.message}`];
  const pairs = [["headline", recorded.headline, found.headline]];
  for (const [name] of LINES) pairs.push([name, recorded.verdict[name].line, found.verdict[name].line]);
  const unequal = pairs.filter(([, ours, theirs]) => ours !== theirs);
  if (unequal.length === 0) return ["missing, notes or edges differ"];
  return unequal.map(([name, ours, theirs]) => `${name}: the page says “${ours}”, this browser found “${theirs}”`);
}
