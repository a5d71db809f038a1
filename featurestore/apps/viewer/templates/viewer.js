// The part of a page that shows a run at work: asked for again every two seconds while it can be seen.
const live = document.querySelector("[data-live]");
if (live) {
  setInterval(async () => {
    if (document.hidden) return;
    const gone = document.querySelector("#gone");
    try {
      const answer = await fetch(live.dataset.live);
      const text = await answer.text();
      if (answer.ok && text !== live.lastText) live.innerHTML = live.lastText = text;
      gone.textContent = answer.ok ? "" : "The viewer has no answer; load the page again.";
    } catch {
      gone.textContent = "The viewer has ended.";
    }
  }, 2000);
}
// The page that takes a picture to search for.
const drop = document.querySelector(".drop");
if (drop) {
  const said = document.querySelector("#searching");
  const results = document.querySelector("#results");
  const search = async (file) => {
    if (!file) return;
    said.textContent = "Searching…";
    results.replaceChildren();
    try {
      const answer = await fetch("/search", { method: "POST", body: file });
      const text = await answer.text();
      said.textContent = answer.ok ? "" : text;
      if (answer.ok) results.innerHTML = text;
    } catch {
      said.textContent = "The viewer has ended, or the file is too large for it.";
    }
  };
  drop.querySelector("input").addEventListener("change", (event) => search(event.target.files[0]));
  // The whole page takes it: a browser would leave the page for a file that is dropped beside the box.
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") search(event.dataTransfer.files[0]);
    });
  }
}
