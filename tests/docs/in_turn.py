"""Runs programs and relin's commands one after another in this process: jobs as JSON on standard input.

A job has a folder to run in, perhaps with `files`, and `code`, or the `arguments` of `relin` or of a `file`; an end has
the exit code and what was said.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

from relin.cli import main
from relin.report import _figures, _style

_figures.PNG_DPI, _style.PDF_FONT_TYPE = 30, 3  # quickly drawn


def work(job):
    if "code" in job:
        exec(compile(job["code"], job["name"], "exec"), {"__name__": "__main__"})
        return
    sys.argv = [job.get("file", "relin"), *job.get("arguments", [])]
    if "file" in job:
        sys.path[:1] = [os.path.dirname(job["file"])]  # as Python does for a script
        runpy.run_path(job["file"], run_name="__main__")
    else:
        main()


def ended(job):
    os.makedirs(job["folder"], exist_ok=True)
    os.chdir(job["folder"])
    for name, text in job.get("files", {}).items():
        Path(name).write_text(text, encoding="utf-8")
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            work(job)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


print(json.dumps([ended(job) for job in json.load(sys.stdin)]))
