// Sorts and filters the table of runs, copies and saves tables and figures. The page reads without it.
(() => {
  const table = document.getElementById("table-of-runs");
  const form = document.querySelector("form.filter");
  const more = document.querySelector(".more");
  const said = form.querySelector("output");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  let rows = [...table.tBodies].flatMap((part) => [...part.rows]).map((row) => ({ row, text: "" }));
  let limit = Number(table.dataset.shown);

  function show() {
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = form.elements.state.value;
    const found = rows.filter((one) => {
      one.text ||= one.row.textContent.toLowerCase();
      return words.every((word) => one.text.includes(word)) && (!state || stateOf(one.row) === state);
    });
    body.replaceChildren(...found.slice(0, limit).map((one) => one.row));
    const n = (count) => count.toLocaleString("en");
    said.value = found.length === rows.length ? `${n(rows.length)} runs` : `${n(found.length)} of ${n(rows.length)} runs`;
    more.hidden = found.length <= limit;
    if (!more.hidden) said.value += `, the first ${n(limit)} shown`;
  }

  const stateOf = (row) => row.querySelector(".state").textContent;

  // A number where the cell begins with one; nothing known comes last in either direction.
  function key(row, column) {
    const cell = row.cells[column];
    const text = cell.textContent.trim();
    if (text === "-" || text === "") return null;
    const number = parseFloat(cell.dataset.v ?? text);
    return heads[column].classList.contains("num") && !Number.isNaN(number) ? number : text;
  }

  function sort(column) {
    const down = heads[column].getAttribute("aria-sort") === "ascending";
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = new Intl.Collator("en", { numeric: true });
    const keyed = rows.map((one) => ({ one, key: key(one.row, column) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      const less = typeof a.key === "number" && typeof b.key === "number" ? a.key - b.key : order.compare(a.key, b.key);
      return down ? -less : less;
    });
    rows = keyed.map(({ one }) => one);
    show();
  }

  heads.forEach((head, column) => {
    if (head.tagName !== "TH") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.firstElementChild.addEventListener("click", () => {
    limit = Infinity;
    show();
  });
  form.hidden = false;
  table.tBodies[1]?.remove();
  show();
})();

(() => {
  const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");

  // Rows of text, a cell for every column that another spans; what opens on demand is left out.
  function grid(table) {
    const rows = [...table.rows].map(() => []);
    [...table.rows].forEach((row, y) => {
      let x = 0;
      for (const cell of row.cells) {
        while (rows[y][x] !== undefined) x += 1;
        const text = cell.querySelector("[popover]") ? "" : cell.textContent.trim().replace(/\s+/g, " ");
        for (let dy = 0; dy < cell.rowSpan && y + dy < rows.length; dy += 1)
          for (let dx = 0; dx < cell.colSpan; dx += 1) rows[y + dy][x + dx] = dy || dx ? "" : text;
      }
    });
    return rows;
  }

  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = (table) => grid(table).map((row) => row.map(quoted).join(",")).join("\n") + "\n";
  const tsv = (table) => grid(table).map((row) => row.join("\t")).join("\n") + "\n";

  // A figure by itself, in the colors of the light page.
  function svg(drawn) {
    const rules = [...document.styleSheets[0].cssRules].filter((rule) => rule.selectorText === ":root");
    const color = (name) => rules.map((rule) => rule.style.getPropertyValue(name).trim()).find(Boolean);
    const copy = drawn.cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("color", "#000000");
    copy.setAttribute("fill", "#000000");
    copy.setAttribute("style", "stroke-linejoin: round; background: #ffffff");
    return copy.outerHTML.replace(/var\((--[\w-]+)\)/g, (_, name) => color(name)).replaceAll("currentColor", "#000000");
  }

  function save(name, url) {
    const link = document.createElement("a");
    link.download = name;
    link.href = url;
    link.click();
  }

  const saveText = (name, text, type) => {
    const url = URL.createObjectURL(new Blob([text], { type }));
    save(name, url);
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };

  async function copy(button, text) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed here";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }

  function tools(place, label, buttons) {
    const bar = document.createElement("p");
    bar.className = "tools";
    for (const [text, act] of buttons) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.setAttribute("aria-label", `${text}: ${label}`);
      button.addEventListener("click", () => act(button));
      bar.append(button);
    }
    place.after(bar);
  }

  for (const place of document.querySelectorAll("#tables .scroll, #runs .scroll")) {
    const table = place.querySelector("table");
    const label = place.getAttribute("aria-label").replace("Table: ", "");
    tools(place, label, [
      ["Copy", (button) => copy(button, tsv(table))],
      ["CSV", () => saveText(`${slug(label)}.csv`, csv(table), "text/csv")],
    ]);
  }
  for (const place of document.querySelectorAll("figure .scroll")) {
    const drawn = place.querySelector("svg, img");
    const label = place.getAttribute("aria-label").replace("Figure: ", "");
    const act = drawn.matches("svg")
      ? ["SVG", () => saveText(`${slug(label)}.svg`, svg(drawn), "image/svg+xml")]
      : ["PNG", () => save(`${slug(label)}.png`, drawn.src)];
    tools(place, label, [act]);
  }
})();
