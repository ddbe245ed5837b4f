"use strict";
// Order and filter the cards of questions; without a script all of them are shown in the first order.
(() => {
  const cards = document.getElementById("cards");
  const order = document.getElementById("order");
  const filter = document.getElementById("filter");
  const count = document.getElementById("count");
  const update = () => {
    const column = order ? Number(order.value) : 0;
    const label = filter ? filter.value : "";
    const all = [...cards.children];
    const key = (card) => Number((card.dataset.keys || "").split(" ")[column] || 0);
    all.sort((a, b) => key(a) - key(b)).forEach((card) => {
      card.hidden = label !== "" && !card.dataset.labels.split(" ").includes(label);
      cards.append(card);
    });
    const visible = all.filter((card) => !card.hidden).length;
    if (count) count.textContent = `${visible} of ${all.length} shown`;
  };
  if (cards && (order || filter)) {
    for (const control of [order, filter]) if (control) control.addEventListener("change", update);
    update();
  }
  // Printed pages show what is folded.
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
})();
