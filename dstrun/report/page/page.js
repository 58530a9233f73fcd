// Sorts and filters the table of runs. The page reads without it.
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

  const stateOf = (row) => row.cells[2].firstElementChild.textContent;

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
