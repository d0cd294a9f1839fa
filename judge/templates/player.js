// Films in step: every frame of a film is decoded once into one large canvas, and one clock says which frame all show.
// So all are on the same moment by construction, single frames and slow motion are exact, and a loop has no seam.
"use strict";

const MOST_PIXELS = 16e6;  // of one film's canvas: phones take no larger one
const ALL_PIXELS = 48e6;  // of all films of a player; larger films are kept at a smaller scale

function when(target, type) {  // the event has come; an error if the file cannot be read
  return new Promise((resolve, reject) => {
    target.addEventListener(type, resolve, { once: true });
    target.addEventListener("error", () => reject(new Error("cannot be read")), { once: true });
  });
}

class Film {
  // figure: holds a video (data-frames, data-rate, data-width, data-height) or a still picture, and gets a canvas
  constructor(figure, films) {
    const { name, frames, rate, width, height } = figure.dataset;
    Object.assign(this, { figure, name, frames: +frames, rate: +rate, width: +width, height: +height });
    this.media = figure.querySelector("video, img");
    this.source = this.media.currentSrc || this.media.src;
    this.have = new Uint8Array(this.frames);
    this.newest = -1;  // the last frame that came while it is played for the first time
    this.passed = this.broken = this.stopped = false;
    const budget = Math.min(MOST_PIXELS, ALL_PIXELS / films);
    this.scale = Math.min(1, Math.sqrt(budget / (this.width * this.height * this.frames)));
    this.w = Math.max(1, Math.floor(this.width * this.scale));
    this.h = Math.max(1, Math.floor(this.height * this.scale));
    this.columns = Math.max(1, Math.min(this.frames, Math.floor(4096 / this.w)));
    this.canvas = document.createElement("canvas");
    this.canvas.width = this.w;
    this.canvas.height = this.h;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", this.media.getAttribute("aria-label") || this.media.alt || name);
    this.pen = this.canvas.getContext("2d");
  }

  // Take over what an earlier film of the same source has decoded, or show that of the same name until this one has.
  inherit(old) {
    if (old.source === this.source && old.passed && !old.broken && old.w === this.w) {
      Object.assign(this, { atlas: old.atlas, have: old.have, passed: true, newest: this.frames - 1 });
    } else if (old.atlas && !old.broken) {
      this.previous = old;
    }
  }

  async load() {
    if (this.passed) return this.show();
    try {
      this.atlas = document.createElement("canvas");
      this.atlas.width = this.columns * this.w;
      this.atlas.height = Math.ceil(this.frames / this.columns) * this.h;
      this.ink = this.atlas.getContext("2d");
      if (this.media.tagName === "IMG") {
        if (!this.media.complete) await when(this.media, "load");
        if (!this.media.naturalWidth) throw new Error("no picture");
        this.store(0);
      } else {
        await this.decode();
      }
    } catch (error) {
      this.fail();
    }
    this.passed = true;
    this.previous = null;
  }

  async decode() {
    const video = this.media;
    video.removeAttribute("controls");
    video.loop = false;
    video.muted = true;
    video.preload = "auto";
    if (video.readyState < 2) {
      const ready = when(video, "loadeddata");
      video.load();
      await ready;
    }
    if (video.requestVideoFrameCallback) await this.playThrough(video);
    for (let k = 0; k < this.frames && !this.stopped; k++) {  // what was missed, one by one
      if (this.have[k]) continue;
      const there = when(video, "seeked");
      video.currentTime = (k + 0.5) / this.rate;
      await there;
      this.store(k);
    }
    video.removeAttribute("src");  // its decoder is not needed any more
    video.load();
  }

  async playThrough(video) {
    const grab = (now, frame) => {
      this.store(Math.round(frame.mediaTime * this.rate));
      if (!this.passed) video.requestVideoFrameCallback(grab);
    };
    video.requestVideoFrameCallback(grab);
    try {
      const ended = when(video, "ended").catch(() => {});
      const late = new Promise(resolve => setTimeout(resolve, 3000 * this.frames / this.rate + 5000));
      await video.play();
      await Promise.race([ended, late]);
    } catch (error) { /* the browser plays nothing by itself: frame by frame, then */ }
    if (video.error) throw video.error;
    this.passed = true;
    this.newest = this.frames - 1;
    video.pause();
  }

  store(k) {
    if (k < 0 || k >= this.frames || this.have[k]) return;
    this.ink.drawImage(this.media, k % this.columns * this.w, Math.floor(k / this.columns) * this.h, this.w, this.h);
    this.have[k] = 1;
    this.newest = Math.max(this.newest, k);
    this.fresh = true;
    this.show();
  }

