// Draws every chart anew, so that it answers to the pointer, and ties the switches to them. Until a
// chart has drawn, and if it cannot, its picture stays.
(async () => {
  const views = new Map();
  for (const figure of document.querySelectorAll("figure.chart")) {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const options = { actions: false, renderer: "svg", mode: "vega-lite" };
    const { view } = await vegaEmbed(figure.querySelector(".live"), spec, options);
    figure.classList.add("drawn");
    views.set(figure, view);
  }
  for (const block of document.querySelectorAll(".charts")) {
    const drawn = [...block.querySelectorAll("figure.chart")].map((figure) => views.get(figure));
    for (const box of block.querySelectorAll("input[data-series]")) {
      const signal = `show_${box.dataset.series}`;
      const show = () => {
        for (const view of drawn) view.signal(signal, box.checked).runAsync();
      };
      box.addEventListener("change", show);
      show(); // a browser may have kept a switch as it was before a reload
    }
  }
  document.documentElement.classList.add("ready");
})();

// On paper nothing can be opened.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("figure.chart details, #receipt details")) {
    details.dataset.open = details.open;
    details.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const details of document.querySelectorAll("details[data-open]")) {
    details.open = details.dataset.open === "true";
  }
});
