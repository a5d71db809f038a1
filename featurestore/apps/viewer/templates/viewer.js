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