  show() {  // in place of the video
    if (this.canvas.isConnected) return;
    this.media.hidden = true;
    this.media.after(this.canvas);
  }

  fail() {
    this.broken = true;
    this.figure.classList.add("broken");
  }

  at(seconds) {  // the number of the frame that is on at a moment
    return Math.floor(seconds * this.rate + 1e-6) % this.frames;
  }

  // Draw frame k, or the nearest one before it that has been decoded, into a rectangle of a canvas of any size.
  draw(pen, k, x = 0, y = 0, width = this.w, height = this.h) {
    if (!this.passed && this.previous) return this.previous.draw(pen, k % this.previous.frames, x, y, width, height);
    while (k > 0 && !this.have[k]) k--;
    if (!this.atlas || !this.have[k]) return false;
    const left = k % this.columns * this.w, top = Math.floor(k / this.columns) * this.h;
    pen.drawImage(this.atlas, left, top, this.w, this.h, x, y, width, height);
    return true;
  }
}

class Player {
  // root: an element with .film figures, and controls with data-do; old: the player whose place it takes
  constructor(root, old) {
    this.root = root;
    const figures = [...root.querySelectorAll(".film")];
    this.films = figures.map(figure => new Film(figure, figures.length));
    this.rate = Math.max(...this.films.map(film => film.rate));
    this.frames = Math.max(...this.films.map(film => Math.round(film.frames / film.rate * this.rate)));
    this.frame = 0;  // of the clock, with its fraction
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.speed = 1;
    this.loop = true;
    this.wiping = this.difference = false;
    this.split = 50;
    this.seams = 0;
    this.bind();
    if (old) this.takeOver(old);
    Player.all.push(this);
    this.update();
    requestAnimationFrame(now => this.tick(now));
    new IntersectionObserver((entries, observer) => {  // a film is decoded when it comes into sight
      if (!entries.some(entry => entry.isIntersecting)) return;
      observer.disconnect();
      this.films.forEach(film => film.load());
      this.started = true;
    }, { rootMargin: "300px" }).observe(root);
  }

  takeOver(old) {
    old.close();
    for (const name of ["playing", "speed", "loop", "wiping", "difference", "split"]) this[name] = old[name];
    this.frame = Math.min(old.frame, this.frames - 1);
    for (const film of this.films) {
      const before = old.films.find(other => other.name === film.name);
      if (before) film.inherit(before);
    }
    for (const side of ["left", "right"]) {
      if (this.films.some(film => film.name === old.pick(side).value)) this.pick(side).value = old.pick(side).value;
    }
  }

  close() {
    this.closed = true;
    this.films.forEach(film => { film.stopped = true; });
    Player.all = Player.all.filter(player => player !== this);
  }

  part(name) { return this.root.querySelector(`[data-do="${name}"]`); }
  pick(side) { return this.part(side); }

  bind() {
    const acts = {
      play: () => this.toggle(), back: () => this.step(-1), next: () => this.step(1), loop: () => this.cycle(),
      wipe: () => this.wipe(), swap: () => this.swap(),
    };
    for (const [name, act] of Object.entries(acts)) this.part(name).addEventListener("click", act);
    this.part("speed").addEventListener("change", event => { this.speed = +event.target.value; });
    this.part("seek").max = this.frames - 1;
    this.part("seek").addEventListener("input", event => this.seek(+event.target.value));
    this.part("split").addEventListener("input", event => this.divide(+event.target.value));
    this.part("difference").addEventListener("change", event => { this.difference = event.target.checked; this.again(); });
    const pickers = ["left", "right"].map(side => this.pick(side));
    for (const picker of pickers) {
      for (const film of this.films) picker.add(new Option(film.figure.dataset.label, film.name));
      picker.addEventListener("change", () => this.again());
    }
    const marked = name => this.films.findIndex(film => film.figure.dataset.wipe === name);
    pickers[0].selectedIndex = Math.max(0, marked("left"));
    pickers[1].selectedIndex = marked("right") >= 0 ? marked("right") : Math.min(1, this.films.length - 1);
    this.stage = this.root.querySelector(".stage");
    const drag = event => {
      const box = this.stage.getBoundingClientRect();
      if (event.buttons || event.type === "pointerdown") this.divide(100 * (event.clientX - box.left) / box.width);
    };
    this.stage.addEventListener("pointerdown", event => { this.stage.setPointerCapture(event.pointerId); drag(event); });
    this.stage.addEventListener("pointermove", drag);
    this.root.addEventListener("pointerdown", () => { Player.chosen = this; });
    this.root.addEventListener("focusin", () => { Player.chosen = this; });
  }

