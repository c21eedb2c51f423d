#!/usr/bin/env python3
"""Checks `spdflow schema` with an independent validator: every pipeline fits, and mistakes do not.

    pip install jsonschema
    spdflow schema | python tests/python/check_schema.py pipelines/*.toml pipelines/paper/*.toml
"""
import json
import sys
import tomllib

from jsonschema import Draft202012Validator

MISTAKES = [
    {"stage": {"a": {"uses": "train.tms", "params": {"n_featurs": 5}}}},
    {"stage": {"a": {"uses": "train.tms", "params": {"n_features": "five"}}}},
    {"stage": {"a": {"uses": "trian.tms"}}},
    {"axes": {"seed": {"range": [0]}}},
    {"pipline": {}},
]


def main():
    schema = json.load(sys.stdin)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    wrong = 0
    for path in sys.argv[1:]:
        with open(path, "rb") as file:
            for error in validator.iter_errors(tomllib.load(file)):
                wrong += 1
                print(f"{path}: {'.'.join(map(str, error.path))}: {error.message[:200]}")
    for mistake in MISTAKES:
        if validator.is_valid(mistake):
            wrong += 1
            print(f"not found: {mistake}")
    print(f"{len(sys.argv) - 1} pipelines, {len(MISTAKES)} mistakes: {'ok' if wrong == 0 else f'{wrong} problems'}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
