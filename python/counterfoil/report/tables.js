// The record as tables, with what the verdict's edges name in red.

const STRIPS = 16;

function isOf(anchor, lane) {
  return anchor.worker.toLowerCase() === lane.worker.toLowerCase() && anchor.lane === lane.lane;
}

function showTimeline(report, places) {
  const width = Math.max(280, byId("strips").clientWidth);
  const { listed } = report.lanes;
  const strips = listed.slice(0, STRIPS).map((lane) => {
    const own = places.filter((place) => isIn(place, lane));
    const anchors = report.anchors.listed.filter((anchor) => isOf(anchor, lane));
    const kinds = lane.kinds.map(([kind, number]) => `${count(number)} ${kind}`).join(", ");
    const withheld = lane.size > lane.shown ? `; ${count(lane.size - lane.shown)} of ${count(lane.size)} withheld` : "";
    const end = lane.closed === null ? "; not shown to its end" : `; closed (${lane.closed})`;
    return element(
      "figure",
      { class: "strip" },
      element("figcaption", {}, `${laneName(lane)}: ${kinds || "no receipts"}${withheld}${end}`),
      stripOf(lane, anchors, width, own),
      element("p", { class: "small" }, `Self-declared: ${clock(lane.first)} to ${clock(lane.last)}`),
      lane.error === "" ? null : element("p", { class: "alarm" }, `This ledger cannot be read: ${lane.error}`),
    );
  });
  const more = listed.length - strips.length + report.lanes.leftOut;
  const line = (kind) => shape("svg", { width: 12, height: 14, "aria-hidden": "true" }, shape("line", { class: kind, x1: 6, x2: 6, y1: 0, y2: 14 }));
  const block = shape("svg", { width: 24, height: 14, "aria-hidden": "true" }, shape("rect", { class: "covered", width: 24, height: 14 }));
  fill(
    "strips",
    ...strips,
    more > 0 ? element("p", { class: "note" }, `${count(more)} more lanes are not drawn.`) : null,
    element(
      "ul",
      { class: "legend" },
      element("li", {}, line("checkpoint"), "checkpoint"),
      element("li", {}, line("anchor"), "end of what an anchor covers"),
      element("li", {}, block, "covered by an anchor record"),
      element("li", {}, line("broken"), "broken edge"),
    ),
  );
}

function showAnchors(report, places) {
  const columns = [["chain", ""], ["block", ""], ["covers", ""], ["time of the block", ""], ["proof", ""]];
  const named = places.filter((place) => place.anchor !== null);
  const { listed, leftOut } = report.anchors;
  const bad = (anchor) => named.some((place) => place.anchor === anchor.name);
  const rows = listed.map((anchor) => ({
    key: `anchor ${anchor.name}`,
    bad: bad(anchor),
    cells: [
      anchor.development ? `${anchor.chain} (a development chain dates nothing)` : anchor.chain,
      `${anchor.block} ${short(anchor.blockHash)}`,
      `${count(anchor.size)} of ${count(anchor.of)} receipts of ${short(anchor.worker)} lane ${anchor.lane}`,
      clock(Number(anchor.time) * 1000),
      anchor.proof ? "in the record" : "none",
    ],
  }));
  const unlisted = new Set(named.map((place) => place.anchor).filter((name) => !listed.some((anchor) => anchor.name === name)));
  for (const name of unlisted) rows.push({ key: `anchor ${name}`, bad: true, cells: [`broken: ${name}`, "", "", "", ""] });
  if (rows.length === 0) {
    fill("anchors", element("p", {}, "None."));
    return;
  }
  const note =
    "These are the records in the run: hints, until you name a chain or a block that you trust. The verdict's line Time says what was confirmed.";
  fill("anchors", table("Anchors", columns, rows, leftOut), element("p", { class: "small" }, note));
}

function showEvaluations(report, places) {
  const { listed, leftOut } = report.evaluations;
  if (listed.length === 0) return;
  const columns = [["evaluation", ""], ["of", ""], ["measured", "wrap"]];
  const rows = listed.map((each) => {
    const values = each.values.map(([name, value]) => `${name}: ${value}`).join(", ") || "not opened";
    return {
      key: `evaluation ${each.position}`,
      bad: places.some((place) => isIn(place, each) && place.receipt === each.position),
      cells: [
        `receipt ${each.position} of ${laneName(each)}`,
        `receipt ${each.ofReceipt} of ${short(each.ofWorker)} lane ${each.ofLane}`,
        each.leftOut > 0 ? `${values} and ${count(each.leftOut)} more` : values,
      ],
    };
  });
  fill("evaluations", element("h3", {}, "Evaluations"), table("Evaluations", columns, rows, leftOut));
}

