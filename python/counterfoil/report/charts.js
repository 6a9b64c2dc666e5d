// Curves and strips, drawn as SVG for the width that there is.

const HEIGHT = 220;
const MARGIN = { left: 76, right: 12, top: 10, bottom: 40 };

function ticks(low, high, most) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9 && found.length < 20; at += 1) found.push(at * step);
  return found;
}

function label(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}

function extent(values, empty) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return empty;
  if (low < high) return [low, high];
  const pad = Math.abs(low) * 0.1 || 1;
  return [low - pad, high + pad];
}

function brokenSteps(places) {
  return [...new Set(places.map((place) => place.number).filter((step) => step !== null))];
}

function curveChart(chart, width, places) {
  const points = chart.series.flatMap((series) => series.points);
  const [left, right] = extent(points.map(([step]) => step), [0, 1]);
  const [low, high] = extent(points.map(([, value]) => value), [0, 1]);
  const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  // Halves first: the distance of two large numbers may be larger than any number.
  const share = (value, from, to) => (value / 2 - from / 2) / (to / 2 - from / 2);
  const x = (step) => MARGIN.left + share(step, left, right) * inner.width;
  const y = (value) => MARGIN.top + (1 - share(value, low, high)) * inner.height;
  const drawn = shape("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": `${chart.name} by ${chart.unit}`,
  });
  // The distance of the largest numbers is infinite, and has no ticks.
  const levels = ticks(low, high, 4);
  for (const value of levels.length > 0 ? levels : [low, high]) {
    drawn.append(shape("line", { class: "tick", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }));
    drawn.append(shape("text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, label(value)));
  }
  const steps = ticks(left, right, Math.max(3, Math.floor(inner.width / 90))).filter(Number.isInteger);
  for (const step of steps) {
    drawn.append(shape("text", { x: x(step), y: HEIGHT - MARGIN.bottom + 16, "text-anchor": "middle" }, label(step)));
  }
  const foot = HEIGHT - MARGIN.bottom;
  drawn.append(shape("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: foot, y2: foot }));
  drawn.append(shape("line", { class: "axis", x1: MARGIN.left, x2: MARGIN.left, y1: MARGIN.top, y2: foot }));
  const middle = MARGIN.left + inner.width / 2;
  drawn.append(shape("text", { x: middle, y: HEIGHT - 6, "text-anchor": "middle" }, chart.unit));
  const name = chart.name.length > 28 ? `${chart.name.slice(0, 27)}…` : chart.name;
  const centre = MARGIN.top + inner.height / 2;
  drawn.append(shape("text", { x: 14, y: centre, "text-anchor": "middle", transform: `rotate(-90 14 ${centre})` }, name));
  chart.series.forEach((series, at) => {
    const path = series.points.map(([step, value], place) => `${place ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`);
    if (path.length > 1) drawn.append(shape("path", { class: `curve series-${at}`, d: path.join("") }));
    if (path.length <= 40) {
      for (const [step, value] of series.points) {
        drawn.append(shape("circle", { class: `dot series-${at}`, cx: x(step), cy: y(value), r: 2.5 }));
      }
    }
  });
  for (const step of brokenSteps(places).filter((number) => number >= left && number <= right)) {
    drawn.append(
      shape("line", { class: "bad-line", x1: x(step), x2: x(step), y1: MARGIN.top, y2: foot, "data-step": step }),
      shape("text", { class: "bad", x: Math.min(x(step) + 4, width - 70), y: MARGIN.top + 12 }, `broken: ${step}`),
    );
  }
  return drawn;
}

function laneName(lane) {
  return `${short(lane.worker)} lane ${lane.lane}`;
}

function sample(at) {
  const line = shape("line", { class: `curve series-${at}`, x1: 0, x2: 28, y1: 5, y2: 5 });
  return shape("svg", { width: 28, height: 10, "aria-hidden": "true" }, line);
}

function figure(chart, width, places) {
  const legend = chart.series.map((series, at) => {
    const drawn = series.points.length + series.notFiniteCount < series.of ? `, ${count(series.points.length)} of ${count(series.of)} points drawn` : "";
    return element("li", {}, sample(at), `${laneName(series)}${drawn}`);
  });
  const lost = chart.series.filter((series) => series.notFiniteCount > 0).map((series) => {
    const told = series.notFinite.map(([step, value]) => `${chart.unit} ${step}: ${value}`).join(", ");
    return element("p", { class: "note" }, `${laneName(series)}: not finite and not drawn: ${count(series.notFiniteCount)} of ${count(series.of)} values (${told}).`);
  });
  const steps = chart.series.flatMap((series) => series.points.map(([step]) => step));
  const [left, right] = extent(steps, [0, 0]);
  const outside = brokenSteps(places).filter((step) => step < left || step > right);
  if (outside.length > 0) {
    lost.push(element("p", { class: "note bad" }, `Broken and not drawn: ${chart.unit} ${outside.join(", ")}.`));
  }
  const more = chart.lanesLeftOut > 0 ? element("p", { class: "note" }, `${count(chart.lanesLeftOut)} more lanes are not drawn.`) : null;
  return element(
    "figure",
    { class: "chart" },
    element("figcaption", {}, chart.name, element("span", { class: "note" }, ` ${chart.measure}`)),
    curveChart(chart, width, places),
    element("ul", { class: "legend" }, ...legend),
    ...lost,
    more,
  );
}

function showCurves(curves, places) {
  const width = Math.max(280, byId("curves").clientWidth);
  const found = curves.metrics.map((chart) => figure(chart, width, places));
  if (found.length === 0) found.push(element("p", {}, "Metrics: not recorded, or not opened."));
  if (curves.metricsLeftOut > 0) found.push(element("p", { class: "note" }, `${count(curves.metricsLeftOut)} more metrics are not drawn.`));
  if (curves.norm !== null) found.push(figure(curves.norm, width, places));
  else if (curves.normIsMetric.length > 0) found.push(element("p", {}, `Gradient norm: logged as ${curves.normIsMetric.join(", ")}; gradients are not stored.`));
  else found.push(element("p", {}, "Gradient norm: not recorded. Receipts bind the gradients; their bytes are not stored, and no norm was logged."));
  if (curves.normsUnread > 0) found.push(element("p", { class: "note" }, `${count(curves.normsUnread)} more steps store gradients that were not read for this page.`));
  fill("curves", ...found);
}

function stripOf(lane, anchors, width, places) {
  const [left, right, top, height] = [8, 8, 16, 18];
  const size = Math.max(lane.size, ...places.map((place) => (place.receipt ?? 0) + 1), 1);
  const x = (position) => left + (position / size) * (width - left - right);
  const covered = Math.min(size, Math.max(0, ...anchors.map((anchor) => Number(anchor.size))));
  const drawn = shape("svg", {
    viewBox: `0 0 ${width} 56`, width, height: 56, role: "img", "aria-label": `Receipts of ${laneName(lane)}`,
  });
  drawn.append(shape("rect", { class: "ledger", x: left, y: top, width: width - left - right, height }));
  if (covered > 0) drawn.append(shape("rect", { class: "covered", x: left, y: top, width: x(covered) - left, height }));
  for (const at of lane.checkpoints) drawn.append(shape("line", { class: "checkpoint", x1: x(at + 0.5), x2: x(at + 0.5), y1: top, y2: top + height }));
  for (const anchor of anchors) drawn.append(shape("line", { class: "anchor", x1: x(Math.min(Number(anchor.size), size)), x2: x(Math.min(Number(anchor.size), size)), y1: top - 6, y2: top + height + 6 }));
  for (const at of new Set(places.map((place) => place.receipt).filter((receipt) => receipt !== null))) {
    const middle = x(at + 0.5);
    drawn.append(
      shape("line", { class: "broken", x1: middle, x2: middle, y1: top - 4, y2: top + height + 4, "data-receipt": at }),
      shape("path", { class: "broken-sign", d: `M${middle - 5} 2h10l-5 9z` }),
    );
  }
  drawn.append(shape("text", { x: left, y: 52 }, "receipt 0"));
  drawn.append(shape("text", { x: width - right, y: 52, "text-anchor": "end" }, `receipt ${count(size - 1)}`));
  return drawn;
}
