// The drawing page. It holds the strokes that are being drawn; examples and models are the server's (server.py).
"use strict";

const $ = (id) => document.getElementById(id);
const INK = "#fff";
const INK_SENT = "#777";
const PEN_SHARE = 0.045; // of the pad's side
const LOOK_AFTER_MS = 150;
const MOST_BYTES = 4 * 1024 * 1024;

let run = null; // what GET /api/run answers
let state = null; // the newest Visitor.state
let strokes = []; // of the drawing on the pad: lists of [x, y], as shares of its side
let seen = null; // what both models say of that drawing, if they have been asked
let sent = false; // whether it has been labelled: the next stroke begins another one
let stroke = null; // the stroke that the pointer is drawing
let prompted = true; // whether characters are asked for
let place = 0; // in the prompt
let sending = false;
let lookTimer = 0;

// ---- the server

async function call(path, body, type = "application/json") {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": type },
    body: type === "application/json" ? JSON.stringify(body) : body,
  };
  let response;
  try {
    response = await fetch(`/api/${path}`, options);
  } catch {
    throw new Error("The server does not answer: is it still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function say(text, wrong = false) {
  $("message").textContent = text;
  $("message").classList.toggle("wrong", wrong);
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    say(error.message, true);
  }
}

// ---- the pad

const pad = $("pad");
const pen = pad.getContext("2d");

function drawLine(points) {
  const side = pad.width;
  pen.strokeStyle = pen.fillStyle = sent ? INK_SENT : INK;
  pen.lineWidth = PEN_SHARE * side;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  const [x, y] = points[0];
  if (points.length === 1) {
    pen.arc(x * side, y * side, pen.lineWidth / 2, 0, 2 * Math.PI);
    pen.fill();
    return;
  }
  pen.moveTo(x * side, y * side);
  for (const [toX, toY] of points.slice(1)) pen.lineTo(toX * side, toY * side);
  pen.stroke();
}

function redraw() {
  pen.clearRect(0, 0, pad.width, pad.height);
  strokes.forEach(drawLine);
}

function pointOf(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
    .map((share) => Math.round(10000 * Math.min(1, Math.max(0, share))) / 10000);
}

function addPoint(point) {
  const [x, y] = stroke.points[stroke.points.length - 1];
  if (Math.hypot(point[0] - x, point[1] - y) < 0.004) return; // the pen has not moved a tenth of a pixel of the image
  stroke.points.push(point);
  drawLine(stroke.points.slice(-2));
}

pad.addEventListener("pointerdown", (event) => {
  if (stroke || event.button !== 0) return;
  event.preventDefault();
  document.activeElement.blur(); // keys are the drawing's now
  pad.setPointerCapture(event.pointerId);
  if (sent) clear();
  clearTimeout(lookTimer);
  stroke = { pointer: event.pointerId, points: [pointOf(event)] };
  strokes.push(stroke.points);
  drawLine(stroke.points);
});

pad.addEventListener("pointermove", (event) => {
  if (!stroke || event.pointerId !== stroke.pointer) return;
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const each of events.length ? events : [event]) addPoint(pointOf(each));
});

for (const name of ["pointerup", "pointercancel"]) {
  pad.addEventListener(name, (event) => {
    if (!stroke || event.pointerId !== stroke.pointer) return;
    stroke = null;
    lookSoon();
    showControls();
  });
}

function clear() {
  strokes = [];
  seen = null;
  sent = false;
  clearTimeout(lookTimer);
  redraw();
  showControls();
}

function undoStroke() {
  if (sent || stroke || !strokes.length) return;
  strokes.pop();
  seen = null;
  redraw();
  showControls();
  if (strokes.length) lookSoon();
}

// ---- looking and labelling

function lookSoon() {
  clearTimeout(lookTimer);
  lookTimer = setTimeout(() => attempt(look), LOOK_AFTER_MS);
}

async function look() {
  const [drawing, count] = [strokes, strokes.length];
  const answer = await call("look", { strokes });
  if (strokes !== drawing || strokes.length !== count || sent || stroke) return; // the pen went on meanwhile
  seen = answer;
  showSeen();
  say("");
}