  toggle() {
    this.playing = !this.playing;
    if (this.playing && !this.loop && this.frame >= this.frames - 1) this.frame = 0;
    this.update();
  }
  step(by) {
    this.playing = false;
    this.seek((Math.floor(this.frame) + by + this.frames) % this.frames);
    this.update();
  }
  seek(frame) { this.frame = frame; this.again(); }
  cycle() { this.loop = !this.loop; this.update(); }
  slower() {
    const choices = this.part("speed");
    choices.selectedIndex = (choices.selectedIndex + 1) % choices.length;
    this.speed = +choices.value;
  }
  wipe() { this.wiping = !this.wiping; this.update(); }
  swap() {
    const [left, right] = [this.pick("left"), this.pick("right")];
    [left.selectedIndex, right.selectedIndex] = [right.selectedIndex, left.selectedIndex];
    this.again();
  }
  differ() { this.difference = !this.difference; this.update(); }
  divide(percent) { this.split = Math.max(0, Math.min(100, percent)); this.update(); }

  again() { this.shown = -1; }  // draw at the next tick, also if the frame is the same

  update() {  // controls say what is on
    const play = this.part("play");
    play.textContent = this.playing ? "Pause" : "Play";
    this.part("loop").setAttribute("aria-pressed", this.loop);
    this.part("wipe").setAttribute("aria-pressed", this.wiping);
    this.part("split").value = this.split;
    this.part("difference").checked = this.difference;
    this.part("speed").value = this.speed;
    this.root.querySelector(".wipe").hidden = !this.wiping;
    this.again();
  }

  tick(now) {
    if (this.closed) return;
    requestAnimationFrame(next => this.tick(next));
    const passed = Math.min(now - (this.last ?? now), 200) / 1000;
    this.last = now;
    const waiting = this.films.filter(film => !film.passed && !film.previous);
    if (!this.started) return;
    if (waiting.length) {  // all wait for the slowest one
      this.frame = Math.max(0, Math.min(...waiting.map(film => film.newest / film.rate * this.rate)));
    } else if (this.playing) {
      this.frame += passed * this.rate * this.speed;
      if (this.frame >= this.frames) this.turn();
    }
    const k = Math.floor(this.frame);
    const fresh = this.films.some(film => film.fresh);
    if (k !== this.shown || fresh) this.draw(k);
  }

  turn() {  // the end of the longest film
    if (this.loop) {
      this.frame %= this.frames;
      this.seams += 1;
    } else {
      this.frame = this.frames - 1;
      this.playing = false;
      this.update();
    }
  }

  draw(k) {
    this.shown = k;
    const seconds = k / this.rate;
    for (const film of this.films) {
      film.fresh = false;
      if (film.canvas.isConnected) film.draw(film.pen, film.at(seconds));
    }
    if (this.wiping) this.drawWipe(seconds);
    if (document.activeElement !== this.part("seek") || this.playing) this.part("seek").value = k;
    this.root.querySelector(".clock").textContent = `frame ${k + 1} of ${this.frames}`;
  }

  drawWipe(seconds) {
    const [a, b] = ["left", "right"].map(side => this.films.find(film => film.name === this.pick(side).value));
    const width = Math.max(a.w, b.w) * 2, height = Math.round(width * a.h / a.w), stage = this.stage;
    if (stage.width !== width || stage.height !== height) Object.assign(stage, { width, height });
    const pen = stage.getContext("2d"), x = Math.round(width * this.split / 100);
    pen.globalCompositeOperation = "source-over";
    a.draw(pen, a.at(seconds), 0, 0, width, height);
    pen.save();
    if (this.difference) {
      pen.globalCompositeOperation = "difference";  // black where they are equal
    } else {
      pen.beginPath();
      pen.rect(x, 0, width - x, height);
      pen.clip();
    }
    b.draw(pen, b.at(seconds), 0, 0, width, height);
    pen.restore();
    if (this.difference) return;
    pen.fillStyle = "white";
    pen.fillRect(x - 1, 0, 2, height);
  }
}
Player.all = [];

// Keys go to the player that was used last, or the first one.
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, textarea, input:not([type=range])")) return;
  const player = Player.all.includes(Player.chosen) ? Player.chosen : Player.all[0];
  if (!player) return;
  const [button, range] = [event.target.matches("button, a, summary"), event.target.matches("input")];
  const acts = {
    " ": !button && (() => player.toggle()), k: () => player.toggle(), l: () => player.cycle(),
    ArrowLeft: !range && (() => player.step(-1)), ArrowRight: !range && (() => player.step(1)),
    ",": () => player.step(-1), ".": () => player.step(1), s: () => player.slower(), w: () => player.wipe(),
    x: () => player.swap(), d: () => player.differ(),
    "[": () => player.divide(player.split - 5), "]": () => player.divide(player.split + 5),
  };
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
});
