// The two charts, as SVG: accuracy by number of train examples, and the gains of the held-out writers.
"use strict";

const charts = (() => {
  const [LEFT, RIGHT, TOP, BOTTOM] = [36, 306, 10, 172];
  const BIN = 0.05;

  function add(svg, tag, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    svg.append(element);
  }

  const whole = (share) => `${Math.round(100 * share)} %`;

  function curve(svg, state) {
    svg.replaceChildren();
    const held = state.held_back;
    const y = (share) => BOTTOM - share * (BOTTOM - TOP);
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      add(svg, "line", { class: "grid", x1: LEFT, x2: RIGHT, y1: y(share), y2: y(share) });
      add(svg, "text", { x: LEFT - 5, y: y(share) + 3.5, "text-anchor": "end" }, whole(share));
    }
    add(svg, "text", { x: (LEFT + RIGHT) / 2, y: 197, "text-anchor": "middle" }, "train examples");
    if (!held) {
      svg.setAttribute("aria-label", "No examples are held back yet");
      add(svg, "text", { x: (LEFT + RIGHT) / 2, y: 116, "text-anchor": "middle" }, "Begins with the first example that is held back");
      return;
    }
    const most = Math.max(1, state.curve[state.curve.length - 1].examples);
    const x = (examples) => LEFT + 6 + (Math.log2(1 + examples) / Math.log2(1 + most)) * (RIGHT - LEFT - 12);
    let free = 0; // where the next label has room
    for (const { examples } of [...state.curve].reverse()) {
      if (free && x(examples) > free - 20) continue;
      add(svg, "text", { x: x(examples), y: 185, "text-anchor": "middle" }, examples);
      free = x(examples);
    }
    const level = y(state.initial_right / held);
    add(svg, "path", { class: "initial", d: `M${LEFT} ${level}H${RIGHT}` });
    const points = state.curve.map(({ examples, right }) => [x(examples), y(right / held)]);
    add(svg, "path", { class: "personalized", d: `M${points.join("L")}` });
    for (const [cx, cy] of points) add(svg, "circle", { cx, cy, r: 3 });
    const words = state.curve.map(({ examples, right }) => `${whole(right / held)} with ${examples}`);
    svg.setAttribute("aria-label", `Accuracy on ${held} held-back examples by number of train examples: ${words.join(", ")}`);
  }

  function gains(svg, writers, state, fewest) {
    svg.replaceChildren();
    const yours = state.held_back >= fewest ? (state.personalized_right - state.initial_right) / state.held_back : null;
    const all = yours === null ? writers : [...writers, yours];
    const low = Math.floor(Math.min(-0.1, ...all) / 0.1 + 1e-6) * 0.1;
    const high = Math.ceil(Math.max(0.2, ...all) / 0.1 - 1e-6) * 0.1;
    const counts = new Array(Math.round((high - low) / BIN)).fill(0);
    for (const gain of writers) counts[Math.min(counts.length - 1, Math.floor((gain - low) / BIN + 1e-6))] += 1;
    const most = Math.max(...counts);
    const x = (gain) => LEFT + ((gain - low) / (high - low)) * (RIGHT - LEFT);
    const y = (count) => BOTTOM - (count / most) * (BOTTOM - TOP - 12);
    for (const count of new Set([0, Math.round(most / 2), most])) {
      add(svg, "line", { class: "grid", x1: LEFT, x2: RIGHT, y1: y(count), y2: y(count) });
      add(svg, "text", { x: LEFT - 5, y: y(count) + 3.5, "text-anchor": "end" }, count);
    }
    const width = x(low + BIN) - x(low);
    counts.forEach((count, i) => {
      if (count) add(svg, "rect", { class: "bar", x: x(low + i * BIN) + 0.75, y: y(count), width: width - 1.5, height: BOTTOM - y(count) });
    });
    const step = high - low > 1 ? 0.4 : high - low > 0.6 ? 0.2 : 0.1;
    for (let gain = Math.ceil(low / step - 1e-6) * step; gain < high + 1e-6; gain += step) {
      const points = Math.round(100 * gain);
      const text = points > 0 ? `+${points}` : `${points}`.replace("-", "−");
      add(svg, "text", { x: x(gain), y: 185, "text-anchor": "middle" }, text);
    }
    add(svg, "text", { x: (LEFT + RIGHT) / 2, y: 197, "text-anchor": "middle" }, "gain, points of accuracy; bars count writers");
    if (yours !== null) {
      add(svg, "line", { class: "you", x1: x(yours), x2: x(yours), y1: TOP, y2: BOTTOM });
      const left = x(yours) > RIGHT - 30;
      add(svg, "text", { class: "you-text", x: x(yours) + (left ? -5 : 5), y: TOP + 8, "text-anchor": left ? "end" : "start" }, "you");
    }
    svg.setAttribute("aria-label", `Gains of ${writers.length} held-out writers, from ${Math.round(100 * Math.min(...writers))} to ${Math.round(100 * Math.max(...writers))} points`);
  }

  return { curve, gains };
})();
