"use strict";
// The copy buttons: without this script they stay hidden, and the text can be selected.
for (const button of document.querySelectorAll("button.copy")) {
  const code = button.parentElement.querySelector("code");
  const label = button.firstChild;
  button.hidden = false;
  button.addEventListener("click", async () => {
    let done = true;
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      done = document.execCommand("copy");
    }
    label.data = done ? "Copied" : "Select it, and copy";
    setTimeout(() => { label.data = "Copy"; }, 2000);
  });
}
