"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const galleries = read("galleries"), outcomes = read("outcomes"), themes = read("themes");
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // ---- tables ----

  const NUMBERS = { nan: NaN, inf: Infinity };
  const key = (cell) => cell.dataset.key in NUMBERS ? NUMBERS[cell.dataset.key] : Number(cell.dataset.key);

  function compareWords(x, y) {
    for (let place = 0; place < Math.min(x.length, y.length); place++) {
      const [p, q] = [x[place], y[place]], numbers = Number(p) - Number(q);
      const order = Number.isNaN(numbers) ? p.localeCompare(q, "en", { numeric: true }) : numbers;
      if (order) return order;
    }
    return x.length - y.length;
  }

  function compare(column, numeric, sign) {
    return (a, b) => {
      const [x, y] = [a.cells[column], b.cells[column]];
      if (!numeric) return sign * compareWords(x.dataset.key.split(" "), y.dataset.key.split(" "));
      const [p, q] = [key(x), key(y)];
      if (Number.isNaN(p) || Number.isNaN(q)) return Number.isNaN(p) - Number.isNaN(q);  // what is missing comes last
      return p === q ? 0 : sign * (p < q ? -1 : 1);
    };
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const rows = [...body.rows];
      const numeric = rows.every((row) => row.cells[column].matches(".number"));
      const now = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", now);
      body.append(...rows.sort(compare(column, numeric, now === "ascending" ? 1 : -1)));
    }));
  }

  function has(text, wanted) {
    return wanted.toLowerCase().split(/\s+/).every((word) => text.toLowerCase().includes(word));
  }

  for (const box of document.querySelectorAll(".table")) {
    const input = box.querySelector("input[type=search]");
    if (!input) continue;
    const rows = [...box.querySelector("tbody").rows], count = box.querySelector(".count");
    input.addEventListener("input", () => {
      for (const row of rows) row.hidden = !has(row.textContent, input.value);
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
    });
  }

  // ---- a client and its characters ----

  function glyph(writer, place) {
    const size = 36, image = element("i");
    image.style.backgroundImage = `url(data:image/png;base64,${writer.strip})`;
    image.style.backgroundSize = `${writer.labels.length * size}px ${size}px`;
    image.style.backgroundPosition = `${-place * size}px 0`;
    const [label, before, after] = ["labels", "before", "after"].map((name) => writer[name][place]);
    const said = (text) => element("span", { class: text === label ? "right" : "wrong" }, text);
    const caption = element("span");
    if (before === label && after === label) caption.append(said(label));
    else caption.append(said(before), "→", said(after));
    if (before !== label && after !== label) caption.append(` (${label})`);
    const title = `${label}: read as ${before} before and ${after} after personalization`;
    image.setAttribute("role", "img");
    image.setAttribute("aria-label", title);
    return element("span", { class: "glyph", title }, image, caption);
  }

  function characters(writer, most) {
    const found = element("div");
    outcomes.forEach((outcome, number) => {
      const places = writer.outcomes.flatMap((of, place) => of === number ? [place] : []).slice(0, most);
      if (!places.length) return;
      const all = writer.counts[outcome];
      const text = places.length < all ? `${outcome}: ${places.length} of ${all}` : `${outcome}: ${all}`;
      found.append(element("div", { class: "glyphs" }, element("span", {}, text), ...places.map((p) => glyph(writer, p))));
    });
    return found;
  }

  function card([run, client, examples, initial, personalized], { metric, sign }) {
    const gain = sign * (personalized - initial), signed = (gain < 0 ? "" : "+") + gain.toFixed(3);
    const made = [
      element("h4", {}, client),
      element("p", {}, `${examples} train examples, ${metric} ${initial.toFixed(3)} → ${personalized.toFixed(3)} (${signed})`),
      element("p", { class: "note" }, run),
    ];
    const writers = galleries[run]?.writers ?? {};
    if (Object.hasOwn(writers, client)) made.push(characters(writers[client], 16));
    return made;
  }

  // ---- figures ----

  const drawn = new Set();
  const coarse = matchMedia("(pointer: coarse)").matches;
  const settings = {
    responsive: true,
    displaylogo: false,
    displayModeBar: coarse ? false : "hover",
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
  };

  function theme(layout) {
    const narrow = innerWidth < 640;
    return {
      ...layout,
      template: themes[dark.matches ? "dark" : "light"],
      dragmode: coarse ? false : "zoom",
      legend: { orientation: "h", y: narrow ? -0.35 : -0.2, ...layout.legend },
    };
  }

  function draw(figure) {
    if (drawn.has(figure)) return;
    drawn.add(figure);
    const plot = figure.querySelector(".plot"), data = JSON.parse(figure.querySelector(".data").textContent);
    figure.spec = data;
    choose(figure, data);
    Plotly.newPlot(plot, data.data, theme(data.layout), settings)
      .then(() => watchClients(figure, plot, data));
  }

  function choose(figure, data) {
    const inputs = [...figure.querySelectorAll(".choice input")];
    if (!inputs.length) return;
    const wanted = new Set(inputs.filter((input) => input.checked).map((input) => input.value));
    for (const trace of data.data) if (trace.meta?.choice !== undefined) trace.visible = wanted.has(trace.meta.choice);
  }

  function watchClients(figure, plot, data) {
    const place = figure.querySelector(".card"), select = figure.querySelector(".client select");
    const clients = data.layout.meta?.clients;
    if (!place || !clients) return;
    let kept = null;
    const show = (number) => place.replaceChildren(...(number === null ? [] : card(clients[number], data.layout.meta)));
    select.append(...clients.map(([run, client], number) => element("option", { value: number }, `${client} (${run})`)));
    select.addEventListener("change", () => show(kept = select.value === "" ? null : Number(select.value)));
    plot.on("plotly_hover", ({ points: [point] }) => point.customdata && show(point.customdata[0]));
    plot.on("plotly_unhover", () => { if (kept !== null) show(kept); });
    plot.on("plotly_click", ({ points: [point] }) => {
      if (!point.customdata) return;
      kept = point.customdata[0];
      select.value = kept;
      show(kept);
    });
  }

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "600px" });

  for (const figure of document.querySelectorAll(".figure")) {
    near.observe(figure);
    const chooser = figure.querySelector(".chooser");
    const redraw = () => {
      if (!drawn.has(figure)) return;
      choose(figure, figure.spec);
      Plotly.react(figure.querySelector(".plot"), figure.spec.data, theme(figure.spec.layout));
    };
    chooser?.addEventListener("change", redraw);
    chooser?.querySelector("input[type=search]")?.addEventListener("input", ({ target }) => {
      for (const label of chooser.querySelectorAll(".choice")) label.hidden = !has(label.textContent, target.value);
    });
    for (const [name, checked] of [["all", true], ["none", false]])
      chooser?.querySelector(`.${name}`)?.addEventListener("click", () => {
        for (const label of chooser.querySelectorAll(".choice:not([hidden])")) label.querySelector("input").checked = checked;
        redraw();
      });
    figure.querySelector("button.svg").addEventListener("click", ({ target }) => {
      element("a", { href: figure.querySelector(".print").src, download: target.dataset.name }).click();
    });
  }

  dark.addEventListener("change", () => {
    for (const figure of drawn) Plotly.react(figure.querySelector(".plot"), figure.spec.data, theme(figure.spec.layout));
  });

  // ---- writers ----

  const run = document.getElementById("gallery-run"), filter = document.getElementById("gallery-filter");

  function showWriters() {
    const { writers, order, source } = galleries[run.value];
    document.getElementById("gallery-source").textContent = `Data: ${source}.`;
    document.getElementById("gallery").replaceChildren(...order
      .filter((client) => has(client, filter.value))
      .map((client) => element("article", { class: "writer" }, element("h3", {}, client), characters(writers[client], 24))));
  }

  if (run) {
    run.addEventListener("change", showWriters);
    filter.addEventListener("input", showWriters);
    showWriters();
  }
})();
