"use strict";

const SVG = "http://www.w3.org/2000/svg";

// What strangers wrote reaches the page as text nodes and attribute values alone.
function build(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function element(name, attributes = {}, ...children) {
  return build(document.createElement(name), attributes, children);
}

function shape(name, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

function fill(id, ...children) {
  byId(id).replaceChildren(...children.filter((child) => child !== null));
}

function data(id) {
  return JSON.parse(byId(id).textContent);
}

function short(address) {
  return address.length > 14 ? `${address.slice(0, 8)}…${address.slice(-4)}` : address;
}

function count(number) {
  return Number(number).toLocaleString("en-US");
}

function clock(milliseconds) {
  const moment = new Date(Number(milliseconds));
  if (milliseconds === null || Number.isNaN(moment.getTime())) return "not shown";
  return `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

// `columns`: [title, class] each; `rows`: {cells, bad}.
function table(label, columns, rows, leftOut = 0) {
  const head = element("tr", {}, ...columns.map(([title, kind]) => element("th", { scope: "col", class: kind }, title)));
  const body = rows.map(({ cells, bad, key }) =>
    element(
      "tr",
      { class: bad ? "bad" : null, "data-key": key },
      ...cells.map((cell, at) => element("td", { class: columns[at][1] }, cell)),
    ),
  );
  const made = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  const scroll = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, made);
  const note = leftOut > 0 ? element("p", { class: "note" }, `${count(leftOut)} more are not listed.`) : null;
  return note === null ? scroll : element("div", {}, scroll, note);
}

// A long table begins at its first broken row.
function scrollToBroken(id) {
  const row = byId(id).querySelector("tr.bad");
  const scroll = row?.closest(".scroll");
  if (scroll) scroll.scrollTop = Math.max(0, row.offsetTop - scroll.clientHeight / 3);
}

function list(items) {
  return element("ul", {}, ...items.map((item) => element("li", {}, item)));
}
