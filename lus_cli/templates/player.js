"use strict";
// Plays the frames of one video under their attention masks; clips.py makes what it plays.
//
// lusPlayer(strip, name, facts) gives an element to be placed on a page. `strip` holds the sheet of
// frames (an img) and, as JSON, where each frame is on it, the masks and the weights; `facts` is an
// element to be shown beside the picture. start() on what it gives takes the keyboard there.
const lusPlayer = (() => {
  // As in overlay.py: inferno, how opaque the strongest attention is, and the outlined value.
  const INFERNO =
    "000004 0b0724 210c4a 3b0964 550f6d 6e196d 88226a a22b62 ba3655 " +
    "cf4446 e25734 f0701e f98c0a fcac11 f7cf3c f3eb6d fcffa4";
  const STRONGEST = 0.65;
  const CONTOUR = 0.5;
  const SIDE = 384; // of the picture's longer side, pixels
  const WHOLE = 65535; // stands for the largest weight
  const LOOP = 3; // seconds that the frames are spread over, at 2 to 8 frames a second

  const anchors = INFERNO.split(" ").map((c) => [0, 2, 4].map((i) => parseInt(c.slice(i, i + 2), 16)));
  const colours = Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) * (anchors.length - 1);
    const low = Math.min(Math.floor(place), anchors.length - 2);
    return anchors[low].map((c, i) => c + (place - low) * (anchors[low + 1][i] - c));
  });

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function drawing(tag, attributes = {}) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  const canvas = (width, height) => Object.assign(document.createElement("canvas"), { width, height });
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

  // Gives a function that makes the coloured mask of a frame, as large as the picture.
  function painter(clip, width, height) {
    const [rows, columns] = clip.mask_shape;
    const masks = bytes(clip.masks);
    const small = canvas(columns, rows);
    const large = canvas(width, height);
    const pen = large.getContext("2d", { willReadFrequently: true });
    pen.imageSmoothingQuality = "high";
    return (frame) => {
      const image = new ImageData(columns, rows);
      for (let cell = 0; cell < rows * columns; cell++) {
        image.data.fill(masks[frame * rows * columns + cell], 4 * cell, 4 * cell + 3);
        image.data[4 * cell + 3] = 255;
      }
      small.getContext("2d").putImageData(image, 0, 0);
      pen.drawImage(small, 0, 0, width, height);
      const wide = pen.getImageData(0, 0, width, height);
      const values = Uint8Array.from({ length: width * height }, (_, i) => wide.data[4 * i]);
      const inside = (x, y) => values[y * width + x] >= 255 * CONTOUR;
      for (let y = 0, i = 0; y < height; y++) {
        for (let x = 0; x < width; x++, i++) {
          const [red, green, blue] = colours[values[i]];
          wide.data[4 * i] = red;
          wide.data[4 * i + 1] = green;
          wide.data[4 * i + 2] = blue;
          wide.data[4 * i + 3] = STRONGEST * values[i];
          const edge =
            inside(x, y) &&
            !(
              inside(Math.max(x - 1, 0), y) &&
              inside(Math.min(x + 1, width - 1), y) &&
              inside(x, Math.max(y - 1, 0)) &&
              inside(x, Math.min(y + 1, height - 1))
            );
          if (edge) wide.data.set([255, 255, 255, 178], 4 * i);
        }
      }
      pen.putImageData(wide, 0, 0);
      return large;
    };
  }

  // The weight of every scored frame along the video, as bars; that of the shown frame stands out.
  function timeline(clip, go) {
    const weights = new Uint16Array(bytes(clip.weights).buffer);
    const count = weights.length;
    const svg = drawing("svg", { viewBox: `0 0 ${count} 100`, preserveAspectRatio: "none", "aria-hidden": "true" });
    const bar = (place) => {
      const height = Math.max((100 * weights[place]) / WHOLE, 1);
      return `M${place} 100v${-height}h${count > 60 ? 1 : 0.86}v${height}z`;
    };
    const level = 100 - 100 / (count * clip.largest_weight);
    const here = drawing("path", { class: "here" });
    svg.append(
      drawing("path", { class: "weights", d: Array.from(weights, (_, place) => bar(place)).join("") }),
      here,
      drawing("line", { class: "uniform", x1: 0, x2: count, y1: level, y2: level }),
    );
    svg.addEventListener("click", (event) => {
      const box = svg.getBoundingClientRect();
      const place = ((event.clientX - box.left) / box.width) * count - 0.5;
      const distances = clip.places.map((p) => Math.abs(p - place));
      go(distances.indexOf(Math.min(...distances)));
    });
    const text =
      `How much each of the ${count} scored frames weighs in the answer: ` +
      `at most ${percent(clip.largest_weight)}; the dashed line is an equal share.`;
    return {
      mark: (frame) => here.setAttribute("d", bar(clip.places[frame])),
      weightOf: (frame) => (weights[clip.places[frame]] / WHOLE) * clip.largest_weight,
      node: element("div", { class: "player-weights" }, svg, element("p", {}, text)),
    };
  }

  return function lusPlayer(strip, name, facts = "") {
    const clip = JSON.parse(strip.querySelector("script").textContent);
    const sheet = strip.querySelector("img");
    const count = clip.places.length;
    const rate = Math.round(Math.min(Math.max(count / LOOP, 2), 8));
    const scale = SIDE / Math.max(clip.width, clip.height);
    const [width, height] = [Math.round(clip.width * scale), Math.round(clip.height * scale)];
    const paint = clip.masks ? painter(clip, width, height) : null;
    const plain = canvas(width, height);
    const masked = paint ? canvas(width, height) : null;
    const pictures = [plain, masked].filter(Boolean);
    for (const picture of pictures) {
      picture.setAttribute("role", "img");
      picture.getContext("2d").imageSmoothingQuality = "high";
    }
    let frame = 0;
    let timer = null;
    let covered = true;

    const play = element("button", { type: "button", class: "player-play" }, "Play");
    const seek = element("input", { type: "range", class: "player-seek", min: 0, max: count - 1, value: 0, "aria-label": "Frame" });
    const mask = element("button", { type: "button", class: "player-mask", "aria-pressed": "true" }, "Mask");
    const opacity = element("input", { type: "range", class: "player-opacity", min: 0, max: 100, value: 100, "aria-label": "Opacity of the mask, percent" });
    const where = element("output", { class: "player-where" });
    const weighed = clip.weights ? timeline(clip, go) : null;

    function draw() {
      const cell = clip.cells[frame];
      const x = (cell % clip.columns) * clip.width;
      const y = Math.floor(cell / clip.columns) * clip.height;
      for (const picture of pictures) {
        const pen = picture.getContext("2d");
        pen.globalAlpha = 1;
        pen.drawImage(sheet, x, y, clip.width, clip.height, 0, 0, width, height);
      }
      if (masked && covered) {
        const pen = masked.getContext("2d");
        pen.globalAlpha = opacity.value / 100;
        pen.drawImage(paint(frame), 0, 0);
      }
      const number = `frame ${clip.numbers[frame]}`;
      const share = weighed ? `, weight ${percent(weighed.weightOf(frame))}` : "";
      where.textContent = `${number}${share}`;
      seek.value = frame;
      seek.setAttribute("aria-valuetext", `${number}, ${frame + 1} of ${count}${share}`);
      plain.setAttribute("aria-label", `${name}, ${number}`);
      masked?.setAttribute("aria-label", `${name}, ${number}${covered ? " under its attention mask" : ""}`);
      if (weighed) weighed.mark(frame);
    }

    function go(wanted) {
      frame = (wanted + count) % count;
      draw();
    }

    function toggle(on) {
      clearInterval(timer);
      timer = on ? setInterval(() => (player.isConnected ? go(frame + 1) : toggle(false)), 1000 / rate) : null;
      play.textContent = on ? "Pause" : "Play";
    }

    function cover(on) {
      covered = on;
      mask.setAttribute("aria-pressed", String(on));
      opacity.disabled = !on;
      draw();
    }

    const said = [
      `The model scored ${clip.scored} of the video’s ${clip.length} frames; ` +
        `${count < clip.scored ? `${count} of them, evenly spread,` : "all of them"} are here, ` +
        `played at ${rate} a second.`,
      clip.note,
    ];
    const bar = element("div", { class: "player-bar" }, play, seek, where);
    const covers = paint
      ? element(
          "div",
          { class: "player-bar" },
          mask,
          opacity,
          element("span", { class: "player-scale", "aria-hidden": "true" }, "0", element("i"), "1"),
        )
      : "";
    const keys = "Arrow keys: frame by frame. Space: play or pause. M: mask.";
    const player = element(
      "div",
      { class: "player", role: "group", "aria-label": `Player of ${name}` },
      element("div", {}, element("div", { class: "player-stage" }, ...pictures), bar, covers, weighed ? weighed.node : ""),
      element("div", { class: "player-facts" }, facts, element("p", { class: "player-note" }, `${said.join(" ")} ${keys}`)),
    );
    play.addEventListener("click", () => toggle(timer === null));
    seek.addEventListener("input", () => {
      toggle(false);
      go(Number(seek.value));
    });
    mask.addEventListener("click", () => cover(!covered));
    opacity.addEventListener("input", draw);
    player.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const steps = { ArrowLeft: frame - 1, ArrowRight: frame + 1, Home: 0, End: count - 1 };
      if (event.key in steps && event.target !== opacity) {
        toggle(false);
        go(steps[event.key]);
      } else if (event.key === " " && event.target.tagName !== "BUTTON") {
        toggle(timer === null);
      } else if (event.key.toLowerCase() === "m" && paint) {
        cover(!covered);
      } else {
        return;
      }
      event.preventDefault();
    });
    player.start = () => seek.focus();
    sheet.decode().then(draw, () => (where.textContent = "The frames cannot be shown."));
    return player;
  };
})();