function receiptRows(lane, places) {
  const own = places.filter((place) => isIn(place, lane) && place.receipt !== null);
  const told = (position) => own.filter((place) => place.receipt === position).map((place) => place.what || place.edge.edge);
  const rows = lane.rows.map(([position, kind, number, time, remark]) => ({
    key: `receipt ${position}`,
    bad: told(position).length > 0,
    cells: [
      String(position),
      kind,
      number === null ? "" : String(number),
      [remark, ...told(position).map((text) => `broken: ${text}`)].filter(Boolean).join("; "),
      clock(time),
    ],
  }));
  const listed = new Set(lane.rows.map(([position]) => position));
  for (const position of new Set(own.map((place) => place.receipt).filter((receipt) => !listed.has(receipt)))) {
    const cells = [String(position), "", "", `broken: ${told(position).join("; ")} (not listed above)`, ""];
    rows.push({ key: `receipt ${position}`, bad: true, cells });
  }
  return rows;
}

function chooser(id, title, options, chosen, changed) {
  const select = element("select", { id }, ...options.map((text, at) => element("option", { value: at }, text)));
  select.value = String(chosen);
  select.addEventListener("change", () => changed(Number(select.value)));
  return [element("label", { for: id }, title), " ", select];
}

function showReceipts(report, places, chosen = null) {
  const { listed } = report.lanes;
  if (listed.length === 0) {
    fill("receipts", element("p", {}, "No ledger is shown."));
    return;
  }
  const broken = listed.findIndex((lane) => places.some((place) => isIn(place, lane)));
  const at = chosen ?? Math.max(broken, 0);
  const lane = listed[at];
  const unit = lane.rows.some(([, kind]) => kind === "round") ? "round" : "step";
  const columns = [["#", "number"], ["kind", ""], [unit, "number"], ["remarks", "wrap"], ["self-declared time", ""]];
  const choice = chooser("lane", "Ledger", listed.map(laneName), at, (next) => showReceipts(report, places, next));
  fill(
    "receipts",
    ...(listed.length > 1 ? choice : []),
    table(`Receipts of ${laneName(lane)}`, columns, receiptRows(lane, places), lane.leftOut),
    lane.abandoned > 0 ? element("p", { class: "note" }, `${count(lane.abandoned)} steps were abandoned by a resume; curves leave them out.`) : null,
  );
  scrollToBroken("receipts");
}

function showContributors(report, places, verdict, asked) {
  const columns = [["worker", "wrap"], ["lane", "number"], ["signer", ""], ["role", ""], ["receipts", "number"], ["session key", ""]];
  const owner = verdict === null ? null : (verdict.signer.owner ?? "").toLowerCase();
  const rows = report.lanes.listed.map((lane) => {
    const isOwner = owner !== null && lane.worker.toLowerCase() === owner;
    const isOther = isOwner && asked.signer !== null && !verdict.signer.pinned;
    const anchored = report.anchors.listed.filter((anchor) => isOf(anchor, lane)).map((anchor) => anchor.name);
    const isNamed = places.some((place) => isIn(place, lane) || (place.anchor !== null && anchored.includes(place.anchor)));
    let pinned = "unpinned: no pin names this worker";
    if (isOwner) pinned = isOther ? "owner, not the expected one" : `owner, ${verdict.signer.pinned ? "expected" : "unpinned"}`;
    const keys = lane.keys.map(short).join(", ") + (lane.keysLeftOut > 0 ? ` and ${count(lane.keysLeftOut)} more` : "");
    return {
      key: `${lane.worker}/${lane.lane}`,
      bad: isOther || isNamed,
      cells: [
        element("span", { class: "code" }, lane.worker),
        String(lane.lane),
        isNamed ? `${pinned}; broken edge` : pinned,
        lane.rank ? `${lane.role}, rank ${lane.rank}` : lane.role,
        lane.shown < lane.size ? `${count(lane.shown)} of ${count(lane.size)}` : count(lane.size),
        keys || "none: the worker's own key",
      ],
    };
  });
  fill("contributors", table("Contributors", columns, rows, report.lanes.leftOut));
}

