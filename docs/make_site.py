"""Make the documentation site in ``build/site``: ``make docs``.

The pages of ``docs`` and the README are copied to ``build/docs/pages`` with links that hold there, the reference is
made beside them, and Zensical builds them strictly. A new page in ``docs`` comes into the navigation by itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import tomlkit

from docs import reference

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"  # zensical.toml, and below it docs/pages, docs/env and site
PAGES = BUILD / "docs" / "pages"
SITE = BUILD / "site"
FILES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
COPIED = (".md", ".svg", ".png", ".sh")
GENERATED = {
    "commands.md": reference.cli_page,
    "recipe.md": reference.recipe_page,
    "python.md": reference.api_page,
    "errors.md": reference.errors_page,
    "plugin-names.md": reference.plugins_page,
}

# Pages whose place in the navigation is chosen; every other page of docs is one of the guides.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Start": ("index.md", "tutorial.md", "concepts.md", "howto.md", "sizing.md"),
    "Guides": (),
    "Reference": (
        *("commands.md", "recipe.md", "python.md", "errors.md", "exit-codes.md", "environment.md"),
        *("views.md", "format.md", "plugin-names.md"),
    ),
    "Project": ("architecture.md", "benchmarks.md", "reliability.md", "contributing.md", "changelog.md"),
}
LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
IN_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
HEADING = re.compile(r"^# (.+)$", re.MULTILINE)


def sources() -> dict[str, str]:
    """Return the path on the site of every file that is copied, by its path in the project."""
    files = [path for path in (ROOT / "docs").rglob("*") if path.suffix in COPIED]
    found = {path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix() for path in sorted(files)}
    return FILES | found


def pages() -> dict[str, str]:
    """Return the Markdown of every page of the site, by its path there."""
    places = sources()
    found = {place: _page(name, places) for name, place in places.items() if name.endswith(".md")}
    found["decisions/index.md"] = decisions_page(found)
    return found | {place: make() for place, make in GENERATED.items()}


def _page(name: str, places: Mapping[str, str]) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    pieces = IN_CODE.split(text)
    pieces[::2] = [LINK.sub(lambda link: link_on_site(link, name, places), piece) for piece in pieces[::2]]
    return "".join(pieces)


def link_on_site(link: re.Match[str], name: str, places: Mapping[str, str]) -> str:
    """Return a link as it holds on the site; one to a file that is not there is its text alone."""
    target, anchor = link["target"], link["anchor"] or ""
    if re.match(r"[a-z]+:", target):
        return link[0]
    path = PurePosixPath(os.path.normpath(PurePosixPath(name).parent / target)).as_posix()
    place = "decisions/index.md" if path == "docs/decisions" else places.get(path)
    if place is None:
        generated = path.removeprefix("docs/")
        place = generated if generated in GENERATED else None
    if place is None:
        return link["text"][1:-1] if (ROOT / path).exists() else link[0]
    return f"{link['text']}({os.path.relpath(place, PurePosixPath(places[name]).parent)}{anchor})"


def decisions_page(found: Mapping[str, str]) -> str:
    """Return the page that lists the decisions."""
    names = sorted(place for place in found if place.startswith("decisions/"))
    lines = [f"- [{title(found[place])}]({place.removeprefix('decisions/')})" for place in names]
    return (
        "# Decisions\n\nThe reasons for the design, each made once and on a page of its own.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def title(text: str) -> str:
    """Return a page's first heading."""
    found = HEADING.search(text)
    return found[1].replace("`", "") if found else "Untitled"


def navigation(found: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the sections with their pages: those that were placed, and all others as guides, by title."""
    placed = {place for chosen in SECTIONS.values() for place in chosen}
    decisions = sorted(place for place in found if place.startswith("decisions/") and place != "decisions/index.md")
    others = sorted(
        set(found) - placed - set(decisions) - {"decisions/index.md"}, key=lambda place: title(found[place])
    )
    sections: list[dict[str, Any]] = []
    for name, chosen in SECTIONS.items():
        places = [place for place in chosen if place in found] or others
        sections.append({name: [{title(found[place]): place} for place in places]})
    listed = [{"All": "decisions/index.md"}, *({title(found[place]): place} for place in decisions)]
    return [*sections, {"Decisions": listed}]


def configuration(found: Mapping[str, str]) -> dict[str, Any]:
    """Return what Zensical is told. The site asks nothing of the network: it has no fonts or scripts of others."""
    python = {
        "paths": [str(ROOT)],
        "options": {
            **{"docstring_style": "google", "inherited_members": True, "show_source": False, "filters": ["!^_"]},
            **{"show_root_heading": True, "show_root_full_path": False, "merge_init_into_class": True},
            **{"separate_signature": True, "show_signature_annotations": True, "members_order": "alphabetical"},
        },
    }
    palette = [
        {"media": "(prefers-color-scheme: light)", "scheme": "default", "toggle": _toggle("sun", "dark")},
        {"media": "(prefers-color-scheme: dark)", "scheme": "slate", "toggle": _toggle("moon", "light")},
    ]
    features = ["content.code.copy", "navigation.footer", "navigation.sections", "navigation.top", "search.highlight"]
    return {
        "project": {
            **{"site_name": "featurestore", "docs_dir": "docs/pages", "site_dir": "site"},
            **{"use_directory_urls": False, "nav": navigation(found)},
            "validation": {"invalid_links": True, "invalid_link_anchors": True},
            "theme": {"language": "en", "font": False, "features": features, "palette": palette},
            "plugins": {"search": {}, "mkdocstrings": {"handlers": {"python": python}}},
            "markdown_extensions": {
                **{"admonition": {}, "attr_list": {}, "tables": {}, "sane_lists": {}},
                **{"toc": {"permalink": True}, "pymdownx": {"superfences": {}, "highlight": {}}},
            },
        }
    }


def _toggle(icon: str, other: str) -> dict[str, str]:
    return {"icon": f"lucide/{icon}", "name": f"Switch to {other} mode"}


def write() -> None:
    """Write the pages, and what else the site is made of."""
    shutil.rmtree(PAGES, ignore_errors=True)
    found = pages()
    for place, text in found.items():
        path = PAGES / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name, place in sources().items():
        if not name.endswith(".md"):
            (PAGES / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, PAGES / place)
    (BUILD / "zensical.toml").write_text(tomlkit.dumps(configuration(found)), encoding="utf-8")


def main() -> None:
    """Write the pages and build the site. A link or a name that leads nowhere fails."""
    write()
    shutil.rmtree(SITE, ignore_errors=True)
    command = [str(BUILD / "docs" / "env" / "bin" / "zensical"), "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=BUILD, capture_output=True, text=True, check=False)
    if done.returncode:
        report = COLOURS.sub("", done.stdout + done.stderr).partition("Traceback")[0]
        sys.exit(
            f"{report}the site was not built: correct the pages that Zensical names; their paths are those of docs"
        )
    for page in SITE.rglob("*.html"):  # "Example::" before a block is reStructuredText, as docstrings have it
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace("::</p>", ":</p>"), encoding="utf-8")
    print(f"{SITE / 'index.html'}: {len(list(SITE.rglob('*.html')))} pages")


if __name__ == "__main__":
    main()
