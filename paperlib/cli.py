"""The command line: run, reproduce, keep, report, claims, doctor. Heavy libraries are imported only by the command that needs them."""

import argparse
import json
import os
import sys
from typing import Any, NoReturn

from paperlib.errors import InputError

EXIT_FAILED, EXIT_BAD_INPUT = 1, 2

DESCRIPTION = "Reproduce and audit the appendices of S3Delta, LeTS and DPS."
EPILOG = """exit codes: 0 done; 1 something ran and failed; 2 bad input, nothing was changed; 130 interrupted

examples:
  paperlib doctor
  paperlib reproduce laptop
  paperlib reproduce glue --source directory --data ~/data --only dps/a_case_study --jobs 2
  paperlib run lets/a1_metrics
  paperlib claims --json"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    try:
        given = _parser().parse_args(arguments)
        return given.command(given)
    except InputError as error:
        print(f"paperlib: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("paperlib: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, say) has gone; that is its business.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    form = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = _Parser(prog="paperlib", description=DESCRIPTION, epilog=EPILOG, **form)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="execute one notebook",
        **form,
        description="Execute one notebook with strict parameters; its record is left under results/.",
        epilog="examples:\n  paperlib run runs/finetune -p task rte -p method dps_dense -p seed 3\n"
        "  paperlib run s3delta/c1_binary_concrete -p draws 200000",
    )
    run.add_argument("notebook", help="id of the notebook: its path below notebooks/ without .ipynb")
    run.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter, VALUE as YAML"
    )
    run.add_argument("--json", default="{}", metavar="OBJECT", help="parameters as one JSON object")
    run.add_argument(
        "--threads", type=_count, default=0, metavar="N", help="CPU threads of the kernel (default: all cores)"
    )
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    run.set_defaults(command=_run)

    reproduce = commands.add_parser(
        "reproduce",
        help="execute a profile's grid and render the report",
        **form,
        description="Execute every run and section of a profile that has no record yet, then render the report.",
        epilog="examples:\n  paperlib reproduce laptop\n  paperlib reproduce laptop --only dps/a_case_study --jobs 2\n"
        "  paperlib reproduce glue --source directory --data ~/data --backbone minilm\n"
        "  paperlib reproduce cost --list | sh      # one after another, where Snakemake is not installed",
    )
    reproduce.add_argument("profile", help="a name in parameters/profiles/")
    reproduce.add_argument(
        "--only", action="append", default=[], metavar="SECTION", help="this section alone (may be repeated)"
    )
    reproduce.add_argument(
        "--jobs", type=_count, default=0, metavar="N", help="notebooks at a time (default: one per core, or per GPU)"
    )
    reproduce.add_argument(
        "--source", default="", choices=("", "hub", "directory", "diagnostics"), help="where rows come from"
    )
    reproduce.add_argument(
        "--data", default="", metavar="DIR", help="folder with glue/, superglue/, nli/ (for --source directory)"
    )
    reproduce.add_argument(
        "--backbone", default="", metavar="NAME", help="a named backbone, a local folder or a hub id"
    )
    reproduce.add_argument(
        "--grid", default="local", metavar="NAME", help="a Snakemake profile in parameters/grid/ (local, slurm)"
    )
    reproduce.add_argument(
        "--list",
        action="store_true",
        help="print the paperlib run commands of what has no record, a line each; run none",
    )
    reproduce.set_defaults(command=_reproduce)

    keep = commands.add_parser(
        "keep",
        help="keep records of runs at real size in the repository",
        **form,
        description="Copy records to results/reference/, where section pages show them, named as such, on machines without a GPU. "
        "A record must belong to a commit.",
        epilog="examples:\n  paperlib reproduce cost && paperlib keep cost\n"
        "  paperlib keep runs/footprint -p backbone bert-large-config",
    )
    keep.add_argument("names", nargs="+", metavar="NAME", help="a profile, or a notebook")
    keep.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="only records with this value, as YAML",
    )
    keep.set_defaults(command=_keep)

    report = commands.add_parser(
        "report", help="render the report again", description="Render what has been executed to reports/index.html."
    )
    report.set_defaults(command=_report)

    claims = commands.add_parser(
        "claims",
        help="every claim with its verdict",
        description="Every claim of the three appendices with its verdict.",
    )
    claims.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    claims.set_defaults(command=_claims)

    doctor = commands.add_parser(
        "doctor",
        help="what this machine has and what each profile needs",
        description="Check Python, packages, "
        "device, precision, memory, disk, sources and backbones, and what each profile needs and costs.",
    )
    doctor.set_defaults(command=_doctor)
    return parser


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _run(given: argparse.Namespace) -> int:
    from paperlib import runs

    try:
        print(runs.execute(given.notebook, _values(given.json, given.p), given.threads, progress=not given.quiet))
    except runs.RunFailed as error:
        print(f"paperlib: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _values(text: str, pairs: list[list[str]]) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--json cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise InputError("--json takes an object such as '{\"seed\": 1}'")
    return values | {name: _value(name, text) for name, text in pairs}


def _value(name: str, text: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"-p {name}: {text!r} is not YAML ({getattr(error, 'problem', error)}); quote it") from None
    try:
        # YAML reads 1e-4 as text; a number is what is meant.
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _reproduce(given: argparse.Namespace) -> int:
    from paperlib import plan

    chosen = plan.make(given.profile, given.source, given.data, given.backbone)
    for section in given.only:
        chosen.section_job(section)
    sections = given.only or chosen.sections()
    return _list(chosen, sections) if given.list else _execute(chosen, sections, given)


def _execute(chosen, sections: list[str], given: argparse.Namespace) -> int:
    from paperlib import grid

    jobs = given.jobs or grid.slots()
    failed = grid.reproduce(chosen, sections, jobs, given.grid)
    reasons, bad_input = grid.reasons(failed)
    _render(chosen)
    for reason, times in reasons.items():
        print(f"paperlib: {reason}" + (f" ({times} times)" if times > 1 else ""), file=sys.stderr)
    return (EXIT_BAD_INPUT if bad_input else EXIT_FAILED) if failed else 0


def _list(chosen, sections: list[str]) -> int:
    from paperlib import records

    for job in chosen.unfinished(sections):
        print(records.command(job.notebook, job.parameters))
    return 0


def _keep(given: argparse.Namespace) -> int:
    from paperlib import keep

    for path in keep.keep(given.names, _values("{}", given.p)):
        print(f"kept: {path}")
    return 0


def _report(given: argparse.Namespace) -> int:
    from paperlib import plan

    _render(plan.last())
    return 0


def _render(chosen) -> None:
    from paperlib import pages

    print(f"report: {pages.render(chosen)}")


def _claims(given: argparse.Namespace) -> int:
    from paperlib import plan

    rows = plan.all_claims(plan.last())
    if given.json:
        print(json.dumps(rows, indent=1, allow_nan=False, ensure_ascii=False))
        return 0
    width = max(len(row["id"]) for row in rows)
    for row in rows:
        print(f"{row['id']:{width}}  {row['verdict']:10}  {row['what']}")
    return 0


def _doctor(given: argparse.Namespace) -> int:
    from paperlib import doctor

    return doctor.report()


if __name__ == "__main__":
    sys.exit(main())
