"use strict";
// Lays each video's masks over it, frame by frame. Without it the videos play bare.
(() => {
  const COLOURS = inferno(document.body.dataset.colours.split(" "));
  const CONTOUR = 255 * Number(document.body.dataset.contour);
  const SIDE = 192; // pixels of a mask drawn, along each side
  const EARLY = 0.05; // of a frame: containers round times
  const strength = document.getElementById("strength");
  const outline = document.getElementById("outline");
  const all = document.getElementById("all");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let playing = !still; // what is in view plays, unless somebody stopped it

  function inferno(anchors) {
    const table = new Uint8Array(256 * 3);
    for (let value = 0; value < 256; value++) {
      const place = (value / 255) * (anchors.length - 1);
      const low = Math.min(Math.floor(place), anchors.length - 2);
      for (let part = 0; part < 3; part++) {
        const [a, b] = [low, low + 1].map((i) => parseInt(anchors[i].substr(2 * part, 2), 16));
        table[3 * value + part] = Math.round(a + (b - a) * (place - low));
      }
    }
    return table;
  }

  function bytes(text) {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  }

  // Where each drawn pixel lies between the cells of a mask: cell, and share of the next one.
  function between(cells) {
    return Array.from({ length: SIDE }, (_, pixel) => {
      const place = Math.min(Math.max(((pixel + 0.5) * cells) / SIDE - 0.5, 0), cells - 1);
      const cell = Math.min(Math.floor(place), Math.max(cells - 2, 0));
      return [cell, Math.min(cell + 1, cells - 1), place - cell];
    });
  }

  class Player {
    constructor(box) {
      this.box = box;
      this.video = box.querySelector("video");
      this.canvas = box.querySelector("canvas");
      this.seek = box.querySelector(".seek");
      this.said = box.querySelector("output");
      this.button = box.querySelector(".play");
      this.name = this.video.getAttribute("aria-label");
      this.numbers = box.dataset.numbers.split(",");
      this.rate = Number(box.dataset.rate);
      this.frame = Number(box.dataset.first);
      this.seen = false; // in view now: a mask that nobody sees is not drawn
      this.wanted = playing; // whether it plays when it is in view
      this.video.controls = false;
      box.querySelector(".time").hidden = false;
      if (box.dataset.masks) {
        [this.rows, this.columns] = box.dataset.maskSize.split(",").map(Number);
        this.across = between(this.columns);
        this.down = between(this.rows);
        this.canvas.width = this.canvas.height = SIDE;
        this.canvas.hidden = false;
        this.context = this.canvas.getContext("2d", { willReadFrequently: true }); // kept where it is painted
        this.image = this.context.createImageData(SIDE, SIDE);
        this.values = new Float32Array(SIDE * SIDE);
      }
      this.video.addEventListener("play", () => this.follow());
      this.video.addEventListener("pause", () => this.label());
      if (!this.video.requestVideoFrameCallback) {
        const follow = () => this.video.paused || this.show(this.at(this.video.currentTime));
        this.video.addEventListener("timeupdate", follow);
      }
      this.video.addEventListener("seeked", () => this.show(this.at(this.video.currentTime)));
      this.button.addEventListener("click", () => this.toggle());
      box.querySelector(".screen").addEventListener("click", () => this.toggle());
      this.seek.addEventListener("input", () => this.go(Number(this.seek.value)));
      this.show(this.frame);
    }

    at(seconds) {
      return Math.min(Math.floor(seconds * this.rate + EARLY), this.numbers.length - 1);
    }

    // Each frame that the browser shows, as long as it plays.
    follow() {
      this.label();
      if (!this.video.requestVideoFrameCallback) return;
      this.video.cancelVideoFrameCallback(this.waiting);
      const next = (_, shown) => {
        if (this.video.paused) return;
        this.show(this.at(shown.mediaTime));
        this.waiting = this.video.requestVideoFrameCallback(next);
      };
      this.waiting = this.video.requestVideoFrameCallback(next);
    }

    toggle() {
      this.wanted = this.video.paused;
      if (this.wanted) this.play();
      else this.video.pause();
    }

    play() {
      this.video.play().catch(() => {}); // scrolled out of view meanwhile
    }

    go(frame) {
      this.wanted = false;
      this.video.pause();
      this.show(frame);
      const time = (frame + 0.5) / this.rate;
      if (this.video.readyState > 0) {
        this.video.currentTime = time;
        return;
      }
      this.video.addEventListener(
        "loadeddata",
        () => { this.video.currentTime = (this.frame + 0.5) / this.rate; },
        { once: true },
      );
      this.video.preload = "auto";
      this.video.load();
    }

    label() {
      const on = !this.video.paused;
      this.box.classList.toggle("playing", on);
      this.button.setAttribute("aria-label", `${on ? "Pause" : "Play"} ${this.name}`);
    }

    show(frame) {
      this.frame = frame;
      this.seek.value = frame;
      const number = this.numbers[frame];
      this.seek.setAttribute("aria-valuetext", `frame ${number}`);
      this.said.textContent = `frame ${number}`;
      this.draw();
    }

    draw() {
      if (!this.context || !this.seen) return;
      this.masks ??= bytes(this.box.dataset.masks);
      const start = this.frame * this.rows * this.columns;
      const { values, masks, columns } = this;
      for (let y = 0, at = 0; y < SIDE; y++) {
        const [top, bottom, dy] = this.down[y];
        for (let x = 0; x < SIDE; x++, at++) {
          const [left, right, dx] = this.across[x];
          const upper = start + top * columns;
          const lower = start + bottom * columns;
          const above = masks[upper + left] * (1 - dx) + masks[upper + right] * dx;
          const below = masks[lower + left] * (1 - dx) + masks[lower + right] * dx;
          values[at] = above * (1 - dy) + below * dy;
        }
      }
      this.paint(Number(strength.value), outline.checked);
    }

    // Opacity grows with the mask, so what the model did not look at stays as it is.
    paint(strongest, lined) {
      const { values, image } = this;
      const inside = (x, y) =>
        x < 0 || y < 0 || x >= SIDE || y >= SIDE || values[y * SIDE + x] >= CONTOUR;
      for (let y = 0, at = 0; y < SIDE; y++) {
        for (let x = 0; x < SIDE; x++, at++) {
          const value = Math.round(values[at]);
          const line =
            lined && values[at] >= CONTOUR &&
            !(inside(x - 1, y) && inside(x + 1, y) && inside(x, y - 1) && inside(x, y + 1));
          for (let part = 0; part < 3; part++) {
            image.data[4 * at + part] = line ? 255 : COLOURS[3 * value + part];
          }
          image.data[4 * at + 3] = line ? 200 : strongest * value;
        }
      }
      this.context.putImageData(image, 0, 0);
    }
  }

  document.documentElement.classList.add("scripted");
  document.querySelector(".bar").hidden = false;
  const players = [...document.querySelectorAll("div.player")].map((box) => new Player(box));
  const playerOf = new Map(players.map((player) => [player.box, player]));
  const inView = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const player = playerOf.get(target);
      player.seen = isIntersecting;
      player.draw();
      if (isIntersecting && player.wanted) player.play();
      else if (!isIntersecting) player.video.pause();
    }
  });
  for (const player of players) inView.observe(player.box);

  function playAll(on) {
    playing = on;
    all.textContent = on ? "Pause all" : "Play all";
    all.setAttribute("aria-pressed", String(on));
    for (const player of players) {
      player.wanted = on;
      if (!on) player.video.pause();
      else if (player.seen) player.play();
    }
  }

  all.addEventListener("click", () => playAll(!playing));
  all.hidden = !players.length;
  all.textContent = playing ? "Pause all" : "Play all";
  all.setAttribute("aria-pressed", String(playing));
  for (const control of [strength, outline]) {
    control?.addEventListener("input", () => players.forEach((player) => player.draw()));
  }
  addEventListener("beforeprint", () => {
    for (const player of players) {
      player.seen = true;
      player.draw();
    }
  });
  const ramp = document.querySelector(".scale i");
  if (ramp) {
    const colours = document.body.dataset.colours.split(" ").map((colour) => `#${colour}`);
    ramp.style.setProperty("--ramp", `linear-gradient(to right, ${colours.join(", ")})`);
  }

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
