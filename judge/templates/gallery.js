// The gallery: order, search, tiles that play, and two runs side by side.
const grid = document.querySelector("main"), tiles = [...document.querySelectorAll(".tile")];
const values = new Map(tiles.map(tile => [tile, JSON.parse(tile.dataset.values)]));
const words = new Map(tiles.map(tile => [tile, tile.textContent.toLowerCase()]));
const [sort, down, find] = ["sort", "down", "find"].map(id => document.getElementById(id));
const picked = [];

function arrange() {
  const sign = down.getAttribute("aria-pressed") === "true" ? -1 : 1;
  const order = (a, b) => {
    const [x, y] = [a, b].map(tile => values.get(tile)[sort.value]);
    if (x === y) return 0;
    if (x === undefined || y === undefined) return x === undefined ? 1 : -1;  // without a value: always last
    return sign * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
  };
  grid.append(...tiles.sort(order));
}

function search() {
  const wanted = find.value.toLowerCase().split(/\s+/);
  for (const tile of tiles) tile.hidden = !wanted.every(word => words.get(tile).includes(word));
  const shown = tiles.filter(tile => !tile.hidden).length;
  document.getElementById("count").textContent = shown < tiles.length ? `${shown} of ${tiles.length}` : "";
}

function play(tile, on) {
  const view = tile.querySelector(".view"), film = JSON.parse(tile.dataset.films).find(each => each.main);
  let video = view.querySelector("video");
  tile.querySelector(".go").setAttribute("aria-pressed", on);
  tile.querySelector(".go").textContent = on ? "Stop" : "Play";
  if (!on || !film) return video?.remove();
  if (video) return;
  video = Object.assign(document.createElement("video"), { src: film.url, muted: true, loop: true, playsInline: true });
  view.append(video);
  video.play().catch(() => {});
}

function pick(tile) {
  const at = picked.indexOf(tile);
  if (at >= 0) picked.splice(at, 1); else picked.push(tile);
  for (const each of tiles) {
    each.toggleAttribute("data-picked", picked.includes(each));
    each.querySelector(".pick").setAttribute("aria-pressed", picked.includes(each));
  }
  if (picked.length === 2) compare(...picked);
}

// --- two runs

const dialog = document.querySelector("dialog"), room = dialog.querySelector(".player"), empty = room.innerHTML;
let player = null;

function compare(first, second) {
  const name = tile => tile.querySelector("h2").textContent;
  dialog.querySelector("h2").textContent = `${name(first)} | ${name(second)}`;
  room.innerHTML = empty;
  const films = room.querySelector(".films");
  [first, second].forEach((tile, k) => {
    const shown = JSON.parse(tile.dataset.films);
    for (const film of shown) films.append(figure(film, `${k}-${film.name}`, `${name(tile)}: ${film.label}`));
    films.querySelectorAll(`[data-run="${k}"][data-main]`).forEach(each => { each.dataset.wipe = k ? "right" : "left"; });
    function figure(film, id, label) {
      const box = document.createElement("figure"), caption = document.createElement("figcaption");
      const media = document.createElement(film.still ? "img" : "video");
      Object.assign(box.dataset, { name: id, label, run: k, frames: film.frames, rate: film.rate, width: film.width, height: film.height });
      if (film.main) box.dataset.main = "";
      box.className = "film";
      Object.assign(media, { src: film.url, width: film.width, height: film.height });
      if (film.still) media.alt = label;
      else Object.assign(media, { muted: true, playsInline: true, preload: "none" }).setAttribute("aria-label", label);
      caption.textContent = label;
      box.append(media, caption);
      return box;
    }
  });
  dialog.showModal();
  player = new Player(room);
  Player.chosen = player;
  player.part("play").focus();
}

dialog.addEventListener("close", () => {
  player?.close();
  room.innerHTML = empty;
  picked.splice(0).forEach(tile => {
    tile.removeAttribute("data-picked");
    tile.querySelector(".pick").setAttribute("aria-pressed", false);
  });
});
dialog.querySelector(".close").addEventListener("click", () => dialog.close());

for (const tile of tiles) {
  const view = tile.querySelector(".view");
  view.addEventListener("pointerenter", event => { if (event.pointerType === "mouse") play(tile, true); });
  view.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") play(tile, false); });
  tile.querySelector(".go").addEventListener("click", event => play(tile, event.target.getAttribute("aria-pressed") !== "true"));
  tile.querySelector(".pick").addEventListener("click", () => pick(tile));
}
sort.addEventListener("change", arrange);
down.addEventListener("click", () => {
  down.setAttribute("aria-pressed", down.getAttribute("aria-pressed") !== "true");
  arrange();
});
find.addEventListener("input", search);
