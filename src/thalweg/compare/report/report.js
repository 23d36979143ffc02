// What the reader can change: methods, axes, seeds, the target, the hyper-parameter.
const whenChosen = (name, act) => document.querySelectorAll(`input[name="${name}"]`).forEach((input) => input.addEventListener("change", () => act(input.value)));
const whenTicked = (id, act) => { const box = byId(id); if (box) box.addEventListener("change", () => act(box.checked)); };

const slider = byId("target-slider"), exact = byId("target-number"), reachable = race.target.reachable;
const positionOf = (target) => {
  const first = reachable.findIndex((value) => !better(target, value));
  return first < 0 ? reachable.length - 1 : first;
};

const cell = (row, words, kind) => { const element = row.insertCell(); element.textContent = words; if (kind) element.className = kind; return element; };
const listTargets = () => {
  const all = arrivals().sort((a, b) => a.middle - b.middle || b.hits - a.hits), body = byId("target-rows"), fastest = all.length ? all[0].middle : NaN;
  const unit = state.axis === "seconds" ? "s" : UNITS[state.axis];
  byId("target-unit").textContent = `Median ${UNITS[state.axis]}`;
  body.replaceChildren();
  all.forEach(({ index, times, middle, hits }) => {
    const row = body.insertRow(), head = document.createElement("th"), interval = race.success[times.length][hits];
    head.scope = "row";
    head.append(document.querySelector(`.chip[data-method="${index}"] .method`).cloneNode(true));
    row.append(head);
    cell(row, `${hits} of ${times.length}`, "n");
    cell(row, `[${interval.map((end) => Math.round(100 * end)).join(", ")}] %`, "interval");
    cell(row, Number.isFinite(middle) ? show(middle, 3) : "∞", "n");
    cell(row, Number.isFinite(middle) && fastest > 0 ? `×${(middle / fastest).toFixed(2)}` : Number.isFinite(middle) ? "–" : "∞", "n");
  });
  const there = all.filter(({ middle }) => Number.isFinite(middle)), never = all.filter(({ hits }) => hits === 0), name = (one) => short(race.methods[one.index].name, 40);
  let words = `At ${race.labels.validation} ${show(state.target)}: `;
  if (!there.length) words += "no method gets there on half of its seeds.";
  else {
    const first = there.filter(({ middle }) => middle === fastest).map(name);
    words += `${first.slice(0, 3).join(" and ")}${first.length > 3 ? ` and ${first.length - 3} more` : ""} ${first.length > 1 ? "get" : "gets"} there first, after a median of ${show(fastest, 3)} ${unit}`;
    words += never.length ? `; ${never.length === 1 ? name(never[0]) : `${never.length} methods`} never ${never.length === 1 ? "gets" : "get"} there.` : ".";
  }
  byId("target-words").textContent = words;
};
const setTarget = (target, from) => {
  if (!Number.isFinite(target)) return;
  state.target = target;
  if (from !== slider) slider.value = positionOf(target);
  if (from !== exact) exact.value = Number(target.toPrecision(5));
  slider.setAttribute("aria-valuetext", `${race.labels.validation} ${show(target)}`);
  listTargets();
  refresh("target-chart");
};

const listHypers = () => {
  const select = byId("hyper"), names = Array.from(new Set(race.methods.flatMap((method) => method.axes.map((axis) => axis.name))));
  if (!select) return;
  names.sort((a, b) => (a === "lr" ? -1 : b === "lr" ? 1 : a.localeCompare(b)));
  names.forEach((name) => select.add(new Option(name, name)));
  const fill = () => {
    state.hyper = select.value;
    const home = byId("trials");
    charts.forEach((chart, id) => { if (id.startsWith("trials-")) { watcher.unobserve(chart.element); near.delete(id); charts.delete(id); } });
    home.replaceChildren();
    race.order.filter((index) => race.methods[index].axes.some((axis) => axis.name === state.hyper)).forEach((index) => {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption"), chart = document.createElement("div");
      const key = document.querySelector(`.chip[data-method="${index}"] .method`);
      if (key) caption.append(key.cloneNode(true)); else caption.textContent = race.methods[index].name;
      chart.id = `trials-${index}`; chart.className = "chart"; chart.setAttribute("role", "img");
      chart.setAttribute("aria-label", `Validation ${race.labels.validation} of every trial of ${race.methods[index].name} against ${state.hyper}`);
      figure.append(caption, chart); home.append(figure);
      addChart(chart.id, trialsChart(index));
      watcher.observe(chart);
    });
  };
  select.addEventListener("change", fill);
  fill();
};

const listLines = () => {
  const select = byId("line-from");
  if (!select) return;
  const starts = race.order.filter((index) => race.lines.some((line) => line.a === index || line.b === index));
  // With many methods there are lines from one of them alone.
  const common = starts.find((index) => race.lines.every((line) => line.a === index || line.b === index));
  const offered = common !== undefined && starts.length > 2 ? [common] : starts;
  offered.forEach((index) => select.add(new Option(short(race.methods[index].name, 40), index)));
  state.from = offered[0];
  select.addEventListener("change", () => { state.from = Number(select.value); refresh("between-chart"); });
  addChart("between-chart", betweenChart);
};

whenOpened(() => {
  document.querySelectorAll(".chip").forEach((chip) => chip.addEventListener("click", () => {
    const index = Number(chip.dataset.method), hide = chip.getAttribute("aria-pressed") === "true";
    if (hide) state.hidden.add(index); else state.hidden.delete(index);
    chip.setAttribute("aria-pressed", String(!hide));
    if (charts.has("target-chart")) listTargets();
    refresh("curve", "finals-chart", "target-chart", "tuning-chart", "between-chart");
  }));
  whenChosen("axis", (axis) => { state.axis = axis; if (charts.has("target-chart")) listTargets(); refresh("curve", "target-chart"); });
  whenChosen("series", (series) => { state.series = series; refresh("curve"); });
  whenChosen("paired", (answer) => { state.paired = answer === "yes"; refresh("finals-chart"); });
  whenTicked("log-y", (on) => { state.log = on; refresh("curve"); });
  whenTicked("band", (on) => { state.band = on; refresh("curve"); });
  whenTicked("seeds", (on) => { state.seeds = on; refresh("curve"); });
  if (byId("log-y")) byId("log-y").checked = state.log;
  addChart("curve", curveChart);
  addChart("finals-chart", finalsChart, () => 90 + (narrow() ? 36 : 44) * Math.max(2, shown().length));
  if (slider && reachable.length) {
    addChart("target-chart", targetChart);
    slider.addEventListener("input", () => setTarget(reachable[Number(slider.value)], slider));
    exact.addEventListener("change", () => setTarget(Number(exact.value), exact));
    byId("target-reset").addEventListener("click", () => setTarget(race.target.value, null));
    setTarget(race.target.value, null);
  }
  addChart("tuning-chart", tuningChart);
  listLines();
  watchAll();
  listHypers();
  // For tests and for the reader's console.
  window.thalweg = { race, state, charts, drawAll };
});