function fieldRows(state, places) {
  return state.fields.map(([name, digest, tensors]) => {
    const named = places.some((place) => namesField(place, name));
    let status = tensors === null ? "not opened as a whole: withheld, erased or unreadable" : `opened: ${count(tensors)} ${tensors === 1 ? "entry" : "entries"}`;
    if (digest === "") status = "not recorded in this receipt";
    else if (named) status = `broken; ${tensors === null ? "its opening does not hold or is not shown" : status}`;
    return { key: `field ${name}`, bad: named, cells: [name, status, element("span", { class: "code" }, digest)] };
  });
}

function tensorRows(field, state, layouts, places) {
  const held = state.tensors[field];
  const listed = layouts[held.layout].map(([name, kind, dtype, dimensions, target], at) => ({
    key: `${field}/${name}`,
    bad: places.some((place) => namesTensor(place, field, name)),
    cells: [
      name,
      kind === "dense" ? dtype : kind,
      kind === "alias" ? `is ${target}` : `[${dimensions.join(", ")}]`,
      element("span", { class: "code" }, held.roots[at]),
    ],
  }));
  const isUnlisted = (place) => namesField(place, field) && /["']/.test(place.what) && !listed.some((row) => row.bad);
  for (const place of places.filter(isUnlisted)) {
    listed.push({ key: place.what, bad: true, cells: [`broken: ${place.what} (not listed above)`, "", "", ""] });
  }
  return listed;
}

function showTensors(report, places, chosen = null) {
  const { listed, leftOut, layouts } = report.states;
  if (listed.length === 0) {
    fill("tensors", element("p", {}, "No step is shown."));
    return;
  }
  const own = (state) => places.filter((place) => isIn(place, state) && place.receipt === state.position);
  const broken = listed.findIndex((state) => own(state).length > 0);
  const first = Math.max(0, listed.findIndex((each) => each.kind === "step"));
  const at = chosen ?? (broken < 0 ? first : broken);
  const state = listed[at];
  const names = listed.map((each) => {
    const lane = report.lanes.listed.length > 1 ? `, ${laneName(each)}` : "";
    return `${each.kind} ${each.number} (receipt ${each.position}${lane})${own(each).length > 0 ? " - broken" : ""}`;
  });
  const columns = [["tensor", "wrap"], ["dtype", ""], ["shape", ""], ["root", ""]];
  const tables = ["gradients", "parameters"].map((field) => {
    const heading = element("h3", {}, field === "gradients" ? "Gradients" : "Parameters");
    const held = state.tensors[field];
    const absent = element("p", {}, "Not recorded here, or not opened: see the fields above.");
    return element("div", {}, heading, held === undefined ? absent : table(heading.textContent, columns, tensorRows(field, state, layouts, own(state)), held.leftOut));
  });
  fill(
    "tensors",
    ...chooser("state", "Receipt", names, at, (next) => showTensors(report, places, next)),
    leftOut > 0 ? element("p", { class: "note" }, `${count(leftOut)} more receipts are not listed.`) : null,
    element("h3", {}, "Fields"),
    table("Fields", [["field", ""], ["what is shown", "wrap"], ["digest", ""]], fieldRows(state, own(state))),
    element("div", { class: "two" }, ...tables),
    element("p", { class: "small" }, "Roots and digests are cut to their first 12 digits."),
  );
}

function valuesOf(title, held) {
  if (held === null) return element("div", {}, element("h3", {}, title), element("p", {}, "Not recorded, or not opened."));
  const rows = held.values.map(([name, value]) => ({ cells: [name, value] }));
  return element("div", {}, element("h3", {}, `${title} of ${held.of}`), table(title, [["name", "wrap"], ["value", "wrap"]], rows, held.leftOut));
}

function showSettings(report, places) {
  const { environment, hyperparameters, specification, recipe } = report.settings;
  const isBad = (name) => places.some((place) => place[name]);
  const text = element("pre", { tabindex: "0", "aria-label": "Specification" }, specification);
  const files = recipe === null ? [] : recipe.files.map(([name, size]) => `${name}: ${count(size)} bytes`);
  fill(
    "settings",
    element("div", { class: "two" }, valuesOf("Environment", environment), valuesOf("Hyperparameters", hyperparameters)),
    element("h3", {}, "Specification"),
    isBad("specification") ? element("p", { class: "alarm", "data-key": "specification" }, "Broken: it is not what the genesis receipt binds.") : null,
    text,
    element("h3", {}, "Recipe"),
    isBad("recipe") ? element("p", { class: "alarm", "data-key": "recipe" }, "Broken: it is not what the genesis receipt binds.") : null,
    recipe === null ? element("p", {}, "None: steps cannot be executed again.") : element("p", { class: "code" }, recipe.digest || recipe.error),
    list(files),
  );
}
