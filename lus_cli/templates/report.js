"use strict";
// Filters and sorts the table of videos. Without it the page still shows everything.
(() => {
  const body = document.querySelector("#list tbody");
  const rows = [...body.rows];
  const cells = [...document.querySelectorAll(".cell")];
  const headers = [...document.querySelectorAll("#list th[aria-sort]")];
  const status = document.getElementById("status");
  const all = document.getElementById("all");
  const find = document.getElementById("find");
  let chosen = null; // the pressed cell of the matrix

  function show() {
    const text = find.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits =
        (!chosen ||
          (row.dataset.true === chosen.dataset.true &&
            row.dataset.answered === chosen.dataset.answered)) &&
        row.dataset.id.toLowerCase().includes(text);
      row.hidden = !fits;
      shown += fits;
    }
    for (const cell of cells) cell.setAttribute("aria-pressed", String(cell === chosen));
    const what = chosen
      ? ` of true score ${chosen.dataset.true} answered as ${chosen.dataset.answered}`
      : "";
    const named = text ? ` with “${find.value.trim()}” in the id` : "";
    const plural = shown === 1 ? "video" : "videos";
    status.textContent = `${what || named ? "" : "All "}${shown} ${plural}${what}${named}`;
    all.hidden = !what && !named;
  }

  function choose(cell) {
    chosen = cell;
    const { true: truth, answered } = cell ? cell.dataset : {};
    // The address names the cell, so that a link can lead to it.
    history.replaceState(null, "", cell ? `#true=${truth}&answered=${answered}` : "#videos");
    show();
  }

  function readAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const named = cells.find(
      (cell) =>
        cell.dataset.true === wanted.get("true") &&
        cell.dataset.answered === wanted.get("answered"),
    );
    if (named) {
      chosen = named;
      show();
      document.getElementById("matrix").scrollIntoView();
    }
  }

  function sortBy(header) {
    const button = header.querySelector("button");
    const key = button.dataset.sort;
    const first = button.dataset.first || "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = header.getAttribute("aria-sort") === first ? other : first;
    for (const h of headers) h.setAttribute("aria-sort", h === header ? direction : "none");
    const sign = direction === "ascending" ? 1 : -1;
    rows.sort(
      (a, b) => sign * (a.dataset[key] - b.dataset[key]) || a.dataset.order - b.dataset.order,
    );
    body.append(...rows);
  }

  for (const cell of cells) {
    cell.addEventListener("click", () => choose(cell === chosen ? null : cell));
  }
  for (const header of headers) {
    header.querySelector("button").addEventListener("click", () => sortBy(header));
  }
  all.addEventListener("click", () => {
    find.value = "";
    choose(null);
    find.focus();
  });
  find.addEventListener("input", show);
  addEventListener("hashchange", readAddress);
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
  readAddress();
})();
