"use strict";
// Plays the clips of a page with their attention masks; player.html contains their markup.
//
// new LusPlayer(box) controls a .player element. It plays after play() while it is in view, and reads
// the controls inside the box or, if it has none, the controls that all players of the page share.
const LusPlayer = (() => {
  const SIDE = 384; // longer side of the masked picture, pixels
  const COVER = 192; // each side of the mask that is drawn over it, pixels
  const EARLY = 0.05; // frames, since containers round times

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
  const players = new Map(); // box -> player

  // The inferno colours of overlay.py: red, green and blue for mask values of 0 to 255.
  function colourTable(text) {
    const anchors = text.split(" ").map((c) => [0, 2, 4].map((i) => parseInt(c.slice(i, i + 2), 16)));
    return Array.from({ length: 256 }, (_, value) => {
      const place = (value / 255) * (anchors.length - 1);
      const low = Math.min(Math.floor(place), anchors.length - 2);
      return anchors[low].map((c, i) => c + (place - low) * (anchors[low + 1][i] - c));
    });
  }

  // For each pixel along a side: a cell of the mask, the next cell, and the weight of the latter.
  function between(cells) {
    return Array.from({ length: COVER }, (_, pixel) => {
      const place = Math.min(Math.max(((pixel + 0.5) * cells) / COVER - 0.5, 0), cells - 1);
      const cell = Math.floor(place);
      return [cell, Math.min(cell + 1, cells - 1), place - cell];
    });
  }

  // The mask interpolated to COVER x COVER: (row, column) in 0 to 255.
  function interpolated(mask, [rows, columns]) {
    const values = new Float32Array(COVER * COVER);
    const across = between(columns);
    let at = 0;
    for (const [top, bottom, dy] of between(rows)) {
      for (const [left, right, dx] of across) {
        const above = mask[top * columns + left] * (1 - dx) + mask[top * columns + right] * dx;
        const below = mask[bottom * columns + left] * (1 - dx) + mask[bottom * columns + right] * dx;
        values[at++] = above * (1 - dy) + below * dy;
      }
    }
    return values;
  }

  const inView = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) players.get(target)?.see(isIntersecting);
  });
  addEventListener("beforeprint", () => players.forEach((player) => player.see(true)));

  return class LusPlayer {
    constructor(box) {
      Object.assign(this, JSON.parse(box.dataset.clip));
      this.box = box;
      this.video = box.querySelector("video");
      this.masked = box.querySelector("canvas");
      this.seek = box.querySelector(".player-seek");
      this.where = box.querySelector(".player-where");
      this.button = box.querySelector(".player-play");
      this.controls = box.querySelector(".player-controls") ?? document.querySelector(".player-controls");
      this.frame = this.first; // the index of the shown frame
      this.target = this.first; // the requested frame, or the shown one
      this.sought = undefined; // the frame being sought; null: none yet; undefined: playing
      this.seen = this.wanted = false; // whether it is in view; whether it plays when in view
      if (this.masked) this.prepareMasks();
      this.picture = this.video; // source of the masked picture: the still until the video loads
      if (this.video.poster) {
        this.picture = Object.assign(new Image(), { src: this.video.poster });
        this.picture.decode().then(() => this.draw());
      }
      this.listen();
      this.video.controls = false;
      box.querySelector(".player-time").hidden = false;
      box.classList.add("ready");
      this.label();
      players.set(box, this);
      inView.observe(box);
    }

    prepareMasks() {
      const aspect = getComputedStyle(this.masked.parentElement).getPropertyValue("--aspect");
      this.masks = bytes(this.masks);
      this.masked.width = Math.round(SIDE * Math.min(aspect, 1));
      this.masked.height = Math.round(SIDE / Math.max(aspect, 1));
      this.masked.hidden = false;
      this.cover = Object.assign(document.createElement("canvas"), { width: COVER, height: COVER });
      this.colours = colourTable(this.controls.dataset.colours);
      this.contour = 255 * this.controls.dataset.contour;
    }

    listen() {
      const { video, box } = this;
      const shown = () => video.seeking || this.show(this.at(video.currentTime));
      const each = (_, { mediaTime }) => {
        // A late call reports the frame before. While playing, the next call corrects that.
        if (video.paused) shown();
        else this.show(this.at(mediaTime));
        video.requestVideoFrameCallback(each);
      };
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(each);
      else video.addEventListener("timeupdate", shown);
      for (const change of ["loadeddata", "seeked"]) {
        video.addEventListener(change, () => {
          this.find();
          requestAnimationFrame(shown); // no callback comes if the same frame is shown again
        });
      }
      video.addEventListener("error", () => (this.where.textContent = "This video cannot be shown."));
      for (const change of ["play", "pause"]) video.addEventListener(change, () => this.label());
      this.button.addEventListener("click", () => this.toggle());
      box.querySelector(".player-stage").addEventListener("click", () => this.toggle());
      this.seek.addEventListener("input", () => this.go(this.nearest(Number(this.seek.value))));
      const line = box.querySelector(".player-line svg");
      line.addEventListener("click", ({ clientX }) => {
        const { left, width } = line.getBoundingClientRect();
        this.go(this.nearest(((clientX - left) / width) * line.viewBox.baseVal.width - 0.5));
      });
      box.addEventListener("keydown", (event) => this.press(event));
      this.controls.addEventListener("input", () => this.set());
    }

    press(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const last = this.numbers.length - 1;
      const steps = { ArrowLeft: this.target - 1, ArrowRight: this.target + 1, Home: 0, End: last };
      const isSetting = event.target.closest(".player-controls");
      const mask = this.control("mask");
      if (event.key in steps && !isSetting) this.go(steps[event.key]);
      else if (event.key === " " && !isSetting && event.target !== this.button) this.toggle();
      else if (event.key.toLowerCase() === "m" && mask) mask.click();
      else return;
      event.preventDefault();
    }

    // ----------------------------------------------------------------------------------- playing

    play() {
      this.wanted = true;
      this.sought = undefined;
      this.set();
      if (this.seen) this.load().play().catch(() => {}); // it was scrolled out of view in the meantime
    }

    pause() {
      if (this.video.paused) this.wanted = false;
      else this.go(this.frame); // the clock may be one frame ahead of the picture
    }

    toggle() {
      if (this.video.paused) this.play();
      else this.pause();
    }

    // Pauses at a frame; indices wrap around.
    go(frame) {
      this.wanted = false;
      this.video.pause();
      this.target = (frame + this.numbers.length) % this.numbers.length;
      this.sought = null;
      this.load();
      if (this.video.readyState > 0 && !this.video.seeking) this.find();
    }

    // While a key is held down, each seek ends before the next begins, so that each shows its frame.
    find() {
      if (!this.video.paused || this.sought === this.target) return;
      this.sought = this.target;
      this.video.currentTime = (this.target + 0.5) / this.rate;
    }

    // Uses a blob, since not every browser plays a data URL.
    load() {
      if (!this.video.src.startsWith("blob:")) {
        const data = bytes(this.video.src.split(",")[1]);
        this.video.src = URL.createObjectURL(new Blob([data], { type: "video/mp4" }));
        this.video.preload = "auto";
      }
      return this.video;
    }

    at(seconds) {
      return Math.min(Math.floor(seconds * this.rate + EARLY), this.numbers.length - 1);
    }

    nearest(place) {
      const distances = this.places.map((other) => Math.abs(other - place));
      return distances.indexOf(Math.min(...distances));
    }

    see(seen) {
      this.seen = seen;
      if (!seen) this.video.pause();
      else if (this.wanted) this.play();
      this.draw();
    }

    // ----------------------------------------------------------------------------------- showing

    control(name) {
      return this.controls.querySelector(`.player-${name}`);
    }

    set() {
      this.video.playbackRate = Number(this.control("speed").value);
      this.draw();
    }

    show(frame) {
      this.picture = this.video;
      this.frame = frame;
      if (this.sought === undefined) this.target = frame;
      this.label();
      this.draw();
    }

    label() {
      const playing = !this.video.paused;
      const share = this.weights ? `weight ${percent(this.weights[this.frame])}` : "";
      const number = `frame ${this.numbers[this.frame]}`;
      const place = this.places[this.frame];
      this.box.classList.toggle("playing", playing);
      this.button.setAttribute("aria-label", playing ? "Pause" : "Play");
      this.where.textContent = [number, share].filter(Boolean).join("\n");
      this.seek.value = place;
      const parts = [number, `${this.frame + 1} of ${this.numbers.length}`, share];
      this.seek.setAttribute("aria-valuetext", parts.filter(Boolean).join(", "));
      this.box.querySelector(".here").setAttribute("d", `M${place} 0h1V1h-1z`);
    }

    // Draws the current frame of the video with the mask of that frame.
    draw() {
      if (!this.masked || !this.seen) return;
      const { width, height } = this.masked;
      const pen = this.masked.getContext("2d");
      pen.imageSmoothingQuality = "high";
      pen.drawImage(this.picture, 0, 0, width, height);
      if (!this.control("mask").checked) return;
      this.paintCover(Number(this.control("strength").value), this.control("outline").checked);
      pen.drawImage(this.cover, 0, 0, width, height);
    }

    // Opacity grows with the mask, so regions without attention stay unchanged.
    paintCover(strongest, outlined) {
      const pen = this.cover.getContext("2d", { willReadFrequently: true }); // keeps the canvas in main memory
      const size = this.maskShape[0] * this.maskShape[1];
      const mask = this.masks.subarray(this.frame * size, (this.frame + 1) * size);
      const values = interpolated(mask, this.maskShape);
      const isInside = (x, y) =>
        Math.min(x, y) < 0 || Math.max(x, y) >= COVER || values[y * COVER + x] >= this.contour;
      const image = pen.createImageData(COVER, COVER);
      for (let y = 0, at = 0; y < COVER; y++) {
        for (let x = 0; x < COVER; x++, at++) {
          const isEdge =
            outlined && values[at] >= this.contour &&
            !(isInside(x - 1, y) && isInside(x + 1, y) && isInside(x, y - 1) && isInside(x, y + 1));
          const [red, green, blue] = isEdge ? [255, 255, 255] : this.colours[Math.round(values[at])];
          image.data[4 * at] = red;
          image.data[4 * at + 1] = green;
          image.data[4 * at + 2] = blue;
          image.data[4 * at + 3] = isEdge ? 178 : strongest * values[at];
        }
      }
      pen.putImageData(image, 0, 0);
    }
  };
})();
