// Words show where was looked, sliders walk from picture to picture, commands are copied, files that are too large
// are refused. All listeners are on the document, since results come and go.
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

  // Before gradio sees it: its own check speaks of bytes, in a corner of the page.
  const refused = (files) => {
    const refusal = document.querySelector("[data-most-bytes]");
    const tooLarge = files.some((file) => file.size > Number(refusal?.dataset.mostBytes ?? Infinity));
    refusal?.toggleAttribute("hidden", !tooLarge);
    document.querySelector(".t2i-wrong")?.classList.toggle("t2i-hidden", tooLarge);
    return tooLarge;
  };
  for (const kind of ["change", "drop"]) {
    const listen = (event) => {
      const { target, dataTransfer } = event;
      const files = [...((dataTransfer ?? target).files ?? [])];
      if (!files.length || !refused(files)) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      if (kind === "change") target.value = ""; // the same file again is a change again
      else target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
    };
    document.addEventListener(kind, listen, true);
  }
  const clipboard = navigator.clipboard; // none where a page is not of this machine and not https
  const read = clipboard?.read?.bind(clipboard);
  if (read) {
    clipboard.read = async () => {
      const items = await read();
      const pictures = items.flatMap((item) =>
        item.types.filter((type) => type.startsWith("image/")).map((type) => item.getType(type))
      );
      return refused(await Promise.all(pictures)) ? [] : items;
    };
  }

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
