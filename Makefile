# What CI runs, and what a contributor runs: the same recipes.

.PHONY: check test bench demo simulate trainers

# Formatting and lints, warnings are errors
check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# Every test; a first run fetches ONNX Runtime and the Python readers
test:
	cargo test

# The digits pipeline as the README shows it
demo:
	cargo run -- run pipelines/digits_lt.toml

# Speed and memory, printed as a table; in the profile that is built already
bench:
	cargo bench --profile dev

# Histories of faults, crashes, losses of power and several workers, from seeds; takes an hour or two
simulate:
	DISCL_SIMULATION_HISTORIES=10000 cargo test --lib simulation -- --nocapture

# The trainers of examples/pytorch on the digits; installs PyTorch once, 3 GB, and takes ten minutes
trainers:
	cargo build
	python3 -m venv target/trainers
	target/trainers/bin/pip install -q -r tests/trainers/requirements.txt
	target/trainers/bin/python -B tests/trainers/check.py target/debug/discl-pipe
