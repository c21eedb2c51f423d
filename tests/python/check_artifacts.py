#!/usr/bin/env python3
"""Opens every artifact of a pipeline's results the way a user would, and checks what is in it.

    pip install safetensors numpy pyarrow
    python tests/python/check_artifacts.py out/tms

Checks names, shapes and types of all tensors and tables, that each site's components add up to the target's matrix,
that tied components are tied, that the causal importances in `ci.parquet` are what the saved networks compute, and that
the charts beside the figures hold what `evaluation.parquet` says.
Prints one line per artifact; exits with 1 after the first artifact that is not right.

By default a component sum may differ from its matrix by 5 % (Frobenius norm); a run too short to become faithful
needs `--faithful-within 1`.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

PROBE_INPUT = 0.75


class Wrong(Exception):
    """Something in an artifact is not as it should be."""


def expect(condition, message):
    if not condition:
        raise Wrong(message)


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_tensors(path, shapes):
    """Returns the tensors of a file that must hold exactly these names and shapes, all f32 and finite."""
    tensors = load_file(path)
    expect(set(tensors) == set(shapes), f"{path.name}: missing {sorted(set(shapes) - set(tensors))}, "
           f"unexpected {sorted(set(tensors) - set(shapes))}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        expect(tensor.shape == tuple(shape), f"{path.name}: `{name}` has shape {tensor.shape}, expected {tuple(shape)}")
        expect(tensor.dtype == np.float32, f"{path.name}: `{name}` is {tensor.dtype}, expected float32")
        expect(np.isfinite(tensor).all(), f"{path.name}: `{name}` holds numbers that are not finite")
    return tensors


def read_table(path, columns):
    """Returns the columns of a table that must have exactly these names and types."""
    table = pq.read_table(path)
    found = [(field.name, field.type) for field in table.schema]
    expect(found == columns, f"{path.name}: columns {found}, expected {columns}")
    return {name: table.column(name).to_pylist() for name, _ in columns}


METRIC_COLUMNS = [("step", pa.int64()), ("name", pa.string()), ("value", pa.float64())]


def tms_shapes(config):
    """The state dict of a toy model of superposition."""
    features, hidden = config["n_features"], config["n_hidden"]
    shapes = {"linear1.weight": (hidden, features), "linear2.weight": (features, hidden), "linear2.bias": (features,)}
    shapes.update({f"hidden_layers.{i}.weight": (hidden, hidden) for i in range(config["n_hidden_layers"])})
    return shapes


def resid_mlp_shapes(config):
    """The state dict of a residual MLP."""
    features, embed, mlp = config["n_features"], config["d_embed"], config["d_mlp"]
    shapes = {"W_E": (features, embed), "W_U": (embed, features)}
    for i in range(config["n_layers"]):
        for name, d_out, d_in, bias in [("mlp_in", mlp, embed, "in_bias"), ("mlp_out", embed, mlp, "out_bias")]:
            shapes[f"layers.{i}.{name}.weight"] = (d_out, d_in)
            if config[bias]:
                shapes[f"layers.{i}.{name}.bias"] = (d_out,)
    return shapes


def target_shapes(model):
    """The state dict of a target model."""
    return {"tms": tms_shapes, "resid_mlp": resid_mlp_shapes}[model["kind"]](model["config"])


def check_target(folder):
    description = read_json(folder / "target.json")
    model = description["model"]
    tensors = read_tensors(folder / "target.safetensors", target_shapes(model))
    if model["config"].get("tied_weights"):
        expect((tensors["linear2.weight"] == tensors["linear1.weight"].T).all(), "tied weights differ")
    if model["kind"] == "resid_mlp":
        coefficients = read_json(folder / "label_coeffs.json")
        expect(coefficients == description["result"]["label_coeffs"], "label_coeffs.json differs from target.json")
        expect(len(coefficients) == model["config"]["n_features"], "a coefficient for each feature")
    metrics = read_table(folder / "metrics.parquet", METRIC_COLUMNS)
    expect("train/loss" in metrics["name"], "metrics.parquet has no `train/loss`")
    return f"{len(tensors)} tensors, loss {description['result']['loss']:.6f}"


def network_shapes(kind, hidden, d_in, components):
    """The layers of a causal-importance network; odd layers are activations and hold nothing."""
    sizes = {"mlp": [1, *hidden, 1], "vector_mlp": [d_in, *hidden, 1], "shared_mlp": [d_in, *hidden, components]}[kind]
    groups = () if kind == "shared_mlp" else (components,)
    shapes = {}
    for layer, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        shapes[f"layers.{2 * layer}.W"] = (*groups, inputs, outputs)
        shapes[f"layers.{2 * layer}.b"] = (*groups, outputs)
    return shapes


gelu = np.vectorize(lambda x: 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0))))


def importance_logits(kind, network, x, v):
    """What the network answers on the rows of x, before any squashing, in f64: [rows, C]."""
    layers = [(network[f"layers.{i}.W"], network[f"layers.{i}.b"]) for i in range(0, len(network), 2)]
    if kind == "shared_mlp":
        h = x
    elif kind == "mlp":
        h = (x @ v)[:, :, None]
    else:
        h = np.repeat(x[:, None, :], v.shape[1], axis=1)
    for i, (weight, bias) in enumerate(layers):
        h = gelu(h) if i > 0 else h
        h = (h @ weight if kind == "shared_mlp" else np.einsum("rci,cio->rco", h, weight)) + bias
    return h if kind == "shared_mlp" else h[:, :, 0]


CHART_COLUMNS = ["series", "x", "width", "value"]


def check_charts(folder):
    """Returns how many charts there are; each holds what `evaluation.parquet` says of its figure and step."""
    charts = sorted((folder / "figures").glob("*.json"))
    if not charts:
        return 0
    f64 = pa.float64()
    table = read_table(folder / "evaluation.parquet", [("step", pa.int64()), ("key", pa.string()), ("series", pa.string()),
                                                       ("x", f64), ("width", f64), ("value", f64)])
    rows = {}
    for step, key, *row in zip(*table.values()):
        rows.setdefault(f"{key.replace('/', '_')}_{step}", []).append(row)
    for path in charts:
        chart = read_json(path)
        expect(sorted(chart) == ["columns", "data", "step"], f"{path.name} holds {sorted(chart)}")
        expect(chart["columns"] == CHART_COLUMNS, f"{path.name}: columns {chart['columns']}, expected {CHART_COLUMNS}")
        expect(path.stem.endswith(f"_{chart['step']}"), f"{path.name} is of step {chart['step']}")
        expect(chart["data"] == rows.get(path.stem), f"{path.name} differs from evaluation.parquet")
        for other in ["png", "svg"]:
            expect(path.with_suffix(f".{other}").exists(), f"{path.name} lies beside no {other.upper()}")
    return len(charts)


def check_decomposition(folder, faithful_within):
    description = read_json(folder / "decomposition.json")
    params, target, config = description["params"], description["target"], description["target"]["config"]
    network_config = params["causal_importance"]
    kind = network_config["kind"]
    shapes = {f"target_model.{name}": shape for name, shape in target_shapes(target).items()}
    for site in description["sites"]:
        key, c = site["name"].replace(".", "-"), site["C"]
        shapes[f"_components.{key}.V"] = (site["d_in"], c)
        shapes[f"_components.{key}.U"] = (c, site["d_out"])
        if f"target_model.{site['name']}.bias" in shapes:
            shapes[f"_components.{key}.bias"] = (site["d_out"],)
        for name, shape in network_shapes(kind, network_config["hidden"], site["d_in"], c).items():
            shapes[f"_ci_fns.{key}.{name}"] = shape
    tensors = read_tensors(folder / "components.safetensors", shapes)
    exact = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    squares, entries = 0.0, 0
    for site in description["sites"]:
        key = site["name"].replace(".", "-")
        v, u = exact[f"_components.{key}.V"], exact[f"_components.{key}.U"]
        if site["name"].endswith(".pre_identity"):
            weight = np.eye(site["d_in"])
        else:
            weight = exact[f"target_model.{site['name']}.weight"]
        delta = weight - (v @ u).T
        squares, entries = squares + (delta**2).sum(), entries + delta.size
        # A residual MLP's matrices matter on the span of the embedding only, where the features are.
        if target["kind"] == "resid_mlp":
            reads = site["name"].endswith("mlp_in")
            on_features = (lambda w: w @ exact["target_model.W_E"].T) if reads else (lambda w: exact["target_model.W_U"].T @ w)
            delta, weight = on_features(delta), on_features(weight)
        error = np.linalg.norm(delta) / np.linalg.norm(weight)
        expect(error <= faithful_within, f"(V @ U).T of `{site['name']}` is off by {error:.1%} of the target's weight")
    recorded = description["result"].get("FaithfulnessLoss")
    if recorded is not None:
        # Recorded from f32 differences, so relative to the weights' size rather than its own.
        expect(abs(squares / entries - recorded) <= 1e-3 * recorded + 1e-9,
               f"faithfulness is {squares / entries}, recorded {recorded}")
    names = [site["name"] for site in description["sites"]]
    if config.get("tied_weights") and params["tie_components"] and {"linear1", "linear2"} <= set(names):
        for first, second in [("V", "U"), ("U", "V")]:
            same = tensors[f"_components.linear1.{first}"] == tensors[f"_components.linear2.{second}"].T
            expect(same.all(), "tied components differ")

    metrics = read_table(folder / "metrics.parquet", METRIC_COLUMNS)
    for name in ["train/loss/total", "train/schedules/lr", *(f"train/l0/{name}" for name in names)]:
        steps = [step for step, other in zip(metrics["step"], metrics["name"]) if other == name]
        expect(steps and steps[0] == 0 and steps[-1] == params["steps"] and steps == sorted(set(steps)),
               f"metrics.parquet: `{name}` is recorded at steps {steps[:3]}…{steps[-3:]}")
    expect(any(name.startswith("eval/loss/") for name in metrics["name"]), "metrics.parquet has no evaluation")

    f32 = pa.float32()
    ci = read_table(folder / "ci.parquet", [("site", pa.string()), ("input", pa.int32()), ("component", pa.int32()),
                                            ("lower", f32), ("upper", f32), ("pre_sigmoid", f32)])
    features, at = config["n_features"], 0
    for site in description["sites"]:
        rows, end = features * site["C"], at + features * site["C"]
        expect(ci["site"][at:end] == [site["name"]] * rows, f"ci.parquet: rows of `{site['name']}` are not where expected")
        expect(ci["input"][at:end] == [i for i in range(features) for _ in range(site["C"])], "ci.parquet: inputs")
        expect(ci["component"][at:end] == list(range(site["C"])) * features, "ci.parquet: components")
        logits = np.array(ci["pre_sigmoid"][at:end]).reshape(features, site["C"])
        lower = np.array(ci["lower"][at:end]).reshape(features, site["C"])
        if site["name"] in ["linear1", "layers.0.mlp_in"]:
            # The first site reads the probe itself, or its embedding.
            key = site["name"].replace(".", "-")
            read = exact["target_model.W_E"] if target["kind"] == "resid_mlp" else np.eye(features)
            network = {name: exact[f"_ci_fns.{key}.{name}"]
                       for name in network_shapes(kind, network_config["hidden"], site["d_in"], site["C"])}
            v = exact[f"_components.{key}.V"]
            ours = importance_logits(kind, network, PROBE_INPUT * read, v)
            worst = np.abs(ours - logits).max()
            # f32 sums of a few dozen terms of size 1 to 10, and a GELU good to 2e-7.
            expect(worst <= 1e-4, f"ci.parquet: the network of `{site['name']}` gives other logits, by up to {worst}")
        if params["sigmoid"] == "leaky_hard":
            expect(np.abs(lower - np.clip(logits, 0, 1)).max() <= 1e-6, "ci.parquet: `lower` is not the clamped logit")
        at = end
    expect(at == len(ci["site"]), "ci.parquet: rows of no site")
    return (f"{len(tensors)} tensors, {len(metrics['step'])} metrics, {check_charts(folder)} charts, "
            f"mean squared delta {squares / entries:.2e}")


def check_clusters(folder):
    table = read_table(folder / "clusters.parquet", [("site", pa.string()), ("component", pa.int32()),
                                                     ("cluster", pa.int32()), ("alive", pa.bool_()),
                                                     ("mean_ci", pa.float32())])
    summary = read_json(folder / "summary.json")
    for cluster, alive in zip(table["cluster"], table["alive"]):
        expect((cluster is not None) == alive, "clusters.parquet: exactly the living components have a cluster")
    used = {cluster for cluster in table["cluster"] if cluster is not None}
    expect(used == set(range(summary["n_clusters"])), f"clusters.parquet: clusters {sorted(used)}")
    return f"{sum(table['alive'])} living components in {len(used)} clusters"


def check_comparison(folder):
    table = read_table(folder / "similarity.parquet", [("site", pa.string()), ("component", pa.int32()),
                                                       ("reference_component", pa.int32()),
                                                       ("max_abs_cosine_sim", pa.float64()), ("density", pa.float32())])
    for value in table["max_abs_cosine_sim"]:
        expect(0.0 <= value <= 1.0 + 1e-6, f"similarity.parquet: {value} is no absolute cosine")
    return f"{len(table['site'])} components compared"


def check_figures(folder):
    figures = read_json(folder / "summary.json")["figures"]
    for name in figures:
        svg, png = (folder / f"{name}.svg").read_bytes(), (folder / f"{name}.png").read_bytes()
        expect(b"<svg" in svg[:500], f"{name}.svg is no SVG")
        expect(png.startswith(b"\x89PNG\r\n\x1a\n"), f"{name}.png is no PNG")
    return f"{len(figures)} figures"


def check_manifest(folder, manifest):
    expect(manifest["format"] == 1, f"artifact.json has format {manifest['format']}, expected 1")
    listed = {file["path"]: file["size_bytes"] for file in manifest["files"]}
    found = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    found.pop("artifact.json")
    expect(found == listed, f"artifact.json lists {sorted(listed.items())}, the folder holds {sorted(found.items())}")


def check(folder, arguments):
    manifest = read_json(folder / "artifact.json")
    check_manifest(folder, manifest)
    kind = manifest["kind"]
    if kind == "decompose.spd":
        return kind, check_decomposition(folder, arguments.faithful_within)
    known = {"train.tms": check_target, "train.resid_mlp": check_target, "cluster.kmeans": check_clusters,
             "compare.geometry": check_comparison, "plot": check_figures}
    expect(kind in known, f"no check for artifacts of `{kind}`")
    return kind, known[kind](folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the results of a pipeline: out/tms")
    parser.add_argument("--faithful-within", type=float, default=0.05, metavar="FRACTION",
                        help="how far a sum of components may be from its matrix")
    arguments = parser.parse_args()
    folders = sorted(path.parent for path in arguments.results.rglob("artifact.json"))
    if not folders:
        sys.exit(f"error: there is no artifact below {arguments.results}")
    for folder in folders:
        try:
            kind, found = check(folder, arguments)
        except (Wrong, OSError, KeyError) as wrong:
            sys.exit(f"error: {folder}: {wrong if not isinstance(wrong, KeyError) else f'missing {wrong}'}")
        print(f"ok  {folder.relative_to(arguments.results)}  {kind}: {found}")


if __name__ == "__main__":
    main()