async function label(character) {
  if (sending || sent || stroke || !strokes.length) return;
  const begun = performance.now();
  const drawing = strokes;
  sending = sent = true;
  clearTimeout(lookTimer);
  redraw();
  showControls();
  try {
    const guessed = seen && seen.personalized[0].label;
    const answer = await call("examples", { strokes, label: character });
    const forgotten = answer.state.examples <= state.examples;
    state = answer.state;
    if (prompted) place = (place + 1) % run.prompt.length;
    if (strokes === drawing) {
      seen = answer;
      showSeen();
    }
    showState();
    requestAnimationFrame(() => performance.measure("correction", { start: begun }));
    if (forgotten) say("The server has forgotten your earlier examples, because it had too many visitors.", true);
    else say(report(answer, guessed));
  } catch (error) {
    sent = strokes !== drawing && sent;
    redraw();
    say(error.message, true);
  } finally {
    sending = false;
    showControls();
  }
}

function report(answer, guessed) {
  const is = `${named(answer.label).replace(/^./, (first) => first.toUpperCase())}. `;
  if (answer.was_held_back) return `${is}This example is held back: it tests both models, and neither trains on it.`;
  const { label: now, probability } = answer.personalized[0];
  if (now !== answer.label) return `${is}The model has been fine-tuned and still sees ${now}: more examples help.`;
  const learnt = guessed && guessed !== now ? `learnt it and now sees ${now}` : `sees ${now}`;
  return `${is}The model has been fine-tuned: it ${learnt}, ${percent(probability)}.`;
}

function named(character) {
  if (/[0-9]/.test(character)) return `digit ${character}`;
  return character === character.toUpperCase() ? `capital ${character}` : `small ${character}`;
}

const percent = (share) => `${Math.round(100 * share)} %`;

// ---- what is shown

function showSeen() {
  const bytes = Uint8Array.from(atob(seen.image), (byte) => byte.charCodeAt(0));
  const picture = $("seen").getContext("2d").createImageData(28, 28);
  bytes.forEach((value, i) => picture.data.set([value, value, value, 255], 4 * i));
  $("seen").getContext("2d").putImageData(picture, 0, 0);
  for (const name of ["initial", "personalized"]) {
    $(`${name}-answer`).textContent = seen[name][0].label;
    $(`${name}-bars`).replaceChildren(...seen[name].map(bar));
  }
  const guesses = [...seen.personalized.slice(0, 4), ...seen.initial.slice(0, 4)].map((guess) => guess.label);
  const focused = $("guesses").contains(document.activeElement);
  $("guesses").replaceChildren(...[...new Set(guesses)].map(choice));
  if (focused) $("guesses").firstChild.focus();
  showControls();
}

function bar({ label: character, probability }) {
  const row = document.createElement("li");
  const [name, meter, share] = ["span", "meter", "span"].map((tag) => document.createElement(tag));
  name.className = "name";
  name.textContent = character;
  meter.value = probability;
  meter.setAttribute("aria-hidden", "true");
  share.className = "share";
  share.textContent = percent(probability);
  row.append(name, meter, share);
  return row;
}

function choice(character) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = character;
  button.setAttribute("aria-label", `It is a ${named(character)}`);
  button.addEventListener("click", () => label(character));
  return button;
}

function showControls() {
  const ready = strokes.length > 0 && !sent && !sending;
  const answer = prompted ? run && run.prompt[place] : seen && seen.personalized[0].label;
  $("done").disabled = !ready || !answer;
  $("done").firstChild.textContent = prompted ? "Done " : answer && ready ? `It is a ${answer} ` : "Right ";
  $("clear").disabled = !strokes.length;
  $("undo-stroke").disabled = !strokes.length || sent;
  $("skip").hidden = !prompted;
  for (const button of document.querySelectorAll("#guesses button, #all button")) button.disabled = !ready;
  $("mode-prompt").setAttribute("aria-pressed", String(prompted));
  $("mode-free").setAttribute("aria-pressed", String(!prompted));
  if (!run) return;
  const title = prompted ? ["Draw a ", strong(run.prompt[place]), ` ${named(run.prompt[place])}, ${place + 1} of ${run.prompt.length}`] : ["Draw any character"];
  const text = title.map((part) => part.textContent || part).join("");
  if ($("pad-title").textContent !== text) $("pad-title").replaceChildren(...title);
}

