"""`ballast.export`: a torch module becomes one file that workers can train and serve.

The file is a TorchScript archive with the extra file `ballast.json` (its format: ballast/model.py). Everything that would fail in a
worker is tried here first, on two and on three rows, and the module that is passed in is left as it was. Needs torch.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional, Union

from ballast.dtypes import dtype_name, is_float, is_integer
from ballast.errors import BallastError
from ballast.model import BUILT_IN_LOSSES, FORMAT, Column

# (dtype, shape of one row); a bare dtype means a scalar per row.
Spec = Any


def export(
    module: Any,
    path: Union[str, "os.PathLike[str]"],
    inputs: Mapping[str, Spec],
    label: Union[None, Spec, Mapping[str, Spec]] = None,
    loss: str = "cross_entropy",
    outputs: Optional[Sequence[str]] = None,
) -> dict[str, Any]:
    """Scripts `module`, tries it, writes it to `path` and returns the description that was stored.

    inputs   what forward takes, in order: {name: (dtype, shape of one row)}, e.g. {"tokens": ("int32", (32,))}. Rows come first:
             forward gets a tensor [rows, 32].
    label    what the loss compares with: (dtype, shape), or {name: (dtype, shape)} to name it other than "label"; None for none.
    loss     "cross_entropy", "bce_with_logits", "mse" (all on the first output), or the name of a method of the module that takes
             (*inputs, label) and returns one loss per row, a tensor [rows].
    outputs  names of what forward returns: one tensor (default "output"), a tuple of them ("output0", "output1", ...) or a dict of
             them (its keys).

    What training changes are parameters (by the optimizer) and buffers (by forward). Anything else that forward changes, such as a number
    that it counts up, stays in the process of one worker and is lost with it. A forward that changes a parameter is refused.

    Raises BallastError: SCRIPT_FAILED (names the smallest part that TorchScript refuses), EXAMPLE_FAILED, SCALAR_LOSS, LOSS_SHAPE,
    OUTPUT_SHAPE, TENSOR_UNSUPPORTED, PARAMETER_CHANGED.
    """
    import torch

    if not isinstance(inputs, Mapping):
        raise BallastError("BAD_SPEC", f'inputs= takes {{name: (dtype, shape of one row)}}, not a {type(inputs).__name__}')
    columns = [_column(name, spec) for name, spec in inputs.items()]
    label_column = _label_column(label)
    _check_names(columns, label_column)
    _check_modules(module)
    original_training = module.training
    tensors = _tensors(module)  # of the original: a copy does not share memory where it does
    module = _cpu_copy(module)
    scripted = _script(module, loss)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        described = _try(scripted, columns, label_column, loss, outputs, rows=2)
        if _try(scripted, columns, label_column, loss, outputs, rows=3) != described:
            raise BallastError("OUTPUT_SHAPE", "the outputs of 2 and of 3 rows differ in more than their first dimension")
    scripted.train(original_training)
    description = {
        "format": FORMAT,
        "inputs": [_json(c) for c in columns],
        "label": _json(label_column) if label_column else None,
        "outputs": [_json(c) for c in described],
        "loss": loss if loss in BUILT_IN_LOSSES else f"method:{loss}",
        "tensors": tensors,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(scripted, os.fspath(path), _extra_files={"ballast.json": json.dumps(description)})
    return description


def _json(column: Column) -> dict[str, Any]:
    return {"name": column.name, "dtype": column.dtype, "shape": list(column.shape)}


def _column(name: str, spec: Spec) -> Column:
    dtype, shape = spec if isinstance(spec, (tuple, list)) and len(spec) == 2 else (spec, ())
    shape = (shape,) if isinstance(shape, int) else tuple(int(d) for d in shape)
    if any(d < 1 for d in shape):
        raise BallastError("BAD_SPEC", f'"{name}" has shape {list(shape)}: give the shape of one row, every dimension fixed and at least 1')
    try:
        return Column(name, dtype_name(dtype), shape)
    except (TypeError, ValueError) as e:
        raise BallastError("BAD_SPEC", f'"{name}": {e}') from None


def _label_column(label: Any) -> Optional[Column]:
    if label is None:
        return None
    if isinstance(label, Mapping):
        if len(label) != 1:
            raise BallastError("BAD_SPEC", f"one label is supported, {len(label)} were given; stack them into one tensor")
        ((name, spec),) = label.items()
        return _column(name, spec)
    return _column("label", label)


def _check_names(columns: Sequence[Column], label: Optional[Column]) -> None:
    names = [c.name for c in columns] + ([label.name] if label else [])
    if not columns:
        raise BallastError("BAD_SPEC", "a model needs at least one input")
    for name in names:
        if names.count(name) > 1:
            raise BallastError("BAD_SPEC", f'two columns are called "{name}"')
        if not name or any(c in name for c in ",:[]\n"):
            raise BallastError("BAD_SPEC", f"{name!r} cannot be a column name: it is empty or holds one of , : [ ]")


def _check_modules(module: Any) -> None:
    for name, part in module.named_modules():
        if getattr(part, "max_norm", None) is not None:
            raise BallastError(
                "PARAMETER_CHANGED",
                f'"{name}" ({type(part).__name__}) has max_norm={part.max_norm}: forward would change its weight in place, and TorchScript leaves that out. '
                "Only the optimizer changes parameters: scale the rows that were looked up, or use weight decay",
            )


def _cpu_copy(module: Any) -> Any:
    copied = copy.deepcopy(module).cpu()
    for parameter in copied.parameters():
        parameter.grad = None
    return copied


# ---- tensors -----------------------------------------------------------------------------------------------------------------------


def _tensors(module: Any) -> list[dict[str, Any]]:
    """Parameters and buffers in the order of the state dict; a tensor with several names is listed once, under its first."""
    found: list[dict[str, Any]] = []
    by_identity: dict[tuple[Any, ...], dict[str, Any]] = {}
    storages: dict[int, str] = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        named = [(n, t, True) for n, t in part._parameters.items()]
        named += [(n, t, n not in part._non_persistent_buffers_set) for n, t in part._buffers.items()]
        for short, tensor, persistent in named:
            if tensor is None:
                continue
            name = dot + short
            _check_tensor(name, tensor)
            where = tensor.untyped_storage().data_ptr()
            key = (where, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())) if tensor.numel() else (id(tensor),)
            if key in by_identity:
                by_identity[key]["aliases"].append(name)
                by_identity[key]["persistent"] |= persistent
                continue
            if tensor.numel() and where in storages:
                raise BallastError(
                    "TENSOR_UNSUPPORTED", f'"{name}" is another view of the memory of "{storages[where]}"; share the whole tensor or copy it (.clone())'
                )
            storages[where] = name
            by_identity[key] = _describe(name, tensor, persistent, is_parameter=short in part._parameters)
            found.append(by_identity[key])
    if not any(t["rule"] == "OPT" for t in found):
        raise BallastError("TENSOR_UNSUPPORTED", "the module has no parameter that requires a gradient: there is nothing to train")
    return found


def _check_tensor(name: str, tensor: Any) -> None:
    dtype = str(tensor.dtype).replace("torch.", "")
    if not (is_float(dtype) or is_integer(dtype)):
        raise BallastError("TENSOR_UNSUPPORTED", f'"{name}" has dtype {dtype}, which Ballast cannot store')
    if str(tensor.layout) != "torch.strided":
        raise BallastError("TENSOR_UNSUPPORTED", f'"{name}" is not a dense tensor')


def _describe(name: str, tensor: Any, persistent: bool, is_parameter: bool) -> dict[str, Any]:
    dtype = dtype_name(tensor.dtype)
    trained = is_parameter and bool(tensor.requires_grad)
    return {
        "name": name,
        "dtype": dtype,
        "shape": list(tensor.shape),
        "rule": "OPT" if trained else "MEAN" if is_float(dtype) and not is_parameter else "SET",
        "aliases": [],
        "persistent": persistent,
        "requires_grad": trained,
    }


# ---- scripting ---------------------------------------------------------------------------------------------------------------------


def _script(module: Any, loss: str) -> Any:
    method = None if loss in BUILT_IN_LOSSES else getattr(type(module), loss, None)
    if loss not in BUILT_IN_LOSSES and method is None:
        raise BallastError("BAD_SPEC", f'loss="{loss}" is neither one of {", ".join(BUILT_IN_LOSSES)} nor a method of {type(module).__name__}')
    with warnings.catch_warnings(), _marked(method):
        warnings.simplefilter("ignore")
        try:
            scripted = _compile(module)
        except Exception as e:
            part, error = _smallest_failure(module, "", e)
            where = f'its part "{part}" ({type(module.get_submodule(part)).__name__})' if part else f"{type(module).__name__} itself"
            raise BallastError("SCRIPT_FAILED", f"TorchScript cannot compile the module; {where} fails:\n{str(error).strip()}") from e
    if loss not in BUILT_IN_LOSSES and not hasattr(scripted, loss):
        raise BallastError("SCRIPT_FAILED", f'the loss method "{loss}" was not compiled; decorate it with @torch.jit.export')
    return scripted


@contextlib.contextmanager
def _marked(method: Any) -> Iterator[None]:
    """As if the method were decorated with @torch.jit.export, so that scripting compiles it."""
    import torch

    before = dict(vars(method)) if method is not None else {}
    if method is not None and not before:
        torch.jit.export(method)
    try:
        yield
    finally:
        if method is not None:
            vars(method).clear()
            vars(method).update(before)


def _compile(module: Any) -> Any:
    import torch

    try:
        return torch.jit.script(module)
    except RuntimeError as e:
        if "is not defined" not in str(e):
            raise
    # TorchScript compiles a class once; it did so in this process with another loss. Under another type it starts anew.
    module.__class__ = type(type(module).__name__, (type(module),), {"__module__": type(module).__module__})
    return torch.jit.script(module)


def _smallest_failure(module: Any, path: str, error: Exception) -> tuple[str, Exception]:
    import torch

    for name, child in module.named_children():
        try:
            torch.jit.script(child)
        except Exception as e:
            return _smallest_failure(child, f"{path}.{name}" if path else name, e)
    return path, error


# ---- trying ------------------------------------------------------------------------------------------------------------------------


def _example(column: Column, rows: int) -> Any:
    """Zeros for integers (a valid index everywhere), random numbers for floats."""
    import torch

    dtype = getattr(torch, column.dtype)
    shape = (rows, *column.shape)
    return torch.randn(shape).to(dtype) if is_float(column.dtype) else torch.zeros(shape, dtype=dtype)


def _try(scripted: Any, columns: Sequence[Column], label: Optional[Column], loss: str, names: Optional[Sequence[str]], rows: int) -> list[Column]:
    """Runs forward in both modes, the loss and backward in training mode, on a copy. Returns the outputs as seen in eval mode."""
    import torch

    trial = copy.deepcopy(scripted)
    inputs = [_example(c, rows) for c in columns]
    target = [_example_label(label, loss, rows)] if label else []
    outputs: Any = None
    for training in (True, False):
        trial.train(training)
        mode = "training" if training else "eval"
        versions = {name: p._version for name, p in trial.named_parameters()}
        with torch.set_grad_enabled(training):
            try:
                outputs = trial(*inputs)
            except Exception as e:
                raise BallastError("EXAMPLE_FAILED", f"forward fails on an example of {rows} rows in {mode} mode ({_shapes(columns)}):\n{e}") from e
            if training:
                losses = _loss(trial, loss, outputs, inputs, target, rows)
                _check_loss(losses, loss, rows)
                _check_backward(losses, rows)
        _check_unchanged(trial, versions, mode)
    return _outputs(outputs, names, rows)


def _example_label(label: Column, loss: str, rows: int) -> Any:
    import torch

    if loss == "cross_entropy":  # a class, whatever type it travels as
        return torch.zeros((rows, *label.shape), dtype=getattr(torch, label.dtype))
    return _example(label, rows)


def _check_backward(losses: Any, rows: int) -> None:
    if not losses.requires_grad:  # nothing of this loss depends on a parameter
        return
    try:
        losses.sum().backward()
    except Exception as e:
        raise BallastError("EXAMPLE_FAILED", f"backward fails on an example of {rows} rows:\n{e}") from e


def _check_unchanged(trial: Any, versions: Mapping[str, int], mode: str) -> None:
    """Weights come from the servers and go back as gradients: what forward writes into them would be lost."""
    for name, parameter in trial.named_parameters():
        if parameter._version != versions[name]:
            raise BallastError(
                "PARAMETER_CHANGED",
                f'forward changes the parameter "{name}" in place (in {mode} mode), as nn.Embedding(max_norm=...) does; only the optimizer may. '
                "Apply such a rule to the value where it is used, or make the tensor a buffer",
            )


def _shapes(columns: Sequence[Column]) -> str:
    return ", ".join(f"{c.name}: {c}" for c in columns)


def _loss(trial: Any, loss: str, outputs: Any, inputs: Sequence[Any], target: Sequence[Any], rows: int) -> Any:
    import torch.nn.functional as F

    try:
        if loss not in BUILT_IN_LOSSES:
            return getattr(trial, loss)(*inputs, *target)
        if not target:
            raise ValueError(f'loss="{loss}" needs a label')
        first, label = _values(outputs)[0], target[0]
        if loss == "cross_entropy":
            per_element = F.cross_entropy(first, label.long(), reduction="none")
        elif loss == "bce_with_logits":
            per_element = F.binary_cross_entropy_with_logits(first, label.to(first.dtype).reshape(first.shape), reduction="none")
        else:
            per_element = F.mse_loss(first, label.to(first.dtype).reshape(first.shape), reduction="none")
        return per_element.flatten(1).mean(1) if per_element.dim() > 1 else per_element
    except Exception as e:
        raise BallastError("EXAMPLE_FAILED", f'the loss "{loss}" fails on an example of {rows} rows:\n{e}') from e


def _check_loss(value: Any, loss: str, rows: int) -> None:
    import torch

    if not isinstance(value, torch.Tensor):
        raise BallastError("LOSS_SHAPE", f'the loss "{loss}" returns {type(value).__name__}, expected a tensor [rows]')
    if value.dim() == 0:
        raise BallastError(
            "SCALAR_LOSS",
            f'the loss "{loss}" returns one number for the whole batch. Return one loss per row, a tensor [rows] '
            '(reduction="none"): Ballast adds the rows of several workers and divides once',
        )
    if tuple(value.shape) != (rows,):
        raise BallastError("LOSS_SHAPE", f'the loss "{loss}" returns shape {list(value.shape)} for {rows} rows, expected [{rows}]: average over the other dimensions')
    if not value.is_floating_point():
        raise BallastError("LOSS_SHAPE", f'the loss "{loss}" returns {value.dtype}, expected a floating type')


def _values(outputs: Any) -> list[Any]:
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


def _outputs(outputs: Any, names: Optional[Sequence[str]], rows: int) -> list[Column]:
    import torch

    values = _values(outputs)
    if isinstance(outputs, dict):
        if names is not None and list(names) != list(outputs):
            raise BallastError("OUTPUT_SHAPE", f"forward returns a dict with the keys {list(outputs)}, not {list(names)}")
        names = list(outputs)
    if names is None:
        names = ["output"] if len(values) == 1 else [f"output{i}" for i in range(len(values))]
    if len(names) != len(values):
        raise BallastError("OUTPUT_SHAPE", f"forward returns {len(values)} tensors, {len(names)} output names were given")
    for name, value in zip(names, values):
        if not isinstance(value, torch.Tensor):
            raise BallastError("OUTPUT_SHAPE", f'output "{name}" is {type(value).__name__}, expected a tensor')
        if value.dim() == 0 or value.shape[0] != rows:
            raise BallastError("OUTPUT_SHAPE", f'output "{name}" has shape {list(value.shape)} for {rows} rows; its first dimension must be the rows')
    return [Column(n, dtype_name(v.dtype), tuple(int(d) for d in v.shape[1:])) for n, v in zip(names, values)]
