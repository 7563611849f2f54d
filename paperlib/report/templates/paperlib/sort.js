"use strict";
// Tables: every column head of a sortable table becomes a button; blanks and dashes stay last.
function key(row, column) {
  const cell = row.cells[column];
  const number = cell.dataset.sort === undefined ? NaN : Number(cell.dataset.sort);
  return { number, text: cell.textContent.trim() };
}
function compare(a, b, direction) {
  const missing = (value) => value.text === "" || value.text === "–";
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  const numbers = !Number.isNaN(a.number) && !Number.isNaN(b.number);
  return direction * (numbers ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true }));
}
function sort(table, head) {
  const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [key(row, head.cellIndex), row]);
  rows.sort((a, b) => compare(a[0], b[0], direction));
  body.append(...rows.map(([, row]) => row));
}
for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length < 2) continue;
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    const label = document.createElement("span");
    label.append(...head.childNodes);
    button.append(label);
    head.append(button);
    button.addEventListener("click", () => sort(table, head));
  }
}
// What overflows can be scrolled with the keyboard.
function focusable() {
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
addEventListener("resize", focusable);
document.addEventListener("toggle", focusable, true);
focusable();
// The contents list is open beside the text, closed above it.
const contents = document.querySelector(".contents details");
const wide = matchMedia("(min-width: 68rem)");
function fold() { if (contents) contents.open = wide.matches; }
wide.addEventListener("change", fold);
fold();
