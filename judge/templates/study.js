// One pair after the other, in an order and on sides that are drawn anew for everybody.
const by = id => document.getElementById(id), random = n => crypto.getRandomValues(new Uint32Array(1))[0] % n;
const answers = [], buttons = [...document.querySelectorAll(".pair button")];
let order = PAIRS.map((pair, k) => k), now = null;

for (let k = order.length - 1; k > 0; k--) {  // Fisher and Yates
  const other = random(k + 1);
  [order[k], order[other]] = [order[other], order[k]];
}

const addresses = {};
function address(name) {
  if (!addresses[name]) {
    const bytes = Uint8Array.from(atob(FILMS[name]), letter => letter.charCodeAt(0));
    addresses[name] = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
  }
  return addresses[name];
}

function load(name) {
  const video = Object.assign(document.createElement("video"), { muted: true, loop: true, playsInline: true, preload: "auto" });
  const ready = new Promise((resolve, reject) => {
    video.oncanplaythrough = () => resolve(video);
    video.onerror = () => reject(new Error(`cannot play ${name}`));
  });
  video.src = address(name);
  return ready;
}

async function next() {
  if (answers.length === order.length) return finish();
  const pair = PAIRS[order[answers.length]], side = random(2) ? "left" : "right";
  by("where").textContent = `${answers.length + 1} of ${order.length}: look`;
  const [left, right] = await Promise.all((side === "left" ? [pair.real, pair.other] : [pair.other, pair.real]).map(load));
  document.documentElement.style.setProperty("--shape", `${left.videoWidth} / ${left.videoHeight}`);
  by("left").replaceChildren(left);
  by("right").replaceChildren(right);
  await Promise.all([left.play(), right.play()]);
  await new Promise(resolve => setTimeout(resolve, 1000 * SECONDS));
  by("left").replaceChildren();
  by("right").replaceChildren();
  if (!by("end").hidden) return;  // stopped meanwhile
  by("where").textContent = `${answers.length + 1} of ${order.length}: which one is real?`;
  now = { ...pair, side, asked: performance.now() };
  buttons.forEach(button => { button.disabled = false; });
}

function answer(choice) {
  if (!now) return;
  const { asked, ...pair } = now;
  answers.push({ ...pair, answer: choice, milliseconds: Math.round(performance.now() - asked) });
  now = null;
  buttons.forEach(button => { button.disabled = true; });
  next();
}

function finish() {
  by("trial").hidden = true;
  by("end").hidden = false;
  const id = [...crypto.getRandomValues(new Uint8Array(8))].map(byte => byte.toString(16).padStart(2, "0")).join("");
  const text = JSON.stringify({ study: STUDY, id, rater: by("rater").value, seconds: SECONDS, date: new Date().toISOString(), answers }, null, 1);
  document.querySelector("textarea").value = text;
  const link = by("save");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `answers-${id}.json`;
  link.click();
}

by("start").addEventListener("click", () => {
  by("intro").hidden = true;
  by("trial").hidden = false;
  next();
});
by("stop").addEventListener("click", finish);
buttons.forEach(button => button.addEventListener("click", () => answer(button.value)));
document.addEventListener("keydown", event => {
  const choice = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
  if (choice && now) answer(choice);
});
by("start").focus();
