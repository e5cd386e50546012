// Words show where was looked, sliders walk from picture to picture, commands are copied. All listeners are on the
// document, since results come and go.
(() => {
  const show = (result, word) => {
    for (const one of result.querySelectorAll("[data-word]")) {
      one.classList.toggle("t2i-on", one.dataset.word === word);
    }
  };

  const result = (target) => target.closest?.(".t2i-result");
  const hovered = (target) => target.closest?.(".t2i-word, .t2i-panel");

  for (const kind of ["mouseover", "focusin", "click"]) {
    document.addEventListener(kind, ({ target }) => {
      const word = hovered(target);
      if (word) show(result(word), word.dataset.word);
    });
  }
  document.addEventListener("mouseout", ({ target, relatedTarget }) => {
    const word = hovered(target);
    if (word && !word.contains(relatedTarget)) {
      const kept = hovered(document.activeElement); // what was tapped stays
      show(result(word), kept && result(kept) === result(word) ? kept.dataset.word : "");
    }
  });
  document.addEventListener("focusout", ({ target }) => {
    if (hovered(target)) show(result(target), "");
  });

  const step = (slider) => {
    const way = result(slider);
    const frames = [...way.querySelectorAll("[data-step]")];
    frames.forEach((frame) => frame.classList.toggle("t2i-on", frame.dataset.step === slider.value));
    way.querySelector(".t2i-step").textContent = Number(slider.value) + 1;
    way.querySelector("a[download]").href = frames[slider.value].src;
  };
  document.addEventListener("input", ({ target }) => {
    if (target.matches?.(".t2i-slider")) step(target);
  });

  const play = (shown, button) => {
    const words = [...shown.querySelectorAll(".t2i-word")];
    const next = (number) => {
      if (!shown.isConnected) return;
      const word = words[number];
      show(shown, word ? word.dataset.word : "");
      button.disabled = Boolean(word);
      if (word) setTimeout(next, 700, number + 1);
    };
    next(0);
  };

  document.addEventListener("click", async ({ target }) => {
    const button = target.closest?.("button");
    if (button?.matches(".t2i-play")) play(result(button), button);
    if (button?.matches(".t2i-copy")) {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        // Browsers keep the clipboard to themselves where a page is not of this machine and not https.
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    }
  });
})();
