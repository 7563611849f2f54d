# make report   install, run the default profile, render reports/index.html     (PROFILE=smoke for a quick look)
# make test     install with the test extras, run all tests
# make lab      install, open JupyterLab on the notebooks
PYTHON ?= python3
PROFILE ?= laptop
ARGS ?=

.PHONY: report test lab setup clean
.DELETE_ON_ERROR:

report: .venv/installed
	.venv/bin/paperlib reproduce $(PROFILE) $(ARGS)

test: .venv/installed-test
	.venv/bin/ruff check .
	.venv/bin/nbstripout --verify $$(git ls-files '*.ipynb')
	OMP_NUM_THREADS=1 .venv/bin/pytest -n auto $(ARGS)

lab: .venv/installed
	.venv/bin/jupyter lab notebooks $(ARGS)

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "paperlib needs Python >= 3.11; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/installed-test: .venv/installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf results/runs results/dps results/lets results/s3delta results/performance results/overview reports
