// Where in the record an edge of the verdict lies.

const LEDGER =
  /^ledger(?: of (0x[0-9a-fA-F]{40}) lane (\d+))?(?:: (?:receipt (\d+)(?: \((\S+?)(?: (\d+))?\))?|(checkpoint) after step (\d+)|tree head of size (\d+)))?(?:: ?([^]*))?$/;

function placeOf(edge, owner) {
  const place = { edge, worker: null, lane: 0, receipt: null, number: null, head: null, anchor: null, what: "" };
  const anchor = /^anchor (.*?): /.exec(edge.edge);
  const found = LEDGER.exec(edge.edge);
  if (found !== null) {
    place.worker = (found[1] ?? owner ?? "").toLowerCase();
    place.lane = Number(found[2] ?? 0);
    place.receipt = found[3] === undefined ? null : Number(found[3]);
    place.number = found[5] === undefined ? null : Number(found[5]);
    place.number = found[7] === undefined ? place.number : Number(found[7]);
    place.head = found[8] === undefined ? null : Number(found[8]);
    place.what = found[9] ?? "";
  } else if (anchor !== null) {
    place.anchor = anchor[1];
  } else if (edge.edge.startsWith("genesis")) {
    place.worker = (owner ?? "").toLowerCase();
    place.receipt = 0;
  }
  place.specification = /^(genesis -> )?spec\.json/.test(edge.edge);
  place.recipe = /^(genesis -> )?recipe\//.test(edge.edge);
  return place;
}

function placesOf(verdict, lanes) {
  const edges = [...verdict.integrity.broken, ...verdict.transition.mismatches];
  return edges.map((edge) => atReceipt(placeOf(edge, verdict.signer.owner), lanes));
}

// An edge may name a step of a lane, and leave it to the reader which receipt that is.
function atReceipt(place, lanes) {
  const found = /(?:of|after) step (\d+)/.exec(place.what);
  if (place.receipt !== null || (place.number === null && found === null)) return place;
  const number = place.number ?? Number(found[1]);
  const rows = lanes.find((lane) => isIn(place, lane))?.rows ?? [];
  const row = rows.find(([, kind, of]) => kind === "step" && of === number);
  return { ...place, number, receipt: row === undefined ? null : row[0] };
}

function isIn(place, lane) {
  return place.worker === lane.worker.toLowerCase() && place.lane === lane.lane;
}

// Whether an edge speaks of a field, or of a tensor of it, as the core writes names.
function namesField(place, field) {
  return new RegExp(`(^|\\s|: )${field}(?=$|[\\s:])`).test(place.what);
}

function namesTensor(place, field, name) {
  const found = /^[^"']*(["'])([^]*)\1/.exec(place.what);
  return found !== null && namesField(place, field) && [found[2], unescaped(found[2])].includes(name);
}

// Rust's way of writing what cannot be printed.
function unescaped(text) {
  const letters = { n: "\n", r: "\r", t: "\t", 0: "\0" };
  return text.replace(/\\(?:u\{([0-9a-f]{1,6})\}|(.))/g, (_, code, letter) =>
    code === undefined ? (letters[letter] ?? letter) : String.fromCodePoint(Math.min(parseInt(code, 16), 0x10ffff)),
  );
}
