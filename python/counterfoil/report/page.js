// What happens when the page is opened.

const report = data("data");
const shown = { places: [], verdict: null, asked: report.judgement, isDisputed: false };

function drawRecord() {
  showCurves(report.curves, shown.places);
  showEvaluations(report, shown.places);
  showTimeline(report, shown.places);
  showAnchors(report, shown.places);
  showReceipts(report, shown.places);
  showContributors(report, shown.places, shown.verdict, shown.asked);
  showTensors(report, shown.places);
  showSettings(report, shown.places);
}

function draw(answer, asked, byBrowser, source) {
  shown.asked = asked;
  if (answer.error === undefined) {
    shown.places = placesOf(answer.verdict, report.lanes.listed);
    showVerdict(answer, asked, byBrowser, source, shown.places);
    shown.verdict = answer.verdict;
  } else {
    showDamage(answer);
    shown.places = [];
    shown.verdict = null;
  }
  drawRecord();
}

function drawUnchecked(reason) {
  draw(report.recorded, report.judgement, false, `Not checked in this browser: ${reason} What you see is what the page says.`);
  document.documentElement.dataset.state = "unchecked";
}

function showFacts() {
  const facts = [["run", report.run ?? "no genesis receipt"], ["page written", `${report.made}, by the clock of its writer`]];
  byId("name").textContent = report.name;
  document.title = `Counterfoil report: ${report.name}`;
  fill("facts", ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", { class: "code" }, value)]));
}

function showCommand() {
  const { signer, recipe, trusted_blocks: blocks, name } = shown.asked;
  const words = ["counterfoil verify evidence.counterfoil"];
  if (signer !== null) words.push(`--signer ${signer}`);
  if (recipe !== null) words.push(`--recipe ${recipe}`);
  if (name === "stranger") words.push("--require stranger");
  for (const block of blocks) words.push(`--trusted-block ${block}`);
  byId("command").textContent = words.join(" ");
}

function offerBundle(bundle) {
  const button = byId("download");
  if (bundle === null) {
    button.disabled = true;
    byId("download-note").textContent = `This page carries no bundle: ${report.withoutBundle}`;
    return;
  }
  byId("download-note").textContent = `${count(bundle.length)} bytes, evidence.counterfoil`;
  button.addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([bundle]));
    element("a", { href: address, download: "evidence.counterfoil" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
  });
}

// What the writer of the page found in the bundle, with the same pins, must come out here, too.
async function dispute(found, module, bundle) {
  if (isSame(found, report.offline)) return;
  // A key may have expired since: with the writer's clock nothing may differ.
  if (isSame(await ask(module, report.judgement, bundle), report.offline)) return;
  const place = byId("difference");
  place.textContent = ["This browser found something else than the page says.", ...differences(report.offline, found)].join("\n");
  place.hidden = false;
  shown.isDisputed = true;
}

function pins() {
  const typed = (name) => byId(`pin-${name}`).value.trim() || null;
  const block = typed("block");
  const others = report.judgement.trusted_blocks.slice(1);
  return { signer: typed("signer"), recipe: typed("recipe"), trusted_blocks: block === null ? [] : [block, ...others] };
}

async function check(module, bundle, own) {
  const asked = { ...report.judgement, ...own, now: Math.floor(Date.now() / 1000) };
  let found;
  try {
    found = await ask(module, asked, bundle);
  } catch (stopped) {
    drawUnchecked(`the check stopped (${stopped}).`);
    return;
  }
  if (found.error === "invalid-input" && own !== null) {
    byId("source").textContent = `Not checked again: ${found.message}`;
    return;
  }
  if (own === null) await dispute(found, module, bundle);
  draw(found, asked, true, "Checked in this browser, from the bundle in this page.");
  if (shown.isDisputed) showDispute();
  showCommand();
  document.documentElement.dataset.state = "checked";
}

function prefill() {
  byId("pin-signer").value = report.judgement.signer ?? "";
  byId("pin-recipe").value = report.judgement.recipe ?? "";
  byId("pin-block").value = report.judgement.trusted_blocks[0] ?? "";
}

async function open() {
  showFacts();
  showChain(report);
  showCommand();
  prefill();
  const [packed, text] = [data("verifier"), data("bundle")];
  const bundle = text === null ? null : decoded(text);
  offerBundle(bundle);
  byId("again").disabled = true;
  if (bundle === null) return drawUnchecked("it carries no bundle.");
  if (packed === null) return drawUnchecked("it was written without the verifier for browsers.");
  if (typeof WebAssembly === "undefined" || typeof DecompressionStream === "undefined") {
    return drawUnchecked("this browser has no WebAssembly, or it is off.");
  }
  draw(report.recorded, report.judgement, false, `This browser is checking the bundle of ${count(bundle.length)} bytes, for about a second per megabyte. Until then you see what the page says.`);
  let module;
  try {
    module = await WebAssembly.compile(await decompressed(decoded(packed)));
  } catch (refused) {
    return drawUnchecked(`the verifier cannot be started (${refused}).`);
  }
  // One frame is drawn before the check, which takes the page's only thread.
  await new Promise((resolve) => setTimeout(resolve, 30));
  await check(module, bundle, null);
  byId("again").disabled = false;
  byId("pin-form").addEventListener("submit", (event) => {
    event.preventDefault();
    check(module, bundle, pins());
  });
}

let width = document.documentElement.clientWidth;
addEventListener("resize", () => {
  if (document.documentElement.clientWidth === width) return;
  width = document.documentElement.clientWidth;
  showCurves(report.curves, shown.places);
  showTimeline(report, shown.places);
});
byId("pin-form").addEventListener("submit", (event) => event.preventDefault());
open();
