"use strict";
// Filters, sorts and plays the videos. Without this script the page still shows everything.
(() => {
  const body = document.querySelector("#list tbody");
  const rows = [...body.rows];
  const cells = [...document.querySelectorAll(".cell")];
  const headers = [...document.querySelectorAll("#list th[aria-sort]")];
  const status = document.getElementById("status");
  const all = document.getElementById("all");
  const search = document.getElementById("find");
  const players = new Map(); // row -> the row below it that holds its player
  let chosen = null; // the pressed cell of the matrix

  // ------------------------------------------------------------------------------------- filter

  function show() {
    const text = search.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits =
        (!chosen ||
          (row.dataset.true === chosen.dataset.true &&
            row.dataset.predicted === chosen.dataset.predicted)) &&
        row.dataset.id.toLowerCase().includes(text);
      row.hidden = !fits;
      if (!fits) close(row);
      shown += fits;
    }
    for (const cell of cells) cell.setAttribute("aria-pressed", String(cell === chosen));
    const what = chosen
      ? ` of true score ${chosen.dataset.true} and predicted score ${chosen.dataset.predicted}`
      : "";
    const matching = text ? ` with “${search.value.trim()}” in the id` : "";
    const plural = shown === 1 ? "video" : "videos";
    status.textContent = `${what || matching ? "" : `${status.dataset.all} `}${shown} ${plural}${what}${matching}`;
    all.hidden = !what && !matching;
  }

  function choose(cell) {
    chosen = cell;
    const { true: truth, predicted } = cell ? cell.dataset : {};
    // The address contains the cell, so that a link can point to it.
    history.replaceState(null, "", cell ? `#true=${truth}&predicted=${predicted}` : "#videos");
    show();
  }

  function readAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const cell = cells.find(
      (other) =>
        other.dataset.true === wanted.get("true") &&
        other.dataset.predicted === wanted.get("predicted"),
    );
    if (cell) {
      chosen = cell;
      show();
      document.getElementById("matrix").scrollIntoView();
    }
    const video = rows.find((row) => row.dataset.id === wanted.get("video"));
    if (video?.querySelector(".open") && !players.has(video)) {
      open(video);
      video.scrollIntoView({ block: "center", behavior: "instant" });
    }
  }

  // --------------------------------------------------------------------------------------- sort

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
    body.append(...rows.flatMap((row) => (players.has(row) ? [row, players.get(row)] : [row])));
  }

  // ------------------------------------------------------------------------------------- matrix

  // The Tab key stops once in the matrix; the arrow keys move to the next cell with videos.
  const full = cells.filter((cell) => !cell.disabled);
  function enter(cell) {
    for (const other of full) other.tabIndex = other === cell ? 0 : -1;
  }

  function walk(event) {
    const [down, right] =
      { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] || [];
    if (down === undefined) return;
    event.preventDefault();
    let place = cells.indexOf(event.currentTarget);
    do {
      const row = Math.floor(place / 4) + down;
      const column = (place % 4) + right;
      if (Math.min(row, column) < 0 || Math.max(row, column) > 3) return;
      place = 4 * row + column;
    } while (cells[place].disabled);
    cells[place].focus();
  }

  // ------------------------------------------------------------------------------------ players

  function open(row) {
    const below = document.createElement("tr");
    below.className = "below-row";
    const cell = below.insertCell();
    cell.colSpan = row.cells.length;
    cell.append(row.querySelector("template").content.cloneNode(true));
    row.after(below); // before playing: an element that is not on the page is never in view
    const player = new LusPlayer(below.querySelector(".player"));
    players.set(row, below);
    row.querySelector(".open").setAttribute("aria-expanded", "true");
    below.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      close(row);
      row.querySelector(".open").focus();
    });
    player.go(0);
    player.seek.focus();
  }

  function close(row) {
    if (!players.has(row)) return;
    players.get(row).remove(); // an element out of view stops playing
    players.delete(row);
    row.querySelector(".open").setAttribute("aria-expanded", "false");
  }

  for (const cell of cells) {
    cell.addEventListener("click", () => choose(cell === chosen ? null : cell));
    cell.addEventListener("keydown", walk);
    cell.addEventListener("focus", () => enter(cell));
  }
  enter(full[0]);
  for (const header of headers) {
    header.querySelector("button").addEventListener("click", () => sortBy(header));
  }
  for (const row of rows) {
    row
      .querySelector(".open")
      ?.addEventListener("click", () => (players.has(row) ? close(row) : open(row)));
  }
  all.addEventListener("click", () => {
    search.value = "";
    choose(null);
    search.focus();
  });
  search.addEventListener("input", show);
  addEventListener("hashchange", readAddress);
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });

  // A box whose contents do not fit can be scrolled with the keyboard, too.
  const boxes = new ResizeObserver((seen) => {
    for (const { target } of seen) {
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  for (const box of document.querySelectorAll(".wide")) boxes.observe(box);
  readAddress();
})();