function strong(text) {
  const element = document.createElement("strong");
  element.textContent = text;
  return element;
}

function showState() {
  const { examples, train, held_back: held } = state;
  const parts = examples ? ` ${train} to learn from, ${held} held back` : ` of at most ${run.most_examples}`;
  $("examples").replaceChildren(String(examples), small(parts));
  for (const name of ["initial", "personalized"]) {
    const right = state[`${name}_right`];
    $(`${name}-accuracy`).replaceChildren(...(held ? [percent(right / held), small(` ${right} of ${held}`)] : ["–"]));
  }
  for (const id of ["undo", "save", "forget"]) $(id).disabled = !examples;
  charts.curve($("curve"), state);
  if (run.writers) charts.gains($("gains"), run.writers.gains, state, run.fewest_to_compare);
  $("compared").textContent = run.writers ? compared() : "";
}

function small(text) {
  const element = document.createElement("small");
  element.textContent = text;
  return element;
}

function compared() {
  const writers = run.writers.gains.length;
  const left = run.fewest_to_compare - state.held_back;
  if (left > 0) return `You are compared with ${writers} writers once ${left} more ${left === 1 ? "example is" : "examples are"} held back.`;
  const gain = Math.round((100 * (state.personalized_right - state.initial_right)) / state.held_back);
  const those = state.gained_more_than === 1 ? "any" : percent(state.gained_more_than);
  return `You gained ${gain < 0 ? "−" : "+"}${Math.abs(gain)} points: more than ${those} of the run’s ${writers} held-out writers.`;
}

// ---- buttons and keys

function mode(asked) {
  prompted = asked;
  showControls();
}

function finish() {
  if (prompted) label(run.prompt[place]);
  else if (seen) label(seen.personalized[0].label);
}

async function change(path, body, type) {
  state = await call(path, body, type);
  clear();
  showState();
}

async function loadFile(file) {
  $("file").value = "";
  if (file.size > MOST_BYTES) throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB: at most 4 are read.`);
  say(`Reading ${file.name} and learning from it …`);
  await change("archive", file, "application/octet-stream");
  say(`${file.name}: ${state.examples} examples.`);
}

$("mode-prompt").addEventListener("click", () => mode(true));
$("mode-free").addEventListener("click", () => mode(false));
$("clear").addEventListener("click", clear);
$("undo-stroke").addEventListener("click", undoStroke);
$("skip").addEventListener("click", () => {
  place = (place + 1) % run.prompt.length;
  showControls();
});
$("done").addEventListener("click", finish);
$("undo").addEventListener("click", () => attempt(async () => {
  await change("undo", {});
  say("Your last example is removed.");
}));
$("forget").addEventListener("click", () => attempt(async () => {
  if (!confirm(`Forget all ${state.examples} examples?`)) return;
  await change("forget", {});
  place = 0;
  showControls();
  say("Forgotten.");
}));
$("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = "/api/archive";
  link.download = "my_handwriting.npz";
  link.click();
});
$("load").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) attempt(() => loadFile(file));
});

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.metaKey || event.isComposing || event.repeat) return;
  const onControl = event.target.closest("button, summary, input");
  if (event.ctrlKey) {
    if (event.key === "z") undoStroke();
  } else if (event.key === "Escape") clear();
  else if (event.key === "Backspace") undoStroke();
  else if (event.key === "Enter" && !onControl) finish();
  else if (run && run.classes.includes(event.key)) label(event.key);
});

attempt(async () => {
  [run, state] = await Promise.all([call("run"), call("state")]);
  $("about").textContent = `Run ${run.name}: ${run.method}, round ${run.round}, on ${run.source}. Your model: ${run.strategy}, ${run.epochs} epochs, from the initial model.`;
  $("rule").textContent = `Of every ${run.hold_back.of} examples of a character the second is held back for testing; the others train.`;
  $("all").replaceChildren(...run.classes.map(choice));
  $("writers").hidden = !run.writers;
  showControls();
  showState();
});
