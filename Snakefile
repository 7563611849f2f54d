# The grid: every target is a record, made by the runner. `paperlib reproduce` writes the jobs file and calls this with it;
# more machines: the same file with a cluster executor plugin (parameters/grid/slurm).
import json
import sys

with open(config["jobs"], encoding="utf-8") as file:
    JOBS = json.load(file)  # record path -> {"notebook", "parameters", "threads", "after": records it reads}

def job(wildcards):
    return JOBS[f"{wildcards.folder}/record.json"]

rule all:
    input: list(JOBS)

rule notebook:
    input: lambda wildcards: job(wildcards)["after"]
    output: "{folder}/record.json"
    log: "{folder}/log.txt"
    threads: lambda wildcards: job(wildcards)["threads"]
    params:
        notebook=lambda wildcards: job(wildcards)["notebook"],
        parameters=lambda wildcards: json.dumps(job(wildcards)["parameters"], sort_keys=True),
    shell:
        "{sys.executable:q} -m paperlib.cli run {params.notebook:q} --json {params.parameters:q} "
        "--threads {threads} --quiet > {log:q} 2>&1 || {{ code=$?; echo \"exit code $code\" >> {log:q}; exit $code; }}"
