"""build.py MENU DIR: renders the menu of a small cafe into DIR."""

import pathlib
import sys

import jinja2
import yaml

menu, out = sys.argv[1], pathlib.Path(sys.argv[2])
templates = jinja2.Environment(loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"))
out.mkdir(parents=True, exist_ok=True)
page = templates.get_template("index.html").render(yaml.safe_load(open(menu)))
(out / "index.html").write_text(page)
print(f"wrote {out / 'index.html'}, {len(page)} characters")
