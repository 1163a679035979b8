# One line per job; each calls tools that say in their first lines what they do. `make` alone lists the jobs.
.PHONY: help demo test bench docs wheel check trust
help:   ; @awk -F: '/^[a-z]+: +; @\.ci/ {job = $$1; sub(/.*  # /, ""); printf "make %-7s%s\n", job, $$0}' Makefile
demo:   ; @.ci/bootstrap demo && .venv/bin/stillwarm demo $(ARGS)  # the main job: a Flask app with a slow source, cached
test:   ; @.ci/bootstrap test && .ci/tests $(ARGS)  # the C++ tests and the Python tests
bench:  ; @.ci/bootstrap bench && .ci/bench $(ARGS)  # speed and hit ratio beside other libraries; ARGS=--quick for a short look
docs:   ; @.ci/bootstrap docs && .ci/docs $(ARGS)  # the documentation as a site, into build/docs; ARGS=--serve shows it
wheel:  ; @.ci/bootstrap wheel && .ci/wheel $(ARGS)  # source archive and self-contained wheel, into dist/
check:  ; @.ci/bootstrap lint && .ci/lint  # format, lint and types, as CI does it
trust:  ; @.ci/bootstrap test && .venv/bin/python tests/python/trust.py $(ARGS)  # the long reliability run
