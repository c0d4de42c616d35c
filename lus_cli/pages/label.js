"use strict";
// The page of lus label. Frames are JPEGs (see labelling/frames.py), decoded shortly before they are
// drawn, so that any frame can be shown exactly and a long video takes no more memory than a short one.
(() => {
  const SPEEDS = [0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4];
  const AHEAD = 12; // frames that are decoded before they are due
  const BITMAP_BYTES = 256e6; // of decoded frames that are kept
  const CLIPS = 6; // videos that are kept, at most
  const CLIP_BYTES = 600e6; // of the videos that are kept, at most
  const JUST_SHOWN_MS = 250; // a key that is pressed sooner was meant for the video before
  const RETRY_MS = 2000;

  const find = (id) => document.getElementById(id);
  const [picture, strip, seek, comment] = ["picture", "strip", "seek", "comment"].map(find);
  const context = picture.getContext("2d", { alpha: false });
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

  let state = null; // what the server told: ratings, about, ...
  let here = 0; // position of the video that is shown
  let clip = null; // its frames; null while they are loading
  let at = 0; // frame that is drawn
  let wanted = 0; // frame that was asked for, by a press
  let playing = false, direction = 1, shuttle = 1, carry = 0, lastTick = 0;
  let settling = 0; // timer of a video that has just appeared
  let speed = 1, brightness = 100, contrast = 100;
  const scored = []; // positions in the order in which they were scored

  // ------------------------------------------------------------------------------------- pictures

  class Clip {
    constructor(header, bytes, start) {
      Object.assign(this, header);
      this.bytes = bytes;
      this.starts = [];
      for (const size of header.sizes) { this.starts.push(start); start += size; }
      this.length = header.sizes.length;
      this.bitmaps = new Map(); // frame -> ImageBitmap, or its promise; used longest ago first
      this.room = Math.max(2 * AHEAD, Math.floor(BITMAP_BYTES / (4 * header.rows * header.columns)));
    }
    ready(frame) {
      const bitmap = this.bitmaps.get(frame);
      return bitmap instanceof ImageBitmap ? bitmap : null;
    }
    decode(frame) {
      let bitmap = this.bitmaps.get(frame);
      if (bitmap === undefined) {
        const start = this.starts[frame];
        const jpeg = new Blob([this.bytes.subarray(start, start + this.sizes[frame])], { type: "image/jpeg" });
        bitmap = createImageBitmap(jpeg).then((made) => {
          if (this.bitmaps.has(frame)) this.bitmaps.set(frame, made);
          return made;
        });
      } else this.bitmaps.delete(frame);
      this.bitmaps.set(frame, bitmap);
      if (this.bitmaps.size > this.room) this.drop(this.bitmaps.keys().next().value);
      return Promise.resolve(bitmap);
    }
    drop(frame) {
      const bitmap = this.bitmaps.get(frame);
      this.bitmaps.delete(frame);
      if (bitmap instanceof ImageBitmap && !(this === clip && frame === at)) bitmap.close();
    }
    release() { for (const frame of [...this.bitmaps.keys()]) this.drop(frame); }
  }

  const clips = new Map(); // position -> promise of a Clip; used longest ago first
  const sizes = new Map(); // position -> bytes of the clips that are loaded

  function load(position) {
    let coming = clips.get(position);
    if (coming) clips.delete(position);
    else {
      coming = fetchClip(position);
      coming.catch(() => clips.delete(position)); // so that the next visit tries again
    }
    clips.set(position, coming);
    forget(position);
    return coming;
  }

  function forget(used) {
    for (const [old, dropped] of clips) {
      const bytes = [...clips.keys()].reduce((sum, position) => sum + (sizes.get(position) ?? 0), 0);
      if (clips.size <= CLIPS && bytes <= CLIP_BYTES) return;
      if (old === here || old === used) continue;
      clips.delete(old);
      dropped.then((made) => made.release(), () => {});
    }
  }

  async function fetchClip(position) {
    const response = await fetch(`frames/${position}`);
    if (!response.ok) throw new Error(response.status === 422 ? "This video cannot be decoded." : "This video could not be loaded.");
    const bytes = new Uint8Array(await response.arrayBuffer());
    const size = new DataView(bytes.buffer).getUint32(0);
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size)));
    const made = new Clip(header, bytes, 4 + size);
    sizes.set(position, bytes.length);
    await made.decode(0);
    return made;
  }

  function draw(frame, bitmap) {
    context.drawImage(bitmap, 0, 0, picture.width, picture.height);
    at = frame;
    seek.value = frame;
    find("where").textContent = `frame ${frame + 1} of ${clip.length}`;
    picture.dataset.frame = frame;
  }

  const wrap = (frame) => ((frame % clip.length) + clip.length) % clip.length;

  async function goTo(frame) {
    setPlaying(false);
    if (!clip) return;
    const mine = clip;
    wanted = wrap(frame);
    const bitmap = await mine.decode(wanted);
    if (mine === clip && wrap(frame) === wanted) draw(wanted, bitmap);
  }

  function tick(now) {
    const passed = Math.min((now - lastTick) / 1000, 0.25);
    lastTick = now;
    if (playing && clip && clip.length > 1) {
      carry += passed * clip.rate * speed * shuttle;
      const steps = Math.floor(carry);
      const next = wrap(at + direction * Math.max(steps, 1));
      const bitmap = clip.ready(next);
      if (steps > 0 && bitmap) { draw(next, bitmap); wanted = next; carry -= steps; }
      else carry = Math.min(carry, 1); // it waits for the decoder, and leaves out no frame for it
      const coming = Math.min(AHEAD, clip.length - 1);
      for (let k = 1; k <= coming; k++) {
        const frame = wrap(at + direction * k);
        if (!clip.bitmaps.has(frame)) clip.decode(frame);
      }
    }
    requestAnimationFrame(tick);
  }

  function setPlaying(value, towards = 1, times = 1) {
    playing = value;
    direction = towards;
    shuttle = times;
    carry = 0;
    document.body.classList.toggle("playing", playing);
    showDials();
  }

  function shuttleTo(towards) {
    const again = playing && direction === towards;
    setPlaying(true, towards, again ? Math.min(shuttle * 2, 8) : 1);
  }

  // --------------------------------------------------------------------------------------- videos

  const isDone = (position) => state.ratings[position].score !== null || !state.ratings[position].assessable;

  function nextUnscored(from) {
    const total = state.ratings.length;
    for (let k = 1; k < total; k++) {
      const position = (from + k) % total;
      if (!isDone(position)) return position;
    }
    return -1;
  }

  async function show(position) {
    here = position;
    clip = null;
    clearTimeout(settling);
    document.body.classList.add("loading");
    document.body.classList.remove("broken", "ready");
    document.body.dataset.position = position;
    find("message").textContent = "";
    const slow = setTimeout(() => { if (here === position && !clip) find("message").textContent = "Loading …"; }, 150);
    showRating();
    try {
      const made = await load(position);
      if (here !== position) return;
      clip = made;
      const bitmap = await made.decode(0);
      if (clip !== made) return;
      [picture.width, picture.height] = [made.columns, made.rows];
      seek.max = made.length - 1;
      wanted = 0;
      draw(0, bitmap);
      find("message").textContent = "";
      document.body.classList.remove("loading");
      setPlaying(true);
      requestAnimationFrame(() => { if (clip === made) settle(); });
      for (const coming of [nextUnscored(position), position + 1, nextUnscored(nextUnscored(position))]) {
        if (coming >= 0 && coming < state.ratings.length) load(coming).catch(() => {});
      }
    } catch (error) {
      if (here !== position) return;
      document.body.classList.remove("loading");
      document.body.classList.add("broken");
      find("message").textContent = `${error.message} Press X if it is not assessable, or N to go on.`;
      settle();
    } finally { clearTimeout(slow); }
  }

  // From now on, and a moment later, a score is meant for this video.
  function settle() {
    clearTimeout(settling);
    settling = setTimeout(() => document.body.classList.add("ready"), JUST_SHOWN_MS);
  }

  // --------------------------------------------------------------------------------------- rating

  let sending = Promise.resolve(); // presses are sent one after the other
  const unsaved = []; // [position, rating] that the server has not confirmed
  let pressed = false; // whether there is anything to be saved

  function give(change, thenGoOn) {
    const position = here, rating = { ...state.ratings[position], ...change };
    state.ratings[position] = rating;
    pressed = true;
    unsaved.push([position, rating]);
    if (unsaved.length === 1) sending = sending.then(send);
    if (thenGoOn) {
      scored.push(position);
      if (!state.waits) {
        flash(`Video ${position + 1}: ${rating.assessable ? `score ${rating.score}` : "not assessable"}`);
        goOn(position);
        return;
      }
    }
    showRating();
  }

  async function send() {
    while (unsaved.length) {
      const [position, rating] = unsaved[0];
      showSaved();
      try {
        const response = await fetch("rate", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ position, ...rating }),
        });
        if (!response.ok) throw new Error((response.status === 507 && await response.text()) || `the server rejected it (${response.status})`);
        const answer = await response.json();
        unsaved.shift();
        state.about[position] = answer.about;
        alarm("");
        if (position === here) showRating(); else showSaved();
      } catch (error) {
        const reason = error instanceof TypeError ? "lus label is not running: start it again in the terminal and open its new address" : error.message;
        alarm(`Video ${position + 1} is NOT SAVED: ${reason}. Nothing else can be scored until it is saved; trying again …`);
        await new Promise((later) => setTimeout(later, RETRY_MS));
      }
    }
  }

  const alarmed = () => !find("alarm").hidden;

  function alarm(text) {
    find("alarm").textContent = text;
    find("alarm").hidden = !text;
  }

  function goOn(position) {
    const next = nextUnscored(position);
    if (next >= 0) show(next);
    else { showRating(); flash("All videos are scored"); }
  }

  function rate(change) {
    if (alarmed()) return;
    if (!document.body.classList.contains("ready")) {
      flash("Not scored: this video had only just appeared. Press again.");
      return;
    }
    give(change, true);
  }

  function toggle(name) {
    if (alarmed()) return;
    const next = new Map([[null, true], [true, false], [false, null]]);
    give({ [name]: next.get(state.ratings[here][name]) }, false);
  }

  // ------------------------------------------------------------------------------------ what shows

  function showRating() {
    const rating = state.ratings[here];
    find("place").textContent = `Video ${here + 1} of ${state.ratings.length}`;
    const done = state.ratings.filter((_, position) => isDone(position)).length;
    const left = state.ratings.length - done;
    find("count").textContent = left ? `${done} scored, ${left} left` : "all scored: press Ctrl-C in the terminal to end";
    for (let score = 0; score < 4; score++) press(`score${score}`, rating.score === score);
    press("unassessable", !rating.assessable);
    for (const name of ["a_lines", "b_lines"]) {
      const said = { true: "yes", false: "no", null: "–" }[rating[name]];
      find(name).textContent = said;
      find(name).parentElement.dataset.said = said;
    }
    if (document.activeElement !== comment) comment.value = rating.comment;
    if (state.review) showAbout();
    showSaved();
    drawStrip();
  }

  function press(action, value) {
    document.querySelector(`[data-do="${action}"]`).setAttribute("aria-pressed", value);
  }

  function showAbout() {
    const about = state.about[here];
    const lines = about ? [...about] : [["", "Shown once you have scored the video."]];
    if (about && state.waits) lines.push(["", "Press N or U to go on."]);
    find("about").replaceChildren(...lines.flatMap(([name, text]) => {
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      [term.textContent, value.textContent] = [name, text];
      if (!name) { term.hidden = true; value.style.gridColumn = "1 / -1"; }
      return [term, value];
    }));
  }

  function showSaved() {
    find("saved").textContent = unsaved.length ? "saving …" : pressed ? "saved" : "";
  }

  function showDials() {
    const shown = speed * shuttle;
    find("speed").textContent = `${playing && direction < 0 ? "−" : ""}${shown}×`;
    find("brightness").textContent = `${brightness} %`;
    find("contrast").textContent = `${contrast} %`;
    picture.style.filter = brightness === 100 && contrast === 100 ? "" : `brightness(${brightness}%) contrast(${contrast}%)`;
  }

  let fading = 0;
  function flash(text) {
    const box = find("flash");
    box.textContent = text;
    box.classList.add("on");
    clearTimeout(fading);
    fading = setTimeout(() => box.classList.remove("on"), 1600);
  }

  function drawStrip() {
    const width = strip.clientWidth * devicePixelRatio, height = 14 * devicePixelRatio;
    [strip.width, strip.height] = [width, height];
    const pen = strip.getContext("2d"), colours = getComputedStyle(document.body);
    const total = state.ratings.length, each = width / total;
    const gap = each > 4 * devicePixelRatio ? devicePixelRatio : 0;
    for (let position = 0; position < total; position++) {
      pen.fillStyle = colours.getPropertyValue(isDone(position) ? "--accent" : "--line");
      pen.fillRect(position * each, 0.3 * height, Math.max(each - gap, 0.5), 0.4 * height);
    }
    pen.fillStyle = colours.getPropertyValue("--second");
    const wide = Math.max(each - gap, 3 * devicePixelRatio);
    pen.fillRect(clamp((here + 0.5) * each - wide / 2, 0, width - wide), 0, wide, height);
  }

  // ----------------------------------------------------------------------------------------- keys

  const dial = (change) => () => { change(); showDials(); };
  const nearest = () => SPEEDS.reduce((best, one) => (Math.abs(one - speed) < Math.abs(best - speed) ? one : best));
  const speedBy = (steps) => dial(() => { speed = SPEEDS[clamp(SPEEDS.indexOf(nearest()) + steps, 0, SPEEDS.length - 1)]; });
  const score = (value) => () => rate({ score: value, assessable: true });
  const actions = {
    score0: score(0), score1: score(1), score2: score(2), score3: score(3),
    unassessable: () => rate({ score: null, assessable: false }),
    aLines: () => toggle("a_lines"),
    bLines: () => toggle("b_lines"),
    clear: () => { if (!alarmed() && isDone(here)) { give({ score: null, assessable: true }, false); flash(`Video ${here + 1} has no score now`); } },
    comment: () => comment.focus(),
    next: () => show((here + 1) % state.ratings.length),
    back: () => show((here + state.ratings.length - 1) % state.ratings.length),
    unscored: () => { const next = nextUnscored(here); if (next >= 0) show(next); else flash(isDone(here) ? "All videos are scored" : "Only this video has no score"); },
    undo: () => { const last = scored.pop(); if (last !== undefined) show(last); else flash("No video has been scored since the page was opened"); },
    play: () => setPlaying(!playing),
    playBack: () => shuttleTo(-1),
    pause: () => setPlaying(false),
    playOn: () => shuttleTo(1),
    frameBack: () => goTo(wanted - 1),
    frameOn: () => goTo(wanted + 1),
    first: () => goTo(0),
    last: () => goTo(-1),
    slower: speedBy(-1),
    faster: speedBy(1),
    darker: dial(() => { brightness = clamp(brightness - 10, 20, 400); }),
    brighter: dial(() => { brightness = clamp(brightness + 10, 20, 400); }),
    softer: dial(() => { contrast = clamp(contrast - 10, 20, 400); }),
    harder: dial(() => { contrast = clamp(contrast + 10, 20, 400); }),
    plain: dial(() => { [speed, brightness, contrast, shuttle] = [1, 100, 100, 1]; }),
    help: () => (find("keys").open ? find("keys").close() : find("keys").showModal()),
  };
  const KEYS = {
    a: "aLines", b: "bLines", c: "comment", x: "unassessable", n: "next", p: "back", u: "unscored", z: "undo",
    j: "playBack", k: "pause", l: "playOn", r: "plain", " ": "play", ",": "frameBack", ".": "frameOn",
    arrowleft: "frameBack", arrowright: "frameOn", home: "first", end: "last", arrowup: "brighter",
    arrowdown: "darker", "-": "slower", "+": "faster", "=": "faster", delete: "clear", "?": "help",
  };
  const SHIFTED = { arrowup: "harder", arrowdown: "softer" };
  const HELD = new Set(["frameBack", "frameOn", "brighter", "darker", "harder", "softer"]); // may be held down

  function actionOf(event) {
    // By place: with Num Lock off, the number pad types arrows, and on some keyboards digits need Shift.
    const digit = /^(?:Digit|Numpad)([0-3])$/.exec(event.code) ?? /^([0-3])$/.exec(event.key);
    if (digit) return `score${digit[1]}`;
    if (/^Numpad\d$/.test(event.code)) return null;
    const key = event.key.toLowerCase();
    return (event.shiftKey && SHIFTED[key]) || KEYS[key] || null;
  }

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || !state) return;
    if (event.target === comment) {
      if (event.key === "Escape") comment.value = state.ratings[here].comment;
      if (event.key === "Escape" || event.key === "Enter") { comment.blur(); event.preventDefault(); }
      return;
    }
    const action = actionOf(event);
    if (find("keys").open && action !== "help") return;
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || HELD.has(action)) actions[action]();
  }, true);

  // --------------------------------------------------------------------------------- mouse and touch

  for (const button of document.querySelectorAll("[data-do]")) {
    button.addEventListener("mousedown", (event) => { if (document.activeElement !== comment) event.preventDefault(); });
    button.addEventListener("click", () => { if (state) actions[button.dataset.do](); });
  }
  find("stage").addEventListener("click", () => actions.play());
  seek.addEventListener("input", () => goTo(Number(seek.value)));
  seek.addEventListener("change", () => seek.blur());
  strip.addEventListener("click", (event) => show(clamp(Math.floor((event.offsetX / strip.clientWidth) * state.ratings.length), 0, state.ratings.length - 1)));
  comment.addEventListener("change", saveComment);
  comment.addEventListener("blur", saveComment);

  function saveComment() {
    const text = comment.value.trim();
    if (state && text !== state.ratings[here].comment) give({ comment: text }, false);
  }

  addEventListener("resize", () => { if (state) drawStrip(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (state) drawStrip(); });
  addEventListener("beforeunload", (event) => { if (unsaved.length) event.preventDefault(); });

  async function start() {
    try {
      const response = await fetch("state");
      if (!response.ok) throw new Error(response.status);
      state = await response.json();
    } catch {
      alarm("lus label does not respond: start it again in the terminal and open its new address.");
      return;
    }
    requestAnimationFrame((now) => { lastTick = now; tick(now); });
    show(state.start);
  }
  start();
})();
