// The page of a run: the sheets' slider, values on charts, and parts that renew themselves while the run goes on.
const RENEWED_EVERY = 5;  // seconds
const [WIDTH, TOP, BOTTOM] = [3000, 50, 1050];  // CHART of judge/page.py
const SILENCE = 20;  // times the usual pause between two renewals, after which a run seems to have stopped

const sections = () => [...document.querySelectorAll("main > section")];
const players = new Map();  // by section
let chosenSheet = null;  // its number; null: always the newest

function mount(section) {
  const root = section.querySelector(".player");
  if (root) players.set(section.id, new Player(root, players.get(section.id)));
  if (section.querySelector(".sheets")) mountSheets(section);
  section.querySelectorAll(".chart svg").forEach(mountChart);
}

function mountSheets(section) {
  const bar = section.querySelector(".sheets"), slider = bar.querySelector("[data-do=sheet]");
  const all = JSON.parse(bar.dataset.sheets), unit = bar.dataset.unit;
  const show = (index, chosen) => {
    index = Math.max(0, Math.min(all.length - 1, index));
    if (chosen) chosenSheet = index === all.length - 1 ? null : all[index][0];
    const [number, url] = all[index], picture = section.querySelector("img");
    slider.value = index;
    slider.setAttribute("aria-valuetext", `${unit} ${number}`);
    bar.querySelector("output").textContent = `${unit} ${number}`;
    if (picture.getAttribute("src") !== url) picture.src = picture.parentNode.href = url;
    picture.alt = picture.alt.replace(/of \S+ \d+/, () => `of ${unit} ${number}`);
    for (const neighbour of [index - 1, index + 1]) if (all[neighbour]) new Image().src = all[neighbour][1];
    markCharts(number);
  };
  slider.addEventListener("input", () => show(+slider.value, true));
  bar.querySelector("[data-do=previous]").addEventListener("click", () => show(+slider.value - 1, true));
  bar.querySelector("[data-do=following]").addEventListener("click", () => show(+slider.value + 1, true));
  const kept = all.findIndex(sheet => sheet[0] === chosenSheet);
  show(kept < 0 ? all.length - 1 : kept, false);
}

function markCharts(number) {  // all charts tell their value at an epoch
  for (const chart of document.querySelectorAll(".chart")) {
    const [first, last] = JSON.parse(chart.dataset.x), x = WIDTH * (number - first) / Math.max(last - first, 1e-9);
    markChart(chart, Math.max(0, Math.min(WIDTH, x)));
  }
}

function markChart(chart, x) {
  const points = chart.querySelector("polyline").getAttribute("points").split(" ").map(point => point.split(",").map(Number));
  const nearest = points.reduce((best, point) => Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best);
  const [[first, last], [low, high]] = [JSON.parse(chart.dataset.x), JSON.parse(chart.dataset.y)];
  const share = (BOTTOM - nearest[1]) / (BOTTOM - TOP);
  const value = JSON.parse(chart.dataset.log) ? low * (high / low) ** share : low + (high - low) * share;
  const line = chart.querySelector(".cursor");
  line.setAttribute("x1", nearest[0]);
  line.setAttribute("x2", nearest[0]);
  const epoch = Math.round(first + (last - first) * nearest[0] / WIDTH);
  chart.querySelector("output").textContent = `${epoch}: ${+value.toPrecision(3)}`;
}

function mountChart(svg) {
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), x = WIDTH * (event.clientX - box.left) / box.width;
    for (const chart of document.querySelectorAll(".chart")) markChart(chart, x);
  });
}

function mountNav() {
  const links = sections().filter(section => section.innerHTML.trim()).map(section => {
    const link = document.createElement("a");
    link.href = `#${section.id}`;
    link.textContent = section.querySelector("h2").textContent;
    return link;
  });
  document.querySelector("nav").replaceChildren(...links);
}

// --- renewal: page_parts.js, included again and again, calls renew(parts) with the HTML of every part

const news = { pauses: [], written: 0, count: 0 };

function renew(parts) {
  for (const [id, { version, html }] of Object.entries(parts)) {
    const part = document.getElementById(id);
    if (!part || part.dataset.version === version) continue;
    part.dataset.version = version;
    replace(part, html);
  }
  mountNav();
}

function replace(part, html) {
  const open = [...part.querySelectorAll("details[open]")].map(each => each.id);
  const focused = part.contains(document.activeElement) && document.activeElement.dataset.do;
  part.innerHTML = html;
  for (const each of part.querySelectorAll("details")) each.open = open.includes(each.id);
  if (part.id !== "state") mount(part);
  if (focused) part.querySelector(`[data-do="${focused}"]`)?.focus({ preventScroll: true });
}

function tellState() {
  const state = document.querySelector("#state p"), written = +state.dataset.written;
  const finished = JSON.parse(state.dataset.finished), time = state.querySelector("time");
  time.textContent = new Date(1000 * written).toLocaleString();
  if (written !== news.written) {
    if (news.written) {
      news.pauses.push(written - news.written);
      news.count += 1;
    }
    news.written = written;
  }
  const usual = Math.max(30, ...news.pauses.slice(-5)), silent = Date.now() / 1000 - written;
  let told = news.count ? `renewed ${news.count} time${news.count > 1 ? "s" : ""} since it was opened` : "renews itself";
  if (silent > SILENCE * usual) told = "no news for long: the run may have been stopped; the same command goes on";
  if (finished) told = "";
  state.querySelector(".news").textContent = told;
  return finished;
}

function fetchParts() {  // a script may be included from disk where nothing else may be fetched
  const script = document.createElement("script");
  script.src = `page_parts.js?${Date.now()}`;
  const done = () => {
    script.remove();
    if (!tellState()) setTimeout(fetchParts, 1000 * RENEWED_EVERY);
  };
  script.onload = script.onerror = done;
  document.head.append(script);
}

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, textarea")) return;
  const button = { p: "previous", n: "following" }[event.key];
  if (button) document.querySelector(`[data-do=${button}]`)?.click();
});

sections().forEach(mount);
mountNav();
if (!tellState()) fetchParts();
