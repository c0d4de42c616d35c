"use strict";
// Plays the videos in view, one or all of them, and sorts the table.
(() => {
  const all = document.getElementById("all");
  const players = [...document.querySelectorAll(".player[data-clip]")].map((box) => new LusPlayer(box));

  function playAll(on) {
    all.textContent = on ? "Pause all" : "Play all";
    all.setAttribute("aria-pressed", String(on));
    for (const player of players) {
      if (on) player.play();
      else player.pause();
    }
  }

  document.querySelector(".bar").hidden = !players.length;
  all.addEventListener("click", () => playAll(all.getAttribute("aria-pressed") === "false"));
  playAll(!matchMedia("(prefers-reduced-motion: reduce)").matches);

  const rows = [...document.querySelectorAll("#list tbody tr")];
  const headers = [...document.querySelectorAll("#list th[aria-sort]")];
  for (const header of headers) {
    const { sort: key, first = "ascending" } = header.querySelector("button").dataset;
    header.querySelector("button").addEventListener("click", () => {
      const other = first === "ascending" ? "descending" : "ascending";
      const direction = header.getAttribute("aria-sort") === first ? other : first;
      for (const h of headers) h.setAttribute("aria-sort", h === header ? direction : "none");
      const sign = direction === "ascending" ? 1 : -1;
      rows.sort((a, b) => sign * (a.dataset[key] - b.dataset[key]) || a.dataset.order - b.dataset.order);
      rows[0].parentNode.append(...rows);
    });
  }
})();
