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

function placesOf(verdict) {
  const edges = [...verdict.integrity.broken, ...verdict.transition.mismatches];
  return edges.map((edge) => placeOf(edge, verdict.signer.owner));
}

function isIn(place, lane) {
  return place.worker === lane.worker.toLowerCase() && place.lane === lane.lane;
}

// Whether an edge speaks of a field, or of a tensor of it, as the core writes names.
function namesField(place, field) {
  return new RegExp(`(^|\\s|: )${field}(?=$|[\\s:])`).test(place.what);
}

function namesTensor(place, field, name) {
  if (!namesField(place, field)) return false;
  return place.what.includes(JSON.stringify(name)) || place.what.includes(`'${name}'`);
}
