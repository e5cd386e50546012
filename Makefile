# Two commands from nothing: `make demo` (pictures in minutes) and `make test` (the suite; its slow cases: `make slow`).
# Both make the same virtual environment in .venv. Needs Python 3.10 to 3.13, pip and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: demo test lint slow clean
.DEFAULT_GOAL := demo

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'setuptools<81' wheel
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/t2i-prepare --source=blossoms --data_dir=$(DEMO)/blossoms
	$(BIN)/t2i-train --flagfile=flags/char_cnn_rnn_blossoms.flags --data_dir=$(DEMO)/blossoms --run_dir=$(DEMO)/text_encoder
	$(BIN)/t2i-train --flagfile=flags/gan_int_cls_blossoms.flags --data_dir=$(DEMO)/blossoms \
	  --text_encoder_run=$(DEMO)/text_encoder --run_dir=$(DEMO)/gan_int_cls
	$(BIN)/t2i-evaluate --run_dir=$(DEMO)/gan_int_cls
	$(BIN)/t2i-sample --run_dir=$(DEMO)/gan_int_cls --out=$(DEMO)/pictures

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) $(DEMO)
