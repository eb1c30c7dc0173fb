# Few verbs; each works on a fresh machine. `make serve` needs nothing but Python 3.11 and this folder.

PYTHON ?= python3
BIN := .venv/bin
DATA ?= data
LISTEN ?= 127.0.0.1:11112
WORKERS ?= 0
BENCH ?= --quick
SECONDS ?= 60
# As root on a Debian-like machine, a missing system package is installed; else the command says which.
APT := .ci/apt-install

# Bytecode is kept, whatever the machine's own habit: else each of the thousand processes that tests start compiles all it loads,
# and pytest rewrites every test module in every one of its own.
export PYTHONDONTWRITEBYTECODE :=

# What tests and benchmarks need of the system.
define PEERS
	@command -v dcmsend >/dev/null || $(APT) dcmtk
	@command -v java >/dev/null || $(APT) default-jre-headless
	@command -v mvn >/dev/null || $(APT) maven
	@command -v cc >/dev/null || $(APT) gcc libc6-dev
	@command -v openssl >/dev/null || $(APT) openssl
endef

# What `make test-all` needs beyond that; Debian has Orthanc where only root's PATH leads.
define MORE_PEERS
	@PATH=$$PATH:/usr/sbin; command -v Orthanc >/dev/null || $(APT) orthanc
	@command -v node >/dev/null || $(APT) nodejs
	@command -v npm >/dev/null || $(APT) npm
	@PATH=$$PATH:/usr/sbin; command -v rsyslogd >/dev/null || $(APT) rsyslog rsyslog-openssl
	@command -v promtool >/dev/null || $(APT) prometheus
	@PATH=$$PATH:/usr/sbin; command -v ip >/dev/null || $(APT) iproute2
	@command -v dciodvfy >/dev/null || $(APT) dicom3tools
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || $(APT) postgresql
	@PATH=$$PATH:/usr/sbin; for each in buildah debootstrap runc; do command -v $$each >/dev/null || $(APT) $$each; done
endef

.PHONY: install serve serve-distributed test test-all check k8s-check k8s-e2e bench bench-full profile crash fuzz sbom audit clean
.DELETE_ON_ERROR:

install: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(APT) python3-venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[kafka]' --group dev
	@touch $@

serve: install
	$(BIN)/dicom-ingest serve --data $(DATA) --listen $(LISTEN) --workers $(WORKERS)

# Everything of the distributed form on this machine, for trying; needs Java, Maven and Go.
serve-distributed: install
	$(PEERS)
	$(BIN)/python -m tests.support.s3_servers minio
	$(BIN)/python -m tests.support.trial

test: install
	$(PEERS)
	$(BIN)/python -m tests.support.s3_servers minio
	$(BIN)/python -m tests.support.kustomize
	$(BIN)/pytest --numprocesses 6 --dist loadgroup -m 'not long and not servers and not slow'

test-all: install
	$(PEERS)
	$(MORE_PEERS)
	$(BIN)/python -m tests.support.s3_servers minio versitygw
	$(BIN)/python -m tests.support.kustomize
	$(BIN)/python -m tests.support.dcmjs
	$(BIN)/python -m benchmarks.cargo
	$(BIN)/pytest --numprocesses 6 --dist loadgroup -m 'not long'

crash: install
	$(PEERS)
	@PATH=$$PATH:/usr/sbin; command -v ip >/dev/null || $(APT) iproute2
	$(BIN)/python -m tests.support.s3_servers minio
	$(BIN)/pytest tests/crash -m 'not long' $(if $(ROWS),-k '$(ROWS)')
	$(if $(ROWS),,$(BIN)/pytest -m long)

check: install
	$(BIN)/python -m tests.support.kustomize
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --quiet -m 'not slow' tests/kubernetes

# A real API server (no node) looks at every overlay. Needs root, Go and Maven; builds Kubernetes once, some five minutes.
k8s-check: install
	@command -v mvn >/dev/null || $(APT) maven
	@command -v openssl >/dev/null || $(APT) openssl
	@command -v etcd >/dev/null || $(APT) etcd-server
	@PATH=$$PATH:/usr/sbin; command -v ip >/dev/null || $(APT) iproute2
	tests/cluster/build.sh
	$(BIN)/python -m tests.support.kustomize
	$(BIN)/python -m tests.support.strimzi
	$(BIN)/pytest --quiet tests/cluster/check_api_server.py

k8s-e2e: install
	@command -v mvn >/dev/null || $(APT) maven
	@command -v gcc >/dev/null || $(APT) gcc libc6-dev
	@command -v openssl >/dev/null || $(APT) openssl
	@command -v etcd >/dev/null || $(APT) etcd-server
	@command -v buildah >/dev/null || $(APT) buildah
	@command -v debootstrap >/dev/null || $(APT) debootstrap
	@PATH=$$PATH:/usr/sbin; command -v runc >/dev/null || $(APT) runc
	@PATH=$$PATH:/usr/sbin; command -v iptables >/dev/null || $(APT) iptables
	@PATH=$$PATH:/usr/sbin; command -v ip >/dev/null || $(APT) iproute2
	@test -x /usr/lib/cni/ptp || $(APT) containernetworking-plugins
	tests/cluster/build.sh nodes
	$(BIN)/python -m tests.support.kustomize
	$(BIN)/python -m tests.support.strimzi
	$(BIN)/python -m tests.cluster.images
	$(BIN)/pytest --verbose --timeout 0 tests/cluster/check_under_load.py

bench: install
	$(PEERS)
	$(BIN)/python -m tests.support.s3_servers minio
	$(BIN)/python -m benchmarks $(BENCH)

# The report in the repository, in an hour or more on a machine that does nothing else; SOAK=60 watches memory for an hour.
bench-full: install
	$(PEERS)
	@PATH=$$PATH:/usr/sbin; command -v Orthanc >/dev/null || $(APT) orthanc
	$(BIN)/python -m tests.support.s3_servers minio
	$(BIN)/python -m benchmarks.cargo
	$(BIN)/python -m benchmarks --report benchmarks/report $(if $(SOAK),--soak $(SOAK))

# Where processor time, copies and system calls go, hop by hop; says more with perf and strace.
profile: install
	$(BIN)/python -m benchmarks --profile $(PROFILE)

# Every parser of what strangers write, guided by coverage; SECONDS for each, build/fuzz keeps what leads on.
fuzz: install
	$(BIN)/python -m pip install -qq --disable-pip-version-check --group fuzz
	targets=$$($(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*TARGETS)') && printf '%s\n' $$targets | \
		xargs --max-procs $$(nproc) --replace=TARGET $(BIN)/python -m tests.fuzz.guided TARGET $(SECONDS) build/fuzz

# What the image holds, as CycloneDX 1.6: versions, licences and who needs whom, from an environment made of the lock file.
sbom: build/tools/installed
	rm -rf build/image && $(PYTHON) -m venv --without-pip build/image
	build/tools/bin/pip --python build/image install --quiet --require-hashes --only-binary :all: -r k8s/image/requirements.txt
	build/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-format JSON --output-file build/sbom.cdx.json build/image

# Known weaknesses of what the lock file names; asks pypi.org, so it needs the Internet.
audit: build/tools/installed
	build/tools/bin/pip-audit --strict --disable-pip --require-hashes -r k8s/image/requirements.txt

build/tools/installed: pyproject.toml
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	build/tools/bin/python -m pip install -qq --disable-pip-version-check --group audit
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
